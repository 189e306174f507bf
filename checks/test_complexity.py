"""The map is not degenerate: neither constant nor a single pixel on every image."""

from __future__ import annotations

from collections.abc import Callable


def test_complexity(judge: Callable[[], None]) -> None:
    judge()
