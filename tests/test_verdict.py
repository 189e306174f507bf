"""Laws of bounds, intervals and verdicts; oracles are exact sums, SciPy's intervals and seeded simulation."""

from __future__ import annotations

import importlib.util
import math
import subprocess
import sys
from collections.abc import Callable
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy import stats

from saliency_checks.result import FAIL, PASS
from saliency_checks.verdict import FLOOR, Bound, Judgement, interval, judge, judge_quantile, spend

Array = NDArray[np.float64]
BENCHMARK = Path(__file__).parents[1] / "benchmarks" / "verdict_flakiness.py"
law = settings(deadline=None, derandomize=True, max_examples=40)
finite = st.floats(allow_nan=False, allow_infinity=False)
scores = arrays(
    np.float64, st.tuples(st.integers(1, 3), st.integers(4, 24)), elements=st.integers(-8, 8).map(lambda k: k / 8)
)
groups = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(4, 24)),
    elements=st.integers(-8, 8).map(lambda k: k / 8),
)


def limits(values: Array, level: float = 0.025, *, binary: bool = False, seed: int = 0) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    return interval(np.atleast_2d(values), binary=binary, low_level=level, high_level=level, rng=rng)


def verdict(values: Array, bound: str | Bound = ">= 0.75", **given: Any) -> Judgement:
    values = values.reshape((1,) * (3 - values.ndim) + values.shape)
    bound = Bound.parse(bound) if isinstance(bound, str) else bound
    return judge(values, bound, **{"binary": False, "look": 0, "looks": 1, "rng": np.random.default_rng(0), **given})


def hits(k: int, n: int) -> Array:
    return np.repeat([1.0, 0.0], [k, n - k])


# Bound


@pytest.mark.parametrize(
    ("text", "bound", "shown"),
    [
        (">= 0.75", Bound(">=", 0.75), ">= 0.75"),
        (">=.75", Bound(">=", 0.75), ">= 0.75"),
        ("  <=  0.995 ", Bound("<=", 0.995), "<= 0.995"),
        ("> -1e-3", Bound(">=", -0.001), ">= -0.001"),
        ("<1", Bound("<=", 1.0), "<= 1"),
    ],
)
def test_a_bound_is_read_and_shown(text: str, bound: Bound, shown: str) -> None:
    assert Bound.parse(text) == bound
    assert str(bound) == shown


@law
@given(st.sampled_from([">=", "<="]), finite)
@example(">=", 0.1 + 0.2)
@example("<=", -0.0)
def test_a_bound_survives_its_own_text(op: str, value: float) -> None:
    assert Bound.parse(str(Bound(op, value))) == Bound(op, value)


@pytest.mark.parametrize(
    "text",
    ["", "0.75", ">=", "= 0.75", "== 1", "=> 0.75", ">= high", ">= nan", "<= inf", ">= 0.7 0.8", ">>= 1", "above 1"],
)
def test_a_text_that_is_no_bound_is_named_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected a comparison and a number, such as '>= 0.75'") as caught:
        Bound.parse(text)
    assert repr(text) in str(caught.value)


@pytest.mark.parametrize(("op", "value"), [(">", 0.5), ("!=", 0.5), (">=", math.nan), ("<=", math.inf)])
def test_a_bound_built_wrongly_is_refused(op: str, value: float) -> None:
    with pytest.raises(ValueError, match="of a bound: expected"):
        Bound(op, value)


@law
@given(finite, finite)
def test_a_bound_holds_on_its_good_side_and_on_itself(value: float, score: float) -> None:
    assert Bound(">=", value).holds(score) == (score >= value)
    assert Bound("<=", value).holds(score) == (score <= value)
    assert Bound(">=", value).holds(value)
    assert Bound("<=", value).holds(value)


def test_importing_verdicts_imports_no_heavy_package() -> None:
    code = "import sys, saliency_checks.verdict; print({'numpy', 'scipy', 'torch', 'pytest'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"


