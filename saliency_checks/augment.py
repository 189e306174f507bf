"""Images turned, resized, cropped, flipped or mixed, and the same done to their maps.

``augmented(subject, "rotation")`` is a subject like any other: ``sc.measure("deletion", method, augmented(...))`` is
what saliencysense tabulates. Every operation is linear and draws per image from the subject's own seed, so all methods
see the same images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_checks.explain import evaluating, generator
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Stack = Float[Tensor, "n c h w"]


@dataclass(frozen=True)
class Moved:
    """What was drawn for the images of a subject.

    Attributes:
        apply: (the first images' stack, their partners') -> it after the operation; linear, 0 where nothing was.
        partners: the image that is mixed into each one; None where each stays alone.
    """

    apply: Callable[[Tensor, Tensor], Tensor]
    partners: Int[Tensor, " n"] | None = None


class Augmentation(Protocol):
    def draw(self, images: Stack, rng: torch.Generator) -> Moved: ...


def warped(stack: Stack, matrix: Float[Tensor, "n 2 3"]) -> Stack:
    """Bilinear resampling: ``matrix`` maps places in the output to places in the input, both from -1 to 1."""
    grid = F.affine_grid(matrix.to(stack), list(stack.shape), align_corners=False)
    return F.grid_sample(stack, grid, align_corners=False)


@dataclass(frozen=True, kw_only=True)
class Flip:
    """Left and right exchanged."""

    def draw(self, images: Stack, rng: torch.Generator) -> Moved:
        return Moved(lambda stack, _: stack.flip(-1))


@dataclass(frozen=True, kw_only=True)
class Rotation:
    """By one of these angles; what comes in at the corners holds nothing."""

    degrees: tuple[float, ...] = (45.0, 135.0, 225.0, 315.0)

    def draw(self, images: Stack, rng: torch.Generator) -> Moved:
        height, width = images.shape[-2:]
        which = torch.randint(len(self.degrees), (len(images),), generator=rng)
        angle = torch.tensor(self.degrees, dtype=torch.float64)[which] * (math.pi / 180)
        cos, sin, nil = angle.cos(), angle.sin(), torch.zeros_like(angle)
        across = torch.stack([cos, -sin * height / width, nil], dim=1)
        down = torch.stack([sin * width / height, cos, nil], dim=1)
        return Moved(lambda stack, _: warped(stack, torch.stack([across, down], dim=1)[: len(stack)]))


@dataclass(frozen=True, kw_only=True)
class Crop:
    """A part of each image, enlarged to its size (as torchvision's RandomResizedCrop; too wide a part is cut)."""

    area: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def draw(self, images: Stack, rng: torch.Generator) -> Moved:
        area, ratio, x, y = torch.rand(len(images), 4, generator=rng, dtype=torch.float64).unbind(1)
        area = self.area[0] + (self.area[1] - self.area[0]) * area
        low, high = (math.log(value) for value in self.ratio)
        ratio = (low + (high - low) * ratio).exp()
        width, height = ((area * ratio).sqrt().clamp(max=1), (area / ratio).sqrt().clamp(max=1))
        nil = torch.zeros_like(area)
        across = torch.stack([width, nil, (2 * x - 1) * (1 - width)], dim=1)
        down = torch.stack([nil, height, (2 * y - 1) * (1 - height)], dim=1)
        return Moved(lambda stack, _: warped(stack, torch.stack([across, down], dim=1)[: len(stack)]))


@dataclass(frozen=True, kw_only=True)
class Resize:
    """To so many times its size; the model must take images of that size."""

    factor: float = 0.5

    def draw(self, images: Stack, rng: torch.Generator) -> Moved:
        size = [max(1, round(side * self.factor)) for side in images.shape[-2:]]
        return Moved(lambda stack, _: F.interpolate(stack, size=size, mode="bilinear", antialias=True))


@dataclass(frozen=True, kw_only=True)
class MixUp:
    """A share of each image and the rest of another; the share is uniform (Zhang et al. 2018, alpha 1)."""

    def draw(self, images: Stack, rng: torch.Generator) -> Moved:
        drawn = torch.rand(len(images), 2, generator=rng, dtype=torch.float64)
        share = drawn[:, 0].view(-1, 1, 1, 1).to(images)
        partners = (drawn[:, 1] * len(images)).long().to(images.device)
        return Moved(lambda own, other: share[: len(own)] * own + (1 - share[: len(own)]) * other[: len(own)], partners)


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {"crop": Crop(), "flip": Flip(), "mixup": MixUp(), "resize": Resize(), "rotation": Rotation()}
)


