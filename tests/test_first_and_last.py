"""Every metric ranks one thing first and one thing last, among what it must tell apart. One without a row fails."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import saliency_checks as sc
from saliency_checks.augment import AUGMENTATIONS
from saliency_checks.metric import Draw, Metric
from saliency_checks.patch import PatchRecipe
from saliency_checks.run import worst_group
from saliency_checks.subject import Subject, Twins

from toys import (
    SITES,
    Detector,
    Pixelwise,
    against,
    colours,
    constant,
    contribution,
    conv_net,
    detector,
    effect,
    gradient,
    inverted,
    made,
    magnitude,
    negated,
    noise,
    site_masks,
    smooth,
    subject_of,
    weight,
    weighted,
    white_noise,
    zero,
)


@dataclass(frozen=True)
class Row:
    """Who is first and who last, on which subject.

    Attributes:
        beside: others that must lie between the two, ends included.
        settings: of the metric, so that it is cheap.
    """

    subject: Callable[[], Subject]
    first: sc.Method
    last: sc.Method
    beside: tuple[sc.Method, ...] = (white_noise, constant, zero)
    settings: Mapping[str, Any] = field(default_factory=dict)


@cache
def linear() -> Subject:
    """The sum of what each pixel adds, and that is known."""
    return weighted(40)


@cache
def bright() -> Subject:
    """One bright pixel decides, and its place is known."""
    return detector(64)


@cache
def bent() -> Subject:
    """Smooth, random, and with convolutions."""
    return subject_of(conv_net(1), 1, n=12)


class Pair(nn.Module):
    """The pixel of a class's site decides it, as long as another pixel, its second, is not absent while a third one is
    there; without the third one either of the two is enough."""

    def forward(self, x):
        x = x[:, 0]
        first = torch.stack([x[:, row, column] > 0.6 for row, column in SITES], 1)
        second = torch.stack([x[:, row, column + 1] > 0.6 for row, column in SITES], 1)
        third = (x[:, 0, 0] != 0.4).view(-1, 1)
        return ((first & second) | (~third & (first | second))).float()


@cache
def paired() -> Subject:
    subject, sites = bright(), site_masks()[bright().targets]
    inputs = subject.inputs.clone()
    inputs[sites.roll(1, 2).unsqueeze(1)] = 0.9
    return Subject(Pair(), inputs, subject.targets, truth=sites, removable=True, absent=0.4, name="pair")


def pointing(columns: int) -> sc.Method:
    """One at so many columns from the site, and 0 elsewhere: the images are those of ``paired``, class by class."""
    return made(lambda m, x, t: site_masks().roll(columns, 2)[t].float(), f"pointing_{columns}", signed=True)


class Graded(Detector):
    """The cause is worth so much."""

    effect = 4.0

    def at(self, effect: float) -> nn.Module:
        return self


@cache
def graded() -> Subject:
    subject = bright()
    return Subject(
        Graded().eval(), subject.inputs, subject.targets, truth=subject.truth, decoys=subject.decoys, graded=True
    )  # fmt: skip


@cache
def twins() -> Subject:
    """Linear ones: two of one task, and two that have learned something else."""

    def held(number: int, *, task: bool) -> nn.Module:
        model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
        own = torch.randn(2, 4, 64, generator=torch.Generator().manual_seed(number))
        shared = torch.randn(4, 64, generator=torch.Generator().manual_seed(99))
        model[1].weight.data = shared + 0.5 * own[0] if task else own[1]
        return model.eval()

    same, permuted = (tuple(held(i, task=task) for i in (0, 1)) for task in (True, False))
    inputs, targets = noise(32), torch.arange(32) % 4
    both = Twins(same=same, permuted=permuted, inputs=inputs, targets=targets)
    return Subject(same[0], inputs, targets, twins=lambda: both, absent=0.0)


def one_pixel_maps(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return F.pad(torch.ones_like(inputs[..., :1, :1]), (0, inputs.shape[3] - 1, 0, inputs.shape[2] - 1))


one_pixel = made(one_pixel_maps, "one_pixel", signed=True)
ones = made(lambda m, x, t: torch.ones_like(x), "ones", signed=False)
# Behind these as masks there is what speaks for the class alone, or what speaks against it.
evidence, counter = (
    made(lambda m, x, t, f=f: (f * m.weight[t].detach() * (x - 0.3)).clamp(min=0) ** 0.1, name, signed=False)
    for f, name in ((1, "evidence"), (-1, "counter"))
)
from_black, from_black_reversed = (
    made(lambda m, x, t, f=f: f * m.weight[t].detach() * x, name, signed=True)
    for f, name in ((1, "from_black"), (-1, "from_black_reversed"))
)
size = made(lambda m, x, t: (m.weight[t].detach() * (x - 0.3)).abs(), "size", signed=False)
smallness = made(lambda m, x, t: 1 / (1 + size.explain(m, x, t)), "smallness", signed=False)
cause = made(contribution, "cause", signed=True)
elsewhere = made(lambda m, x, t: -contribution(m, x, t), "elsewhere", signed=True)


@cache
def cells() -> Subject:
    return smooth(Pixelwise())


def fickle_maps(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """The gradient of an image that is known, and the negative one of any other."""
    known = cells().inputs.flatten(1)
    here = torch.zeros(len(inputs), dtype=torch.bool)
    if inputs[0].numel() == known.shape[1]:
        here = (inputs.flatten(1).unsqueeze(1) == known).all(2).any(1)
    return gradient.explain(model, inputs, targets) * torch.where(here, 1.0, -1.0).view(-1, 1, 1, 1)


@cache
def spotted() -> Subject:
    """A network that one unit of its last layer decides, so that its gradient lies on few pixels."""
    net = conv_net(1)
    with torch.no_grad():
        net[-1].weight.zero_()
        net[-1].weight[:, 17] = 1.0
    return subject_of(net, 1, n=12)


def calmed_maps(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Many values where one unit decides, and a single pixel where the weights are random."""
    is_trained = int(model[-1].weight.count_nonzero()) < model[-1].weight.numel()
    return inputs.detach() if is_trained else one_pixel.explain(model, inputs, targets)


