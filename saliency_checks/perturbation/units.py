"""What is removed as one, the value that a map gives it, and the order in which it goes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.explain import BLOCK, generator, subject_channel_maps
from saliency_checks.method import Method
from saliency_checks.perturbation.engine import Removal, raster, turns
from saliency_checks.perturbation.imputers import Scene
from saliency_checks.perturbation.segments import segmented
from saliency_checks.perturbation.settings import Perturbation
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped


@dataclass(frozen=True, eq=False)
class Units:
    """The units of a block of images.

    Attributes:
        cells: the unit of each entry (n or 1, c or 1, h, w).
        number: how many units each image has (n or 1,).
        size: of the image that has most.
        is_raster: every entry is its own unit, in raster order.
    """

    cells: Int[Tensor, "#n #c h w"]
    number: Int[Tensor, " #n"]
    size: int
    is_raster: bool = False

    def removal(
        self, turn: Shaped[Tensor, " o #n u"], high: Shaped[Tensor, "#n k"], low: Shaped[Tensor, "#n k"] | None = None
    ) -> Removal:
        """What is gone in each order and step: the units whose turn lies in [low, high); low is 0 by default."""
        low = torch.zeros_like(high) if low is None else low
        return Removal(turn=turn, low=low, high=high, cells=self.cells, is_raster=self.is_raster)

    @property
    def is_there(self) -> Bool[Tensor, "#n u"]:
        return torch.arange(self.size, device=self.number.device) < self.number.unsqueeze(1)

    def values(self, attributions: Float[Tensor, "n c h w"], pooled: str) -> Float[Tensor, "n u"]:
        """Mean or sum of each unit's entries; 0 for a unit that an image does not have."""
        if self.cells.shape[1] == 1:
            attributions = attributions.sum(1, keepdim=True)
        flat = attributions.expand(-1, self.cells.shape[1], -1, -1).flatten(1)
        if self.is_raster:
            return flat
        cells = self.cells.flatten(1).expand(len(flat), -1)
        total = flat.new_zeros(len(flat), self.size).scatter_add(1, cells, flat)
        if pooled == "sum":
            return total
        count = torch.zeros_like(total).scatter_add(1, cells, torch.ones_like(flat))
        return total / count.clamp(min=1)


def blocks(subject: Subject, n: int) -> list[slice]:
    """The images 0 to n in whole blocks, so that no draw and no map depends on n."""
    n = min(n, len(subject))
    return [slice(first, min(first + BLOCK, len(subject))) for first in range(0, n, BLOCK)]


def units_of(subject: Subject, rows: slice, settings: Perturbation) -> Units:
    """The units of a block of images; segments are found once per image."""
    _, channels, height, width = subject.inputs.shape
    device = subject.inputs.device
    if settings.unit != "segment":
        cells = raster(channels if settings.unit == "channel" else 1, height, width, device)
        return Units(cells, torch.tensor([cells.numel()], device=device), cells.numel(), is_raster=True)

    def cut() -> Int[Tensor, "n h w"]:  # half as large as the numbers that index
        return segmented(subject.inputs[rows], settings.segments, settings.count).int()  # type: ignore[arg-type]

    cells = subject.recent.get(("segments", settings.segments, settings.count, rows.start), cut).long().unsqueeze(1)
    number = cells.flatten(1).amax(1) + 1
    return Units(cells, number, int(number.max()))


def scene_of(subject: Subject, rows: slice, seed: int, draw: int = 0) -> Scene:
    """What an imputer knows of a block; what it draws is the same for every method."""
    return Scene(
        inputs=subject.inputs[rows],
        absent=subject.absent_value,
        everything=subject.population.inputs,
        generator=generator("imputer", subject.name, subject.first + rows.start, seed, draw),
    )


def unit_values(
    method: Method, subject: Subject, rows: slice, seed: int, settings: Perturbation, units: Units
) -> Float[Tensor, "n u"]:
    """What the map says of each unit, read as ``settings.reading`` asks."""
    found = subject_channel_maps(method, subject, rows.start, rows.stop, seed=seed)
    if settings.reading == "channel_magnitude":
        found = found.abs().sum(1, keepdim=True)
    elif settings.unit != "channel":
        found = found.sum(1, keepdim=True)
    signed = settings.reading == "signed" or (settings.reading == "method" and method.signed)
    if found.shape[1] < units.cells.shape[1]:  # one value per pixel: each channel has an equal share of it
        found = (found / units.cells.shape[1]).expand(-1, units.cells.shape[1], -1, -1)
    return units.values(found if signed else found.abs(), settings.pooled)


def turns_of(
    method: Method, subject: Subject, rows: slice, seed: int, settings: Perturbation, units: Units, order: str
) -> Int[Tensor, "n u"]:
    """When each unit goes, ``most`` or ``least`` relevant first; ties by lot, the same for both."""
    values = unit_values(method, subject, rows, seed, settings, units)
    values = values.masked_fill(~units.is_there, -torch.inf)
    most = turns(maps.strict_order(values, generator("ties", subject.name, subject.first + rows.start, seed)))
    return most if order == "most" else units.number.unsqueeze(1) - 1 - most


def random_turns(subject: Subject, rows: slice, seed: int, draws: int, units: Units) -> Int[Tensor, "o n u"]:
    """When each unit goes in random orders: the same for all methods."""
    found = []
    for draw in range(draws):
        rng = generator("orders", subject.name, draw, subject.first + rows.start, seed)
        order = maps.random_orders(rows.stop - rows.start, units.size, generator=rng).to(units.cells.device)
        found.append(_last_where_absent(turns(order), units))
    return torch.stack(found)


def _last_where_absent(turn: Int[Tensor, "n u"], units: Units) -> Int[Tensor, "n u"]:
    """The same order of the units that an image has, and behind them what it has not."""
    late = turn + units.size * (~units.is_there).to(turn)
    return turns(late.argsort(1))
