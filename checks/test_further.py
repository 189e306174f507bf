"""Checks that are not built in: those of other installed packages and of the user's own conftest.py."""

from __future__ import annotations

from collections.abc import Callable


def test_further(judge: Callable[[], None]) -> None:
    judge()
