"""Removing the pixels that the map calls most relevant takes the planted class away."""

from __future__ import annotations

from collections.abc import Callable


def test_planted_deletion(judge: Callable[[], None]) -> None:
    judge()
