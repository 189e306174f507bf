"""The same measurement twice: how much did the score move, beyond the noise that both runs share?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_checks.result import Result

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

TOLERANCE = 0.01  # a smaller move is no regression: other versions of a library shift the last digits of every image
LEVEL = 0.00135  # of one limit of the paired interval, as three standard errors: a gate looks at hundreds of cells
RESAMPLES = 4000


@dataclass(frozen=True, kw_only=True)
class Difference:
    """How far a score moved; positive is better whatever the metric's direction.

    Attributes:
        mean, low, high: the move and its limits.
        paired: the same images were scored, so that what they have in common cancels.
        n: images that were compared.
        why_not_paired: the reason, where it is not.
    """

    mean: float
    low: float
    high: float
    paired: bool
    n: int
    tolerance: float = TOLERANCE
    why_not_paired: str = ""

    @property
    def is_regression(self) -> bool:
        return self.high < 0 and self.mean < -self.tolerance

    def __str__(self) -> str:
        way = "better" if self.mean > 0 else "worse"
        how = f"paired over {self.n} images" if self.paired else f"not paired: {self.why_not_paired}"
        sides = (
            sorted((abs(self.low), abs(self.high))) if self.low * self.high > 0 else [0.0, max(-self.low, self.high)]
        )
        return f"{abs(self.mean):.2f} {way} (between {sides[0]:.2f} and {sides[1]:.2f}; {how})"


def compare(
    old: Result, new: Result, *, quantile: float | None = None, tolerance: float = TOLERANCE
) -> Difference | None:
    """How the score moved from ``old`` to ``new``; None where one of them measured nothing.

    On the same images (same fingerprint of the data, same groups) a paired bootstrap of the judged statistic, the
    worst group's mean or quantile, over the images that both scored; otherwise the distance of the two intervals.

    Args:
        quantile: what the metric judges instead of the mean.
        tolerance: a move of at most this much is no regression.
    """
    if old.score is None or new.score is None:
        return None
    sign = 1.0 if new.better == "higher" else -1.0
    if _is_exact(old) and _is_exact(new):  # no sample: clauses that hold or not
        move = sign * (new.score - old.score)
        return Difference(mean=move, low=move, high=move, paired=True, n=min(old.n, new.n), tolerance=tolerance)
    if reason := _why_not_paired(old, new):
        return _unpaired(old, new, sign, tolerance, reason)
    return _paired(old, new, sign, quantile, tolerance)


def _is_exact(result: Result) -> bool:
    return result.low == result.score == result.high


def _why_not_paired(old: Result, new: Result) -> str:
    if not old.scores or not new.scores:
        return "one of them has no scores per image"
    if old.seed != new.seed:
        return "another seed"
    if old.fingerprint.get("data") != new.fingerprint.get("data"):
        return "other images"
    if len(old.scores) != len(new.scores):
        return "other groups"
    return ""


def _unpaired(old: Result, new: Result, sign: float, tolerance: float, reason: str) -> Difference:
    assert old.score is not None
    assert new.score is not None
    limits = [
        sign * (a - b)
        for a, b in (
            (new.low if new.low is not None else new.score, old.high if old.high is not None else old.score),
            (new.high if new.high is not None else new.score, old.low if old.low is not None else old.score),
        )
    ]
    return Difference(
        mean=sign * (new.score - old.score), low=min(limits), high=max(limits), paired=False,
        n=min(old.n, new.n), tolerance=tolerance, why_not_paired=reason,
    )  # fmt: skip


def _paired(old: Result, new: Result, sign: float, quantile: float | None, tolerance: float) -> Difference:
    import numpy as np

    n = min(len(row) for row in (*old.scores, *new.scores))
    before, after = (np.asarray([row[:n] for row in result.scores], dtype=np.float64) for result in (old, new))
    # Not seeded by the key: the same pair of runs is to get the same limits wherever it is compared.
    rows = np.random.default_rng(0).integers(n, size=(RESAMPLES, n))
    moves = _worst(after[:, rows], quantile, sign) - _worst(before[:, rows], quantile, sign)
    mean = float(_worst(after, quantile, sign) - _worst(before, quantile, sign))
    low, high = (float(v) for v in np.quantile(moves, [LEVEL, 1 - LEVEL]))
    return Difference(mean=mean, low=min(low, mean), high=max(high, mean), paired=True, n=n, tolerance=tolerance)


def _worst(scores: NDArray[np.float64], quantile: float | None, sign: float) -> NDArray[np.float64]:
    """What is judged of the worst group, the better the higher: (groups, ..., images) -> (...)."""
    import numpy as np

    found = scores.mean(-1)
    if quantile is not None:  # as in verdict.quantile_of
        found = np.sort(scores, axis=-1)[..., max(0, math.ceil(quantile * scores.shape[-1] - 1e-9) - 1)]
    least: NDArray[np.float64] = (sign * found).min(0)
    return least
