"""Convergence is known where the output is ignored, and where it has one direction only."""

from __future__ import annotations

import numpy as np
import pytest

from saliency_checks.metric import Draw
from saliency_checks.metrics.cosine_convergence import Directions, cosine_convergence

from toys import conv_net, gradient, magnitude, subject_of, weighted

DRAW = Draw(n=8, redraws=2)


def test_convergence_is_one_where_the_output_is_ignored_and_near_zero_where_every_direction_has_its_own_map():
    subject = subject_of(conv_net(), 3)
    assert cosine_convergence.measure(magnitude, subject, DRAW).values == pytest.approx(1)
    linear = weighted(size=20, classes=40)
    found = cosine_convergence.measure(gradient, linear, DRAW, Directions(count=6)).values
    assert np.ptp(found) < 1e-12, "a linear model has the same gradient everywhere"
    assert abs(found.mean()) < 0.2


def test_convergence_of_one_logit_is_one_up_to_the_sign():
    """All directions of a single output are multiples of it."""
    single = weighted(classes=1)
    found = cosine_convergence.measure(gradient, single, DRAW, Directions(count=2)).values
    np.testing.assert_allclose(np.abs(found), 1, atol=1e-12)


def test_it_is_not_gated():
    assert cosine_convergence.bound is None
    assert cosine_convergence.reference
