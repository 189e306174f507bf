"""A signed map gives evidence for the class a positive sign and evidence against it a negative one."""

from __future__ import annotations

from collections.abc import Callable


def test_sign(judge: Callable[[], None]) -> None:
    judge()
