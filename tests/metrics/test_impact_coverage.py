"""A model that sees the mean colour: its best patch is known, and what turns it is the patch alone."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import nn

from saliency_checks import cache, patch
from saliency_checks.metric import Draw
from saliency_checks.metrics.impact_coverage import DEFAULT, Coverage, attacked, impact_coverage
from saliency_checks.patch import PatchRecipe, corners, paste, patches
from saliency_checks.run import run

from toys import MeanColour, colours, constant, contribution, made, plain_gradient, white_noise, zero

SIDE = 6  # a patch of 36 among 400 pixels: int(sqrt(.1 * 400)) = 6
FAST = Coverage(patch=PatchRecipe(steps=40, images=4))
CHANCE = 0.09 / (2 - 0.09)


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory):
    """One for all tests: they share their patches."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(cache.VARIABLE, str(tmp_path_factory.mktemp("patches")))
        yield


def values(method, subject, n=40, given=FAST):
    return impact_coverage.measure(method, subject, Draw(n=n), settings=given).values.squeeze((0, 1))


truth = made(contribution, "truth", signed=True)


def test_the_trained_patch_is_the_best_there_is():
    """Its class's channel at the images' largest value, all others at their least."""
    subject = colours()
    found = patches(subject, FAST.patch)
    assert found.targets.tolist() == [0, 1, 2]
    assert found.squares.shape == (3, 3, SIDE, SIDE)
    low, high = (subject.inputs.amin((0, 2, 3)), subject.inputs.amax((0, 2, 3)))
    expected = torch.where(torch.eye(3, dtype=torch.bool), high, low)
    torch.testing.assert_close(found.squares, expected.view(3, 3, 1, 1).expand_as(found.squares), atol=2e-3, rtol=0)


def test_training_happens_once_per_model_and_leaves_it_alone(monkeypatch):
    subject = colours()
    first = patches(subject, FAST.patch)
    monkeypatch.setattr(patch, "_train", None)
    again = patches(replace(subject), FAST.patch)
    assert torch.equal(first.squares, again.squares)
    assert subject.model.scale.grad is None
    with pytest.raises(TypeError):  # other weights, another recipe, other images: trained anew
        patches(replace(subject, model=MeanColour(50.0)), FAST.patch)
    with pytest.raises(TypeError):
        patches(replace(subject), PatchRecipe(steps=41))
    with pytest.raises(TypeError):
        patches(replace(subject, inputs=subject.inputs + 1e-3), FAST.patch)


@given(height=st.integers(4, 9), width=st.integers(4, 9), side=st.integers(1, 4), seed=st.integers(0, 10**6))
@settings(deadline=None, max_examples=30)
def test_pasting_is_a_slice_assignment(height, width, side, seed):
    rng = torch.Generator().manual_seed(seed)
    images, squares = torch.rand(3, 2, height, width, generator=rng), 2 + torch.rand(3, 2, side, side, generator=rng)
    places = corners(3, (height, width), side, rng)
    found, masks = paste(images, squares, places)
    for image, square, (row, column), one, mask in zip(images, squares, places.tolist(), found, masks, strict=True):
        expected = image.clone()
        expected[:, row : row + side, column : column + side] = square
        assert torch.equal(one, expected)
        assert torch.equal(mask, (expected != image).all(0))


def test_places_are_uniform_over_all_that_hold_the_patch():
    """Chi-square over 4 x 3 places, alpha 1e-4."""
    found = corners(2400, (6, 5), 3, torch.Generator().manual_seed(0))
    counts = (found[:, 0] * 3 + found[:, 1]).bincount(minlength=12)
    assert len(counts) == 12
    assert stats.chisquare(counts).pvalue > 1e-4


