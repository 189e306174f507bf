"""Nudged images: noise, or a square that goes. They do not depend on any map, so the model is asked once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.explain import generator
from saliency_checks.perturbation.engine import Answers, forwarded
from saliency_checks.perturbation.imputers import FILLS, Scene, filled
from saliency_checks.perturbation.settings import WHOLE, Part, Perturbation, Plan
from saliency_checks.perturbation.units import scene_of
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

    Images = Float[Tensor, "b c h w"]

# Nudges that are drawn at once: so many of an image's size are held.
GROUP = 16


@dataclass(frozen=True, kw_only=True)
class Nudges(Perturbation):
    """A score from nudged images.

    Attributes:
        unit: the map is taken per ``channel``, as far as the method has it, or summed over channels (``pixel``).
        kind: the image loses a ``square`` to the imputer, gets noise added (``gaussian``), or is replaced by noise
            around the dataset's mean (``noisy_baseline``).
        deviation: of the noise, in standard deviations of the subject's images; with ``is_absolute`` in units of the
            input, and the noisy baseline lies around 0 instead of the images' mean.
        side: of the square in pixels.
        draws: nudges, the same for every image and every method.
        clamp: nudged images stay in the range of the subject's images.
        scale: the squared error of the best multiple of the map, as a ``share`` of the mean squared change or as it
            is (``best``), or the squared error of the map itself (``none``).
    """

    output: str = "logit"
    reading: str = "signed"
    unit: str = "channel"
    kind: str = "square"
    deviation: float = 0.2
    is_absolute: bool = False
    side: int = 5
    draws: int = 200
    clamp: bool = False
    scale: str = "share"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {
            "imputer": tuple(FILLS),
            "unit": ("channel", "pixel"),
            "kind": ("square", "gaussian", "noisy_baseline"),
            "scale": ("share", "best", "none"),
        }

    @property
    def key(self) -> tuple[object, ...]:
        what = (self.imputer, self.side) if self.kind == "square" else (self.deviation, self.is_absolute)
        return ("nudges", self.kind, what, self.draws, self.clamp)

    @property
    def plan(self) -> Plan:
        return Plan(frozenset({WHOLE, Part(self.key, self.draws, shared=True)}))


def changed(subject: Subject, rows: slice, seed: int, settings: Nudges) -> Answers:
    """What the model says of the nudged images (draws, n), once for all methods."""
    key = (*settings.key, seed, rows.start)
    if key not in subject.cache:
        targets = subject.targets[rows]

        def said(nudged: Images, image: Int[Tensor, " b"]) -> Float[Tensor, "b 5"]:
            return Answers.of(subject.model(nudged), targets[image]).values

        subject.cache[key] = Answers(_over_all(subject, rows, seed, settings, said))
    found: Answers = subject.cache[key]
    return found


def foretold(
    subject: Subject,
    rows: slice,
    seed: int,
    settings: Nudges,
    attributions: Float[Tensor, " n #c h w"],
) -> Float[Tensor, "draws n"]:
    """<x - x', map> of each nudge, by which a map that is a gradient foretells the fall of the output."""
    inputs = subject.inputs[rows]

    def product(nudged: Images, image: Int[Tensor, " b"]) -> Float[Tensor, "b 1"]:
        return ((inputs[image] - nudged) * attributions[image]).double().sum((1, 2, 3)).unsqueeze(1)

    return _over_all(subject, rows, seed, settings, product)[..., 0]


def _over_all(
    subject: Subject, rows: slice, seed: int, settings: Nudges,
    function: Callable[[Images, Int[Tensor, " b"]], Float[Tensor, "b f"]],
) -> Float[Tensor, "draws n f"]:  # fmt: skip
    scene, found = scene_of(subject, rows, seed), []
    fill = filled(settings.imputer, scene)
    for first in range(0, settings.draws, GROUP):
        drawn = _drawn(subject, seed, settings, first)
        shape = (len(drawn), len(scene.inputs))

        def one(row: Int[Tensor, " b"], drawn: Tensor = drawn) -> Float[Tensor, "b f"]:
            image = row % len(scene.inputs)
            return function(_nudged(scene, fill, settings, drawn[row // len(scene.inputs)], image), image)

        found.append(forwarded(subject.model, one, shape, scene.inputs))
    return torch.cat(found)


def _drawn(subject: Subject, seed: int, settings: Nudges, first: int) -> Shaped[Tensor, " g #c h w"]:
    """What the nudges ``first`` to ``first + GROUP`` draw: the same for all images; again from their seed each time."""
    _, c, h, w = subject.inputs.shape
    rng = generator("nudges", subject.name, settings.kind, seed, first)
    number = min(GROUP, settings.draws - first)
    if settings.kind == "square":
        rows, columns = (_interval(size, settings.side, number, rng) for size in (h, w))
        return (rows[:, None, :, None] & columns[:, None, None, :]).to(subject.inputs.device)
    drawn = settings.deviation * torch.randn(number, c, h, w, generator=rng, dtype=torch.float64).to(subject.inputs)
    if settings.is_absolute:
        return drawn
    deviation, mean = torch.std_mean(subject.population.inputs, dim=(0, 2, 3), keepdim=True)
    return deviation * drawn + (mean if settings.kind == "noisy_baseline" else 0)


def _interval(size: int, side: int, number: int, rng: torch.Generator) -> Tensor:
    start = torch.randint(max(1, size - side + 1), (number, 1), generator=rng)
    place = torch.arange(size)
    return (place >= start) & (place < start + side)


def _nudged(scene: Scene, fill: Images, settings: Nudges, drawn: Tensor, image: Int[Tensor, " b"]) -> Images:
    x = scene.inputs[image]
    if settings.kind == "square":
        x = torch.where(drawn, fill[image], x)
    else:
        x = drawn if settings.kind == "noisy_baseline" else x - drawn
    return x.clamp(scene.everything.amin(), scene.everything.amax()) if settings.clamp else x
