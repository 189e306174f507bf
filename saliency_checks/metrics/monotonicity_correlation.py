"""Do groups of pixels that rank higher move the output more?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored
from saliency_checks.perturbation import Perturbation, Plan, answers, imputer, whole
from saliency_checks.perturbation.settings import WHOLE, Part
from saliency_checks.perturbation.units import blocks, scene_of, turns_of, unit_values, units_of
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class Groups(Perturbation):
    """A score from groups of units of like rank, each replaced alone.

    Attributes:
        groups: about equally large ones, from the least relevant on.
        draws: of the imputer, where it is random.
    """

    imputer: str = "uniform"
    output: str = "logit"
    reading: str = "magnitude"
    pooled: str = "sum"
    groups: int = 10
    draws: int = 4

    @property
    def key(self) -> tuple[object, ...]:
        return ("groups", self.world, self.reading, self.pooled, self.groups, self.draws)

    @property
    def plan(self) -> Plan:
        return Plan(frozenset({WHOLE, Part(self.key, self.groups * self.draws)}))


def effects(
    method: Method, subject: Subject, rows: slice, seed: int, settings: Groups
) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
    """What the map gives each group, and the mean squared change of the output when it is replaced."""
    read_as = method.signed if settings.reading == "method" else None
    key = (*settings.key, settings.output, method.name, method.explain, read_as, seed, rows.start)
    if key not in subject.cache:
        subject.cache[key] = _measured(method, subject, rows, seed, settings)
    found: tuple[Tensor, Tensor] = subject.cache[key]
    return found


def _measured(
    method: Method, subject: Subject, rows: slice, seed: int, settings: Groups
) -> tuple[Float[Tensor, "n g"], Float[Tensor, "n g"]]:
    units = units_of(subject, rows, settings)
    turn = turns_of(method, subject, rows, seed, settings, units, "least")
    edges = units.number.unsqueeze(1) * torch.arange(settings.groups + 1, device=turn.device) // settings.groups
    removal = units.removal(turn.unsqueeze(0), edges[:, 1:], edges[:, :-1])
    original = whole(subject, rows.stop).read(settings.output)[rows.start :, None]
    moved = torch.zeros_like(original)
    for draw in range(settings.draws):
        scene = scene_of(subject, rows, seed, draw)
        fill = imputer(settings.imputer, scene)
        found = answers(subject.model, scene.inputs, subject.targets[rows], removal, fill).read(settings.output)[0]
        moved = moved + (found - original).square() / settings.draws
    values = unit_values(method, subject, rows, seed, settings, units).double()
    group = (turn.clamp(min=0).unsqueeze(2) >= edges[:, None, 1:]).sum(2)
    return torch.zeros_like(moved, dtype=torch.float64).scatter_add(
        1, group.clamp(max=settings.groups - 1), values
    ), moved


@metric(
    alone=True,
    n=32,
    reference="Nguyen and Martinez 2020, section 3.2, as in Quantus: groups from the least relevant on, Spearman",
    meaning="groups of pixels to which the map gives more do not move the output more",
)
def monotonicity_correlation(
    method: Method, subject: Subject, draw: Draw, settings: Groups = Groups()
) -> Scores:  # fmt: skip
    """Rank correlation, over groups of pixels, of the map's magnitude with the output's mean squared change."""
    n = min(draw.n, len(subject))
    found = [effects(method, subject, rows, draw.seed, settings) for rows in blocks(subject, n)]
    given, moved = (torch.cat(side)[:n, :, None] for side in zip(*found, strict=True))
    return scored(maps.spearman(given, moved.double()), method, subject, draw)
