"""A run in parts, for the jobs of a CI matrix: ``--saliency-shard 2/4``. Together they are the whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import pytest

from saliency_checks.plugin import cell_of


def part_of(text: str) -> tuple[int, int]:
    """(number from 1 on, count) of ``2/4``.

    Raises:
        UsageError: it is no such part.
    """
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    if not match or not 1 <= int(match[1]) <= int(match[2]):
        raise pytest.UsageError(f"--saliency-shard {text!r}: expected I/N with I from 1 to N, such as 2/4")
    return int(match[1]), int(match[2])


def numbers(groups: Sequence[str], count: int) -> dict[str, int]:
    """The part, from 1 to ``count``, of every group of tests; named once for each of its tests.

    Neighbours in the order of names stay together, so that a part has few subjects; parts are about equally large.
    """
    sizes = sorted(Counter(groups).items())
    ends = accumulate(size for _, size in sizes)
    middles = [(end - size / 2) / len(groups) for end, (_, size) in zip(ends, sizes, strict=True)]
    return {name: 1 + int(count * middle) for (name, _), middle in zip(sizes, middles, strict=True)}


def keep(config: pytest.Config, items: list[pytest.Item], text: str) -> None:
    """Leave this part's tests in the run. The checks of one method and subject stay together: they share its maps."""
    number, count = part_of(text)
    groups = [_group(item) for item in items]
    part = numbers(groups, count)
    mine = [part[group] == number for group in groups]
    config.hook.pytest_deselected(items=[item for item, is_mine in zip(items, mine, strict=True) if not is_mine])
    items[:] = [item for item, is_mine in zip(items, mine, strict=True) if is_mine]


def _group(item: pytest.Item) -> str:
    if cell := cell_of(item.nodeid):
        return f"{cell[2]} {cell[1]}"
    case: Any = getattr(getattr(item, "callspec", None), "params", {}).get("case")
    if hasattr(case, "check") and hasattr(case, "method"):
        return f"{case.id.rpartition('-')[2]} {case.method.name}"
    return item.nodeid
