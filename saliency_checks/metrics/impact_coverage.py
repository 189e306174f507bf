"""Does the map find the adversarial patch that made the model change its mind?

Each image gets a patch at a place of its own; those whose predicted class then is the patch's, and was not before, are
scored, the same images for every method. A random map gets .1 / (2 - .1) = .053 on average, and so does a constant
or zero one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.explain import BLOCK, evaluating, generator, model_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.patch import STANDARD, PatchRecipe, corners, paste, patches
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class Coverage:
    """How patches are trained, how often one is pasted on an image at most, the least share of images to be turned."""

    patch: PatchRecipe = STANDARD
    tries: int = 51
    least_success: float = 0.25


DEFAULT = Coverage()


@dataclass(frozen=True)
class Attacked:
    """Patched images (N, C, H, W), the patches' masks, their classes, and whether the model now sees that class."""

    inputs: Float[Tensor, "n c h w"]
    masks: Bool[Tensor, "n h w"]
    targets: Int[Tensor, " n"]
    turned: Bool[Tensor, " n"]


@dataclass(frozen=True)
class Placed:
    """Which patch lies where on which images (``turned``): all that is kept of an attack."""

    which: Int[Tensor, " n"]
    corners: Int[Tensor, "n 2"]
    turned: Bool[Tensor, " n"]


def attacked(subject: Subject, n: int, seed: int, settings: Coverage) -> Attacked:
    """The first n images, and what follows them in their block, each with a patch whose place is found once."""
    found = []
    for first in range(0, n, BLOCK):
        key, rows = ("attacked", first, seed, settings), slice(first, first + BLOCK)
        if key not in subject.cache:
            subject.cache[key] = _attack(subject, rows, seed, settings)
        found.append(_patched(subject, rows, subject.cache[key], settings))
    return Attacked(*(torch.cat([getattr(one, name) for one in found]) for name in Attacked.__dataclass_fields__))


def _patched(subject: Subject, rows: slice, placed: Placed, settings: Coverage) -> Attacked:
    known, images, turned = patches(subject.population, settings.patch), subject.inputs[rows], placed.turned
    inputs, masks = images.clone(), torch.zeros_like(images[:, 0], dtype=torch.bool)
    inputs[turned], masks[turned] = paste(images[turned], known.squares[placed.which[turned]], placed.corners[turned])
    return Attacked(inputs, masks, torch.where(turned, known.targets[placed.which], subject.targets[rows]), turned)


def _attack(subject: Subject, rows: slice, seed: int, settings: Coverage) -> Placed:
    """Another class and place for each image in every try, until the model sees the patch's class."""
    known, images, given = patches(subject.population, settings.patch), subject.inputs[rows], subject.targets[rows]
    n, device, side = len(images), images.device, known.squares.shape[-1]
    rng = generator("attack", subject.name, seed, subject.first + rows.start)
    which, places = torch.zeros_like(given), torch.zeros(n, 2, dtype=torch.long, device=device)
    turned = torch.zeros(n, dtype=torch.bool, device=device)
    with evaluating(subject.model):
        before = subject.model(images).argmax(1)
        for _ in range(settings.tries):
            tried = torch.randint(len(known.targets), (n,), generator=rng).to(device)
            at = corners(n, (images.shape[2], images.shape[3]), side, rng).to(device)
            wanted = known.targets[tried]
            left = (~turned & (wanted != before) & (wanted != given)).nonzero()[:, 0]
            pasted, _ = paste(images[left], known.squares[tried[left]], at[left])
            hit = left[subject.model(pasted).argmax(1) == wanted[left] if len(left) else left > 0]
            which[hit], places[hit], turned[hit] = tried[hit], at[hit], True
    return Placed(which, places, turned)


def _share(subject: Subject, n: int, seed: int, settings: Coverage) -> float:
    """Of all images that are scored, also where these are a shard of them, those that were turned."""
    among, n = subject.scored(n)
    return float(attacked(among, n, seed, settings).turned[:n].double().mean())


@metric(
    alone=True,
    readings=True, n=64, reference="Gevaert et al. 2024 (attribench), impact coverage, after Nie et al. 2018",
    meaning="the map lies elsewhere than the patch that alone decides the class",
)  # fmt: skip
def impact_coverage(method: Method, subject: Subject, draw: Draw, settings: Coverage = DEFAULT) -> Scores:
    """Intersection over union of the patch and as many highest-ranked pixels, explained for the patch's class."""
    n = min(draw.n, len(subject))
    attack = attacked(subject, n, draw.seed, settings)
    turned = attack.turned[:n]
    share = _share(subject, n, draw.seed, settings)
    if share < settings.least_success:
        raise Unqualified(
            f"the patches turn only {share:.0%} of {n} images of {subject.name} to their class"
            f" (at least {settings.least_success:.0%}): the model does not follow a patch of this size"
        )
    if not turned.any():  # a shard may be like that
        raise Unqualified(f"the patches turn none of these {n} images of {subject.name} to their class")
    found = model_maps(
        method, subject, subject.model, attack.inputs, attack.targets, 0, n, seed=draw.seed,
        stream=f"impact coverage {settings!r}",
    )[turned]  # fmt: skip
    masks = attack.masks[:n][turned].flatten(1)
    size = masks.sum(1)
    hits = maps.top_hits(reading(maps.settled(found), method).flatten(1), masks, size)
    return Scores(
        values=(hits / (2 * size - hits)).cpu().numpy()[None, None],
        degenerate=float(maps.degenerate(found).double().mean()),
        details={"images turned": share},
        images=tuple(turned.nonzero()[:, 0].tolist()),
    )
