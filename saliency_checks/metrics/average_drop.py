"""What the image's probability becomes when the map is laid over it as a mask: drop, increase, gain."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored
from saliency_checks.perturbation import Answers, Perturbation, Plan, whole
from saliency_checks.perturbation.engine import forwarded
from saliency_checks.perturbation.imputers import FILLS, filled
from saliency_checks.perturbation.settings import WHOLE, Part
from saliency_checks.perturbation.units import blocks, scene_of, unit_values, units_of
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float

EPSILON = 2.2e-16


@dataclass(frozen=True, kw_only=True)
class Mask(Perturbation):
    """A score from images behind the map as a mask.

    Attributes:
        scaling: the mask is the map's positive part over its maximum (``maximum``: all ones stays all ones, and what is
            not positive is gone), or the map from its least to its largest value (``range``: a constant map is gone).
    """

    output: str = "probability"
    scaling: str = "maximum"

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {"imputer": tuple(FILLS), "unit": ("pixel",), "scaling": ("maximum", "range")}

    @property
    def plan(self) -> Plan:
        return Plan(frozenset({WHOLE, Part(("mask", self.imputer, self.reading, self.scaling), 1)}))


def mask(values: Float[Tensor, "n p"], scaling: str) -> Float[Tensor, "n p"]:
    """Maps from 0 to 1."""
    low = values.amin(1, keepdim=True) if scaling == "range" else torch.zeros_like(values[:, :1])
    above = (values - low).clamp(min=0)
    high = above.amax(1, keepdim=True)
    return above / torch.where(high > 0, high, 1)


def masked(method: Method, subject: Subject, rows: slice, seed: int, settings: Mask) -> Answers:
    """What the model says of the images behind their maps (n,), once for all scores."""
    read_as = method.signed if settings.reading == "method" else settings.reading
    key = ("mask", settings.imputer, settings.scaling, method.name, method.explain, read_as, seed, rows.start)
    if key not in subject.cache:
        scene, targets, units = scene_of(subject, rows, seed), subject.targets[rows], units_of(subject, rows, settings)
        fill = filled(settings.imputer, scene)
        shown = mask(unit_values(method, subject, rows, seed, settings, units), settings.scaling)
        shown = shown.view(-1, 1, *fill.shape[2:])

        def one(image: Tensor) -> Tensor:
            # Not m x + (1 - m) b: where m is 1 this is x to the last bit.
            seen = scene.inputs[image] + (1 - shown[image]) * (fill[image] - scene.inputs[image])
            return Answers.of(subject.model(seen), targets[image]).values

        subject.cache[key] = Answers(forwarded(subject.model, one, (len(targets),), scene.inputs))
    found: Answers = subject.cache[key]
    return found


def _scores(
    rule: Callable[[Tensor, Tensor], Tensor], method: Method, subject: Subject, draw: Draw, settings: Mask
) -> Scores:
    n = min(draw.n, len(subject))
    found = [masked(method, subject, rows, draw.seed, settings).read(settings.output) for rows in blocks(subject, n)]
    before, after = whole(subject, n).read(settings.output).double(), torch.cat(found)[:n].double()
    return scored(rule(before, after), method, subject, draw)


@metric(alone=True, better="lower", readings=True, reference="Chattopadhay et al. 2018, Grad-CAM++, section 4.1.1")
def average_drop(method: Method, subject: Subject, draw: Draw, settings: Mask = Mask()) -> Scores:
    """Share of the probability that is lost behind the mask; 0 where it rises. A map of ones is best: never gate."""
    return _scores(lambda p, m: (p - m).clamp(min=0) / (p + EPSILON), method, subject, draw, settings)


@metric(
    alone=True, binary=True, readings=True, reference="Chattopadhay et al. 2018, section 4.1.2, increase in confidence"
)
def average_increase(method: Method, subject: Subject, draw: Draw, settings: Mask = Mask()) -> Scores:
    """Share of the images whose probability is higher behind the mask; Fake-CAM does well: never gate."""
    return _scores(lambda p, m: (m > p).double(), method, subject, draw, settings)


@metric(alone=True, readings=True, reference="Zhang et al. 2024, Opti-CAM, equation 12, average gain")
def average_gain(method: Method, subject: Subject, draw: Draw, settings: Mask = Mask()) -> Scores:
    """Share of what is missing to probability 1 that the mask gains; 0 where it loses."""
    return _scores(lambda p, m: (m - p).clamp(min=0) / (1 - p + EPSILON), method, subject, draw, settings)
