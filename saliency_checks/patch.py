"""Adversarial patches: a square that makes the model see a class wherever it is pasted (Brown et al. 2017).

Trained once on the subject's own model, for several classes at once, and kept like trained weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_checks import cache
from saliency_checks.explain import derive, evaluating, generator, seeded, untouched
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class PatchRecipe:
    """How patches are trained.

    Attributes:
        area: share of the image.
        classes: at most so many target classes, drawn by lot where the model knows more.
        steps, images, rate: steps of Adam, images per class and step, learning rate in widths of the value range.
        seed: draws classes, first values, images and places.
    """

    area: float = 0.1
    classes: int = 10
    steps: int = 100
    images: int = 8
    rate: float = 0.05
    seed: int = 0


STANDARD = PatchRecipe()


@dataclass(frozen=True)
class Patches:
    """Squares (T, C, S, S) and the class that each stands for (T,)."""

    squares: Float[Tensor, "t c s s"]
    targets: Int[Tensor, " t"]


def paste(
    images: Float[Tensor, "n c h w"], squares: Float[Tensor, "n c s s"], corners: Int[Tensor, "n 2"]
) -> tuple[Float[Tensor, "n c h w"], Bool[Tensor, "n h w"]]:
    """(images with a square each, its mask): row and column of its upper left corner are given; differentiable."""
    side, (height, width) = squares.shape[-1], images.shape[-2:]
    row = torch.arange(height, device=images.device) - corners[:, :1]
    column = torch.arange(width, device=images.device) - corners[:, 1:]
    inside = (((row >= 0) & (row < side)).unsqueeze(2)) & ((column >= 0) & (column < side)).unsqueeze(1)
    place = row.clamp(0, side - 1).unsqueeze(2) * side + column.clamp(0, side - 1).unsqueeze(1)
    index = place.flatten(1).unsqueeze(1).expand(-1, images.shape[1], -1)
    spread = squares.flatten(2).gather(2, index).view_as(images)
    return torch.where(inside.unsqueeze(1), spread, images), inside


def corners(n: int, size: tuple[int, int], side: int, rng: torch.Generator) -> Int[Tensor, "n 2"]:
    """A place for each of n squares, uniform over all that hold it whole."""
    free = torch.tensor([size[0] - side + 1, size[1] - side + 1])
    return (torch.rand(n, 2, generator=rng, dtype=torch.float64) * free).long()


def side_of(subject: Subject, area: float) -> int:
    height, width = subject.inputs.shape[-2:]
    return max(1, int((area * height * width) ** 0.5))


def patches(subject: Subject, recipe: PatchRecipe) -> Patches:
    """The subject's patches, from the cache or trained now."""
    key = ("patches", recipe)
    if key not in subject.cache:
        subject.cache[key] = _load(subject, recipe)
    found: Patches = subject.cache[key]
    return found


def _load(subject: Subject, recipe: PatchRecipe) -> Patches:
    with evaluating(subject.model):
        count = subject.model(subject.inputs[:1]).shape[1]
    amount, side = min(count, recipe.classes), side_of(subject, recipe.area)
    like = {
        "squares": torch.empty(amount, subject.inputs.shape[1], side, side, device="meta"),
        "targets": torch.empty(amount, dtype=torch.int64, device="meta"),
    }
    weights = {name: value for name, value in subject.model.state_dict().items() if isinstance(value, Tensor)}
    identity = cache.digest(weights | {"images": subject.inputs}, f"{subject.name}\n{subject.model!r}")
    stored = cache.load_or_make(
        f"patch_{subject.name}", recipe, lambda: (_train(subject, recipe, count, side), {}), like=like, data=identity
    )
    squares, targets = (stored.tensors[name].to(subject.inputs.device) for name in ("squares", "targets"))
    return Patches(squares.to(subject.inputs.dtype), targets)


def _train(subject: Subject, recipe: PatchRecipe, count: int, side: int) -> dict[str, Tensor]:
    """Adam on the cross entropy of the patch's class, on random images at random places, within the images' range."""
    rng = generator("patch", subject.name, recipe.seed)
    inputs = subject.inputs
    low, high = inputs.amin((0, 2, 3)).view(1, -1, 1, 1), inputs.amax((0, 2, 3)).view(1, -1, 1, 1)
    targets = torch.randperm(count, generator=rng)[: recipe.classes].sort().values
    unit = torch.rand(len(targets), inputs.shape[1], side, side, generator=rng).to(inputs).requires_grad_()
    optimiser = torch.optim.Adam([unit], lr=recipe.rate)
    which = torch.arange(len(targets)).repeat_interleave(recipe.images)
    with untouched(subject.model), seeded(derive("patch", recipe.seed)):
        for _ in range(recipe.steps):
            chosen = torch.randint(len(inputs), (len(which),), generator=rng)
            places = corners(len(which), (inputs.shape[2], inputs.shape[3]), side, rng).to(inputs.device)
            pasted, _ = paste(inputs[chosen.to(inputs.device)], (low + unit * (high - low))[which], places)
            loss = F.cross_entropy(subject.model(pasted), targets[which].to(inputs.device))
            (unit.grad,) = torch.autograd.grad(loss, unit)
            optimiser.step()
            unit.data.clamp_(0, 1)
    squares = (low + unit * (high - low)).detach().float().cpu()
    return {"squares": squares, "targets": targets}
