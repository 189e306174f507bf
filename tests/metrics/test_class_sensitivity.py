"""A linear detector answers for each class with its own pixel; who ignores the class scores 0."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from saliency_checks.metric import Draw
from saliency_checks.metrics.class_advantage import SHARES, class_advantage
from saliency_checks.metrics.class_sensitivity import least_likely_contrast, random_logit
from saliency_checks.run import run
from saliency_checks.subject import Subject

from toys import constant, conv_net, detector, gradient, made, magnitude, noise, plain_gradient, subject_of, white_noise
from toys import zero as zero_map

FALLS = (random_logit, least_likely_contrast)
fixed = made(lambda m, x, t: plain_gradient(m, x, 0 * t), "fixed", signed=True)
predicted = made(lambda m, x, t: plain_gradient(m, x, m(x).argmax(1)), "predicted", signed=True)


def mean(metric, method, subject=None, n=64):
    return float(metric.measure(method, subject or detector(n), Draw(n=n)).values.mean())


@pytest.mark.parametrize("metric", FALLS, ids=lambda m: m.name)
def test_two_single_pixels_correlate_by_minus_one_in_63(metric):
    assert mean(metric, gradient) == pytest.approx(1 + 1 / 63, abs=1e-6)


@pytest.mark.parametrize("metric", FALLS, ids=lambda m: m.name)
@pytest.mark.parametrize("method", [fixed, predicted, magnitude, constant, zero_map], ids=lambda m: m.name)
def test_who_ignores_the_class_scores_nothing(metric, method):
    assert mean(metric, method) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("metric", FALLS, ids=lambda m: m.name)
def test_noise_scores_nothing_although_it_changes_every_time(metric):
    assert abs(mean(metric, white_noise, n=256)) < 0.1


def test_two_classes_of_a_softmax_pair_are_each_other_s_negative():
    """Logits that sum to 0: the other class's gradient is the negative, so the correlation is -1 and the fall 2."""

    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(64, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            score = x.flatten(1) @ self.weight
            return torch.stack([score, -score], dim=1)

    subject = Subject(Pair(), noise(8), torch.arange(8) % 2)
    found = random_logit.measure(gradient, subject, Draw(n=8))
    assert found.values.ravel() == pytest.approx(2)
    assert found.details["similarity"] == pytest.approx(-1)


def test_images_whose_given_class_is_the_least_likely_are_left_out():
    subject = subject_of(conv_net(), 3, n=32)
    least = subject.model(subject.inputs).argmin(1)
    expected = int((least != subject.targets).sum())
    assert 0 < expected < 32
    assert least_likely_contrast.measure(gradient, subject, Draw(n=32)).n == expected


@pytest.mark.parametrize("method", [fixed, magnitude, constant, zero_map], ids=lambda m: m.name)
def test_maps_of_no_class_have_no_advantage(method):
    assert not class_advantage.measure(method, detector(32), Draw(n=32)).values.any()


def test_the_advantage_of_the_truth_is_what_its_pixel_carries():
    """Lead of the bright site over the darkest one, by hand: the first deletion takes the first site or the last."""
    subject = detector(32)
    pixels = torch.stack([subject.inputs[:, 0, row, column] for row, column in ((1, 2), (3, 6), (5, 1), (6, 4))], 1)
    top, low = pixels.max(1).values, pixels.min(1).values
    lead = top - low
    by_own, by_other = 0.4 - low, top - 0.4  # the absent value is .4; from the first share on, a pixel is gone
    assert max(1, round(SHARES[0] * 64)) == 1
    exactly = made(lambda m, x, t: plain_gradient(m, x, t) - 1e-3 * sites(x), "exactly", signed=True)
    found = class_advantage.measure(exactly, subject, Draw(n=32)).values.squeeze()
    assert found == pytest.approx(((by_other - by_own) / lead).double().numpy(), abs=1e-5)


def sites(x):
    """All four sites go last but for the one with a gradient."""
    mask = torch.zeros_like(x)
    for row, column in ((1, 2), (3, 6), (5, 1), (6, 4)):
        mask[..., row, column] = 1
    return mask


def test_an_exchanged_class_is_the_last_of_all():
    model = detector(64)
    logits = model.model(model.inputs)
    swap = {int(a): int(b) for a, b in zip(logits.argmax(1), logits.argmin(1), strict=True)}
    assert len(swap) == 4

    def other(m, x, t):
        scores = m(x)
        most, least = scores.argmax(1), scores.argmin(1)
        return plain_gradient(m, x.detach(), torch.where(t == most, least, most))

    swapped = made(other, "swapped", signed=True)
    ranked = [mean(class_advantage, method) for method in (swapped, fixed, gradient)]
    assert ranked == sorted(ranked)
    assert ranked[0] == pytest.approx(-ranked[2], abs=0.05)
    assert abs(mean(class_advantage, white_noise)) < 0.05


@pytest.mark.parametrize("name", ["random_logit", "least_likely_contrast", "class_advantage"])
def test_all_are_reported_with_controls_that_ignore_the_class(name):
    result = run(name, gradient, detector(32))
    assert result.verdict == "reported"
    assert max(result.controls[name] for name in ("input_magnitude", "edges", "constant", "center_blob")) == 0
    assert result.score > 0.5
