"""The method fulfils the axioms that it claims, on small random networks; others are measured."""

from __future__ import annotations

from collections.abc import Callable


def test_axioms(judge: Callable[[], None]) -> None:
    judge()
