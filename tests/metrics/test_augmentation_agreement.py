"""Models that follow an augmentation exactly, and one that does not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from saliency_checks.augment import AUGMENTATIONS, Resize, Rotation
from saliency_checks.metric import Draw
from saliency_checks.metrics.augmentation_agreement import METRICS, agreement, linear
from saliency_checks.run import run

from toys import Pixelwise, changed, constant, gradient, made, magnitude, plain_gradient, smooth, white_noise, zero


class Positional(nn.Module):
    """Linear, with a weight of its own for every place."""

    def __init__(self, size=12):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, size * size, generator=torch.Generator().manual_seed(0)))

    def forward(self, x):
        return x.flatten(1) @ self.weight.T


def mean(method, subject, augmentation):
    return float(agreement(method, subject, Draw(n=12), augmentation).values.mean())


input_gradient = made(lambda m, x, t: plain_gradient(m, x, t) * x.detach(), "input_gradient", signed=True)


@pytest.mark.parametrize("augmentation", ["flip", Rotation(degrees=(90.0, 180.0, 270.0))], ids=str)
def test_an_equivariant_method_on_an_equivariant_model_agrees_exactly(augmentation):
    for method in (gradient, input_gradient):
        assert mean(method, smooth(Pixelwise()), augmentation) == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("augmentation", ["rotation", "crop", Resize(factor=0.5), Resize(factor=2.0)], ids=str)
def test_and_nearly_so_where_images_are_resampled(augmentation):
    assert mean(gradient, smooth(Pixelwise()), augmentation) > 0.95


def test_the_gradient_of_a_linear_model_mixes_as_images_do():
    assert mean(input_gradient, smooth(Positional()), "mixup") == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("augmentation", ["flip", Rotation(degrees=(180.0,))], ids=str)
def test_a_model_that_knows_places_is_found_out(augmentation):
    """The expected map is the weights turned, the found one is the weights as they are."""
    subject = smooth(Positional())
    weights = subject.model.weight.detach()[subject.targets].view(-1, 12, 12)
    turned = weights.flip(2) if augmentation == "flip" else weights.flip(1, 2)
    expected = linear(turned, weights, torch.ones(12, 12, 12, dtype=torch.bool))
    found = agreement(gradient, subject, Draw(n=12), augmentation).values.squeeze()
    assert found == pytest.approx(expected.numpy(), abs=1e-4)
    assert abs(found.mean()) < 0.2


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "resize"])
def test_noise_agrees_with_nothing_constants_get_zero_and_pictures_of_the_image_one(name):
    subject = smooth(Pixelwise())
    assert abs(mean(white_noise, subject, name)) < 0.15
    assert mean(constant, subject, name) == 0
    assert mean(zero, subject, name) == 0
    assert mean(magnitude, subject, name) > 0.95


def test_a_map_that_is_turned_the_wrong_way_is_last():
    backwards = changed(lambda g: g.flip(3).sort(dim=3).values, "sorted")
    subject = smooth(Pixelwise())
    assert mean(changed(torch.neg, "negated"), subject, "flip") == pytest.approx(1, abs=1e-5)  # not its business
    assert mean(backwards, subject, "flip") < 0 < mean(gradient, subject, "flip")


def test_magnitudes_are_read_without_their_sign():
    """A sign that changes with the image's side is none of a magnitude's business."""
    subject = smooth(Pixelwise())
    sides = torch.where(torch.arange(12) < 6, 1.0, -1.0)
    explain = lambda m, x, t: plain_gradient(m, x, t) * sides  # noqa: E731
    assert mean(made(explain, "signed_sides", signed=True), subject, "flip") < 0
    assert mean(made(explain, "unsigned_sides", signed=False), subject, "flip") == pytest.approx(1, abs=1e-5)


def test_only_pixels_that_come_from_the_image_count():
    """Corners of a turned image: whatever the map shows there changes nothing."""
    subject = smooth(Pixelwise())

    def loud_corners(model, inputs, targets):
        found = plain_gradient(model, inputs, targets)
        outside = (inputs.detach() == 0).to(found)
        return found + 1e3 * outside

    turn = Rotation(degrees=(45.0,))
    assert mean(made(loud_corners, signed=True), subject, turn) == pytest.approx(
        mean(gradient, subject, turn), abs=1e-6
    )


def test_a_number_of_images_changes_no_score():
    subject = smooth(Pixelwise())
    for name in ("rotation", "crop", "mixup"):
        few = agreement(gradient, replace(subject), Draw(n=3), name).values
        assert few == pytest.approx(agreement(gradient, subject, Draw(n=12), name).values[..., :3], abs=1e-6)


def test_each_augmentation_is_a_metric_and_a_model_of_one_size_is_skipped():
    assert [metric.name for metric in METRICS] == [f"{name}_agreement" for name in AUGMENTATIONS]
    result = run("flip_agreement", gradient, smooth(Positional()))
    assert result.verdict == "reported"
    assert run("resize_agreement", gradient, smooth(Positional())).verdict == "skip"
