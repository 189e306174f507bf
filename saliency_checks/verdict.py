"""Verdicts with a known error: a bound, the interval of a mean score, and a rule for repeated looks.

**The error.** A wrong verdict is a PASS although the mean score of the worst group is on the bad side of the bound, or
a FAIL although the means of all groups are on the good side. Only one of the two can happen to a method; each has
at most ``error / 2`` over all looks, so the interval shown covers the worst group's mean with ``1 - error``.

**Looks.** Images are drawn in doubling steps up to a planned number of looks; each look spends a share of the error in
proportion to the images that it adds (the uniform spending function of Lan and DeMets 1983: 1/4, 1/4, 1/2 for three
looks; Boole's inequality sums them), which leaves fewer methods undecided than equal or falling shares. Where the
images run out, that look is the last one and spends what is left. Betting
confidence sequences (Waudby-Smith and Ramdas, "Estimating means of bounded random variables by betting", JRSS B
2024) need scores of known range, which ratios of similarities have not, and pay for looks that are never taken.

**Interval.** 0/1 scores: exact (Clopper and Pearson 1934). Others: studentised bootstrap over images (Hall 1988), which
keeps its tail error on skewed and discrete scores where Student's t, the percentile bootstrap and BCa miss up to 7
times too often (``benchmarks/verdict_flakiness.py --coverage``). Redraws of random weights are clusters: Student's t
over their means, and the two half-widths add in quadrature (MOVER, Zou and Donner 2008); the larger alone misses too
often. No interval sees a rare failure that the sample does not contain: of n images that agree, a share of
``-log(level) / n`` may yet differ, and that is the half-width of a sample without spread.
"""

from __future__ import annotations

import math
import re
from contextlib import suppress
from dataclasses import dataclass, replace
from statistics import NormalDist
from typing import TYPE_CHECKING

from saliency_checks.result import FAIL, INCONCLUSIVE, PASS

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Array = NDArray[np.float64]
    Pair = tuple[float, float]

ERROR = 0.05
RESAMPLES, BATCH = 4000, 250  # the batch bounds memory
FLOOR = 1.5  # the least half-width is FLOOR / n, on a scale of scores of about 1
NO_SPREAD = 1e-3  # a standard deviation below this says nothing about rare failures
LEAST_SPREAD = 0.15  # of a resample, as a share of the sample's: a lone odd score then counts about as in the binomial
POWER = 0.8  # chance that `n_needed` images decide, if the score stays where it is
HOPELESS = 100  # times as many images: the score then counts as sitting on the bound


