"""Random subsets of the units, removed: what the model then says does not depend on any map, so it is asked once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.explain import generator
from saliency_checks.perturbation.engine import Answers, Removal, answers, turns
from saliency_checks.perturbation.imputers import imputer
from saliency_checks.perturbation.settings import Part, Perturbation, Plan
from saliency_checks.perturbation.units import Units, scene_of
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float, Shaped


# Differences between sums, relative to the sums, that come from adding up in another order.
ROUNDING = 1e-9


@dataclass(frozen=True, kw_only=True)
class Subsets(Perturbation):
    """A score from random subsets of the units.

    Attributes:
        sizes: of the subsets: shares of the units, or numbers where they are whole ones (10 and not 10.0).
        draws: subsets of each size.
        law: ``exact``: a subset has just its size; ``bernoulli``: each unit is in it with that probability.
    """

    output: str = "logit"
    pooled: str = "sum"
    sizes: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    draws: int = 50
    law: str = "exact"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {"law": ("exact", "bernoulli")}

    @property
    def key(self) -> tuple[object, ...]:
        return ("subsets", self.world, self.sizes, self.draws, self.law)

    @property
    def plan(self) -> Plan:
        return Plan(frozenset({Part(self.key, self.draws * len(self.sizes), shared=True)}))


def drawn(subject: Subject, rows: slice, seed: int, settings: Subsets, units: Units) -> list[Removal]:
    """The subsets of a block, by size: the same ones for every image and every method.

    Raises:
        Unqualified: an image has fewer units than a subset.
    """
    return [_of_size(subject, size, seed, settings, units) for size in settings.sizes]


def _of_size(subject: Subject, size: float, seed: int, settings: Subsets, units: Units) -> Removal:
    rng, device = generator("subsets", subject.name, settings.law, size, seed), units.number.device
    lots = torch.rand(settings.draws, 1, units.size, generator=rng, dtype=torch.float64).to(device)
    if settings.law == "bernoulli":
        return units.removal(lots, torch.full((1, 1), size, dtype=torch.float64, device=device))
    high = _number(size, units.number).unsqueeze(1)
    if bool((high > units.number.unsqueeze(1)).any()):
        raise Unqualified(f"an image of {subject.name} has {int(units.number.min())} units: fewer than the size {size}")
    late = (~units.is_there).to(lots)  # the units that an image has not go last
    return units.removal(torch.stack([turns(order) for order in (lots + late).argsort(2)]), high)


def _number(size: float, number: Tensor) -> Tensor:
    return torch.full_like(number, size) if isinstance(size, int) else (number * size + 1e-6).long().clamp(min=1)


def without(subject: Subject, rows: slice, seed: int, settings: Subsets, subsets: list[Removal]) -> Answers:
    """What the model says without each subset (draws, n, sizes), once for all methods."""
    key = (*settings.key, seed, rows.start)
    if key not in subject.cache:
        scene = scene_of(subject, rows, seed)
        fill, targets = imputer(settings.imputer, scene), subject.targets[rows]
        of_size = [answers(subject.model, scene.inputs, targets, subset, fill).values for subset in subsets]
        subject.cache[key] = Answers(torch.cat(of_size, 2))
    found: Answers = subject.cache[key]
    return found


def sums(subset: Removal, values: Float[Tensor, "n u"]) -> Float[Tensor, "draws n"]:
    """Sum of the values in each subset; sums that differ by rounding only are made equal, so that they say nothing."""
    values = values.double()

    def of(turn: Shaped[Tensor, "#n u"]) -> Float[Tensor, " n"]:
        return ((turn < subset.high) * values).sum(1)

    found = torch.stack([of(turn) for turn in subset.turn])
    is_flat = found.amax(0) - found.amin(0) <= ROUNDING * found.abs().amax(0)
    return torch.where(is_flat, found[:1], found)
