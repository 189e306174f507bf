"""Laws of every registered metric: neither batch, order nor precision changes a score beyond rounding."""

from __future__ import annotations

import copy
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import saliency_checks as sc
from saliency_checks import chunking
from saliency_checks.metric import Draw
from saliency_checks.patch import PatchRecipe
from saliency_checks.subject import Subject, Twins

from toys import SIZE, Detector, detector, made, mlp, plain_gradient, white_noise

IMAGES, FEW = 44, 40  # one block and a part of another
FEWER = {"draws": 3, "count": 9, "samples": 2, "segments": "grid", "patch": PatchRecipe(steps=20, images=4)}
NAMES = [name for name in sc.names("metrics") if "networks" not in sc.get("metrics", name).needs]  # it draws its own
# What they draw belongs to an image by its number: a patch's place, another class, noise, orders to compare with.
BY_NUMBER = {
    "average_sensitivity", "crop_agreement", "deletion", "deletion_black", "deletion_insertion", "impact_coverage",
    "insertion", "insertion_black", "local_lipschitz", "max_sensitivity", "mixup_agreement", "monotonicity_correlation",
    "planted_deletion", "random_logit", "road", "rotation_agreement", "smooth_mprt",
}  # fmt: skip


def of_single(parameter: torch.Tensor) -> None:
    """Drawn in float32 whatever the precision, so that the weights are the same in both."""
    with torch.no_grad():
        parameter.copy_(0.3 * torch.randn(parameter.shape))


class Convolution(nn.Conv2d):
    def reset_parameters(self) -> None:
        of_single(self.weight)


class Linear(nn.Linear):
    def reset_parameters(self) -> None:
        of_single(self.weight)


class Cause(Detector):
    """The linear detector, with a layer whose weights can be drawn again."""

    def __init__(self) -> None:
        super().__init__()
        known = self.head
        self.head = Linear(known.in_features, known.out_features)
        self.head.load_state_dict(known.state_dict())


class Everything(nn.Module):
    """A cause of one pixel whose size may be chosen, and evidence of everywhere beside it; takes images of any size."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        convolution = Convolution(1, 4, 3, padding=1, bias=False)
        self.rest = nn.Sequential(convolution, nn.Tanh(), nn.Flatten(), Linear(4 * SIZE**2, 4, bias=False))
        self.cause, self.effect = Cause(), 1.0
        of_single(self.rest[3].weight.data.div_(4))

    def forward(self, x):
        x = F.interpolate(x, size=(SIZE, SIZE), mode="bilinear")
        return 0.2 * self.rest(x) + self.effect * self.cause(x)

    def at(self, effect: float) -> nn.Module:
        model = copy.copy(self)
        model.effect = effect
        return model


@cache
def offered(dtype: torch.dtype) -> Subject:
    """One that offers whatever a metric may ask for."""
    known = detector(IMAGES)
    assert known.contrast is not None
    contrast = replace(known.contrast, inputs=known.contrast.inputs.to(dtype))
    twins = Twins(
        same=tuple(mlp(seed=i).to(dtype) for i in (0, 1)), permuted=(mlp(seed=2).to(dtype),),
        inputs=known.inputs.to(dtype), targets=known.targets,
    )  # fmt: skip
    return replace(
        known, model=Everything().eval().to(dtype), inputs=known.inputs.to(dtype), contrast=contrast, graded=True,
        twins=lambda: twins, name="everything",
    )  # fmt: skip


def fresh(dtype: torch.dtype = torch.float64) -> Subject:
    """With nothing measured on it yet."""
    return replace(offered(dtype))


# Nowhere flat, so that nothing ties; and one that misses the cause, which importance is about.
smooth = made(lambda m, x, t: plain_gradient(m, x, t) + 0.1 * x.detach() ** 2, "smooth", signed=True)
astray = made(lambda m, x, t: x.detach().flip(3), "astray", signed=True)


def scores(name: str, subject: Subject, method: sc.Method | None = None, n: int = IMAGES) -> np.ndarray:
    metric = sc.get("metrics", name)
    changes = {key: value for key, value in FEWER.items() if hasattr(metric.settings, key)}
    metric = metric.with_settings(**changes) if changes else metric
    method = method or (astray if name.endswith("_importance") else smooth)
    return metric.measure(method, subject, Draw(n=n, redraws=1)).values


@cache
def expected(name: str) -> np.ndarray:
    return scores(name, fresh())


@pytest.mark.parametrize("name", NAMES)
def test_the_batch_changes_no_score(name, monkeypatch):
    monkeypatch.setattr(chunking, "ELEMENTS_PER_PASS", 7 * SIZE**2)
    np.testing.assert_allclose(scores(name, fresh()), expected(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_further_images_change_no_score(name):
    found = scores(name, fresh(), n=FEW)
    np.testing.assert_allclose(found, expected(name)[..., : found.shape[-1]], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_what_was_measured_before_changes_no_score(name):
    """Curves, draws and maps that others left on the subject are the ones that it would have made."""
    subject = fresh()
    for other in ("srg", "sensitivity_n", "irof", "infidelity", "pointing_game"):
        scores(other, subject)
    scores(name, subject, method=white_noise if not name.endswith("_importance") else None)
    np.testing.assert_allclose(scores(name, subject), expected(name), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BY_NUMBER])
def test_the_order_of_the_images_changes_no_score(name):
    subject = fresh()
    held = ("inputs", "targets", "truth", "decoys")
    turned = replace(subject, **{each: getattr(subject, each).flip(0) for each in held})
    contrast, twins = subject.contrast, subject.twins()
    turned = replace(
        turned,
        contrast=replace(contrast, **{e: getattr(contrast, e).flip(0) for e in ("inputs", "targets", "sites")}),
        twins=lambda: replace(twins, inputs=twins.inputs.flip(0), targets=twins.targets.flip(0)),
    )
    found = scores(name, turned)
    found = found if name == "contract" else found[..., ::-1]  # a score for each clause, not for each image
    np.testing.assert_allclose(found, expected(name), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_precision_changes_no_score_beyond_rounding(name):
    np.testing.assert_allclose(scores(name, fresh(torch.float32)), expected(name), rtol=1e-3, atol=1e-4)


def test_what_is_drawn_for_a_number_is_another_for_another_number():
    """Each name in ``BY_NUMBER`` is there for a reason: turned around, its images get other draws."""
    for name in BY_NUMBER:
        subject = fresh()
        held = ("inputs", "targets", "truth", "decoys")
        turned = replace(subject, **{each: getattr(subject, each).flip(0) for each in held})
        found = scores(name, turned)[..., ::-1]
        assert found.shape != expected(name).shape or not np.allclose(found, expected(name), rtol=1e-9, atol=1e-9)
