"""Deleting pixels of a linear detector: every score is a closed form of the place of one pixel in the order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_checks.maps import random_orders
from saliency_checks.metric import Draw
from saliency_checks.metrics.planted_deletion import COUNTS, logit_drop, planted_deletion, reference_drops
from saliency_checks.run import run

from toys import changed, constant, detector, gradient, inverted, magnitude, negated, white_noise, zero


def values(method, subject=None, n=64):
    return planted_deletion.measure(method, subject or detector(n), Draw(n=n)).values[0, 0]


def whole_drop(subject, n):
    """8 times (site - mean of its 24 neighbours): what the target's logit loses with its one pixel."""
    drops = []
    for image, truth in zip(subject.inputs[:n, 0].numpy(), subject.truth[:n].numpy(), strict=True):
        ((row, column),) = np.argwhere(truth)
        box = image[max(0, row - 2) : row + 3, max(0, column - 2) : column + 3]
        drops.append(8 * (image[row, column] - (box.sum() - image[row, column]) / (box.size - 1)))
    return np.array(drops)


def share_of_counts(subject, order):
    """The share of steps at which the site is gone."""
    place = (order == subject.truth[: len(order)].flatten(1).int().argmax(1, keepdim=True)).int().argmax(1)
    return np.mean([place.numpy() < count for count in COUNTS], axis=0)


@settings(max_examples=15)
@given(st.integers(0, 1000))
def test_the_drop_is_that_of_the_site_times_the_share_of_steps_without_it(seed):
    subject = detector(8, seed=seed)
    order = random_orders(8, 64, generator=torch.Generator().manual_seed(seed))
    expected = whole_drop(subject, 8) * share_of_counts(subject, order)
    np.testing.assert_allclose(logit_drop(subject, order).numpy(), expected, atol=1e-5)


def test_the_references_are_the_site_first_and_the_mean_over_random_orders():
    subject = detector(400)
    random, oracle = reference_drops(subject, 400, 0)
    drop = whole_drop(subject, 400)
    np.testing.assert_allclose(oracle.numpy(), drop, atol=1e-5)
    shares = random.numpy() / drop
    assert ((shares >= 1 / 7 - 1e-5) & (shares <= 1)).all()  # the last step removes every pixel
    expected = np.mean([count / 64 for count in COUNTS])
    assert abs(shares.mean() - expected) < 4 * shares.std() / 20


def test_the_truth_scores_one_and_its_inverse_what_the_last_step_alone_takes():
    subject = detector(64)
    np.testing.assert_allclose(values(gradient, subject), 1, atol=1e-5)
    random, oracle = (drop.numpy() for drop in reference_drops(subject, 64, 0))
    np.testing.assert_allclose(values(inverted, subject), (oracle / 7 - random) / (oracle - random), atol=1e-4)


@pytest.mark.parametrize("method", [constant, zero, white_noise], ids=lambda m: m.name)
def test_who_knows_nothing_scores_zero(method):
    found = values(method, n=400)
    assert abs(found.mean()) < 4 * found.std() / 20


@pytest.mark.parametrize("increasing", [torch.exp, lambda g: g**3, lambda g: 2 * g + 1], ids=["exp", "cube", "affine"])
def test_an_increasing_transform_changes_nothing(increasing):
    def dense(g):
        return g / 8 + torch.sin(torch.arange(64.0).view(8, 8) * 5)

    one, two = values(changed(dense, "dense")), values(changed(lambda g: increasing(dense(g)), "transformed"))
    np.testing.assert_array_equal(one, two)
    assert 0.1 < one.mean() < 0.999


def test_a_signed_map_is_read_with_its_sign_and_a_magnitude_without():
    subject = detector(64)
    assert values(replace(negated, signed=True), subject).mean() < 0
    np.testing.assert_allclose(values(replace(negated, signed=False), subject), 1, atol=1e-5)


def test_where_the_method_does_not_say_both_are_read_and_the_better_is_named():
    result = run("planted_deletion", replace(negated, signed=None), detector(192))
    assert result.verdict == "pass"
    assert "read as a magnitude" in result.message


def test_a_planted_site_that_the_model_does_not_use_does_not_qualify():
    subject = detector(64)
    with torch.no_grad():
        subject.model.head.weight.zero_()
    result = run("planted_deletion", gradient, subject)
    assert result.verdict == "skip"
    assert "does not depend on the pixels that are said to cause it" in result.message


def test_one_image_that_a_random_order_solves_does_not_decide_the_mean():
    subject = detector(64)
    with torch.no_grad():
        subject.inputs[0] = 0.4  # nothing to lose here: 0 / 0
    found = values(gradient, subject)
    assert np.isfinite(found).all()
    assert abs(found[0]) < 0.1
    np.testing.assert_allclose(found[1:], 1, atol=1e-5)


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(gradient, "pass"), (magnitude, "pass"), (negated, "fail"), (inverted, "fail"), (constant, "fail"), (zero, "fail"),
     (white_noise, "fail"), (changed(lambda g: g.roll((2, 2), (2, 3)), "shifted"), "fail")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    """The brightest pixel is the site here, so the magnitude passes; the planted subjects are made so that it fails."""
    assert run("planted_deletion", method, detector(192)).verdict == verdict
