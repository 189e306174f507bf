"""Rows of a study asked for by their columns, and intervals that hold where redraws are few."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy import stats

from saliency_checks.studies.table import Table, head, mean_with_limits, row, with_limits

TABLE = Table(
    pa.table({
        "method": ["a", "a", "a", "a", "b"], "redraw": [1, 0, 1, 0, 0], "image": [1, 0, 0, 1, 0],
        "step": [2, 1, 2, 1, 1], "state": ["first", "last", "first", "last", "last"], "score": [4.0, 1, 3, 2, 9],
    })
)  # fmt: skip


def test_rows_are_found_by_all_columns_that_are_asked_for():
    assert TABLE.where(method="a", redraw=1).rows["score"].to_pylist() == [4, 3]
    assert TABLE.where().rows == TABLE.rows
    assert TABLE.distinct("method") == ["a", "b"]
    assert TABLE.states() == ["last", "first"]


def test_a_block_has_the_images_of_each_redraw_in_their_order():
    np.testing.assert_array_equal(TABLE.where(method="a").block("score"), [[3, 4], [1, 2]])


def test_of_no_rows_there_is_no_mean():
    assert np.isnan(TABLE.where(method="c").mean("score")).all()
    assert with_limits(TABLE.where(method="c").mean("score")) == ""


def test_with_one_redraw_the_interval_is_that_of_the_mean_over_images():
    images = np.random.default_rng(0).normal(size=(1, 400))
    mean, low, high = mean_with_limits(images)
    assert mean == pytest.approx(images.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * images.std() / 20, rel=0.1)


def test_where_the_redraws_differ_the_interval_is_student_s_over_their_means():
    apart = np.repeat([[0.0], [1.0], [2.5]], 200, axis=1)
    mean, low, high = mean_with_limits(apart)
    assert (low, high) == pytest.approx(stats.t.interval(0.95, 2, loc=mean, scale=stats.sem([0, 1, 2.5])), rel=1e-3)


@pytest.mark.parametrize("redraws", [2, 3, 5])
def test_it_holds_the_true_mean_as_often_as_it_says(redraws):
    """Redraws that differ more than images do: where a plain resampling of three of them misses every fourth time."""
    rng = np.random.default_rng(redraws)
    held = 0
    for _ in range(300):
        _, low, high = mean_with_limits(rng.normal(size=(redraws, 1)) + 0.5 * rng.normal(size=(redraws, 16)))
        held += low <= 0 <= high
    assert held / 300 >= 0.92


def test_limits_of_zeros_and_ones_are_exact():
    hits = np.array([[1.0] * 18 + [0.0] * 2])
    found = stats.binomtest(18, 20).proportion_ci(0.95)
    assert mean_with_limits(hits, binary=True)[1:] == pytest.approx((found.low, found.high))


def test_tables_are_markdown():
    assert head(["", "x"]) == ["|  | x |", "| --- | --- |"]
    assert row(["a", with_limits((0.5, 0.25, 0.75), "+.2f")]) == "| a | +0.50 (+0.25 to +0.75) |"
