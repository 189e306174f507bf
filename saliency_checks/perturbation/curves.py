"""Curves over the removed share of an image, each step measured once per subject, method, imputer and unit.

Every score of the family reads these: deletion and insertion, their distance, and what is needed to change the
prediction. A step that one score has measured is not measured again for another.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.method import Method
from saliency_checks.perturbation.engine import Answers, Removal, answers
from saliency_checks.perturbation.imputers import imputer
from saliency_checks.perturbation.settings import Curve
from saliency_checks.perturbation.units import Units, blocks, random_turns, scene_of, turns_of, units_of
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

    Store = dict[float, Float[Tensor, "o b 5"]]  # what the model says, by removed share

# The least original output to divide by, as a share of the images' mean.
LEAST_OUTPUT = 0.25


def curve(method: Method, subject: Subject, n: int, seed: int, settings: Curve, order: str) -> Answers:
    """What the model says while units go, ``most`` or ``least`` relevant first (n, fractions)."""
    read_as = method.signed if settings.reading == "method" else None

    def measured(rows: slice, order: str) -> Store:
        def turn(units: Units) -> Int[Tensor, "1 b u"]:
            return turns_of(method, subject, rows, seed, settings, units, order).unsqueeze(0)

        key = (method.name, method.explain, read_as, settings.reading, settings.pooled, order)
        return _measured(subject, rows, seed, settings, key, turn)

    found = []
    for rows in blocks(subject, n):
        # The other order with it, while the block's maps are at hand.
        stores = {each: measured(rows, each) for each in (order, *settings.orders)}
        found.append(_steps(subject, rows, seed, settings, stores[order])[0])
    return Answers(torch.cat(found)[:n])


def random_curves(subject: Subject, n: int, seed: int, settings: Curve) -> Answers:
    """The same for ``settings.random_orders`` random orders (orders, n, fractions), once for all methods."""

    def measured(rows: slice) -> Store:
        def turn(units: Units) -> Int[Tensor, "o b u"]:
            return random_turns(subject, rows, seed, settings.random_orders, units)

        return _measured(subject, rows, seed, settings, ("random", settings.random_orders), turn)

    found = [_steps(subject, rows, seed, settings, measured(rows)) for rows in blocks(subject, n)]
    return Answers(torch.cat(found, 1)[:, :n])


def whole(subject: Subject, n: int) -> Answers:
    """What the model says of the images as they are (n,)."""
    return Answers(torch.cat([_whole(subject, rows) for rows in blocks(subject, n)])[:n])


def scaled(found: Answers, subject: Subject, settings: Curve) -> Float[Tensor, "... n k"]:
    """The output that is asked for, on the scale that is asked for.

    Raises:
        Unqualified: the guarded scale, and the images' mean output is not above 0: there is nothing to lose.
    """
    values = found.read(settings.output)
    if settings.scale == "raw":
        return values
    original = whole(subject, values.shape[-2]).read(settings.output)
    if settings.scale == "guarded":
        mean = _mean_output(subject, values.shape[-2], settings.output)
        if float(mean) <= 0:
            below = f"{-float(mean):.2f} below " + ("the mean of all logits" if settings.output == "centred" else "0")
            raise Unqualified(
                f"the targets' {settings.output} output is {below}: deletion needs targets that the model predicts"
            )
        # An image that the model hardly assigns to its target would count without limit.
        original = original.clamp(min=LEAST_OUTPUT * mean)
    return values / original.unsqueeze(-1)


def _mean_output(subject: Subject, n: int, output: str) -> Float[Tensor, ""]:
    """Of all images that are scored, also where these are a shard of them."""
    return whole(*subject.scored(n)).read(output).mean()


def area(curves: Float[Tensor, "... k"], settings: Curve) -> Float[Tensor, ...]:
    """Mean height of curves over ``settings.fractions``."""
    if settings.rule == "mean" or len(settings.fractions) == 1:
        return curves.mean(-1)
    at = torch.tensor(settings.fractions, dtype=curves.dtype, device=curves.device)
    return torch.trapezoid(curves, at, dim=-1) / (at[-1] - at[0])


def removed(units: Units, shares: Sequence[float], rounding: str) -> Shaped[Tensor, "#n k"]:
    """Number of units that are these shares of each image's."""
    exact = units.number.cpu().double().unsqueeze(1) * torch.tensor(shares, dtype=torch.float64)
    whole_numbers = exact.round() if rounding == "nearest" else (exact + 1e-6).floor()
    return whole_numbers.long().to(units.number.device)


def _measured(
    subject: Subject, rows: slice, seed: int, settings: Curve, key: Hashable, turn: Callable[[Units], Tensor]
) -> Store:
    """A block's steps by removed share; those that are missing are measured together."""
    store: Store = subject.cache.setdefault(("curve", settings.world, seed, key, rows.start), {})
    missing = [share for share in settings.fractions if share not in store and 0 < share < 1]
    if missing:
        units = units_of(subject, rows, settings)
        removal = units.removal(turn(units), removed(units, missing, settings.rounding))
        values = _answers(subject, rows, seed, settings, removal).values
        store.update(zip(missing, values.unbind(2), strict=True))
    return store


def _steps(subject: Subject, rows: slice, seed: int, settings: Curve, store: Store) -> Float[Tensor, "o b k 5"]:
    """All of ``settings.fractions``; nothing and everything removed are the same in every order."""
    orders = len(next(iter(store.values()))) if store else 1

    def step(share: float) -> Float[Tensor, "o b 5"]:
        if share in store:
            return store[share]
        end = _whole(subject, rows) if share == 0 else _empty(subject, rows, seed, settings)
        return end.expand(orders, -1, -1)

    return torch.stack([step(share) for share in settings.fractions], 2)


def _answers(subject: Subject, rows: slice, seed: int, settings: Curve, removal: Removal) -> Answers:
    scene = scene_of(subject, rows, seed)
    return answers(subject.model, scene.inputs, subject.targets[rows], removal, imputer(settings.imputer, scene))


def _whole(subject: Subject, rows: slice) -> Float[Tensor, "b 5"]:
    key = ("whole", rows.start)
    if key not in subject.cache:
        subject.cache[key] = _answers(subject, rows, 0, Curve(), _all(subject, rows, Curve(), 0)).values[0, :, 0]
    found: Tensor = subject.cache[key]
    return found


def _empty(subject: Subject, rows: slice, seed: int, settings: Curve) -> Float[Tensor, "b 5"]:
    """Everything removed: the same in every order."""
    key = ("empty", settings.world, seed, rows.start)
    if key not in subject.cache:
        removal = _all(subject, rows, settings, 1)
        subject.cache[key] = _answers(subject, rows, seed, settings, removal).values[0, :, 0]
    found: Tensor = subject.cache[key]
    return found


def _all(subject: Subject, rows: slice, settings: Curve, share: int) -> Removal:
    """None of the units, or all."""
    units = units_of(subject, rows, settings)
    high = units.number.unsqueeze(1) * share
    turn = torch.arange(units.size, device=high.device).view(1, 1, -1)
    return units.removal(turn, high)