def moved(subject: Subject, augmentation: str | Augmentation, seed: int = 0) -> Moved:
    """What is drawn for this subject's images."""
    if isinstance(augmentation, str):
        if augmentation not in AUGMENTATIONS:
            raise ValueError(f"augmentation {augmentation!r}: expected one of {', '.join(AUGMENTATIONS)}")
        augmentation = AUGMENTATIONS[augmentation]
    return augmentation.draw(subject.inputs, generator("augment", subject.name, seed, augmentation))


def augmented(
    subject: Subject, augmentation: str | Augmentation, seed: int = 0, *, first: int | None = None
) -> Subject:
    """The subject with its images, and the truth with them, after an augmentation; the classes asked stay.

    What holds for the original images only (decoys, twins, replicas, a removable cause) is left out.

    Args:
        augmentation: a name from ``AUGMENTATIONS``, or one with settings of its own: ``Rotation(degrees=(90,))``.
        first: so many images, as they would be among all; default all.

    Raises:
        Unqualified: the model does not take images of the new size.
    """
    rows = min(len(subject), first or len(subject))
    key = ("augmented", repr(augmentation), seed, rows)
    if key not in subject.cache:
        subject.cache[key] = _augmented(subject, augmentation, moved(subject, augmentation, seed), rows)
    found: Subject = subject.cache[key]
    return found


def _augmented(subject: Subject, augmentation: str | Augmentation, change: Moved, rows: int) -> Subject:
    own, absent = subject.inputs[:rows], subject.absent_value
    other = own if change.partners is None else subject.inputs[change.partners[:rows]]
    inputs = change.apply(own - absent, other - absent) + absent
    _require_taken(subject, inputs)
    name = augmentation if isinstance(augmentation, str) else type(augmentation).__name__.lower()
    return replace(
        subject, inputs=inputs, targets=subject.targets[:rows], name=f"{subject.name}_{name}",
        absent=tuple(absent.flatten().tolist()),
        references=subject.references if inputs.shape[1:] == subject.inputs.shape[1:] else None,
        truth=None if subject.truth is None else _moved_truth(subject.truth[:rows], change, own),
        decoys=None, contrast=None, removable=False, twins=None, replicas=(), least_replicas=0, clean=None,
        graded=False, layered=None, source=None,
    )  # fmt: skip


def covered(subject: Subject, change: Moved, n: int) -> Bool[Tensor, "n h w"]:
    """Pixels of the first n new images that come from the old ones alone."""
    ones = torch.ones_like(subject.inputs[:n, :1])
    return change.apply(ones, ones)[:, 0] > 0.999


def _moved_truth(truth: Bool[Tensor, "n h w"], change: Moved, images: Stack) -> Bool[Tensor, "n h w"]:
    if change.partners is not None:
        return truth
    weight = change.apply(truth.unsqueeze(1).to(images), images)[:, 0]
    # At half of the largest weight: a single pixel lies between four after a turn, and none has half of it.
    return (weight > 0) & (weight >= 0.5 * weight.amax((1, 2), keepdim=True))


def _require_taken(subject: Subject, inputs: Stack) -> None:
    if inputs.shape[1:] == subject.inputs.shape[1:]:
        return
    try:
        with evaluating(subject.model):
            subject.model(inputs[:1])
    except Exception as error:
        sizes = [" x ".join(map(str, stack.shape[-2:])) for stack in (subject.inputs, inputs)]
        raise Unqualified(f"{subject.name}'s model takes images of {sizes[0]}, not of {sizes[1]}") from error


def augmented_scores(
    metrics: Sequence[str], method: Any, subject: Any, augmentations: Sequence[str] = tuple(AUGMENTATIONS),
    *, n: int | None = None, seed: int = 0,
) -> dict[str, dict[str, float]]:  # fmt: skip
    """Mean score of each metric on each augmentation: a row of saliencysense's table 4 (the class asked stays).

    Args:
        subject: a Subject or the name of one.

    Raises:
        Unqualified: the subject does not qualify for one of them.
    """
    from saliency_checks.loading import build_subject
    from saliency_checks.run import measure

    changed = {name: augmented(build_subject(subject), name, seed) for name in augmentations}
    return {
        name: {metric: float(measure(metric, method, one, n=n, seed=seed).mean()) for metric in metrics}
        for name, one in changed.items()
    }