# Interval


@pytest.mark.parametrize(("k", "n"), [(0, 16), (1, 16), (16, 16), (1, 1), (141, 192), (383, 384)])
@pytest.mark.parametrize("level", [0.025, 0.003])
def test_limits_of_yes_no_scores_are_those_of_scipy(k: int, n: int, level: float) -> None:
    exact = stats.binomtest(k, n).proportion_ci(1 - 2 * level, method="exact")
    assert limits(hits(k, n), level, binary=True) == pytest.approx((exact.low, exact.high), abs=1e-9)


def test_a_split_tie_is_rounded_outwards() -> None:
    split = np.append(hits(5, 11), 0.5)
    low, high = limits(split, binary=True)
    assert low == pytest.approx(limits(hits(5, 12), binary=True)[0])
    assert high == pytest.approx(limits(hits(6, 12), binary=True)[1])


def test_on_normal_scores_the_bootstrap_is_students_t() -> None:
    values = stats.norm.ppf((np.arange(96) + 0.5) / 96) * 0.3 + 0.5
    expected = stats.t.interval(0.95, 95, values.mean(), stats.sem(values))
    assert limits(values) == pytest.approx(expected, rel=0.02)


@pytest.mark.parametrize("redraws", [2, 3, 5])
def test_limits_of_redraws_without_spread_over_images_are_students_t_and_the_floor(redraws: int) -> None:
    means = np.linspace(0.3, 0.5, redraws) ** 2
    low, high = limits(np.tile(means[:, None], 40))
    half = stats.t.interval(0.95, redraws - 1, 0, stats.sem(means))[1]
    expected = math.hypot(half, -math.log(0.025) / 40)
    assert (means.mean() - low, high - means.mean()) == pytest.approx((expected, expected))


def skewed(rng: np.random.Generator) -> Array:
    return rng.beta(3, 0.3, 32) - 10 / 11


def nearly_all_one(rng: np.random.Generator) -> Array:
    return rng.choice([-0.85, -0.35, 0.15], p=[0.1, 0.1, 0.8], size=32)


def rare_failure(rng: np.random.Generator) -> Array:
    return rng.choice([-0.9, 0.1], p=[0.1, 0.9], size=24)


def two_humps(rng: np.random.Generator) -> Array:
    return rng.beta(0.5, 0.5, 16) - 0.5


def crossed(rng: np.random.Generator) -> Array:
    images, weights = rng.normal(0, 0.3, (1, 24)), rng.normal(0, 0.06, (3, 1))
    return images + weights + rng.normal(0, 0.1, (3, 24))


@pytest.mark.parametrize("draw", [skewed, nearly_all_one, rare_failure, two_humps, crossed])
def test_a_limit_misses_a_mean_of_zero_no_oftener_than_stated(draw: Callable[[np.random.Generator], Array]) -> None:
    runs, level = 300, 0.0125
    rng = np.random.default_rng(20)
    found = np.array([limits(draw(rng), level, seed=run) for run in range(runs)])
    most = stats.binom.ppf(0.999, runs, level)
    assert (found[:, 0] > 0).sum() <= most
    assert (found[:, 1] < 0).sum() <= most


@law
@given(scores, st.integers(0, 9))
def test_an_interval_contains_the_mean_and_is_never_narrower_than_the_floor(values: Array, seed: int) -> None:
    low, high = limits(values, seed=seed)
    floor = FLOOR / values.shape[1]
    assert low <= values.mean() - floor + 1e-12
    assert high >= values.mean() + floor - 1e-12


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("score", [0.0, 1.0])
def test_equal_scores_leave_room_for_a_rare_failure(binary: bool, score: float) -> None:
    low, high = limits(np.full(64, score), binary=binary)
    unseen = 1 - 0.025 ** (1 / 64)  # the largest share of failures that 64 images miss with probability 0.025
    assert (score - low if score else high - score) >= unseen - 1e-12


