"""The class does not survive the loss of what the map points at."""

from __future__ import annotations

from collections.abc import Callable


def test_subtractive_importance(judge: Callable[[], None]) -> None:
    judge()
