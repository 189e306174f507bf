"""The map changes when the weights of single layers are drawn again."""

from __future__ import annotations

from collections.abc import Callable


def test_independent_randomization(judge: Callable[[], None]) -> None:
    judge()
