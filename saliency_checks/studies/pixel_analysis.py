"""What a map points at in a planted image, and what the network says when that, or the planted pixel, goes.

The five maps of the paper are those of its code, to the letter: mean over channels, normalised inputs, a plain mean
of 100 gradients with both ends. Any other method is a registered one, summed over channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks import maps
from saliency_checks.chunking import chunked
from saliency_checks.explain import explain
from saliency_checks.method import as_method
from saliency_checks.studies.pixel_data import MEAN, STD, Planted

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Images = Float[Tensor, "n 3 h w"]
    Maps = Float[Tensor, "n h w"]

PAPER_METHODS = (
    "predict_importance_absgrad", "predict_importance_grad_inp", "predict_importance_absgrad_absinp",
    "predict_importance_integrated_gradient", "predict_importance_integrated_gradient_white",
)  # fmt: skip
STEPS = 100
BATCH = 128


def paper_maps(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], *, softmax: bool) -> dict[str, Maps]:
    """The paper's five maps of images in [0, 1], by the names of its table."""
    mean, std = (inputs.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    x = (inputs - mean) / std
    g = _gradient(model, inputs, targets, softmax) * std  # with respect to the normalised input
    found = {
        "predict_importance_absgrad": g.abs(),
        "predict_importance_grad_inp": g * x,
        "predict_importance_absgrad_absinp": g.abs() * x.abs(),
    }
    for name, baseline in (("integrated_gradient", 0.0), ("integrated_gradient_white", 1.0)):
        total = torch.zeros_like(inputs)
        for step in range(STEPS):
            point = baseline + (step / (STEPS - 1)) * (inputs - baseline)
            total += _gradient(model, point, targets, softmax)
        found[f"predict_importance_{name}"] = (inputs - baseline) * total / STEPS
    return {name: values.mean(1) for name, values in found.items()}


def _gradient(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], softmax: bool) -> Images:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        outputs = model(leaf)
        outputs = outputs.softmax(1) if softmax else outputs
        gradient: Tensor = torch.autograd.grad(outputs.gather(1, targets[:, None]).sum(), leaf)[0]
    return gradient


def registered_map(
    name: str, model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], *, softmax: bool, seed: int
) -> Maps:
    """A registered method's map, of the logit or of the probability."""
    asked = nn.Sequential(model, nn.Softmax(1)).eval() if softmax else model
    return explain(
        as_method(name), asked, inputs, targets, seed=seed,
        baseline=inputs.mean((0, 2, 3), keepdim=True), references=inputs[:64],
    )  # fmt: skip


@dataclass(frozen=True)
class Answers:
    """What the network predicts for each image and its edits (N,): all that does not depend on a map."""

    withpix: Int[Tensor, " n"]
    nopix: Int[Tensor, " n"]
    blackpix: Int[Tensor, " n"]
    only_pix: Int[Tensor, " n"]


@torch.no_grad()
def predict(model: nn.Module, inputs: Images) -> Int[Tensor, " n"]:
    """The network's class for each image."""
    logits: Tensor = chunked(model, inputs, 250)
    return logits.argmax(1)


def blackened(inputs: Images, mask: Bool[Tensor, "n h w"]) -> Images:
    """The images with the masked pixels black."""
    return inputs.masked_fill(mask.unsqueeze(1), 0.0)


def only(inputs: Images, mask: Bool[Tensor, "n h w"]) -> Images:
    """The masked pixels alone, on black."""
    return inputs.masked_fill(~mask.unsqueeze(1), 0.0)


def answers(model: nn.Module, shown: Planted) -> Answers:
    """Predictions with, without and only with the planted pixel."""
    return Answers(
        withpix=predict(model, shown.inputs),
        nopix=predict(model, shown.clean),
        blackpix=predict(model, blackened(shown.inputs, shown.site)),
        only_pix=predict(model, only(shown.inputs, shown.site)),
    )


def judged(model: nn.Module, shown: Planted, known: Answers, attributions: Maps) -> dict[str, list[float]]:
    """Columns, one value per image: what the map points at, and whether the edits keep the class.

    ``hit`` is the paper's (the planted pixel is among the tied maxima, so a zero map always hits); ``share`` credits
    it by 1 / ties. ``needed``: right with the pixel and wrong without, so a miss there is an error of the map; the
    class that the network takes by default needs no pixel.
    """
    flat = attributions.flatten(1)
    chosen = (flat == flat.amax(1, keepdim=True)).view_as(attributions)
    ties = chosen.flatten(1).sum(1)
    among = (chosen & shown.site).flatten(1).sum(1)
    labels = shown.labels
    blackattr = predict(model, blackened(shown.inputs, chosen))
    only_attr = predict(model, only(shown.inputs, chosen))
    right = {
        "withpix": known.withpix == labels,
        "nopix": known.nopix == labels,
        "truebg_withblackpix": known.blackpix == labels,
        "blackbg_withpix": known.only_pix == labels,
        "blackbg_withattrpix": only_attr == labels,
        "truebg_withblackattrpix": blackattr == labels,
        "truebg_withblackattrpix_preserved": blackattr == known.withpix,
        "truebg_withblackpix_preserved": known.blackpix == known.withpix,
        "hit": among > 0,
        "needed": (known.withpix == labels) & (known.nopix != labels),
    }
    columns = {name: value.double().tolist() for name, value in right.items()}
    constant = maps.degenerate(attributions).double().tolist()
    return {**columns, "share": (among / ties).double().tolist(), "constant": constant}


def every_map(
    model: nn.Module, shown: Planted, names: tuple[str, ...], *, softmax: bool, of: Int[Tensor, " n"], seed: int
) -> Iterator[tuple[str, Maps]]:
    """(name, maps) of the paper's five, and of the registered methods in ``names``, for the classes ``of``."""
    parts = [
        paper_maps(model, shown.inputs[rows], of[rows], softmax=softmax) for rows in torch.arange(len(of)).split(BATCH)
    ]
    for name in PAPER_METHODS:
        yield name, torch.cat([part[name] for part in parts])
    for name in names:
        yield name, registered_map(name, model, shown.inputs, of, softmax=softmax, seed=seed)
