"""Most relevant first and least relevant first both beat a random order and the best control."""

from __future__ import annotations

from collections.abc import Callable


def test_deletion_insertion(judge: Callable[[], None]) -> None:
    judge()
