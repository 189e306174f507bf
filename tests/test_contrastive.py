"""Contrasts against the identities of the softmax, sums over classes, and the published code's own slip."""

from __future__ import annotations

import functools
from dataclasses import replace

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import saliency_checks as sc
from saliency_checks.method import as_method
from saliency_checks.methods.contrastive import contrasted, max_contrast, mean_contrast, weighted_contrast
from saliency_checks.methods.gradient import gradient, gradient_magnitude, smoothgrad
from saliency_checks.methods.path import integrated_gradients
from saliency_checks.subject import Subject

from nets import CLASSES, Hidden, Y, images, kinked, linear, randomised, smooth, weights
from toys import conv_net, noise

laws = settings(max_examples=5, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
CONTRASTS = (mean_contrast, max_contrast, weighted_contrast)
contrasts = pytest.mark.parametrize("contrast", CONTRASTS, ids=lambda contrast: contrast.__name__)


def class_by_class(method):
    """Without the short cut through one combined logit."""
    base = as_method(method)
    return replace(base, claims=base.claims - {"linearity"})


FEW = as_method(functools.partial(smoothgrad, samples=3), stochastic=True, claims={"linearity"})
BASES = {
    "gradient": gradient,
    "gradient, class by class": class_by_class(gradient),
    "magnitude": gradient_magnitude,
    "integrated gradients": integrated_gradients,
    "smoothgrad": FEW,
    "smoothgrad, class by class": class_by_class(FEW),
}
DETERMINISTIC = {name: base for name, base in BASES.items() if "smoothgrad" not in name}
bases = pytest.mark.parametrize("base", BASES.values(), ids=BASES)


def seeded(method, *args, seed=0):
    torch.manual_seed(seed)
    return method(*args)


def every_class(method, model, x):
    """(K, N, C, H, W): the maps of all classes, with the same draws."""
    return torch.stack([seeded(method, model, x, torch.full((len(x),), k)) for k in range(CLASSES)])


def probabilities(model, x):
    return model(x).detach().softmax(1).T.view(CLASSES, -1, 1, 1, 1)


# Formulas ------------------------------------------------------------------------------------------------------------


@laws
@given(seed=seeds)
def test_the_weighted_contrast_of_gradients_is_that_of_the_log_probability_without_its_scale(seed):
    model, x = kinked(seed), images(seed=seed).requires_grad_()
    log_p = model(x).log_softmax(1)[torch.arange(3), Y]
    expected = torch.autograd.grad(log_p.sum(), x)[0] / (1 - log_p.exp()).detach().view(-1, 1, 1, 1)
    for base in (gradient, class_by_class(gradient)):
        torch.testing.assert_close(weighted_contrast(base)(model, x.detach(), Y), expected)


def test_that_law_kills_weights_that_are_differentiated_too():
    """The objective of the published code: y_t minus the softmax-weighted mean of the others, nothing held fixed."""
    model, x = smooth(), images().requires_grad_()
    logits = model(x)
    own = nn.functional.one_hot(Y, CLASSES).bool()
    others = logits.masked_fill(own, -torch.inf).softmax(1)
    score = logits[own] - (others * logits.masked_fill(own, 0)).sum(1)
    theirs = torch.autograd.grad(score.sum(), x)[0]
    assert not torch.allclose(theirs, weighted_contrast(gradient)(model, x.detach(), Y), rtol=0.05)


def test_a_linear_model_is_explained_by_the_difference_of_its_weights():
    model, x = linear(), images()
    w, logits = weights(model, torch.arange(CLASSES)), model(x).detach()
    for i, t in enumerate(Y.tolist()):
        others = [s for s in range(CLASSES) if s != t]
        a = logits[i, others].softmax(0).view(-1, 1, 1, 1)
        expected = {
            mean_contrast: w[t] - w[others].mean(0),
            max_contrast: w[t] - w[others[int(logits[i, others].argmax())]],
            weighted_contrast: w[t] - (a * w[others]).sum(0),
        }
        for contrast, value in expected.items():
            torch.testing.assert_close(contrast(gradient)(model, x, Y)[i], value)
            torch.testing.assert_close(contrast(integrated_gradients)(model, x, Y)[i], value * x[i])


@pytest.mark.parametrize("base", DETERMINISTIC.values(), ids=DETERMINISTIC)
def test_contrasts_are_sums_over_the_maps_of_the_classes(base):
    model, x = smooth(), images()
    phi, logits = every_class(as_method(base), model, x), model(x).detach()
    for i, t in enumerate(Y.tolist()):
        others = [s for s in range(CLASSES) if s != t]
        a = logits[i, others].softmax(0).view(-1, 1, 1, 1)
        expected = {
            mean_contrast: phi[t, i] - phi[others, i].mean(0),
            max_contrast: phi[t, i] - phi[others, i][logits[i, others].argmax()],
            weighted_contrast: phi[t, i] - (a * phi[others, i]).sum(0),
        }
        for contrast, value in expected.items():
            torch.testing.assert_close(contrast(base)(model, x, Y)[i], value)


# Identities ----------------------------------------------------------------------------------------------------------


@bases
@laws
@given(seed=seeds)
def test_over_all_classes_contrasts_cancel(base, seed):
    """sum_t phi_mean^t = 0 and sum_t p_t (1 - p_t) phi_weighted^t = 0; draws of a stochastic base are the same."""
    model, x = kinked(seed), images(seed=seed)
    p = probabilities(model, x)
    mean, weighted = (every_class(contrast(base), model, x) for contrast in (mean_contrast, weighted_contrast))
    scale = mean.abs().max()
    assert scale > 0
    assert mean.sum(0).abs().max() < 1e-12 * scale
    assert (p * (1 - p) * weighted).sum(0).abs().max() < 1e-12 * scale


@bases
def test_of_two_classes_all_contrasts_are_one_and_each_is_the_other_s_opposite(base):
    model, x = randomised(Hidden(classes=2)), images()
    zero, one = torch.zeros(3, dtype=torch.long), torch.ones(3, dtype=torch.long)
    first = seeded(max_contrast(base), model, x, zero)
    torch.testing.assert_close(first, -seeded(max_contrast(base), model, x, one))
    for contrast in (mean_contrast, weighted_contrast):
        torch.testing.assert_close(first, seeded(contrast(base), model, x, zero))


class Lifted(nn.Module):
    """One function added to every logit: no probability changes."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x) + 7 * (x**3).flatten(1).sum(1, keepdim=True)


@contrasts
@pytest.mark.parametrize("base", [b for k, b in BASES.items() if k != "magnitude"])
def test_what_speaks_for_all_classes_alike_speaks_for_none(contrast, base):
    model, x = smooth(), images()
    lifted, plain = (seeded(contrast(base), one, x, Y) for one in (Lifted(model), model))
    torch.testing.assert_close(lifted, plain, rtol=1e-7, atol=1e-9)
    if not as_method(base).stochastic:
        assert not torch.allclose(as_method(base)(Lifted(model), x, Y), as_method(base)(model, x, Y), rtol=0.1)


# The wrapper ---------------------------------------------------------------------------------------------------------


@contrasts
@pytest.mark.parametrize("base", ["gradient", "occlusion", "integrated_gradients"])
def test_the_short_cut_of_linear_methods_changes_nothing(contrast, base):
    model, x = smooth(), images()
    torch.testing.assert_close(contrast(base)(model, x, Y), contrast(class_by_class(base))(model, x, Y))


@contrasts
def test_an_image_s_contrast_does_not_depend_on_its_neighbours(contrast):
    model, x = smooth(), images()
    for base in (gradient, class_by_class(gradient)):
        alone = torch.cat([contrast(base)(model, x[i : i + 1], Y[i : i + 1]) for i in range(3)])
        torch.testing.assert_close(contrast(base)(model, x, Y), alone)


@contrasts
def test_a_model_of_one_class_has_nothing_to_contrast_with(contrast):
    model, x = randomised(Hidden(classes=1)), images()
    for base in (gradient, class_by_class(gradient)):
        torch.testing.assert_close(contrast(base)(model, x, 0 * Y), gradient(model, x, 0 * Y))


def test_a_maximum_takes_two_classes_and_no_more():
    calls = []

    def counts(model, inputs, targets):
        calls.append(targets)
        return gradient(model, inputs, targets)

    model, x = smooth(), images()
    torch.testing.assert_close(max_contrast(counts)(model, x, Y), max_contrast(gradient)(model, x, Y))
    assert len(calls) == 2
    assert ((calls[0] == Y) != (calls[1] == Y)).all()


def test_a_formula_of_a_user_s_own_makes_a_contrast_too():
    half = contrasted(gradient, lambda others: 0.5 * others.isfinite(), "half")
    phi = every_class(gradient, smooth(), images())
    expected = 1.5 * phi[Y, range(3)] - 0.5 * phi.sum(0)
    torch.testing.assert_close(half(smooth(), images(), Y), expected)
    assert half.name == "gradient_half_contrast"


@contrasts
def test_anything_that_explains_can_be_contrasted_and_judged(contrast):
    subject = Subject(conv_net(), noise(8, 3), torch.arange(8) % 4, name="tiny", references=noise(4, 3, seed=3))
    given = {
        "captum_class": captum.attr.InputXGradient,
        "flat": lambda model, inputs, targets: gradient(model, inputs, targets).abs().sum(1),
        "arrays": lambda model, inputs, targets: gradient(model, inputs, targets).numpy(),
    }
    for name, spec in given.items():
        result = sc.run("contract", contrast(as_method(spec, name=name)), subject)
        assert result.verdict == "pass", result.message
    for name in ("grad_cam", "expected_gradients", "smoothgrad"):
        result = sc.run("contract", contrast(name), subject)
        assert result.verdict == "pass", result.message


def test_the_contrast_needs_what_its_base_needs_and_claims_what_is_left():
    weighted, mean = weighted_contrast(integrated_gradients), mean_contrast(integrated_gradients)
    integrated_gradients_claims = as_method(integrated_gradients).claims
    assert (weighted.needs, weighted.signed, weighted.stochastic) == ({"gradient", "baseline"}, True, False)
    assert integrated_gradients_claims - weighted.claims == {"completeness", "linearity", "scale"}
    assert integrated_gradients_claims - mean.claims == {"completeness"}
    assert "gradient_weighted_contrast" in sc.names("methods")
