"""Where a map misses the planted cause: does the model need what it points at instead?

Two questions to the model itself, so no map is blamed for a cause that the model does not use. Informational: a method
that is right misses too rarely to be measured, and one that is wrong fails ``pixel_recovery`` already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Masks = Bool[Tensor, "n h w"]

LEAST_MISSED = 30
# The gates: right with the cause, at chance without it, and right with nothing else.
LEAST_RIGHT, ABOVE_CHANCE, LEAST_ALONE = 0.99, 0.05, 0.95
SOURCE = "Yasin, Hare, Marcu 2024, section on pixel importance; pooled misses outside the default class"


def _right(subject: Subject, inputs: Float[Tensor, "n c h w"]) -> Bool[Tensor, " n"]:
    with torch.no_grad():
        logits = chunked(subject.model, inputs, per_pass(inputs))
    return logits.argmax(1) == subject.targets[: len(inputs)]


def _without(subject: Subject, inputs: Float[Tensor, "n c h w"], mask: Masks) -> Bool[Tensor, " n"]:
    """Right although the masked pixels hold nothing."""
    return _right(subject, torch.where(mask.unsqueeze(1), subject.absent_value, inputs))


def _alone(subject: Subject, inputs: Float[Tensor, "n c h w"], mask: Masks) -> Bool[Tensor, " n"]:
    """Right with the masked pixels alone."""
    return _right(subject, torch.where(mask.unsqueeze(1), inputs, subject.absent_value))


def pointed_at(method: Method, subject: Subject, draw: Draw, n: int) -> Masks:
    """As many of the largest pixels as the cause has, ties by lot."""
    assert subject.truth is not None
    found = subject_maps(method, subject, 0, n, seed=draw.seed)
    found = maps.settled(found if method.signed else found.abs())
    order = maps.strict_order(found.flatten(1), generator("pixel importance", subject.name, draw.seed))
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )
    area = subject.truth[:n].flatten(1).sum(1, keepdim=True)
    return (place < area).view_as(found)


def _gates(subject: Subject, n: int) -> Bool[Tensor, " n"]:
    """Images that are right with their cause and wrong without it; raises where the model does not qualify."""
    assert subject.truth is not None
    key = ("pixel importance", n)
    if key not in subject.cache:
        inputs, site = subject.inputs[:n], subject.truth[:n]
        with_it = _right(subject, inputs)
        without = _right(subject, subject.clean[:n]) if subject.clean is not None else _without(subject, inputs, site)
        alone = _alone(subject, inputs, site)
        subject.cache[key] = with_it, without, alone
    with_it, without, alone = subject.cache[key]
    chance = float((subject.targets.bincount().double() / len(subject)).max())
    for name, found, holds in (
        ("right with the cause", with_it, float(with_it.double().mean()) >= LEAST_RIGHT),
        ("right without it", without, float(without.double().mean()) <= chance + ABOVE_CHANCE),
        ("right with nothing else", alone, float(alone.double().mean()) >= LEAST_ALONE),
    ):
        if not holds:
            raise Unqualified(
                f"{subject.name}: {name} on {float(found.double().mean()):.1%} of {n} images; expected at least"
                f" {LEAST_RIGHT:.0%} with it, at most chance ({chance:.0%}) + {ABOVE_CHANCE:.0%} without and at least"
                f" {LEAST_ALONE:.0%} with nothing else"
            )
    needed: Tensor = with_it & ~without
    return needed


def _importance(kind: str, method: Method, subject: Subject, draw: Draw) -> Scores:
    n = min(draw.n, len(subject))
    needed = _gates(subject, n)
    assert subject.truth is not None
    inputs, site = subject.inputs[:n], subject.truth[:n]
    chosen = pointed_at(method, subject, draw, n)
    missed = needed & ~(chosen & site).flatten(1).any(1)
    if int(missed.sum()) < LEAST_MISSED:
        raise Unqualified(
            f"{method.name} misses the cause on {int(missed.sum())} of {int(needed.sum())} images of {subject.name};"
            f" fewer than {LEAST_MISSED} say nothing"
        )
    ask = _alone if kind == "additive" else _without
    planted, pointed = ask(subject, inputs, site).double(), ask(subject, inputs, chosen).double()
    values = planted - pointed if kind == "additive" else pointed - planted
    return Scores(values=values[missed].cpu().numpy()[None, None], details={"missed": int(missed.sum())})


@metric(
    better="lower", needs={"removal"}, n=96, readings=True, reference=SOURCE,
    meaning="the model finds the class in the planted cause alone, and not in what the map points at",
)  # fmt: skip
def additive_importance(method: Method, subject: Subject, draw: Draw) -> Scores:
    """On misses: right with the cause alone minus right with what is pointed at alone; 1 for an error of the map."""
    return _importance("additive", method, subject, draw)


@metric(
    better="lower", needs={"removal"}, n=96, readings=True, reference=SOURCE,
    meaning="the class survives the loss of what the map points at, and not that of the planted cause",
)  # fmt: skip
def subtractive_importance(method: Method, subject: Subject, draw: Draw) -> Scores:
    """On misses: right without what is pointed at minus right without the cause; 1 for an error of the map."""
    return _importance("subtractive", method, subject, draw)
