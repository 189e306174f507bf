"""Where a map misses the planted cause: does the model need what it points at instead?

The paper's two differences are taken over a method's misses, which a sound method has none of: no bound could pass it.
Here they are taken over all images whose class needs its cause, and a hit counts 0, so that a method is blamed for as
many images as it misses, and only where the model itself says so: a share, with an exact interval. On images whose
class the model knows anyway (it is taken by default) ``pixel_recovery`` blames the map, and these do not. The mean over
the misses alone is in the note.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.decision import alone, needing, without
from saliency_checks.explain import derive, generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, Shown, metric
from saliency_checks.metrics.pixel_recovery import strengths
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.subject import Subject
from saliency_checks.verdict import ERROR, interval

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int
    from numpy.typing import NDArray

    Masks = Bool[Tensor, "n h w"]
    Rows = Int[Tensor, " n"]

LEAST_MISSED = 30  # fewer say nothing of the misses alone
BOUND = "<= 0.25"  # the mirror of pixel_recovery's
SOURCE = "Yasin, Hare, Marcu 2024, pixel importance; here over all images that need their cause"
FAILS = (
    "does pixel_recovery fail too? then the map misses the site, and what it says is the place to begin",
    "are the maps for these inputs, in this order and orientation (transposed, flipped, shifted)?",
    "is the asked class explained, not the predicted or a fixed one?",
)


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """What a map is said to point at.

    Attributes:
        at: ``spots``: of the site and its decoys the one with the greatest mean |map|, as in ``pixel_recovery``: a
            coarse map is not blamed for being coarse. ``pixels``, and where there are no decoys: as many of the largest
            pixels as the cause has, as published.
    """

    at: str = "spots"

    def __post_init__(self) -> None:
        if self.at not in ("spots", "pixels"):
            raise ValueError(f"at {self.at!r}: expected spots or pixels")


def pointed_at(
    method: Method, subject: Subject, attributions: Float[Tensor, "n h w"], at: str, lot: torch.Generator
) -> Masks:
    """The mask of what each of the first maps points at, see :class:`Pointing`; ties by lot."""
    assert subject.truth is not None
    truth = subject.truth[: len(attributions)]
    if at == "spots" and subject.decoys is not None:
        spots = torch.cat([truth.unsqueeze(1), subject.decoys[: len(truth)]], dim=1)
        return spots[torch.arange(len(spots)), maps.strict_order(strengths(attributions, subject), lot)[:, 0]]
    order = maps.strict_order(maps.settled(reading(attributions, method)).flatten(1), lot)
    return (order.argsort(1) < truth.flatten(1).sum(1, keepdim=True)).view_as(truth)


def _members(subject: Subject, draw: Draw) -> list[tuple[Subject, Rows]]:
    """The subject and its replicas, each with the images that are scored: of all of them equally many."""
    found = [(member, needing(member, draw.n)) for member in subject.members(draw.replicas)]
    n = min(len(rows) for _, rows in found)
    return [(member, rows[:n]) for member, rows in found]


def _importance(kind: str, method: Method, subject: Subject, draw: Draw, settings: Pointing) -> Scores:
    ask, sign = {"additive": (alone, 1), "subtractive": (without, -1)}[kind]
    values, missed, constant = [], [], []
    for i, (member, rows) in enumerate(_members(subject, draw)):
        assert member.truth is not None
        found = subject_maps(method, member, 0, int(rows[-1]) + 1, seed=draw.seed)
        lot = generator("ties", member.name, i, draw.seed)  # that of pixel_recovery
        chosen = pointed_at(method, member, found, settings.at, lot)[rows]
        is_miss = ~(chosen & member.truth[rows]).flatten(1).any(1)
        cost = torch.zeros(len(rows), dtype=torch.float64, device=rows.device)
        if is_miss.any():  # on a hit both are the same question
            at = rows[is_miss]
            planted, pointed = (ask(member, at, mask).double() for mask in (member.truth[at], chosen[is_miss]))
            cost[is_miss] = sign * (planted - pointed)
        values.append(cost.clamp(min=0).cpu().numpy())  # a cause that does not suffice blames nobody
        missed.append(cost[is_miss].cpu().numpy())
        constant.append(float(maps.degenerate(found[rows]).double().mean()))
    stacked = np.stack(values)
    return Scores(
        values=stacked[:, None, :], groups=tuple(f"replica {i}" for i in range(len(values))),
        degenerate=max(constant),
        details=_of_misses(np.concatenate(missed), stacked.size, derive(kind, method.name, subject.name, draw.seed)),
    )  # fmt: skip


def _of_misses(values: NDArray[np.float64], among: int, seed: int) -> dict[str, Any]:
    """The paper's own quantity, pooled over replicas: the mean over misses alone, and its interval."""
    told, level = f"missed {len(values)} of {among} images that need their cause", ERROR / 2
    if len(values) < LEAST_MISSED:
        return {"missed": len(values), "note": f"{told}: too few for a mean over these alone"}
    rng = np.random.default_rng(seed)
    low, high = interval(values[None], binary=False, low_level=level, high_level=level, rng=rng)
    mean, low, high = float(values.mean()), max(low, -1.0), min(high, 1.0)
    note = f"{told}; over these alone, as published: {mean:.2f} [{low:.2f}, {high:.2f}]"
    return {"missed": len(values), "on_misses": [mean, low, high], "note": note}


def _shown(method: Method, subject: Subject, draw: Draw, group: int) -> Shown:
    """What was scored."""
    member, rows = _members(subject, draw)[group]
    assert member.truth is not None
    found = subject_maps(method, member, 0, int(rows[-1]) + 1, seed=draw.seed)
    return Shown(inputs=member.inputs[rows], maps=found[rows], truth=member.truth[rows])


@metric(
    bound=BOUND, better="lower", binary=True, needs={"decision"}, n=96, shows=_shown, reference=SOURCE, if_fails=FAILS,
    meaning="the model finds the class in the planted cause alone, and not in what the map points at",
)  # fmt: skip
def additive_importance(method: Method, subject: Subject, draw: Draw, settings: Pointing = Pointing()) -> Scores:
    """Right with the cause alone minus right with what is pointed at alone: 0 for a hit, 1 for an error of the map."""
    return _importance("additive", method, subject, draw, settings)


@metric(
    bound=BOUND, better="lower", binary=True, needs={"decision"}, n=96, shows=_shown, reference=SOURCE, if_fails=FAILS,
    meaning="the class survives the loss of what the map points at, and not that of the planted cause",
)  # fmt: skip
def subtractive_importance(method: Method, subject: Subject, draw: Draw, settings: Pointing = Pointing()) -> Scores:
    """Right without what is pointed at minus right without the cause: 0 for a hit, 1 for an error of the map."""
    return _importance("subtractive", method, subject, draw, settings)
