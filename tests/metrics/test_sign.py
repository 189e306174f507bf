"""The sign at the one pixel that makes the class."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from saliency_checks.metric import Draw
from saliency_checks.metrics.sign import sign
from saliency_checks.run import run

from toys import changed, constant, detector, gradient, made, negated, white_noise, zero


def values(method, n=64, **fields):
    return sign.measure(method, detector(n, **fields), Draw(n=n)).values


def test_for_is_one_against_is_minus_one_and_nothing_is_zero():
    assert (values(gradient) == 1).all()
    assert (values(negated) == -1).all()
    assert (values(zero) == 0).all()


def test_a_positive_constant_is_always_positive():
    """Known blind spot: pixel_recovery and the contract see it."""
    assert (values(constant) == 1).all()


@pytest.mark.parametrize("scale", [1e-6, 1e6])
def test_the_scale_does_not_matter(scale):
    assert (values(changed(lambda g: scale * g, "scaled")) == 1).all()


def test_channels_are_summed_before_the_sign_is_taken():
    def mixed(m, x, t):
        g = gradient.explain(m, x, t)
        g[:, 0] *= -1.5  # against in one channel, for in the other two: in sum for
        return g

    assert (values(made(mixed), channels=3) == 1).all()
    assert (values(made(lambda m, x, t: mixed(m, x, t)[:, :1], "first"), channels=3) == -1).all()


def test_white_noise_is_as_often_positive_as_negative():
    found = values(white_noise, 400)
    assert stats.binomtest(int((found > 0).sum()), 400, 0.5).pvalue > 1e-4
    assert np.isin(found, [-1, 1]).all()


@pytest.mark.parametrize("signed", [None, False])
def test_methods_that_claim_no_sign_are_left_out_with_the_reason(signed):
    result = run("sign", replace(gradient, signed=signed), detector())
    assert result.verdict == "skip"
    assert "signed=True" in result.message


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(gradient, "pass"), (negated, "fail"), (zero, "fail"), (constant, "fail"), (white_noise, "fail")],
    ids=lambda value: getattr(value, "name", value),
)
def test_verdicts(method, verdict):
    assert run("sign", method, detector(192)).verdict == verdict
