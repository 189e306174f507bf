"""What a model says of its planted cause: is it right with it, without it, and with nothing else?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Masks = Bool[Tensor, "n h w"]
    Rows = Int[Tensor, " n"]

# The gates: right with the cause, at chance without it, and right with nothing else.
LEAST_RIGHT, ABOVE_CHANCE, LEAST_ALONE = 0.99, 0.05, 0.95


def without(subject: Subject, rows: Rows, mask: Masks) -> Bool[Tensor, " n"]:
    """Right although the masked pixels hold nothing, or what was there before anything was planted."""
    nothing = subject.absent_value if subject.clean is None else subject.clean[rows]
    return _right(subject, rows, torch.where(mask.unsqueeze(1), nothing, subject.inputs[rows]))


def alone(subject: Subject, rows: Rows, mask: Masks) -> Bool[Tensor, " n"]:
    """Right with the masked pixels alone."""
    return _right(subject, rows, torch.where(mask.unsqueeze(1), subject.inputs[rows], subject.absent_value))


@torch.no_grad()
def _right(subject: Subject, rows: Rows, inputs: Float[Tensor, "n c h w"]) -> Bool[Tensor, " n"]:
    return chunked(subject.model, inputs, per_pass(inputs)).argmax(1) == subject.targets[rows]


def needing(subject: Subject, n: int) -> Rows:
    """The first ``n`` images, or all there are, that are right with their cause and wrong without it.

    Raises:
        Unqualified: the gates do not hold; says the numbers.
    """
    asked = min(n, len(subject))
    while len(found := _asked(subject, asked).nonzero().flatten()) < n and asked < len(subject):
        asked = min(2 * asked, len(subject))
    return found[:n]


def _asked(subject: Subject, n: int) -> Bool[Tensor, " n"]:
    """Which of the first images need their cause; the model is asked once for all methods and both checks."""
    key = ("pixel importance", n)
    if key not in subject.cache:
        assert subject.truth is not None
        rows, site = torch.arange(n, device=subject.inputs.device), subject.truth[:n]
        with_it = _right(subject, rows, subject.inputs[:n])
        subject.cache[key] = with_it, without(subject, rows, site), alone(subject, rows, site)
    with_it, bare, only = subject.cache[key]
    chance = float((subject.targets.bincount().double() / len(subject)).max())
    right, left, least = (float(found.double().mean()) for found in (with_it, bare, only))
    found: Tensor = with_it & ~bare
    if right < LEAST_RIGHT or left > chance + ABOVE_CHANCE or least < LEAST_ALONE or not found.any():
        raise Unqualified(
            f"{subject.name}: of {n} images the model is right on {right:.1%} with the cause (expected"
            f" {LEAST_RIGHT:.0%} at least), on {left:.1%} without it (chance, {chance:.0%}, + {ABOVE_CHANCE:.0%} at"
            f" most) and on {least:.1%} with nothing else ({LEAST_ALONE:.0%} at least)"
        )
    return found
