"""What a map points at in a planted image, and what the network says when that, or the planted pixel, goes.

The five maps of the paper are those of its code, to the letter: mean over channels, normalised inputs, a plain mean
of 100 gradients with both ends. Any other method is a registered one, summed over channels.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks import maps
from saliency_checks.chunking import chunked
from saliency_checks.explain import explain, generator
from saliency_checks.method import as_method
from saliency_checks.studies.pixel_data import MEAN, STD, Planted

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Images = Float[Tensor, "n 3 h w"]
    Maps = Float[Tensor, "n h w"]
    Classes = Int[Tensor, " n"]

PAPER_METHODS = (
    "predict_importance_absgrad", "predict_importance_grad_inp", "predict_importance_absgrad_absinp",
    "predict_importance_integrated_gradient", "predict_importance_integrated_gradient_white",
)  # fmt: skip
STEPS = 100
BATCH = 128
Columns = dict[str, list[float]]


def paper_maps(model: nn.Module, inputs: Images, targets: Classes) -> dict[bool, dict[str, Maps]]:
    """The paper's five maps of images in [0, 1], by the names of its table: of the logit (False), of the softmax."""
    mean, std = (inputs.new_tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    x = (inputs - mean) / std
    found: dict[bool, dict[str, Maps]] = {False: {}, True: {}}
    for softmax, raw in zip(found, gradients(model, inputs, targets), strict=True):
        g = raw * std  # with respect to the normalised input
        found[softmax] = {
            "predict_importance_absgrad": g.abs(),
            "predict_importance_grad_inp": g * x,
            "predict_importance_absgrad_absinp": g.abs() * x.abs(),
        }
    for name, baseline in (("integrated_gradient", 0.0), ("integrated_gradient_white", 1.0)):
        totals = torch.zeros(2, *inputs.shape, dtype=inputs.dtype, device=inputs.device)
        for step in range(STEPS):
            point = baseline + (step / (STEPS - 1)) * (inputs - baseline)
            totals += torch.stack(gradients(model, point, targets))
        for softmax, total in zip(found, totals, strict=True):
            found[softmax][f"predict_importance_{name}"] = (inputs - baseline) * total / STEPS
    return {softmax: {name: values.mean(1) for name, values in of.items()} for softmax, of in found.items()}


def gradients(model: nn.Module, inputs: Images, targets: Classes) -> tuple[Images, Images]:
    """Of the logit and of its softmax, after one forward pass."""
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        logits = model(leaf)
        asked = [outputs.gather(1, targets[:, None]).sum() for outputs in (logits, logits.softmax(1))]
        logit: Tensor = torch.autograd.grad(asked[0], leaf, retain_graph=True)[0]
        softmax: Tensor = torch.autograd.grad(asked[1], leaf)[0]
    return logit, softmax


def every_map(
    model: nn.Module, shown: Planted, names: tuple[str, ...], *, of: Classes, rows: Int[Tensor, " m"], seed: int
) -> Iterator[tuple[bool, str, Float[Tensor, "m h w"]]]:
    """(softmax, name, maps) of the paper's five, and of the registered methods in ``names``, for the classes ``of``.

    Args:
        rows: the images that are explained; baselines and references are those of all.
    """
    inputs, targets = shown.inputs[rows], of[rows]
    parts = [paper_maps(model, x, y) for x, y in zip(inputs.split(BATCH), targets.split(BATCH), strict=True)]
    for softmax in (False, True):
        for name in PAPER_METHODS:
            yield softmax, name, torch.cat([part[softmax][name] for part in parts])
        asked = nn.Sequential(model, nn.Softmax(1)).eval() if softmax else model
        baseline, references = shown.inputs.mean((0, 2, 3), keepdim=True), shown.inputs[:64]
        for name in names:
            found = explain(
                as_method(name), asked, inputs, targets, seed=seed, baseline=baseline, references=references
            )
            yield softmax, name, found


@dataclass(frozen=True)
class Answers:
    """What the network predicts for each image and its edits (N,): all that does not depend on a map."""

    withpix: Classes
    nopix: Classes
    blackpix: Classes
    only_pix: Classes
    different: Classes

    def at(self, rows: Int[Tensor, " m"]) -> Answers:
        """For some of the images."""
        return Answers(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})


