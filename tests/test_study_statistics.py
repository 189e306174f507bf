"""The statistics that compare methods, against hand examples, identities and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from saliency_checks.studies import statistics

RNG = np.random.default_rng(0)
few = arrays(float, st.integers(1, 30), elements=st.integers(-3, 3).map(float))
pairs = st.integers(1, 30).flatmap(
    lambda n: st.tuples(*(arrays(float, n, elements=st.integers(-3, 3).map(float)) for _ in range(2)))
)


@given(few, st.floats(0.1, 10))
def test_what_is_better_by_a_constant_is_better_on_every_image(scores, shift):
    assert statistics.superiority(scores + shift, scores) == 1
    assert statistics.superiority(scores - shift, scores) == 0
    assert statistics.superiority(scores - shift, scores, sign=-1) == 1
    assert statistics.superiority(scores, scores) == 0  # strictly


@given(pairs)
def test_two_superiorities_and_the_ties_are_everything(both):
    a, b = both
    ties = float((a == b).mean())
    assert statistics.superiority(a, b) + statistics.superiority(b, a) + ties == pytest.approx(1)
    assert statistics.superiority(a, b) == statistics.superiority(b, a, sign=-1)


def test_a_missing_score_counts_for_neither_side():
    a, b = np.array([1, 2, np.nan, 0]), np.array([0, np.nan, 3, 1])
    assert statistics.superiority(a, b) == 0.5
    assert np.isnan(statistics.superiority(a[2:3], b[2:3]))


@pytest.mark.parametrize("n", [5, 8, 10])
def test_the_signed_rank_test_has_its_exact_p_where_all_differences_are_positive(n):
    better = np.arange(1, n + 1) / 7  # of 2^n equally likely signs one is as extreme
    assert statistics.signed_rank(better, np.zeros(n)) == pytest.approx(2.0**-n)
    assert statistics.signed_rank(-better, np.zeros(n), sign=-1) == pytest.approx(2.0**-n)
    assert statistics.signed_rank(-better, np.zeros(n)) == pytest.approx(1)
    assert statistics.signed_rank(better, np.zeros(n), alternative="two-sided") == pytest.approx(2 * 2.0**-n)


def test_methods_that_never_differ_are_not_told_apart():
    assert statistics.signed_rank(np.ones(9), np.ones(9)) == 1
    assert statistics.signed_rank(np.full(3, np.nan), np.ones(3)) == 1


def test_random_scores_pass_the_test_as_often_as_it_says():
    p = [statistics.signed_rank(RNG.normal(size=24), RNG.normal(size=24)) for _ in range(1000)]
    assert stats.kstest(p, "uniform").statistic < 0.05


def test_corrections_by_hand():
    p = np.array([0.01, 0.04, 0.03, 0.005])
    # ordered .005 .01 .03 .04, times 4 3 2 1, and never less than the one before
    assert statistics.corrected(p, "holm") == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert statistics.corrected(p, "bonferroni") == pytest.approx([0.04, 0.16, 0.12, 0.02])
    assert statistics.corrected(p, "none") == pytest.approx(p)
    assert len(statistics.corrected(np.array([]), "holm")) == 0


@settings(max_examples=20)  # statsmodels collects all garbage in every call
@given(arrays(float, st.integers(1, 20), elements=st.floats(0, 1)))
def test_holm_is_never_stricter_than_bonferroni_nor_milder_than_nothing(p):
    holm = statistics.corrected(p, "holm")
    assert (holm <= statistics.corrected(p, "bonferroni") + 1e-12).all()
    assert (holm >= p - 1e-12).all()


def test_images_that_rank_alike_agree_fully():
    ranking = np.arange(6.0)[:, None]
    scales = RNG.uniform(0.1, 10, size=(1, 12))  # each image on a scale of its own
    assert statistics.agreement(ranking * scales) == pytest.approx(1)
    assert statistics.agreement(-ranking * scales) == pytest.approx(1)  # the direction does not count


def test_images_that_rank_by_chance_agree_by_chance_and_opposite_ones_less():
    assert abs(statistics.agreement(RNG.normal(size=(8, 300)))) < 0.02
    assert statistics.agreement(np.stack([np.arange(6.0), -np.arange(6.0)], axis=1)) < -0.5


def test_agreement_of_two_images_by_hand():
    """Ranks 1 2 3 and 1 3 2: coincidences 2 of (1, 1), 2 of (2, 3), 2 of (3, 2); each rank 2 times, 6 in all.

    The squared distances of ordinal data: (1,2) 4, (2,3) 4, (1,3) 16. Observed (2 + 2) * 4 / 6; expected
    2 * (4 * 4 + 4 * 4 + 4 * 16) / (6 * 5).
    """
    observed, expected = 4 * 4 / 6, 2 * (4 * 4 + 4 * 4 + 4 * 16) / 30
    found = statistics.agreement(np.array([[1.0, 10.0], [2.0, 30.0], [3.0, 20.0]]))
    assert found == pytest.approx(1 - observed / expected)


def test_where_no_method_differs_there_is_no_agreement_to_measure():
    assert np.isnan(statistics.agreement(np.ones((4, 5))))
    assert np.isnan(statistics.agreement(np.arange(4.0)[:, None]))


def test_a_metric_agrees_with_any_rising_function_of_itself_and_not_with_its_negative():
    scores = RNG.normal(size=(4, 40))
    assert statistics.rank_correlation(scores, np.exp(scores)) == pytest.approx(1)
    assert statistics.rank_correlation(scores, -scores) == pytest.approx(-1)
    assert abs(statistics.rank_correlation(scores, RNG.normal(size=(4, 40)))) < 0.3


def test_a_method_with_one_score_for_all_images_is_left_out_of_the_mean():
    scores = RNG.normal(size=(3, 20))
    other = scores.copy()
    other[0] = 7
    assert statistics.rank_correlation(scores, other) == pytest.approx(1)
    assert np.isnan(statistics.rank_correlation(scores[:1], other[:1]))


def test_metrics_that_say_the_same_are_joined_first():
    base = RNG.normal(size=10)
    found = statistics.linkage(np.stack([base, RNG.normal(size=10), 5 * base + 3, -base]))
    assert found is not None
    assert set(found[0, :2]) == {0, 2}
    assert found[0, 2] == pytest.approx(0, abs=1e-9)
    assert statistics.linkage(np.ones((2, 4))) is None
    assert statistics.linkage(np.ones((1, 4))) is None


def test_signal_to_noise_of_a_known_signal_in_known_noise():
    repeated = RNG.normal(loc=np.array([2.0, 4.0]), scale=0.5, size=(20_000, 2))
    assert statistics.signal_to_noise(repeated) == pytest.approx([16, 64], rel=0.05)
    assert statistics.noise_share(repeated) == pytest.approx(0.25 / (0.25 + 1), rel=0.05)  # the means' variance is 1
    assert np.isinf(statistics.signal_to_noise(np.ones((3, 2)))).all()


def test_more_images_rank_more_like_all_and_clear_differences_need_few():
    clear = np.arange(8.0)[:, None] * 100 + RNG.normal(size=(8, 60))
    assert (statistics.convergence(clear, [1, 10], RNG) == 1).all()
    close = np.arange(8.0)[:, None] + RNG.normal(size=(8, 60)) * 6
    few_images, many = statistics.convergence(close, [2, 60], RNG).mean(0)
    assert few_images + 0.1 < many < 1


def test_an_image_whose_score_is_always_zero_has_neither_signal_nor_noise():
    assert np.isnan(statistics.signal_to_noise(np.zeros((3, 1)))[0])
