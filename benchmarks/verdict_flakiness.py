"""How often the rule of `saliency_checks.verdict` is wrong, beside a bare threshold on the mean.

Simulates methods above, on and below a bound, judges each over many seeds with doubling looks, and prints the rates.
On the bound itself every decision counts as wrong; "flips" is how often two seeds contradict each other. Exits with 1
when the rule is wrong more often than it states.

    python benchmarks/verdict_flakiness.py                        the table, within a minute
    python benchmarks/verdict_flakiness.py --scores pool.npz --bound ">= 0.75" [--binary]
    python benchmarks/verdict_flakiness.py --coverage             tail errors of four intervals, some minutes
    python benchmarks/verdict_flakiness.py --splits               how to share the error among looks

A pool is an array ``scores`` of shape (images,), (redraws, images) or (groups, redraws, images).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from saliency_checks.result import FAIL, INCONCLUSIVE, PASS
from saliency_checks.verdict import ERROR, FLOOR, Bound, interval, judge, spend

Array = NDArray[Any]
Draw = Callable[[np.random.Generator, int], Array]  # (rng, images) -> (groups, redraws, images)
SURE = 1e-3  # chance that noise alone makes this script fail, over all methods


@dataclass(frozen=True)
class Simulated:
    """A method as a distribution of per-image scores, with the true mean of its worst group."""

    name: str
    truth: float
    draw: Draw
    bound: Bound
    binary: bool = False
    n: int = 64


@dataclass(frozen=True)
class Row:
    """Rates over runs; ``bare`` is the threshold on the mean, at the images of the first look and of the last."""

    method: Simulated
    runs: int
    passed: float
    failed: float
    images: float
    bare_passed: tuple[float, float]

    def wrong(self, passed: float, failed: float) -> float:
        bound = self.method.bound
        if np.isclose(self.method.truth, bound.value):
            return passed + failed
        return failed if bound.holds(self.method.truth) else passed

    def __str__(self) -> str:
        undecided = 1 - self.passed - self.failed
        flips = 2 * self.passed * self.failed
        on_bound = np.isclose(self.method.truth, self.method.bound.value)  # there a bare threshold is always "wrong"
        bare = "".join(
            f"{'-' if on_bound else format(self.wrong(p, 1 - p), '.1%'):>8}{2 * p * (1 - p):8.1%}"
            for p in self.bare_passed
        )
        wrong = self.wrong(self.passed, self.failed)
        return (
            f"{self.method.name:38}{self.method.bound!s:>9}{self.method.truth:7.3f}{self.passed:8.1%}{self.failed:8.1%}"
            f"{undecided:8.1%}{wrong:8.1%}{flips:8.1%}{self.images:8.0f} |{bare}"
        )


HEADER = (
    f"{'method':38}{'bound':>9}{'truth':>7}{'pass':>8}{'fail':>8}{'undec.':>8}{'wrong':>8}{'flips':>8}{'images':>8} |"
    f"{'wrong':>8}{'flips':>8}{'wrong':>8}{'flips':>8}\n{'':102} |{'bare mean, n':>16}{'bare mean, 4n':>16}"
)


def run(method: Simulated, rng: np.random.Generator, looks: int) -> tuple[str, int, list[bool]]:
    """One run with doubling looks: verdict, images used, and what a bare threshold says at the first and last look."""
    values = method.draw(rng, method.n * 2 ** (looks - 1))
    verdict, used = INCONCLUSIVE, values.shape[2]
    for look in range(looks):
        used = method.n * 2**look
        seen = values[..., :used]
        verdict = judge(seen, method.bound, binary=method.binary, look=look, looks=looks, rng=rng).verdict
        if verdict != INCONCLUSIVE:
            break
    worst = min if method.bound.op == ">=" else max
    bare = [method.bound.holds(worst(values[..., :n].mean(axis=(1, 2)))) for n in (method.n, values.shape[2])]
    return verdict, used, bare


def tabulate(method: Simulated, *, seeds: int, draws: int, looks: int) -> Row:
    runs = [run(method, np.random.default_rng([seed, draw]), looks) for seed in range(seeds) for draw in range(draws)]
    verdicts, images, bare = zip(*runs, strict=True)
    first, last = np.mean(bare, axis=0)
    passed, failed = verdicts.count(PASS) / len(runs), verdicts.count(FAIL) / len(runs)
    return Row(method, len(runs), passed, failed, float(np.mean(images)), (float(first), float(last)))


def flake_table(
    pool: Array, bound: Bound, *, binary: bool = False, n: int = 64, looks: int = 3, seeds: int = 50, draws: int = 8
) -> Row:
    """The same for a measured pool of per-image scores: images are drawn with replacement, so its mean is the truth.

    Args:
        pool: array (images,), (redraws, images) or (groups, redraws, images).
    """
    pool = pool.reshape((1,) * (3 - pool.ndim) + pool.shape)
    means = pool.mean(axis=(1, 2))
    truth = float(means.min() if bound.op == ">=" else means.max())

    def draw(rng: np.random.Generator, images: int) -> Array:
        return pool[..., rng.integers(pool.shape[2], size=images)]

    method = Simulated(f"pool of {pool.shape[2]} images", truth, draw, bound, binary, n)
    return tabulate(method, seeds=seeds, draws=draws, looks=looks)


def hits(*probabilities: float) -> Draw:
    """0/1 scores in one group per probability."""
    return lambda rng, n: (rng.random((len(probabilities), 1, n)) < np.reshape(probabilities, (-1, 1, 1))) * 1.0


def halves(mean: float) -> Draw:
    """Scores 0, 1/2 and 1, as of two tries or of split ties."""
    return lambda rng, n: rng.binomial(2, mean, (1, 1, n)) / 2


def shaped(mean: float, scale: float, a: float, b: float) -> Draw:
    """Scores of the given mean whose shape and spread are those of ``scale * Beta(a, b)``."""
    return lambda rng, n: mean + scale * (rng.beta(a, b, (1, 1, n)) - a / (a + b))


def mixed(share: float, mean: float, sd: float, depth: float) -> Draw:
    """Nearly equal scores of which a share is lower by up to twice ``depth``."""

    def draw(rng: np.random.Generator, n: int) -> Array:
        rare = (rng.random((1, 1, n)) < share) * rng.uniform(0, 2 * depth, (1, 1, n))
        return mean + share * depth - rare + rng.normal(0, sd, (1, 1, n))

    return draw


def redrawn(mean: float, images: float, weights: float, rest: float, redraws: int = 3) -> Draw:
    """Images crossed with redraws of random weights, each with its standard deviation."""
    return lambda rng, n: (
        mean
        + rng.normal(0, images, (1, 1, n))
        + rng.normal(0, weights, (1, redraws, 1))
        + rng.normal(0, rest, (1, redraws, n))
    )


def methods() -> list[Simulated]:
    """Shapes and spreads as measured for the checks of the same name."""
    recovery, contrast, gap, advantage, half, entropy = map(
        Bound.parse, (">= 0.75", ">= 0.7", ">= 0.1", ">= 0.05", ">= 0.5", "<= 0.9")
    )
    yes_no = [
        Simulated(f"recovery, {name}", min(p), hits(*p), recovery, binary=True)
        for name, *p in (
            ("a control at chance", 0.125),
            ("below", 0.65),
            ("just below", 0.72),
            ("on the bound", 0.75),
            ("just above", 0.78),
            ("SmoothGrad", 0.88),
            ("gradient", 0.99),
            ("two fixtures, one fails", 0.97, 0.6),
            ("two fixtures on the bound", 0.75, 0.75),
        )
    ]
    return [
        *yes_no,
        Simulated("contrast, ties split, on the bound", 0.7, halves(0.7), contrast),
        Simulated("label permutation, on the bound", 0.1, shaped(0.1, 0.6, 6, 6), gap),
        Simulated("label permutation, Grad-CAM", 0.13, shaped(0.13, 1.8, 1.5, 1.5), gap),
        Simulated("label permutation, a control", 0.0, shaped(0.0, 0.1, 6, 6), gap),
        Simulated("deletion, long lower tail, on the bound", 0.05, shaped(0.05, 1.0, 6, 1), advantage),
        Simulated("deletion, long lower tail, above", 0.14, shaped(0.14, 1.0, 6, 1), advantage),
        Simulated("deletion, long upper tail, on the bound", 0.05, shaped(0.05, 1.0, 0.5, 5), advantage),
        Simulated("planted deletion, on the bound", 0.5, shaped(0.5, 1.0, 0.4, 0.4), half),
        Simulated("planted deletion, a tenth fail badly", 0.5, mixed(0.1, 0.5, 0.02, 0.4), half),
        Simulated("cascade, three redraws, on the bound", 0.5, redrawn(0.5, 0.3, 0.05, 0.1), half, n=48),
        Simulated("cascade, three redraws, guided backprop", 0.34, redrawn(0.34, 0.08, 0.01, 0.05), half, n=48),
        Simulated("cascade, three redraws, Grad-CAM", 0.93, redrawn(0.93, 0.3, 0.08, 0.1), half, n=48),
        Simulated("entropy, on the bound", 0.9, shaped(0.9, 0.3, 3, 1), entropy),
    ]


def exceeds(row: Row, methods: int) -> bool:
    """Whether more runs are wrong than the stated error and binomial noise over all methods explain."""
    wrong = round(row.wrong(row.passed, row.failed) * row.runs)
    return bool(stats.binom.sf(wrong - 1, row.runs, ERROR) < SURE / methods)


def coverage(runs: int) -> None:
    """Tail errors at a nominal 2.5 and 0.625 % of four intervals with the same least half-width."""
    levels = (0.025, 0.00625)
    shapes: dict[str, tuple[float, Draw]] = {
        "ties split, mean .85": (0.85, lambda rng, n: rng.choice([0, 0.5, 1], p=[0.1, 0.1, 0.8], size=(1, 1, n))),
        "ties split, mean .96": (0.96, lambda rng, n: rng.choice([0, 0.5, 1], p=[0.02, 0.04, 0.94], size=(1, 1, n))),
        "signs, mean .9": (0.9, lambda rng, n: rng.choice([-1, 1], p=[0.05, 0.95], size=(1, 1, n)) * 1.0),
        "Beta(8, 1)": (0.0, shaped(0, 1, 8, 1)),
        "Beta(3, 0.3)": (0.0, shaped(0, 1, 3, 0.3)),
        "Beta(.5, .5)": (0.0, shaped(0, 1, 0.5, 0.5)),
        "Beta(.5, 5)": (0.0, shaped(0, 1, 0.5, 5)),
        "a twentieth fails": (0.0, mixed(0.05, 0, 0.02, 0.6)),
        "normal": (0.0, lambda rng, n: rng.normal(0, 0.3, (1, 1, n))),
    }
    print(f"misses in %, of the lower limit / of the upper limit, nominal {levels}; {runs} samples")
    for n in (16, 32, 64, 128):
        for name, (truth, draw) in shapes.items():
            rng = np.random.default_rng(n)
            limits = [_four(draw(rng, n)[0], levels, rng) for _ in range(runs)]
            misses = np.stack([np.array(limits)[:, :, 0] > truth, np.array(limits)[:, :, 1] < truth]).mean(axis=1) * 100
            print(f"n={n:<4}{name:22}", end="")
            for k, interval_name in enumerate(("student", "percentile", "BCa", "studentised")):
                low, high = (" ".join(f"{x:5.2f}" for x in side[k]) for side in misses)
                print(f"  {interval_name} {low} /{high}", end="")
            print(flush=True)


def _four(values: Array, levels: tuple[float, ...], rng: np.random.Generator) -> list[list[Array]]:
    """Student, percentile, BCa (Efron 1987) and our interval: [interval][low, high][level]."""
    x, n, p = values[0], values.shape[1], np.array(levels)
    mean, error = x.mean(), x.std(ddof=1) / np.sqrt(n)
    boot = x[rng.integers(n, size=(1000, n))].mean(axis=1)
    t = stats.t.ppf(p, n - 1) * error
    z0 = stats.norm.ppf(np.clip(((boot < mean).mean() + (boot <= mean).mean()) / 2, 1e-3, 1 - 1e-3))
    skew = ((x - mean) ** 3).sum() / (6 * max(((x - mean) ** 2).sum(), 1e-12) ** 1.5)

    def bca(p: Array) -> Array:
        z = z0 + stats.norm.ppf(p)
        shifted: Array = np.quantile(boot, stats.norm.cdf(z0 + z / (1 - skew * z)))
        return shifted

    ours = np.array([interval(values, binary=False, low_level=q, high_level=q, rng=rng) for q in levels]).T
    others = [(mean + t, mean - t), (np.quantile(boot, p), np.quantile(boot, 1 - p)), (bca(p), bca(1 - p))]
    floored = [[np.minimum(low, mean - FLOOR / n), np.maximum(high, mean + FLOOR / n)] for low, high in others]
    return [*floored, list(ours)]


def splits(runs: int, n: int = 64, bound: float = 0.75) -> None:
    """Undecided share and mean images for ways to share the error among three doubling looks, 0/1 scores."""
    ways: dict[str, tuple[float, ...]] = {
        "equal": (1 / 3,) * 3,
        "falling": (0.5, 0.25, 0.25),
        "rising": (0.05, 0.25, 0.7),
    }
    ways["ours"] = tuple(spend(look, 3, 1 - 1e-12) for look in range(3))
    print(f"{'true share':12}" + "".join(f"{way:>22}" for way in ways) + "   undecided, images")
    for p in (0.65, 0.7, 0.75, 0.8, 0.85, 0.9):
        sums = np.cumsum(np.random.default_rng(0).random((runs, 4 * n)) < p, axis=1)
        print(f"{p:<12}", end="")
        for shares in ways.values():
            open_, used = np.ones(runs, dtype=bool), np.full(runs, 4 * n)
            for images, share in zip((n, 2 * n, 4 * n), shares, strict=True):
                k, level = sums[:, images - 1], ERROR / 2 * share
                low = np.nan_to_num(stats.beta.ppf(level, k, images - k + 1), nan=0)
                high = np.nan_to_num(stats.beta.ppf(1 - level, k + 1, images - k), nan=1)
                now = open_ & ((low >= bound) | (high < bound))
                used[now], open_ = images, open_ & ~now
            print(f"{open_.mean():>14.1%}{used.mean():8.0f}", end="")
        print()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--draws", type=int, default=3, help="runs per seed")
    parser.add_argument("--runs", type=int, default=500, help="for --coverage and --splits")
    parser.add_argument("--looks", type=int, default=3, help="each doubles the images")
    parser.add_argument("-n", type=int, help="images at the first look")
    parser.add_argument("--scores", type=Path, help="an npz file with a pool of measured scores")
    parser.add_argument("--bound", type=Bound.parse, default=Bound.parse(">= 0.75"), help="for --scores")
    parser.add_argument("--binary", action="store_true", help="for --scores: they are 0 or 1")
    parser.add_argument("--coverage", action="store_true")
    parser.add_argument("--splits", action="store_true")
    given = parser.parse_args()
    if given.coverage or given.splits:
        (coverage if given.coverage else splits)(given.runs)
        return 0
    times = {"seeds": given.seeds, "draws": given.draws, "looks": given.looks}
    print(HEADER)
    if given.scores:
        with np.load(given.scores) as file:
            rows = [flake_table(file["scores"], given.bound, binary=given.binary, n=given.n or 64, **times)]
        print(rows[0])
    else:
        rows = []
        for method in methods():
            rows.append(tabulate(replace(method, n=given.n or method.n), **times))
            print(rows[-1], flush=True)
    bad = [row.method.name for row in rows if exceeds(row, len(rows))]
    outcome = f"EXCEEDED by {', '.join(bad)}" if bad else "kept"
    print(f"stated error {ERROR:.0%}, {rows[0].runs} runs each: {outcome}")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