@torch.no_grad()
def predict(model: nn.Module, inputs: Images) -> Classes:
    """The network's class for each image."""
    logits: Tensor = chunked(model, inputs, 250)
    return logits.argmax(1)


def blackened(inputs: Images, mask: Bool[Tensor, "n h w"]) -> Images:
    """The images with the masked pixels black."""
    return inputs.masked_fill(mask.unsqueeze(1), 0.0)


def only(inputs: Images, mask: Bool[Tensor, "n h w"]) -> Images:
    """The masked pixels alone, on black."""
    return inputs.masked_fill(~mask.unsqueeze(1), 0.0)


def answers(model: nn.Module, shown: Planted, different: Planted) -> Answers:
    """Predictions with, without and only with the planted pixel, and with that of another class."""
    return Answers(
        withpix=predict(model, shown.inputs),
        nopix=predict(model, shown.clean),
        blackpix=predict(model, blackened(shown.inputs, shown.site)),
        only_pix=predict(model, only(shown.inputs, shown.site)),
        different=predict(model, different.inputs),
    )


def overall(shown: Planted, different: Planted, known: Answers) -> Columns:
    """Columns, one value per image, that do not depend on a map.

    ``needed``: right with the pixel and wrong without, so a miss there is an error of the map; the class that the
    network takes by default needs no pixel. ``different``: right although another class's pixel is planted;
    ``different_followed``: it takes that class.
    """
    labels = shown.labels
    right = {
        "withpix": known.withpix == labels,
        "nopix": known.nopix == labels,
        "truebg_withblackpix": known.blackpix == labels,
        "blackbg_withpix": known.only_pix == labels,
        "truebg_withblackpix_preserved": known.blackpix == known.withpix,
        "needed": (known.withpix == labels) & (known.nopix != labels),
        "different": known.different == labels,
        "different_followed": known.different == different.cause,
    }
    return {name: value.double().tolist() for name, value in right.items()}


def judged(model: nn.Module, shown: Planted, known: Answers, attributions: Maps) -> Columns:
    """Columns, one value per image: what the map points at, and whether the edits keep the class.

    ``hit`` is the paper's (the planted pixel is among the tied maxima, so a zero map always hits); ``share`` credits
    it by 1 / ties. ``recovered``: the mean |map| over the site exceeds that over every decoy, ties by lot; NaN where
    there are no decoys.
    """
    flat = attributions.flatten(1)
    chosen = (flat == flat.amax(1, keepdim=True)).view_as(attributions)
    ties = chosen.flatten(1).sum(1)
    among = (chosen & shown.site).flatten(1).sum(1)
    blackattr = predict(model, blackened(shown.inputs, chosen))
    only_attr = predict(model, only(shown.inputs, chosen))
    right = {
        "blackbg_withattrpix": only_attr == shown.labels,
        "truebg_withblackattrpix": blackattr == shown.labels,
        "truebg_withblackattrpix_preserved": blackattr == known.withpix,
        "hit": among > 0,
        "share": among / ties,
        "constant": maps.degenerate(attributions),
        "recovered": _recovered(attributions, shown),
    }
    return {name: value.double().tolist() for name, value in right.items()}


def _recovered(attributions: Maps, shown: Planted) -> Float[Tensor, " n"]:
    if not shown.decoys.shape[1]:
        return attributions.new_full((len(attributions),), torch.nan)
    strengths = maps.over_masks(attributions.abs(), torch.cat([shown.site.unsqueeze(1), shown.decoys], dim=1))
    winner = maps.strict_order(strengths, generator("recovered"))[:, 0]
    return (winner == 0).to(attributions.dtype)
