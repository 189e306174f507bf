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


@dataclass(frozen=True, kw_only=True)
class Subsets(Perturbation):
    """A score from random subsets of the units.

    Attributes:
        sizes: of the subsets: shares of the units, or numbers where they are whole ones (10 and not 10.0).
        draws: subsets of each size.
        law: ``exact``: a subset has just its size, and the smaller ones lie in the larger; ``bernoulli``: each unit is
            in it with that probability.
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


def drawn(subject: Subject, rows: slice, seed: int, settings: Subsets, units: Units) -> Removal:
    """The subsets of a block: the same ones for every image and every method.

    Raises:
        Unqualified: an image has fewer units than a subset.
    """
    rng = generator("subsets", subject.name, settings.law, seed)
    device = units.number.device
    if settings.law == "bernoulli":
        turn = torch.rand(settings.draws, units.size, generator=rng, dtype=torch.float64).to(device)
        high = torch.tensor(settings.sizes, dtype=torch.float64, device=device).unsqueeze(0)
        return units.removal(turn.unsqueeze(1), high)
    lots = torch.rand(settings.draws, 1, units.size, generator=rng, dtype=torch.float64).to(device)
    late = (~units.is_there).to(lots)  # the units that an image has not go last
    turn = torch.stack([turns(order) for order in (lots + late).argsort(2)])
    high = torch.stack([_number(size, units.number) for size in settings.sizes], 1)
    if bool((high > units.number.unsqueeze(1)).any()):
        few = int(units.number.min())
        raise Unqualified(
            f"an image of {subject.name} has {few} units, fewer than the largest of sizes {settings.sizes}"
        )
    return units.removal(turn, high)


def _number(size: float, number: Tensor) -> Tensor:
    return torch.full_like(number, size) if isinstance(size, int) else (number * size + 1e-6).long().clamp(min=1)


def falls(subject: Subject, rows: slice, seed: int, settings: Subsets, removal: Removal) -> Answers:
    """What the model says without each subset (draws, n, sizes), once for all methods."""
    key = (*settings.key, seed, rows.start)
    if key not in subject.cache:
        scene = scene_of(subject, rows, seed)
        fill = imputer(settings.imputer, scene)
        subject.cache[key] = answers(subject.model, scene.inputs, subject.targets[rows], removal, fill)
    found: Answers = subject.cache[key]
    return found


def sums(removal: Removal, values: Float[Tensor, "n u"]) -> Float[Tensor, "o n k"]:
    """Sum of the values in each subset. In float64, where sums of equal values are exact: a constant map stays one."""
    values = values.double()

    def of(turn: Shaped[Tensor, "#n u"]) -> Float[Tensor, "n k"]:
        inside = turn.unsqueeze(1) < removal.high.unsqueeze(2)
        if len(inside) == 1:
            return values @ inside[0].to(values).T
        return torch.einsum("nku,nu->nk", inside.to(values), values)

    return torch.stack([of(turn) for turn in removal.turn])
