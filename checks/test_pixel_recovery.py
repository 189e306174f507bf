"""The planted site that causes the class outranks exchangeable decoys."""

from __future__ import annotations

from collections.abc import Callable


def test_pixel_recovery(judge: Callable[[], None]) -> None:
    judge()
