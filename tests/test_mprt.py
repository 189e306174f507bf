"""sMPRT and eMPRT against NumPy, SciPy and what must hold for methods that never look."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.stats import entropy

from saliency_checks import maps, randomization
from saliency_checks.explain import derive
from saliency_checks.metric import Draw
from saliency_checks.metrics.mprt import Smoothing, efficient_mprt, histogram_entropy, smooth_mprt

from toys import conv_net, gradient, magnitude, plain_gradient, subject_of, white_noise

DRAW = Draw(n=8, redraws=2)


def test_the_entropy_is_that_of_numpys_histogram():
    drawn = torch.randn(6, 9, 11, generator=torch.Generator().manual_seed(0), dtype=torch.float64) ** 3
    theirs = [entropy(np.histogram(row, bins=100)[0]) for row in drawn.flatten(1).numpy()]
    np.testing.assert_allclose(histogram_entropy(drawn), theirs, atol=1e-12)


def test_a_constant_map_has_no_entropy_and_the_score_is_a_number():
    flat = subject_of(conv_net(), 3)
    scores = efficient_mprt.measure(replace(magnitude, explain=lambda m, x, t: torch.ones_like(x)), flat, DRAW)
    assert (scores.values == 0).all()
    assert scores.degenerate == 1


def test_a_method_that_never_looks_at_the_model_scores_zero_under_emprt_and_one_under_smprt():
    subject = subject_of(conv_net(), 3)
    assert (efficient_mprt.measure(magnitude, subject, DRAW).values == 0).all()
    assert smooth_mprt.measure(magnitude, subject, DRAW, Smoothing(samples=2)).values == pytest.approx(1)


def test_noise_gains_no_entropy_on_average():
    subject = subject_of(conv_net(), 3, n=32)
    values = efficient_mprt.measure(white_noise, subject, Draw(n=32, redraws=2)).values
    assert abs(values.mean()) < 0.03


def test_a_map_with_one_high_pixel_gains_entropy_when_the_weights_are_drawn_again():
    net = conv_net()
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].weight[:, 17] = 1.0
    assert efficient_mprt.measure(gradient, subject_of(net, 3), DRAW).values.min() > 0


def test_without_noise_smprt_is_the_bottom_up_cascade_itself():
    subject = subject_of(conv_net(), 3)
    inputs, targets = subject.inputs[:4], subject.targets[:4]
    original = plain_gradient(subject.model, inputs.clone(), targets).sum(1)
    seed = derive("bottom_up", subject.name, 0, 0)
    expected = [
        maps.spearman(original, plain_gradient(twin, inputs.clone(), targets).sum(1))
        for _, twin in randomization.bottom_up(subject.model, subject.inputs, seed)
    ]
    scores = smooth_mprt.measure(gradient, subject, Draw(n=4, redraws=1), Smoothing(samples=3, noise=0.0))
    np.testing.assert_allclose(scores.values[0, 0], torch.stack(expected).mean(0), atol=1e-4)


@pytest.mark.parametrize("metric", [efficient_mprt, smooth_mprt])
def test_neither_is_gated(metric):
    assert metric.bound is None
    assert metric.reference
