"""The map finds a known cause that was grafted onto the model, down to a small one."""

from __future__ import annotations

from collections.abc import Callable


def test_acuity(judge: Callable[[], None]) -> None:
    judge()
