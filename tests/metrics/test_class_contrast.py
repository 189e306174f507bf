"""Two causes in one image: a linear detector answers for each class with its own pixel."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from saliency_checks.metric import Draw
from saliency_checks.metrics.class_contrast import class_contrast
from saliency_checks.run import run

from toys import changed, constant, detector, gradient, made, magnitude, negated, plain_gradient, white_noise, zero


def values(method, n=64, subject=None, **settings):
    return class_contrast.measure(method, subject or detector(n), Draw(n=n, **settings)).values


def second_class(model, inputs, targets):
    """The gradient of the other class of the pair; pairs are neighbours on a circle, so try both sides."""
    return sum(plain_gradient(model, inputs.detach(), (targets + step) % 4) for step in (1, 3))


fixed = made(lambda m, x, t: plain_gradient(m, x, 0 * t), "fixed", signed=True)
predicted = made(lambda m, x, t: plain_gradient(m, x, m(x).argmax(1)), "predicted", signed=True)
swapped = made(second_class, "swapped", signed=True)


def test_the_truth_scores_one_its_negation_and_the_other_class_zero():
    assert values(gradient).tolist() == np.ones((1, 1, 64)).tolist()
    assert not values(negated).any()
    assert not values(swapped).any()


@pytest.mark.parametrize("method", [constant, zero, fixed, predicted], ids=lambda m: m.name)
def test_who_ignores_the_class_scores_exactly_a_half(method):
    found = values(method)
    assert found.mean() == 0.5
    assert set(np.unique(found)) <= {0.25, 0.5, 0.75}


def test_a_map_of_the_input_answers_both_questions_alike():
    assert (values(magnitude) == 0.5).all()


def test_white_noise_is_at_chance():
    """Binomial over both questions, alpha 1e-4."""
    found = values(white_noise, 400)
    assert stats.binomtest(int(2 * found.sum()), 800, 0.5).pvalue > 1e-4


@pytest.mark.parametrize("increasing", [torch.exp, torch.tanh, lambda g: 3 * g - 1], ids=["exp", "tanh", "affine"])
def test_an_increasing_transform_of_the_summed_map_changes_nothing(increasing):
    def dense(m, x, t):
        ripple = torch.sin(97 * torch.arange(64.0).view(8, 8) + 1000 * x.detach().mean((1, 2, 3)).view(-1, 1, 1) + t[0])
        return plain_gradient(m, x, t).sum(1) / 8 + ripple

    one = values(made(dense, "dense", signed=True))
    two = values(made(lambda m, x, t: increasing(dense(m, x, t)), "transformed", signed=True))
    assert np.array_equal(one, two)
    assert 0 < one.mean() < 1


def test_each_question_gets_its_own_class_and_both_sites_their_own_place():
    subject, asked = detector(32), []

    def look(m, x, t):
        asked.append((x.clone(), t.clone()))
        return torch.rand_like(x)

    values(made(look), 32, subject)
    assert [torch.equal(t, subject.contrast.targets[:, i]) for i, (_, t) in enumerate(asked)] == [True, True]
    assert all(torch.equal(x, subject.contrast.inputs) for x, _ in asked)


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(gradient, "pass"), (negated, "fail"), (swapped, "fail"), (fixed, "fail"), (predicted, "fail"), (constant, "fail"),
     (zero, "fail"), (magnitude, "fail"), (white_noise, "fail"), (changed(lambda g: g.flip(3), "flipped"), "fail")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    assert run("class_contrast", method, detector(192)).verdict == verdict
