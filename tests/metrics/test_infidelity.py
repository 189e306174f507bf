"""Infidelity: 0 for the weights of a linear model, blind to sign and scale, 1 for a zero map, captum's numbers."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.metrics import infidelity as captums
from hypothesis import given, settings
from hypothesis import strategies as st

import saliency_checks as sc
from saliency_checks.metric import Draw
from saliency_checks.metrics.infidelity import error
from saliency_checks.perturbation import Nudges
from saliency_checks.perturbation.nudges import _over_all, changed

from toys import constant, conv_net, gradient, made, subject_of, weight, weighted, white_noise, zero

KINDS = ("square", "gaussian", "noisy_baseline")


def measured(method, subject, n=12, **changes):
    return (
        sc.get("metrics", "infidelity")
        .with_settings(draws=40, **changes)
        .measure(method, subject, Draw(n=n))
        .values[0, 0]
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", ["share", "best", "none"])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_weights_of_a_linear_model_foretell_everything(kind, scale, channels):
    found = measured(weight, weighted(channels=channels), kind=kind, scale=scale)
    np.testing.assert_allclose(found, 0, atol=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 99), st.sampled_from(KINDS), st.floats(1e-3, 1e3), st.sampled_from([1, 3]))
def test_neither_sign_nor_scale_of_a_map_count(seed, kind, factor, channels):
    subject = subject_of(conv_net(channels, seed=seed % 3).double(), channels, n=4)
    subject = replace(subject, inputs=subject.inputs.double())
    maps = torch.randn(4, channels, 8, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one, two, three = (made(lambda m, x, t, f=f: f * maps, f"m{i}", signed=True) for i, f in enumerate((1, -1, factor)))
    for scale in ("share", "best"):
        found = [measured(m, subject, 4, kind=kind, scale=scale) for m in (one, two, three)]
        np.testing.assert_allclose(found[1], found[0], rtol=1e-9)
        np.testing.assert_allclose(found[2], found[0], rtol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_map_is_last_and_never_better_than_any_other(kind):
    subject = subject_of(conv_net().double(), 3, n=4)
    subject = replace(subject, inputs=subject.inputs.double())
    found = {m.name: measured(m, subject, 4, kind=kind) for m in (gradient, white_noise, constant, zero)}
    np.testing.assert_array_equal(found["zero"], 1)
    assert found["gradient"].mean() < min(found["white_noise"].mean(), 1)
    for values in found.values():
        assert ((values >= 0) & (values <= 1)).all()


def test_a_zero_map_has_the_mean_square_of_the_changes_and_nothing_can_be_worse_at_its_best_scale():
    rng = torch.Generator().manual_seed(0)
    fall = torch.randn(50, 3, generator=rng, dtype=torch.float64)
    most = fall.square().mean(0)
    torch.testing.assert_close(error(torch.zeros_like(fall), fall, "best"), most)
    for _ in range(20):
        expected = torch.randn(50, 3, generator=rng, dtype=torch.float64)
        assert bool((error(expected, fall, "best") <= most + 1e-12).all())
    assert bool((error(torch.zeros_like(fall), torch.zeros_like(fall)) == 1).all())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalize", [True, False])
def test_it_is_captums_on_the_same_nudges(kind, normalize):
    subject = subject_of(conv_net().double(), 3, n=4)
    subject = replace(subject, inputs=subject.inputs.double())
    given = Nudges(kind=kind, draws=20)
    nudged = _over_all(subject, slice(0, 4), 0, given, lambda x, image: x.flatten(1)).view(20, 4, 3, 8, 8)
    attributions = gradient.explain(subject.model, subject.inputs.clone(), subject.targets)

    def replayed(inputs):
        """captum repeats each image for as many samples as it takes at once: all twenty of one image in a row."""
        x = nudged.transpose(0, 1).flatten(0, 1)
        return inputs - x, x

    expected = captums(
        subject.model, replayed, subject.inputs, attributions, target=subject.targets, n_perturb_samples=20,
        normalize=normalize,
    ).detach()  # fmt: skip
    found = measured_with(given, "best" if normalize else "none", subject)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-6)


def measured_with(given, scale, subject):
    metric = sc.get("metrics", "infidelity").with_settings(kind=given.kind, draws=given.draws, scale=scale)
    return metric.measure(gradient, subject, Draw(n=4)).values[0, 0]


def test_every_square_lies_in_the_image_and_reaches_its_last_row_and_column():
    subject, given = weighted(2, size=6), Nudges(kind="square", side=3, draws=300, imputer="black")
    inputs = torch.ones_like(subject.inputs)
    nudged = _over_all(replace(subject, inputs=inputs), slice(0, 2), 0, given, lambda x, image: x.flatten(1))
    gone = (nudged == 0).view(300, 2, 6, 6)
    assert bool((gone.sum((2, 3)) == 9).all())
    assert bool(gone.any(0).all())
    assert torch.equal(gone[:, 0], gone[:, 1])  # one place for all images


def test_a_clamped_nudge_stays_in_the_range_of_the_subjects_images():
    subject = weighted(4)
    given = Nudges(kind="gaussian", deviation=3.0, clamp=True, draws=20)
    nudged = _over_all(subject, slice(0, 4), 0, given, lambda x, image: x.flatten(1))
    assert subject.inputs.min() <= nudged.min()
    assert nudged.max() <= subject.inputs.max()
    np.testing.assert_allclose(measured(weight, subject, kind="gaussian", clamp=True, deviation=3.0), 0, atol=1e-9)


def test_the_model_is_asked_once_for_all_methods():
    subject = weighted(4)
    assert changed(subject, slice(0, 4), 0, Nudges()) is changed(subject, slice(0, 4), 0, Nudges(scale="best"))


def test_a_map_with_channels_is_not_summed_unless_it_is_asked():
    """Two channels of opposite weights: their sum says nothing, each alone everything."""
    subject = weighted(channels=2)
    with torch.no_grad():
        subject.model.weight[:, 1] = -subject.model.weight[:, 0]
    np.testing.assert_allclose(measured(weight, subject, kind="gaussian"), 0, atol=1e-9)
    np.testing.assert_allclose(measured(weight, subject, kind="gaussian", unit="pixel"), 1, atol=1e-9)
