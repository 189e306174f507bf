"""A score of ours beside a peer's: how far they are apart, and how much longer one takes."""

from __future__ import annotations

import resource
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

Scores = Callable[[], np.ndarray]


@dataclass(frozen=True)
class Pair:
    """One score of both.

    Attributes:
        ours, theirs: what is timed, and by default compared.
        note: what explains the difference.
        same: the peer's scores under our draws, compared instead of ``theirs``.
        compared: whether there is anything to compare but the cost.
    """

    name: str
    ours: Scores
    theirs: Scores
    note: str = ""
    same: Scores | None = None
    compared: bool = True


def spent() -> float:
    """Seconds that this process and its finished children computed for: others on the machine do not count."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def timed(work: Scores) -> tuple[np.ndarray, float]:
    started = spent()
    found = work()
    return np.asarray(found, dtype=float), spent() - started


def show(title: str, pairs: Iterable[Pair]) -> None:
    print(f"{title:34}{'ours':>9}{'theirs':>9}{'greatest difference':>21}{'ours s':>8}{'theirs / ours':>15}")
    for pair in pairs:
        (one, ours), (two, theirs) = timed(pair.ours), timed(pair.theirs)
        two = two if pair.same is None else np.asarray(pair.same(), dtype=float)
        apart = f"{np.abs(one - two).max():.1e}" if one.shape == two.shape else "-"
        means = f"{one.mean():9.4f}{two.mean():9.4f}{apart:>21}" if pair.compared else ""
        print(f"{pair.name:34}{means:39}{ours:8.2f}{theirs / ours:15.1f}  {pair.note}", flush=True)
