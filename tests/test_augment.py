"""Turned, cropped, resized, mixed: torch and torchvision as second opinion, and the truth moves with the image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.augment import (
    AUGMENTATIONS,
    Crop,
    Flip,
    MixUp,
    Resize,
    Rotation,
    augmented,
    augmented_scores,
    covered,
    moved,
)
from saliency_checks.subject import Subject, Unqualified
from saliency_checks.vision import torchvision

from toys import conv_net, detector, gradient, noise, subject_of


class Pooled(nn.Module):
    """Takes images of any size."""

    def forward(self, x):
        return x.mean((2, 3)) @ torch.eye(x.shape[1], 4)


def functional():
    """torchvision's own functions on tensors."""
    return torchvision().transforms.functional


def images(n=6, size=16):
    return Subject(Pooled(), noise(n, 3, size=size), torch.arange(n) % 4, absent=0.0)


def test_a_flip_exchanges_left_and_right():
    assert torch.equal(augmented(images(), "flip").inputs, images().inputs.flip(3))


@pytest.mark.parametrize("degrees", [90.0, 45.0, 135.0, 225.0, 315.0])
@pytest.mark.parametrize("shape", [(16, 16), (12, 20)])
def test_rotations_agree_with_torchvision_where_nothing_comes_in(degrees, shape):
    stack = torch.rand(3, 2, *shape)
    subject = Subject(Pooled(), stack, torch.zeros(3, dtype=torch.long), absent=0.0)
    mine = augmented(subject, Rotation(degrees=(degrees,))).inputs
    bilinear = torchvision().transforms.InterpolationMode.BILINEAR
    theirs = functional().rotate(stack, degrees, interpolation=bilinear)
    inside = covered(subject, moved(subject, Rotation(degrees=(degrees,))), 3)[:, None].expand_as(mine)
    assert inside.float().mean() > 0.4
    torch.testing.assert_close(mine[inside], theirs[inside], atol=1e-4, rtol=0)


def test_what_comes_in_at_the_corners_is_the_absent_value():
    subject = replace(images(), absent=(0.1, 0.2, 0.3))
    corner = augmented(subject, Rotation(degrees=(45.0,))).inputs[..., 0, 0]
    torch.testing.assert_close(corner, torch.tensor([0.1, 0.2, 0.3]).expand_as(corner), atol=1e-6, rtol=0)


def test_a_crop_is_a_part_of_the_image_enlarged():
    """On an image of its own coordinates: values rise evenly, by the part's share, from within to within."""
    ramp = torch.linspace(-1, 1, 33)
    stack = torch.stack([ramp.expand(33, 33), ramp.expand(33, 33).T]).expand(40, 2, 33, 33).clone()
    subject = Subject(Pooled(), stack, torch.zeros(40, dtype=torch.long), absent=0.0)
    found = augmented(subject, "crop").inputs[:, :, 5:-5, 5:-5]
    width = found[:, 0].diff(dim=2).mean((1, 2)) / (2 / 32)
    height = found[:, 1].diff(dim=1).mean((1, 2)) / (2 / 32)
    assert float(found[:, 0].diff(dim=2).std(dim=(1, 2)).max()) < 1e-3
    assert (found.abs() <= 1).all()
    area, ratio = width * height, width / height
    assert 0.06 < float(area.min()) < 0.3
    assert 0.7 < float(area.max()) <= 1.01
    assert ((ratio > 0.74) & (ratio < 1.35)).all()
    assert float(ratio.std()) > 0.1
    whole = replace(subject, inputs=torch.rand(40, 2, 33, 33))
    torch.testing.assert_close(
        augmented(whole, Crop(area=(1.0, 1.0), ratio=(1.0, 1.0))).inputs, whole.inputs, atol=1e-4, rtol=0
    )


@pytest.mark.parametrize("factor", [0.25, 0.5, 2.0])
def test_resizing_agrees_with_torchvision(factor):
    side = round(16 * factor)
    theirs = functional().resize(images().inputs, [side, side], antialias=True)
    torch.testing.assert_close(augmented(images(), Resize(factor=factor)).inputs, theirs, atol=1e-5, rtol=0)


