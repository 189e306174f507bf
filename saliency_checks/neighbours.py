"""Images nearby, drawn once per subject, and how far the maps move there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import BLOCK, evaluating, generator, model_maps, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, kw_only=True)
class Neighbours:
    """Images nearby, and how two maps are compared.

    Attributes:
        radius: half-width of uniform noise, standard deviation of normal noise.
        in_spreads: the radius is in standard deviations of the subject's images; else in the images' own units.
        noise: ``uniform`` or ``normal``, drawn for every element.
        draws: neighbours of each image.
        norm: the distance is divided by the length of the first map (``length``), or each map by its own largest
            magnitude (``peak``).
        same_class: leave out the draws that change the model's prediction.
    """

    radius: float = 0.1
    in_spreads: bool = True
    noise: str = "uniform"
    draws: int = 10
    norm: str = "length"
    same_class: bool = True

    def __post_init__(self) -> None:
        for given, known in ((self.noise, ("uniform", "normal")), (self.norm, ("length", "peak"))):
            if given not in known:
                raise ValueError(f"{given!r}: expected one of {', '.join(known)}")


@dataclass(frozen=True)
class Changes:
    """How far each map and image moved in each draw, and which draws count.

    Attributes:
        map, image: Euclidean distances (draws, N).
        counts: draws that are looked at; at least one of each image.
        degenerate: share of constant maps.
        unrest: what two calls on the same image differ by, on average.
    """

    map: Float[Tensor, "d n"]
    image: Float[Tensor, "d n"]
    counts: Bool[Tensor, "d n"]
    degenerate: float
    unrest: float


def distance(one: Float[Tensor, "n h w"], other: Float[Tensor, "n h w"], norm: str) -> Float[Tensor, " n"]:
    """Euclidean distance of two maps by ``Neighbours.norm``; the greatest possible where the first is constant."""
    constant = maps.degenerate(one)
    one, other = (found.double().flatten(1) for found in (one, other))
    if norm == "peak":
        one, other = (found / found.abs().amax(1, keepdim=True).clamp(min=1e-30) for found in (one, other))
    length, moved = one.norm(dim=1), (other - one).norm(dim=1)
    if norm == "length":
        return torch.where(constant, 2.0, moved / length.clamp(min=1e-30))
    return torch.where(constant, 2 * one.shape[1] ** 0.5, moved)


def offsets(subject: Subject, rows: int, seed: int, draw: int, settings: Neighbours) -> Float[Tensor, "n c h w"]:
    """Noise for the first ``rows`` images: the same for every method, however many images are asked for."""
    shape = (BLOCK, *subject.inputs.shape[1:])
    drawn = []
    for first in range(0, rows, BLOCK):
        rng = generator("neighbour", subject.name, seed, draw, subject.first + first)
        normal = settings.noise == "normal"
        drawn.append(torch.randn(shape, generator=rng) if normal else 2 * torch.rand(shape, generator=rng) - 1)
    scale = settings.radius * (subject.population.inputs.std() if settings.in_spreads else 1.0)
    return torch.cat(drawn)[:rows].to(subject.inputs) * scale


def changes(method: Method, subject: Subject, draw: Draw, settings: Neighbours) -> Changes:
    """All draws of one setting; measured once, because three metrics ask for them."""
    n = min(draw.n, len(subject))
    key = ("neighbours", method.name, method.explain, draw.seed, n, settings)
    if key not in subject.cache:
        subject.cache[key] = _changes(method, subject, draw, settings, n)
    found: Changes = subject.cache[key]
    return found


def _changes(method: Method, subject: Subject, draw: Draw, settings: Neighbours, n: int) -> Changes:
    explained = min(len(subject), -(-n // BLOCK) * BLOCK)  # whole blocks: a stochastic method's draws depend on them
    inputs, targets = subject.inputs[:explained], subject.targets[:explained]
    original = subject_maps(method, subject, 0, n, seed=draw.seed)
    before = predicted(subject, inputs[:n])
    moved, shifted, kept = [], [], []
    for i in range(settings.draws):
        noise = offsets(subject, explained, draw.seed, i, settings)
        nearby = model_maps(
            method, subject, subject.model, inputs + noise, targets, 0, n,
            seed=draw.seed, stream=f"neighbour {i}", keep=False,
        )  # fmt: skip
        moved.append(distance(original, nearby, settings.norm))
        shifted.append(noise[:n].double().flatten(1).norm(dim=1))
        kept.append(predicted(subject, (inputs + noise)[:n]) == before)
    counts = torch.stack(kept) if settings.same_class else torch.ones_like(torch.stack(kept))
    counts = counts | ~counts.any(0)  # where every draw changes the prediction, all count: none would be robust
    constant = float(maps.degenerate(original).double().mean())
    again = subject_maps(method, subject, 0, n, seed=draw.seed, stream="repeat") if method.stochastic else original
    unrest = float(distance(original, again, settings.norm).mean())
    return Changes(torch.stack(moved), torch.stack(shifted), counts, constant, unrest)


def predicted(subject: Subject, inputs: Float[Tensor, "n c h w"]) -> Int[Tensor, " n"]:
    """The model's most likely class."""
    with evaluating(subject.model):
        return chunked(lambda rows: subject.model(rows).argmax(1), inputs, per_pass(inputs))