@law
@given(scores, st.booleans(), st.floats(0.001, 0.2), st.floats(0.001, 0.2))
def test_a_smaller_error_never_narrows_an_interval(values: Array, binary: bool, one: float, other: float) -> None:
    values = np.abs(values).round() if binary else values
    wide, narrow = (limits(values, level, binary=binary) for level in sorted((one, other)))
    assert wide[0] <= narrow[0]
    assert wide[1] >= narrow[1]


@law
@given(scores, st.integers(0, 99))
def test_the_order_of_images_and_redraws_changes_nothing(values: Array, seed: int) -> None:
    rng = np.random.default_rng(seed)
    moved = rng.permutation(rng.permutation(values, axis=1), axis=0)
    assert limits(moved) == pytest.approx(limits(values), abs=1e-12)


@law
@given(scores, st.integers(-4, 4))
def test_adding_a_constant_moves_the_interval(values: Array, constant: int) -> None:
    assert limits(values + constant) == pytest.approx(np.add(limits(values), constant), abs=1e-9)


@pytest.mark.parametrize(
    ("values", "given", "message"),
    [
        (np.array([[0.5, np.nan]]), {}, "1 of 2 scores are not finite"),
        (np.array([[0.5, np.inf]]), {}, "1 of 2 scores are not finite"),
        (np.zeros((1, 0)), {}, r"shape \(1, 0\)"),
        (np.zeros(4), {}, r"shape \(4,\)"),
        (np.array([[0.5, 1.5]]), {"binary": True}, "binary scores from 0.5 to 1.5"),
        (np.zeros((1, 4)), {"low_level": 0.0}, "levels"),
        (np.zeros((1, 4)), {"high_level": 0.5}, "levels"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(values: Array, given: dict[str, Any], message: str) -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=message):
        interval(values, **{"binary": False, "low_level": 0.025, "high_level": 0.025, "rng": rng, **given})


def test_nearly_equal_scores_get_the_floor_on_both_sides() -> None:
    low, high = limits(0.9 + np.linspace(-0.004, 0.004, 48))
    assert (low, high) == pytest.approx((0.9 - FLOOR / 48, 0.9 + FLOOR / 48))


# Looks


@law
@given(st.integers(1, 8), st.floats(0.001, 0.5))
def test_the_looks_spend_the_error_in_proportion_to_the_images_they_add(looks: int, error: float) -> None:
    shares = [spend(look, looks, error) for look in range(looks)]
    assert math.fsum(shares) == pytest.approx(error)
    images = np.diff([0, *(2**look for look in range(looks))])
    assert shares == pytest.approx(error * images / images.sum())


@law
@given(st.integers(1, 8), st.data())
def test_where_the_images_run_out_the_last_look_spends_what_is_left(looks: int, data: st.DataObject) -> None:
    last = data.draw(st.integers(0, looks - 1))
    spent = [*(spend(look, looks) for look in range(last)), spend(last, looks, last=True)]
    assert math.fsum(spent) == pytest.approx(0.05)


@pytest.mark.parametrize(("look", "looks", "error"), [(1, 1, 0.05), (-1, 2, 0.05), (0, 0, 0.05), (0, 1, 0), (0, 1, 1)])
def test_a_look_outside_the_plan_is_refused(look: int, looks: int, error: float) -> None:
    with pytest.raises(ValueError, match="expected"):
        spend(look, looks, error)


def wrong_rates(truth: float, bound: float, n: int, looks: int) -> dict[str, float]:
    """Exact probability of each verdict of the sequential rule on 0/1 scores, by summing over all numbers of hits."""
    rates = {"pass": 0.0, "fail": 0.0}
    alive = {0: 1.0}
    for look in range(looks):
        new, images = (n if look == 0 else n * 2 ** (look - 1)), n * 2**look
        chances = stats.binom.pmf(np.arange(new + 1), new, truth)
        reached = np.zeros(images + 1)
        for k, p in alive.items():
            reached[k : k + new + 1] += p * chances
        alive = {}
        for k, p in enumerate(reached):
            found = verdict(hits(k, images), Bound(">=", bound), binary=True, look=look, looks=looks).verdict
            if found == "inconclusive":
                alive[k] = p
            else:
                rates[found] += float(p)
    return rates


@pytest.mark.parametrize(("n", "looks"), [(16, 1), (16, 3), (48, 3)])
@pytest.mark.parametrize("bound", [0.5, 0.75, 0.9])
def test_either_wrong_verdict_on_the_bound_has_at_most_half_the_error_over_all_looks(
    n: int, looks: int, bound: float
) -> None:
    rates = wrong_rates(bound, bound, n, looks)
    assert rates["pass"] <= 0.025
    assert rates["fail"] <= 0.025
    assert sum(rates.values()) > 0.005  # the rule decides at all


def test_the_limits_that_decide_are_exact_at_the_documented_levels() -> None:
    values = np.stack([hits(150, 192), hits(160, 192)])[:, None]
    found = verdict(values, binary=True, look=1, looks=3, readings=2)
    side = 0.05 / 2 / 4
    low = stats.binomtest(150, 192, alternative="greater").proportion_ci(1 - side / 2).low
    high = stats.binomtest(150, 192, alternative="less").proportion_ci(1 - side / 2).high
    assert (found.low, found.high) == pytest.approx((low, high))
    assert (found.group, found.score, found.n) == (0, 150 / 192, 192)


# Judgement


@pytest.mark.parametrize(
    ("share", "n", "expected"),
    [(1 / 8, 64, "fail"), (0.97, 192, "pass"), (0.88, 192, "pass"), (0.75, 192, "inconclusive"), (0.17, 64, "fail")],
)
def test_typical_recoveries_get_their_verdict(share: float, n: int, expected: str) -> None:
    assert verdict(hits(round(share * n), n), binary=True, look=0, looks=3).verdict == expected


@law
@given(groups, st.integers(-8, 8))
def test_the_verdict_is_what_the_shown_interval_says(values: Array, eighths: int) -> None:
    bound = eighths / 8
    found = verdict(values, Bound(">=", bound))
    expected = "pass" if found.low >= bound else "fail" if found.high < bound else "inconclusive"
    assert found.verdict == expected
    assert found.low <= found.score <= found.high
    assert found.score == pytest.approx(values.mean(axis=(1, 2)).min())
    assert found.score == pytest.approx(values[found.group].mean())


@law
@given(groups, st.integers(-8, 8))
def test_lower_is_better_is_the_mirror_image(values: Array, eighths: int) -> None:
    one, other = verdict(values, Bound(">=", eighths / 8)), verdict(-values, Bound("<=", -eighths / 8))
    assert (one.verdict, one.group, one.n_needed) == (other.verdict, other.group, other.n_needed)
    assert (one.score, one.low, one.high) == pytest.approx((-other.score, -other.high, -other.low), abs=1e-9)


def test_lower_is_better_works_for_yes_no_scores() -> None:
    assert verdict(hits(10, 192), "<= 0.25", binary=True).verdict == "pass"
    assert verdict(hits(90, 192), "<= 0.25", binary=True).verdict == "fail"


@law
@given(groups, st.integers(-8, 8))
def test_another_group_never_makes_a_pass(values: Array, eighths: int) -> None:
    fewer, more = (
        verdict(values[:-1] if len(values) > 1 else values, Bound(">=", eighths / 8)),
        verdict(values, Bound(">=", eighths / 8)),
    )
    assert more.low <= fewer.low
    assert not (more.verdict == "pass" and fewer.verdict != "pass")


@law
@given(groups, st.integers(-8, 8), st.integers(2, 4))
def test_more_readings_or_looks_never_make_a_pass(values: Array, eighths: int, many: int) -> None:
    bound = Bound(">=", eighths / 8)
    plain = verdict(values, bound)
    for found in (verdict(values, bound, readings=many), verdict(values, bound, looks=many)):
        assert not (found.verdict == "pass" and plain.verdict != "pass")
    assert verdict(values, bound, readings=many).high == plain.high


def test_the_worst_of_two_fixtures_decides() -> None:
    found = verdict(np.stack([hits(186, 192), hits(96, 192)])[:, None], binary=True)
    assert (found.verdict, found.group, found.score) == ("fail", 1, 0.5)


def test_the_same_seed_gives_the_same_judgement() -> None:
    values = np.random.default_rng(1).beta(3, 1, (2, 3, 40))
    assert verdict(values) == verdict(values)


@law
@given(st.integers(0, 64), st.sampled_from([0.5, 0.75, 0.9]))
def test_as_many_images_as_advised_decide(k: int, bound: float) -> None:
    found = verdict(hits(k, 64), Bound(">=", bound), binary=True)
    assume(found.verdict == "inconclusive" and found.n_needed is not None)
    assert found.n_needed is not None
    assert found.n_needed > 64
    assert found.n_needed == float(f"{found.n_needed:.2g}")
    assert found.advice == f"about {found.n_needed} images would decide this"
    again = hits(round(k / 64 * found.n_needed), found.n_needed)
    assert verdict(again, Bound(">=", bound), binary=True).verdict == ("pass" if k / 64 >= bound else "fail")


def test_a_pass_waits_for_the_slowest_group_and_a_fail_for_the_quickest() -> None:
    def needed(*shares: int, error: float) -> int:
        found = verdict(np.stack([hits(k, 64) for k in shares])[:, None], binary=True, error=error)
        assert (found.verdict, found.n_needed is None) == ("inconclusive", False)
        return found.n_needed or 0

    assert needed(52, 54, error=0.05) == needed(52, error=0.05) > needed(54, error=0.05)
    # two groups share the error of a FAIL
    assert needed(42, 44, error=0.05) == needed(42, error=0.025) < needed(44, error=0.025)


def test_advice_on_the_bound_is_that_images_do_not_help() -> None:
    found = verdict(hits(48, 64), binary=True)
    assert (found.verdict, found.n_needed) == ("inconclusive", None)
    assert "sits on the bound" in found.advice


def test_advice_for_scattered_redraws_is_to_draw_more_of_them() -> None:
    values = np.array([[0.5], [0.9], [1.0]]) + np.random.default_rng(0).normal(0, 0.01, (3, 48))
    found = verdict(values, ">= 0.5")
    assert (found.verdict, found.n_needed) == ("inconclusive", None)
    assert "draw the weights more often" in found.advice


def test_a_decided_verdict_needs_no_advice() -> None:
    found = verdict(hits(64, 64), binary=True)
    assert (found.verdict, found.n_needed, found.advice) == ("pass", 64, "")


@pytest.mark.parametrize(
    ("values", "readings"),
    [(np.zeros((1, 4)), 1), (np.zeros((0, 1, 4)), 1), (np.zeros((1, 1, 0)), 1), (np.zeros((1, 1, 4)), 0)],
)
def test_scores_without_groups_are_refused(values: Array, readings: int) -> None:
    with pytest.raises(ValueError, match=r"expected \(groups, redraws, images\)"):
        judge(values, Bound(">=", 0.5), binary=False, look=0, looks=1, readings=readings, rng=np.random.default_rng(0))


def test_a_nan_is_an_error_and_never_a_verdict() -> None:
    with pytest.raises(ValueError, match="not finite"):
        verdict(np.array([[[1.0, np.nan, 1.0]]]))


# The benchmark script


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("verdict_flakiness", BENCHMARK)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up by name
    spec.loader.exec_module(module)
    return module


def test_a_bare_threshold_flips_where_the_rule_does_not(benchmark: ModuleType) -> None:
    row = benchmark.flake_table(hits(37, 50), Bound(">=", 0.75), binary=True, seeds=50, draws=4)
    assert not benchmark.exceeds(row, 1)
    assert row.wrong(row.passed, row.failed) <= 0.05
    bare = row.bare_passed[0]
    assert row.wrong(bare, 1 - bare) > 0.25


def test_the_script_notices_a_rule_that_is_wrong_too_often(benchmark: ModuleType) -> None:
    method = benchmark.Simulated("", 0.7, benchmark.hits(0.7), Bound(">=", 0.75), True)
    for passed, wrong in product([0.05, 0.12], [True]):
        row = benchmark.Row(method, 200, passed, 0.5, 64.0, (0.0, 0.0))
        assert benchmark.exceeds(row, 1) == (wrong and passed > 0.1)


def test_every_simulated_method_has_the_mean_that_it_states(benchmark: ModuleType) -> None:
    for method in benchmark.methods():
        values = method.draw(np.random.default_rng(0), 4096)
        means = [method.draw(np.random.default_rng(seed), 256).mean(axis=(1, 2)) for seed in range(200)]
        assert values.shape[2] == 4096
        worst = (min if method.bound.op == ">=" else max)(np.mean(means, axis=0))
        noise = np.std(means, axis=0).max() / math.sqrt(200)
        assert worst == pytest.approx(method.truth, abs=5 * noise + 1e-9), method.name


# --- quantiles -------------------------------------------------------------------------------------------------------


def quantile_judgement(values, bound: float, quantile: float = 0.75):
    return judge_quantile(
        np.asarray(values, float), Bound("<=", bound), quantile=quantile, look=0, looks=1, rng=np.random.default_rng(0)
    )


@law
@given(
    st.lists(st.sampled_from([0.5, 1.0, 2.0, 4.0, 8.0]), min_size=1, max_size=60),
    st.sampled_from([0.5, 1.0, 2.0, 4.0]),
)
def test_verdict_and_limits_of_a_quantile_agree(values, bound):
    judged = quantile_judgement([[values]], bound)
    assert judged.low <= judged.score <= judged.high
    assert (judged.verdict == PASS) == (judged.high <= bound)
    assert (judged.verdict == FAIL) == (judged.low > bound)
    assert np.mean(np.asarray(values) <= judged.score) >= 0.75
    assert np.mean(np.asarray(values) < judged.score) < 0.75


@pytest.mark.parametrize("n", [20, 64, 200])
def test_the_limits_of_a_quantile_are_its_order_statistics(n):
    """Of distinct values the upper limit is the k-th least with P(Binomial(n, .75) >= k) <= level (Thompson 1936)."""
    values = np.random.default_rng(n).permutation(np.arange(1.0, n + 1))
    judged = quantile_judgement([[values]], n / 2)
    upper = next(k for k in range(n + 1) if stats.binom.sf(k - 1, n, 0.75) <= 0.025)
    lower = next(k for k in range(n + 1) if stats.binom.cdf(k, n, 0.75) >= 0.025)
    assert judged.high == (upper if upper <= n else 2 * max(n, n / 2))
    assert judged.low in (lower, lower + 1)


def test_the_worst_group_decides_a_quantile():
    good, bad = np.full((1, 64), 0.5), np.full((1, 64), 8.0)
    assert quantile_judgement([good, good], 2.0).verdict == PASS
    judged = quantile_judgement([good, bad], 2.0)
    assert (judged.verdict, judged.group, judged.score) == (FAIL, 1, 8.0)


def test_a_quantile_wants_a_bound_from_above():
    with pytest.raises(ValueError, match="expected '<='"):
        judge_quantile(np.ones((1, 1, 9)), Bound(">=", 1), quantile=0.75, look=0, looks=1, rng=np.random.default_rng(0))