def test_each_turned_image_has_a_patch_of_a_third_class_at_its_own_place():
    """The class that is given is not the one that the model sees, and neither may be the patch's."""
    subject = colours(targets=1)
    attack = attacked(subject, 40, 0, FAST)
    before, after = (subject.model(x).argmax(1) for x in (subject.inputs, attack.inputs))
    assert attack.turned.sum() > 20
    assert (after == attack.targets)[attack.turned].all()
    assert (before != attack.targets)[attack.turned].all()
    assert (subject.targets != attack.targets)[attack.turned].all()
    assert (attack.masks.flatten(1).sum(1)[attack.turned] == SIDE**2).all()
    assert ((attack.inputs != subject.inputs).any(1) <= attack.masks).all()
    assert len({tuple(mask.nonzero()[0].tolist()) for mask in attack.masks[attack.turned]}) > 15


def test_images_that_no_patch_turns_are_not_scored():
    subject = colours()
    subject.inputs[::4] = torch.tensor([0.5, 0.3, 0.3]).view(1, 3, 1, 1)
    turned = attacked(subject, 40, 0, FAST).turned
    assert turned.tolist() == [i % 4 > 0 for i in range(40)]
    found = values(truth, subject)
    assert len(found) == 30
    assert found.min() > 0.5


def test_the_cause_is_first_noise_at_chance_and_its_inverse_last():
    subject = colours()
    found = [
        float(values(method, subject).mean())
        for method in (made(lambda m, x, t: -contribution(m, x, t), "inverse", signed=True), white_noise, truth)
    ]
    assert found[0] == 0
    assert found[1] == pytest.approx(CHANCE, abs=0.02)
    assert found[2] > 0.9


@pytest.mark.parametrize("method", [constant, zero], ids=lambda m: m.name)
def test_a_constant_map_is_exactly_at_chance(method):
    np.testing.assert_allclose(values(method, colours()), CHANCE, atol=1e-9)


def test_the_gradient_of_this_model_is_the_same_everywhere_and_gets_no_more():
    gradient = made(plain_gradient, "gradient", signed=True)
    np.testing.assert_allclose(values(gradient, colours()), CHANCE, atol=1e-9)


def test_the_patch_s_class_is_asked_on_the_same_images_for_every_method():
    subject, seen = colours(), []

    def look(model, inputs, targets):
        seen.append((inputs.clone(), targets.clone()))
        return contribution(model, inputs, targets)

    values(made(look, "one"), subject)
    values(made(look, "two"), subject)
    attack = attacked(subject, 40, 0, FAST)
    half = len(seen) // 2
    for inputs, targets in (
        map(torch.cat, zip(*seen[:half], strict=True)),
        map(torch.cat, zip(*seen[half:], strict=True)),
    ):
        assert torch.equal(inputs, attack.inputs)
        assert torch.equal(targets, attack.targets)


def test_increasing_transforms_and_the_number_of_images_change_nothing():
    subject = colours()
    found = values(truth, subject)
    powered = made(lambda m, x, t: torch.exp(3 * contribution(m, x, t)), "powered", signed=True)
    np.testing.assert_array_equal(values(powered, subject), found)
    few = values(truth, colours(), n=8)
    np.testing.assert_array_equal(few, found[: len(few)])


def test_a_model_that_no_patch_turns_does_not_qualify():
    class Deaf(nn.Module):
        def forward(self, x):
            return torch.tensor([1.0, 0.0, 0.0]) + 0 * x.mean((2, 3))

    deaf = replace(colours(), model=Deaf(), targets=torch.zeros(40, dtype=torch.long))
    quick = Coverage(patch=PatchRecipe(steps=2, images=2), tries=5)
    result = run(
        replace(impact_coverage, measure=lambda m, s, d: impact_coverage.measure(m, s, d, settings=quick)), truth, deaf
    )
    assert result.verdict == "skip"
    assert "turn only 0%" in result.message


def test_pixels_are_ranked_by_size_where_the_map_is_no_contribution():
    subject = colours()
    negative = made(lambda m, x, t: -contribution(m, x, t).clamp(min=0), "negative", signed=False)
    assert values(negative, subject).mean() > 0.9


def test_presets_name_the_original_s_settings():
    assert impact_coverage.with_preset("attribench").settings == DEFAULT
    assert (DEFAULT.tries, DEFAULT.patch.area, DEFAULT.patch.classes, DEFAULT.patch.rate) == (51, 0.1, 10, 0.05)
