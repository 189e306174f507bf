"""The map tells a model of the true labels from one that memorised permuted labels."""

from __future__ import annotations

from collections.abc import Callable


def test_label_permutation(judge: Callable[[], None]) -> None:
    judge()
