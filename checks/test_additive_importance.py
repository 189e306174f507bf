"""What the map points at suffices for the class as well as the planted cause does."""

from __future__ import annotations

from collections.abc import Callable


def test_additive_importance(judge: Callable[[], None]) -> None:
    judge()