@dataclass(frozen=True)
class Bound:
    """A threshold such as ``>= 0.75``; judged against an interval, never against a bare mean.

    Raises:
        ValueError: for another operator, or a value that is not a finite number.
    """

    op: str
    value: float

    def __post_init__(self) -> None:
        if self.op not in (">=", "<="):
            raise ValueError(f"operator {self.op!r} of a bound: expected '>=' or '<='")
        if not math.isfinite(self.value):
            raise ValueError(f"value {self.value} of a bound: expected a finite number")

    @classmethod
    def parse(cls, text: str) -> Bound:
        """Read ``">= 0.75"``; ``>`` and ``<`` mean ``>=`` and ``<=``: no interval can tell them apart.

        Raises:
            ValueError: when the text is not a comparison and a finite number.
        """
        match = re.fullmatch(r"\s*([<>])=?(.*)", text)
        with suppress(ValueError):
            if match:
                return cls(f"{match[1]}=", float(match[2]))
        raise ValueError(f"bound {text!r}: expected a comparison and a number, such as '>= 0.75'")

    def holds(self, score: float) -> bool:
        return score >= self.value if self.op == ">=" else score <= self.value

    def __str__(self) -> str:
        short = f"{self.value:g}"
        return f"{self.op} {short if float(short) == self.value else repr(self.value)}"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict and what it rests on.

    Attributes:
        verdict: ``pass``, ``fail`` or ``inconclusive``.
        score: mean score of the worst group.
        low, high: limits of the worst group's mean, those that decide; valid in spite of the looks.
        group: index of the worst group.
        n: images judged.
        n_needed: images that would probably decide it (n once decided); None where more images would not.
        advice: what would decide it, in a sentence; "" once decided.
    """

    verdict: str
    score: float
    low: float
    high: float
    group: int
    n: int
    n_needed: int | None
    advice: str = ""


def spend(look: int, looks: int, error: float = ERROR, *, last: bool = False) -> float:
    """Error that this look (from 0) of the planned looks may make; the shares of all looks sum to ``error``.

    Args:
        last: there will be no other look, because there are no more images: all that is left.

    Raises:
        ValueError: unless ``0 <= look < looks`` and ``0 < error < 1``.
    """
    if not 0 <= look < looks:
        raise ValueError(f"look {look} of {looks}: expected 0 <= look < looks")
    if not 0 < error < 1:
        raise ValueError(f"error {error}: expected a probability between 0 and 1")
    if last:
        return error * (1 - (2.0 ** (look - looks) if look else 0.0))
    return error * 2.0 ** (max(look, 1) - looks)


def interval(values: Array, *, binary: bool, low_level: float, high_level: float, rng: np.random.Generator) -> Pair:
    """One-sided lower and upper confidence limits of the mean score.

    Args:
        values: array (redraws, images), finite; redraws share their random weights over all images.
        binary: scores are 0 or 1 (a tie may be split between them): exact limits where there is one redraw.
        low_level, high_level: probability of error of each limit, between 0 and 0.5.
        rng: draws the resamples; the same state gives the same limits, whatever the order of the images.

    Raises:
        ValueError: for another shape, no images, a NaN, a level out of range, a binary score outside [0, 1].
    """
    estimate = _estimate(values, binary, (low_level, high_level), rng)
    return estimate.low, estimate.high


def judge(
    values: Array,
    bound: Bound,
    *,
    binary: bool,
    look: int,
    looks: int,
    last: bool = False,
    readings: int = 1,
    error: float = ERROR,
    rng: np.random.Generator,
) -> Judgement:
    """Judge the worst group by its interval.

    PASS needs every group's limit on the good side: an intersection-union test, no correction over groups. FAIL needs
    one group's limit on the bad side: Bonferroni over groups. With several readings of a map (signed, magnitude) the
    caller judges each and keeps the best verdict: a PASS may come from any, so its level is shared between them.

    Args:
        values: array (groups, redraws, images), finite, with all images up to this look.
        look, looks: this look, from 0, and how many are planned at most.
        last: the images have run out.
        readings: how many readings of the same maps are judged.
        error: probability of a wrong verdict over all looks.

    Raises:
        ValueError: for another shape, and as `interval` and `spend` do.
    """
    if values.ndim != 3 or not values.size or readings < 1:
        raise ValueError(
            f"scores {values.shape}, readings {readings}: expected (groups, redraws, images), at least 1 of each"
        )
    side = spend(look, looks, error, last=last) / 2
    levels = side / readings, side / len(values)  # of a wrong PASS, of a wrong FAIL
    if bound.op == ">=":
        return _judge(values, bound.value, binary, levels, rng)
    top = 1.0 if binary else 0.0  # the mirror image, where higher is better; yes and no swap
    found = _judge(top - values, top - bound.value, binary, levels, rng)
    return replace(found, score=float(values[found.group].mean()), low=top - found.high, high=top - found.low)


def judge_quantile(
    values: Array, bound: Bound, *, quantile: float, binary: bool = False, look: int, looks: int, last: bool = False,
    readings: int = 1, error: float = ERROR, rng: np.random.Generator,
) -> Judgement:  # fmt: skip
    """As `judge`, for a quantile of scores from 0 on where less is better: does a share of them hold the bound?

    The share is a proportion, so the limits are exact whatever the distribution (Clopper-Pearson, inverted: limits of
    a quantile by order statistics, Thompson 1936); the score shown, its limits and the verdict agree.

    Raises:
        ValueError: for a bound with ``>=``, several redraws, and as `judge` does.
    """
    if bound.op != "<=" or values.ndim != 3 or values.shape[1] != 1 or values.min() < 0:
        raise ValueError(f"bound {bound}, scores {values.shape}: expected '<=', and (groups, 1, images), at least 0")
    share = Bound(">=", quantile)

    def at(edge: float) -> Judgement:
        hits = (values <= edge).astype(float)
        return judge(
            hits, share, binary=True, look=look, looks=looks, last=last, readings=readings, error=error, rng=rng
        )

    steps = sorted({0.0, *map(float, values.flatten())})  # 0: as far down as the scores can go
    judged = [at(step) for step in steps]
    scores = [quantile_of(group[0], quantile) for group in values]
    worst = scores.index(max(scores))
    low = next((step for step, j in zip(steps, judged, strict=True) if j.high >= quantile), steps[-1])
    high = next((step for step, j in zip(steps, judged, strict=True) if j.low >= quantile), None)
    high = max(steps[-1], 2 * bound.value) if high is None else high  # too few images to bound it
    return replace(at(bound.value), score=scores[worst], low=low, high=high, group=worst)


def quantile_of(values: Array, quantile: float) -> float:
    """The least score that at least a share ``quantile`` of the scores does not exceed."""
    import numpy as np

    ordered = np.sort(values)
    return float(ordered[max(0, math.ceil(quantile * len(ordered) - 1e-9) - 1)])


def _judge(values: Array, edge: float, binary: bool, levels: Pair, rng: np.random.Generator) -> Judgement:
    groups = [_estimate(group, binary, levels, rng) for group in values]
    worst = min(groups, key=lambda group: group.mean)
    low, high = min(group.low for group in groups), min(group.high for group in groups)
    verdict = PASS if low >= edge else FAIL if high < edge else INCONCLUSIVE
    n = values.shape[2]
    needed, advice = _outlook(n, groups, edge, levels) if verdict == INCONCLUSIVE else (n, "")
    return Judgement(
        verdict=verdict,
        score=worst.mean,
        low=low,
        high=high,
        group=groups.index(worst),
        n=n,
        n_needed=needed,
        advice=advice,
    )


@dataclass(frozen=True)
class _Estimate:
    """A mean and its half-widths (below, above), from the images and from the redraws."""

    mean: float
    images: Pair
    redraws: Pair = (0.0, 0.0)

    @property
    def low(self) -> float:
        return self.mean - math.hypot(self.images[0], self.redraws[0])

    @property
    def high(self) -> float:
        return self.mean + math.hypot(self.images[1], self.redraws[1])

    def growth(self, edge: float, level: float) -> float:
        """Times as many images that would put the limit beyond the edge with probability POWER; may be infinite."""
        side = 0 if self.mean >= edge else 1
        room = (self.mean - edge) ** 2 - self.redraws[side] ** 2
        z = NormalDist().inv_cdf
        return (self.images[side] * (1 - z(POWER) / z(level))) ** 2 / room if room > 0 else math.inf


def _outlook(n: int, groups: list[_Estimate], edge: float, levels: Pair) -> tuple[int | None, str]:
    """Images that would decide it, to two digits, and the advice: a PASS needs all groups, a FAIL needs one."""
    bad = [group.growth(edge, levels[1]) for group in groups if group.mean < edge]
    growth = min(bad) if bad else max(group.growth(edge, levels[0]) for group in groups)
    if growth <= HOPELESS:
        unit = 10 ** max(0, math.floor(math.log10(growth * n)) - 1)
        needed = math.ceil(growth * n / unit) * unit
        return needed, f"about {needed} images would decide this"
    if any(max(group.redraws) > max(group.images) for group in groups):
        return None, "the redraws differ too much for more images to decide this: draw the weights more often"
    return None, "the score sits on the bound: no reasonable number of images would decide this"


def _estimate(values: Array, binary: bool, levels: Pair, rng: np.random.Generator) -> _Estimate:
    import numpy as np

    if values.ndim != 2 or not values.size:
        raise ValueError(f"scores of shape {values.shape}: expected (redraws, images), at least 1 each")
    if odd := int(np.sum(~np.isfinite(values))):
        raise ValueError(f"{odd} of {values.size} scores are not finite: score them as failures or leave them out")
    if not all(0 < level < 0.5 for level in levels):
        raise ValueError(f"levels {levels}: expected probabilities between 0 and 0.5")
    per_image = np.sort(values.mean(axis=0, dtype=np.float64))
    mean, n = float(per_image.mean()), per_image.size
    if len(values) > 1:
        return _Estimate(mean, _bootstrap(per_image, levels, rng), _student(values.mean(axis=1), levels))
    if not binary:
        return _Estimate(mean, _bootstrap(per_image, levels, rng))
    if per_image[0] < 0 or per_image[-1] > 1:
        raise ValueError(f"binary scores from {per_image[0]} to {per_image[-1]}: expected 0 or 1")
    return _Estimate(mean, _clopper_pearson(float(per_image.sum()), n, levels))


def _clopper_pearson(hits: float, n: int, levels: Pair) -> Pair:
    """Exact half-widths for a proportion; hits that a split tie made fractional are rounded outwards."""
    from scipy.special import betaincinv

    fewest, most = math.floor(hits), math.ceil(hits)
    low = float(betaincinv(fewest, n - fewest + 1, levels[0])) if fewest else 0.0
    high = float(betaincinv(most + 1, n - most, 1 - levels[1])) if most < n else 1.0
    return hits / n - low, high - hits / n


def _student(means: Array, levels: Pair) -> Pair:
    """Half-widths of Student's t interval over the means of the redraws."""
    from scipy.special import stdtrit

    error = float(means.std(ddof=1)) / math.sqrt(means.size)
    below, above = (-float(stdtrit(means.size - 1, level)) * error for level in levels)
    return below, above


def _bootstrap(scores: Array, levels: Pair, rng: np.random.Generator) -> Pair:
    """Half-widths of the studentised bootstrap interval for the mean of sorted scores."""
    import numpy as np

    n = scores.size
    centred = scores - scores.mean()
    spread = float(centred.std(ddof=1)) if n > 1 else 0.0
    if spread < NO_SPREAD:
        return max(FLOOR, -math.log(levels[0])) / n, max(FLOOR, -math.log(levels[1])) / n
    roots = np.empty(RESAMPLES)
    for start in range(0, RESAMPLES, BATCH):
        resampled = centred[rng.integers(n, size=(BATCH, n))]
        spreads = np.maximum(resampled.std(axis=1, ddof=1), LEAST_SPREAD * spread)
        roots[start : start + BATCH] = resampled.mean(axis=1) / spreads
    highest, lowest = np.quantile(roots, [1 - levels[0], levels[1]])
    return max(FLOOR / n, spread * float(highest)), max(FLOOR / n, -spread * float(lowest))
