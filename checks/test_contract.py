"""The method keeps the explain contract: shapes, finite maps, repeatable, rebinds, leaves everything as it was."""

from __future__ import annotations

from collections.abc import Callable


def test_contract(judge: Callable[[], None]) -> None:
    judge()