fickle, calmed = made(fickle_maps, "fickle", signed=True), made(calmed_maps, "calmed", signed=True)
honest = sc.get("methods", "gradient")  # which claims what a gradient fulfils
boasting = replace(honest, claims=frozenset({"completeness"}))

GRID = {"segments": "grid", "count": 9}
ON_CURVES = Row(linear, effect, against)
ON_SEGMENTS = Row(linear, effect, against, settings=GRID)
ON_SITES = Row(bright, gradient, inverted)
STILL = Row(bright, gradient, constant, settings={"draws": 3})  # the gradient of a linear model never moves
FOLLOWS = Row(bent, gradient, magnitude, beside=(constant, zero))  # noise follows random weights wherever they go
TURNED = Row(cells, gradient, fickle)
CHEATED = Row(bent, gradient, magnitude, beside=())  # constants and noise are as good as it gets
POINTED = Row(paired, pointing(1), pointing(3), beside=())
ROWS = {
    **dict.fromkeys(("aopc", "deletion", "diffid", "insertion", "road", "srg", "deletion_insertion"), ON_CURVES),
    **dict.fromkeys(("minimal_subset_deletion", "minimal_subset_insertion"), ON_CURVES),
    **dict.fromkeys(("deletion_black", "insertion_black"), Row(linear, from_black, from_black_reversed)),
    **dict.fromkeys(("iiof", "irof"), ON_SEGMENTS),
    **dict.fromkeys(("segment_minimal_subset_deletion", "segment_minimal_subset_insertion"), ON_SEGMENTS),
    "sensitivity_n": Row(linear, effect, against, settings={"draws": 20}),
    "segment_sensitivity_n": Row(linear, effect, against, settings={"draws": 20, **GRID}),
    "infidelity": Row(linear, weight, zero, settings={"draws": 20}),
    "monotonicity_correlation": Row(linear, size, smallness, settings={"imputer": "absent", "draws": 1}),
    "average_drop": Row(linear, ones, counter, beside=(evidence, zero)),
    "average_increase": Row(linear, evidence, counter, beside=(ones, constant)),
    "average_gain": Row(linear, evidence, counter, beside=(ones, constant)),
    **dict.fromkeys(
        (
            "energy_pointing_game", "iou_above_mean", "iou_top_area", "localisation_error", "localisation_error_top1",
            "pixel_recovery", "planted_deletion", "pointing", "pointing_game", "pointing_magnitude",
            "relevance_mass_accuracy", "relevance_rank_accuracy",
        ),
        ON_SITES,
    ),
    "class_contrast": Row(bright, gradient, negated),
    "sign": Row(bright, gradient, negated),
    "class_advantage": Row(bright, gradient, negated),
    "acuity": Row(graded, gradient, inverted),
    **dict.fromkeys(("additive_importance", "subtractive_importance"), POINTED),
    **dict.fromkeys(("max_sensitivity", "average_sensitivity", "local_lipschitz"), STILL),
    **dict.fromkeys((f"{name}_agreement" for name in AUGMENTATIONS), TURNED),
    **dict.fromkeys(("cascading_randomization", "independent_randomization", "parameter_randomization"), FOLLOWS),
    **dict.fromkeys(("cascading_final_similarity", "cascading_abs_similarity"), CHEATED),
    "smooth_mprt": Row(bent, gradient, magnitude, beside=(), settings={"samples": 2}),
    "efficient_mprt": Row(spotted, gradient, calmed, beside=(magnitude, constant, zero)),
    "cosine_convergence": CHEATED,
    **dict.fromkeys(("random_logit", "least_likely_contrast"), FOLLOWS),
    "label_permutation": Row(twins, gradient, magnitude, beside=(constant, zero)),
    "contract": Row(bent, gradient, white_noise, beside=(magnitude, constant, zero)),
    "axioms": Row(lambda: subject_of(conv_net(1), 1, n=3), honest, boasting, beside=()),  # on three networks
    "impact_coverage": Row(colours, cause, elsewhere, settings={"patch": PatchRecipe(steps=40, images=4)}),
    "complexity": Row(bright, one_pixel, constant),
    "entropy": Row(bright, one_pixel, constant),
    "sparseness": Row(bright, one_pixel, constant),
    "effective_complexity": Row(bright, one_pixel, constant),
}  # fmt: skip


def scored(metric: Metric, method: sc.Method, subject: Subject) -> float:
    """The mean that is judged, the higher the better."""
    scores = metric.measure(method, subject, Draw(n=len(subject), redraws=2))
    found = metric.statistic(worst_group(metric, scores))
    return found if metric.better == "higher" else -found


@pytest.mark.parametrize("name", sc.names("metrics"))
def test_one_thing_is_first_and_one_is_last(name):
    assert name in ROWS, f"{name} has no row: what must it rank first, and what last?"
    row = ROWS[name]
    metric = sc.get("metrics", name).with_settings(**row.settings) if row.settings else sc.get("metrics", name)
    subject = row.subject()
    first, last, *others = (scored(metric, method, subject) for method in (row.first, row.last, *row.beside))
    assert first > last
    assert last <= min([first, *others]) + 1e-9
    assert first >= max([last, *others]) - 1e-9