def test_mixup_lies_between_two_images_of_the_subject():
    subject = images(8)
    change = moved(subject, "mixup")
    found, other = augmented(subject, "mixup").inputs, subject.inputs[change.partners]
    shares = ((found - other) / (subject.inputs - other)).flatten(1)
    alone = change.partners == torch.arange(8)
    assert (found[alone] - subject.inputs[alone]).abs().max() < 1e-6 if alone.any() else True
    for share in shares[~alone]:
        assert 0 <= float(share.median()) <= 1
        assert float((share - share.median()).abs().median()) < 1e-3
    assert len({round(float(share.median()), 3) for share in shares[~alone]}) > 2


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_same_seed_same_images_another_seed_others(name):
    one, two, other = (augmented(images(), name, seed).inputs for seed in (0, 0, 1))
    assert torch.equal(one, two)
    assert torch.equal(one, other) == (name in ("flip", "resize"))


@pytest.mark.parametrize(
    "augmentation", [Flip(), Rotation(), Rotation(degrees=(90.0,)), Crop(area=(0.5, 1.0)), Resize(factor=0.5)], ids=str
)
def test_the_truth_goes_where_its_pixels_go(augmentation):
    subject = images(12)
    truth = torch.zeros(12, 16, 16, dtype=torch.bool)
    truth[:, 5:8, 9:11] = True
    marked = replace(subject, inputs=truth.float().unsqueeze(1).repeat(1, 3, 1, 1), truth=truth)
    found = augmented(marked, augmentation)
    shown = found.truth.flatten(1).any(1)
    assert shown.float().mean() > 0.7  # a crop may lose it
    bright, outside = found.inputs[:, 0], ~found.truth
    dimmest = bright.masked_fill(outside, 2.0).amin((1, 2))
    assert (dimmest > bright.masked_fill(found.truth, -1.0).amax((1, 2)))[shown].all()
    assert (bright.amax((1, 2))[~shown] == 0).all()


def test_a_single_pixel_is_not_lost_in_a_turn():
    subject = replace(images(12), truth=torch.zeros(12, 16, 16, dtype=torch.bool))
    subject.truth[:, 7, 9] = True
    found = augmented(subject, "rotation").truth.flatten(1).sum(1)
    assert ((found >= 1) & (found <= 4)).all()


def test_what_holds_for_the_original_images_only_is_left_out():
    found = augmented(detector(8), "flip")
    assert found.offers.isdisjoint({"truth", "removal", "deletion", "contrast"})
    assert "mask" in found.offers
    assert found.name == "detector_flip"
    assert torch.equal(found.absent_value, detector(8).absent_value)
    assert torch.equal(augmented(detector(8), MixUp()).truth, detector(8).truth)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_the_first_images_are_the_same_among_few_and_many(name):
    subject = replace(images(40), truth=torch.rand(40, 16, 16) > 0.8)
    few, many = augmented(subject, name, first=5), augmented(subject, name)
    assert (len(few), len(many)) == (5, 40)
    assert torch.equal(few.inputs, many.inputs[:5])
    assert torch.equal(few.targets, many.targets[:5])
    assert torch.equal(few.truth, many.truth[:5])


def test_a_model_of_one_size_does_not_qualify_for_another():
    with pytest.raises(Unqualified, match="takes images of 8 x 8, not of 4 x 4"):
        augmented(subject_of(conv_net(), 3), "resize")
    with pytest.raises(ValueError, match="expected one of crop, flip"):
        augmented(images(), "shear")


def test_scores_on_augmented_images_come_as_a_table():
    found = augmented_scores(["sparseness", "pointing_game"], gradient, detector(16), ["flip", "rotation"], n=16)
    assert set(found) == {"flip", "rotation"}
    flipped = sc.measure("pointing_game", gradient, augmented(detector(16), "flip"), n=16)
    assert found["flip"]["pointing_game"] == flipped.mean()
    assert found["flip"]["pointing_game"] < 0.2  # a detector of fixed places does not follow the flip
