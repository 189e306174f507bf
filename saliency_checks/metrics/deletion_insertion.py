"""On natural images: does deleting what the map ranks first hurt more, and what it ranks last less, than chance?"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saliency_checks import maps, registry
from saliency_checks.explain import BLOCK, generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, same_images
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.perturbation import FILLS, outputs
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float, Int

FRACTIONS = tuple(i / 10 for i in range(11))
RANDOM_ORDERS = 5
# The least original logit to divide by, as a share of the images' mean.
LEAST_LOGIT = 0.25
# The bound is calibrated against a random order. Beside a control any gain counts, so that row is raised by as much.
MARGIN = 0.05
SIDES = ("most relevant first", "least relevant first")


def target_logits(
    subject: Subject, order: Int[Tensor, "b p"], rows: slice, fill: str, fractions: tuple[float, ...]
) -> Float[Tensor, "b k"]:
    """Logit of the target after deleting each fraction of the pixels, less the mean of all logits.

    Centred, so that a shift common to all classes does not count.
    """
    inputs, targets = subject.inputs[rows], subject.targets[rows]
    counts = [round(fraction * order.shape[1]) for fraction in fractions]
    logits = outputs(subject.model, inputs, FILLS[fill](inputs, subject.absent_value), order, counts)
    target = logits.gather(2, targets.view(-1, 1, 1).expand(-1, len(counts), 1)).squeeze(2)
    return target - logits.mean(2)


def curves(
    subject: Subject, n: int, fill: str, key: tuple[Any, ...], orders: Callable[[int, int], Int[Tensor, "o b p"]]
) -> Float[Tensor, "o n k"]:
    """Deletion curves over ``FRACTIONS``, relative to the original logit; in blocks, each measured once per ``key``.

    Args:
        orders: gives the orders of the images ``start`` to ``stop``.

    Raises:
        Unqualified: the model does not predict the targets, so there is nothing to lose.
    """
    blocks = []
    for first in range(0, min(n, len(subject)), BLOCK):
        rows = slice(first, min(first + BLOCK, len(subject)))
        if ("curves", fill, *key, first) not in subject.cache:
            some = orders(rows.start, rows.stop)
            inner = torch.stack([target_logits(subject, order, rows, fill, FRACTIONS[1:-1]) for order in some])
            ends = _ends(subject, some[0], rows, fill).expand(len(some), -1, -1)
            subject.cache["curves", fill, *key, first] = torch.cat([ends[..., :1], inner, ends[..., 1:]], dim=2)
        blocks.append(subject.cache["curves", fill, *key, first])
    found = torch.cat(blocks, dim=1)[:, :n]
    original = found[0, :, 0]
    if float(original.mean()) <= 0:
        raise Unqualified(
            f"the targets' logits are {-float(original.mean()):.2f} below the mean of all logits: deletion needs"
            " targets that the model predicts"
        )
    # An image that the model hardly assigns to its target would count without limit.
    return found / original.clamp(min=LEAST_LOGIT * float(original.mean())).unsqueeze(1)


def _ends(subject: Subject, order: Int[Tensor, "b p"], rows: slice, fill: str) -> Float[Tensor, "b 2"]:
    """Nothing deleted and everything deleted: the same for every order."""
    key = ("curve ends", fill, rows.start)
    if key not in subject.cache:
        subject.cache[key] = target_logits(subject, order, rows, fill, (0.0, 1.0))
    ends: Tensor = subject.cache[key]
    return ends


def area(curves: Float[Tensor, "... n k"]) -> Float[Tensor, "... n"]:
    return torch.trapezoid(curves, dx=1 / (len(FRACTIONS) - 1), dim=-1)


def random_area(subject: Subject, n: int, seed: int, fill: str) -> Float[Tensor, " n"]:
    """Mean area under random orders: the zero of both sides, once per subject."""
    size = subject.inputs[0, 0].numel()

    def orders(start: int, stop: int) -> Int[Tensor, "o b p"]:
        draws = range(RANDOM_ORDERS)
        rngs = (generator("orders", subject.name, draw, start, seed) for draw in draws)
        return torch.stack([maps.random_orders(stop - start, size, generator=rng) for rng in rngs]).to(
            subject.inputs.device
        )

    return area(curves(subject, n, fill, ("random", seed), orders)).mean(0)


def advantages(
    method: Method, subject: Subject, n: int, seed: int, fill: str = "mean"
) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "2 n k"]]:
    """How much the map beats a random order on each of ``SIDES``, and both curves."""

    def orders(start: int, stop: int) -> Int[Tensor, "o b p"]:
        attributions = reading(subject_maps(method, subject, start, stop, seed=seed), method)
        order = maps.strict_order(attributions.flatten(1), generator("ties", subject.name, start, seed))
        return torch.stack([order, order.flip(1)])

    pair = curves(subject, n, fill, (method.name, method.explain, method.signed, seed), orders)
    random = random_area(subject, n, seed, fill)
    return torch.stack([random - area(pair[0]), area(pair[1]) - random]), pair


def worst_side(gains: Float[Tensor, "2 n"]) -> Float[Tensor, " n"]:
    return gains[int(gains.mean(1).argmin())]


def best_control(subject: Subject, n: int, seed: int) -> tuple[str, Float[Tensor, " n"]]:
    """The model-blind map that does best on its own worst side."""
    gains = {
        name: worst_side(advantages(control, subject, n, seed)[0])
        for name in registry.names("methods")
        if (control := registry.get("methods", name)).control
    }
    name = max(gains, key=lambda name: float(gains[name].mean()))
    return name, gains[name]


@metric(
    bound=">= 0.05",
    needs={"natural"},
    readings=True,
    n=96,
    shows=same_images,
    reference="Samek et al. 2017; Petsiuk et al. 2018; both sides: Bluecher et al. 2024 (SRG)",
    meaning="the map tells what the model needs no better than a random order, or than a map that never saw the model",
    if_fails=(
        "does the map follow brightness or edges? see the controls",
        "is a signed map read as a magnitude, or the other way round? say signed= on the method",
        "is the map coarser than a pixel (class activation maps)? then trust pixel_recovery instead",
        "is the baseline of the method far from the mean that stands for a deleted pixel?",
    ),
)
def deletion_insertion(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Advantage over a random order, deleting from either end, and beyond the best control: the least of the three."""
    n = min(draw.n, len(subject))
    gains, pair = advantages(method, subject, n, draw.seed)
    name, control = best_control(subject, n, draw.seed)
    values = torch.stack([*gains, MARGIN + worst_side(gains) - control]).double().cpu().numpy()
    attributions = subject_maps(method, subject, 0, n, seed=draw.seed)
    return Scores(
        values=values[:, None, :],
        groups=(*SIDES, f"against the best control, {name} (+{MARGIN})"),
        degenerate=float(maps.degenerate(attributions).double().mean()),
        details={"fractions": FRACTIONS, "curves": dict(zip(SIDES, pair.mean(1).tolist(), strict=True))},
    )


def one_side(side: int, fill: str, method: Method, subject: Subject, draw: Draw) -> Scores:
    """One advantage alone, for the informational metrics."""
    gains, _ = advantages(method, subject, min(draw.n, len(subject)), draw.seed, fill)
    row: NDArray[np.float64] = gains[side].double().cpu().numpy()
    return Scores(values=row[None, None])
