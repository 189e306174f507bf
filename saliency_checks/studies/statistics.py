"""How methods compare by their scores per image, after Gevaert et al. 2024, by scipy, statsmodels and krippendorff.

Scores are arrays (methods, images), or (images,) of one method; a score that is missing is NaN. ``sign`` is 1 where a
higher score is better and -1 where a lower one is.
"""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import krippendorff
import numpy as np
from numpy.typing import NDArray
from scipy import stats
from scipy.cluster import hierarchy

if TYPE_CHECKING:
    from jaxtyping import Float

    Numbers = NDArray[np.float64]

CORRECTIONS = ("holm", "bonferroni", "fdr_bh", "none")


def superiority(scores: Float[Numbers, " n"], other: Float[Numbers, " n"], sign: int = 1) -> float:
    """Probability of superiority, paired: the share of images on which ``scores`` is strictly better than ``other``.

    Against a random map this is the effect of section 4; between two methods it is the paired common language effect
    size: superiority(a, b) + superiority(b, a) + the share of ties = 1.
    """
    difference = _paired(scores, other, sign)
    return float((difference > 0).mean()) if len(difference) else float("nan")


def signed_rank(
    scores: Float[Numbers, " n"], other: Float[Numbers, " n"], sign: int = 1, *, alternative: str = "greater"
) -> float:
    """p value of Wilcoxon's signed-rank test that ``scores`` is better; ties are dropped; with only ties it is 1."""
    difference = _paired(scores, other, sign)
    if not difference.any():
        return 1.0
    return float(stats.wilcoxon(difference, alternative=alternative).pvalue)


def corrected(p: Float[Numbers, " m"], correction: str) -> Float[Numbers, " m"]:
    """p values corrected for the number of them: one of ``CORRECTIONS``."""
    if correction == "none" or not len(p):
        return np.asarray(p)
    from statsmodels.stats.multitest import multipletests

    return np.asarray(multipletests(p, method=correction)[1])


def agreement(scores: Float[Numbers, "m n"]) -> float:
    """Krippendorff's ordinal alpha: do the images (raters) rank the methods (units) alike?

    1 where all do, 0 where each ranks by chance; NaN where no image tells two methods apart.
    """
    ranks = stats.rankdata(scores, axis=0, nan_policy="omit").T
    known = ranks[~np.isnan(ranks)]
    if len(ranks) < 2 or len(np.unique(known)) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=ranks, level_of_measurement="ordinal"))


def rank_correlation(one: Float[Numbers, "m n"], other: Float[Numbers, "m n"]) -> float:
    """Spearman's correlation over images of two metrics' scores, mean over methods; both with a sign: higher is better.

    A method that one of the metrics gives the same score on all images says nothing and is left out.
    """
    found = [_spearman(a, b) for a, b in zip(one, other, strict=True)]
    return _mean(found)


def linkage(medians: Float[Numbers, "k m"]) -> Numbers | None:
    """Single linkage of k metrics by the correlation distance of their medians per method, each from 0 to 1.

    None where there are less than two, or one of them says the same of all methods.
    """
    span = np.ptp(medians, axis=1)
    if len(medians) < 2 or not np.isfinite(medians).all() or (span == 0).any():
        return None
    scaled = (medians - medians.min(1, keepdims=True)) / span[:, None]
    return np.asarray(hierarchy.linkage(scaled, method="single", metric="correlation"))


def signal_to_noise(repeated: Float[Numbers, "r n"]) -> Float[Numbers, " n"]:
    """Squared mean over variance of r repeats, of each image; infinite where nothing varies, NaN where all are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.asarray(repeated.mean(0) ** 2 / repeated.var(0, ddof=1))


def noise_share(repeated: Float[Numbers, "r n"]) -> float:
    """Variance between repeats of one image as a share of the variance of everything (0 to about 1)."""
    whole = repeated.var(ddof=1)
    return float(repeated.var(0, ddof=1).mean() / whole) if whole > 0 else float("nan")


def convergence(
    scores: Float[Numbers, "m n"], sizes: list[int], rng: np.random.Generator, *, draws: int = 200
) -> Float[Numbers, "draws k"]:
    """How like the methods rank by the medians of so many images (drawn with replacement) as by those of all.

    Spearman's correlation over methods of the two sets of medians, for every draw and size.
    """
    complete = scores[:, np.isfinite(scores).all(0)]
    n, goal = complete.shape[1], np.median(complete, axis=1)
    found = np.empty((draws, len(sizes)))
    for k, size in enumerate(sizes):
        chosen = rng.integers(n, size=(draws, size))
        found[:, k] = _ranked_like(goal, np.median(complete[:, chosen], axis=2).T)
    return found


def _ranked_like(goal: Float[Numbers, " m"], rows: Float[Numbers, "d m"]) -> Float[Numbers, " d"]:
    """Spearman's correlation of each row with ``goal``; NaN where a row or the goal is constant."""
    first, second = (stats.rankdata(values, axis=1) - (len(goal) + 1) / 2 for values in (goal[None], rows))
    with np.errstate(invalid="ignore"):
        return np.asarray((first * second).sum(1) / np.sqrt((first**2).sum(1) * (second**2).sum(1)))


def _paired(scores: Numbers, other: Numbers, sign: int) -> Numbers:
    difference = sign * (scores - other)
    return np.asarray(difference[np.isfinite(difference)])


def _spearman(a: Numbers, b: Numbers) -> float:
    both = np.isfinite(a) & np.isfinite(b)
    if both.sum() < 3:
        return float("nan")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", stats.ConstantInputWarning)
        return float(stats.spearmanr(a[both], b[both]).statistic)


def _mean(values: list[Any]) -> float:
    known = [value for value in values if value == value]
    return float(np.mean(known)) if known else float("nan")
