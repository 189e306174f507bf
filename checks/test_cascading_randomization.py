"""The map changes when the weights are drawn again from the output layer down."""

from __future__ import annotations

from collections.abc import Callable


def test_cascading_randomization(judge: Callable[[], None]) -> None:
    judge()
