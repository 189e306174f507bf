"""Does the map foretell what the output does when the image is nudged?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored
from saliency_checks.perturbation import Nudges, whole
from saliency_checks.perturbation.nudges import changed, foretold
from saliency_checks.perturbation.units import blocks, unit_values, units_of
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float


def error(
    expected: Float[Tensor, "draws n"], fall: Float[Tensor, "draws n"], scale: str = "share"
) -> Float[Tensor, " n"]:
    """Mean squared difference of the fall of the output from what the map expects.

    With the best scale it is at most the mean square of the fall, which is what a zero map has: as a ``share`` of
    that it lies between 0 and 1, and 1 where nothing is foretold. An output that never moves gives 1, too.
    """
    expected, fall = expected.double(), fall.double()
    if scale == "none":
        return (expected - fall).square().mean(0)
    squares = expected.square().mean(0)
    is_zero = squares == 0
    best = torch.where(is_zero, 0, (expected * fall).mean(0) / squares.masked_fill(is_zero, 1))
    left, most = (best * expected - fall).square().mean(0), fall.square().mean(0)
    if scale == "best":
        return left
    return torch.where(most > 0, left / most.masked_fill(most == 0, 1), 1).clamp(max=1)


@metric(
    alone=True,
    better="lower",
    n=32,
    reference="Yeh et al. 2019, equations 1 and 5 (optimal scale); Gevaert et al. 2022 for the nudges",
    meaning="the map does not foretell how the output answers to changes of the image",
)
def infidelity(method: Method, subject: Subject, draw: Draw, settings: Nudges = Nudges()) -> Scores:  # noqa: B008
    """Share of the output's squared change that no multiple of the map foretells: 0 all is, 1 nothing is."""
    n, found = min(draw.n, len(subject)), []
    for rows in blocks(subject, n):
        units = units_of(subject, rows, settings)
        values = unit_values(method, subject, rows, draw.seed, settings, units)
        expected = foretold(subject, rows, draw.seed, settings, values.view(-1, *units.cells.shape[1:]))
        original = whole(subject, rows.stop).read(settings.output)[rows.start :]
        fall = original - changed(subject, rows, draw.seed, settings).read(settings.output)
        found.append(error(expected, fall, settings.scale))
    return scored(torch.cat(found)[:n], method, subject, draw)
