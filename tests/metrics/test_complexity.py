"""Entropy against closed forms; only a map that is the same everywhere fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from saliency_checks.metric import Draw
from saliency_checks.metrics.complexity import complexity, entropy
from saliency_checks.run import run

from toys import changed, constant, conv_net, detector, gradient, made, subject_of, white_noise, zero


def spread_over(pixels: int):
    """A map with so many equal values, of either sign, and zeros."""

    def explain(m, x, t):
        flat = torch.zeros(len(x), 64)
        flat[:, torch.randperm(64)[:pixels]] = 2.0
        flat[:, 0] *= -1
        return flat.view(-1, 8, 8)

    return made(explain, f"spread_{pixels}")


@pytest.mark.parametrize("pixels", [1, 2, 10, 63, 64])
def test_the_entropy_of_k_equal_pixels_is_log_k(pixels):
    found = entropy.measure(spread_over(pixels), detector(8), Draw(n=8)).values
    np.testing.assert_allclose(found, np.log(pixels) / np.log(64), atol=1e-9)


def test_the_truth_of_one_pixel_is_the_extreme_and_is_noted_but_not_failed():
    scores = complexity.measure(gradient, detector(8), Draw(n=8))
    assert scores.values.all()
    assert "one pixel" in str(scores.details["note"])
    assert run("complexity", gradient, detector(96)).verdict == "pass"


@pytest.mark.parametrize("scale", [-1.0, 1e-6, 1e6])
def test_scale_and_sign_change_nothing(scale):
    subject = subject_of(conv_net(), 3)
    one, two = (
        entropy.measure(method, subject, Draw(n=16)).values
        for method in (gradient, changed(lambda g: scale * g, "scaled"))
    )
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert ((one > 0.5) & (one < 1)).all()


def nearly_uniform(contrast):
    """1 on one half and 1 + contrast on the other."""
    half = torch.ones(8, 8)
    half[:, 4:] += contrast
    return made(lambda m, x, t: half.expand(len(x), 8, 8), "nearly_uniform")


@pytest.mark.parametrize(("contrast", "kept"), [(0.1, False), (1.0, True)])
def test_the_line_is_drawn_just_below_uniform(contrast, kept):
    p = np.array([1.0, 1 + contrast]) / (2 + contrast) / 32
    expected = -(32 * p * np.log(p)).sum() / np.log(64)
    assert (expected <= 0.995) == kept
    assert (complexity.measure(nearly_uniform(contrast), detector(8), Draw(n=8)).values == kept).all()


@pytest.mark.parametrize("method", [constant, zero, nearly_uniform(0.01)], ids=lambda m: m.name)
def test_a_map_that_is_the_same_everywhere_fails(method):
    assert run("complexity", method, detector(96)).verdict == "fail"


def test_some_flat_maps_among_good_ones_fail_by_their_share():
    some = made(lambda m, x, t: gradient.explain(m, x, t) * (t > 0).view(-1, 1, 1, 1), "a_quarter_zero")
    scores = complexity.measure(some, detector(96), Draw(n=96))
    assert (scores.values.mean(), scores.degenerate) == (0.75, 0.25)
    assert run("complexity", some, detector(96)).verdict == "fail"


def test_noise_passes_because_no_threshold_separates_it():
    assert run("complexity", white_noise, detector(96)).verdict == "pass"
