"""On natural images: does deleting what the map ranks first hurt more, and what it ranks last less, than chance?"""

from __future__ import annotations

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from saliency_checks import maps, registry
from saliency_checks.explain import generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.perturbation import FILLS, outputs
from saliency_checks.subject import Subject, Unqualified

FRACTIONS = tuple(i / 10 for i in range(11))
RANDOM_ORDERS = 5
# The least original logit to divide by, as a share of the images' mean.
LEAST_LOGIT = 0.25
# The bound is calibrated against a random order. Beside a control any gain counts, so that row is raised by as much.
MARGIN = 0.05
SIDES = ("most relevant first", "least relevant first")


def curve(subject: Subject, order: Int[Tensor, "n p"], fill: str = "mean") -> Float[Tensor, "n k"]:
    """Centred logit of the target over its original, after deleting each of ``FRACTIONS`` of the pixels.

    Centred on the mean of all logits, so that a shift common to all classes does not count.
    """
    n, size = order.shape
    inputs, targets = subject.inputs[:n], subject.targets[:n]
    counts = [round(fraction * size) for fraction in FRACTIONS]
    logits = outputs(subject.model, inputs, FILLS[fill](inputs, subject.absent_value), order, counts)
    centred = logits - logits.mean(2, keepdim=True)
    target = centred.gather(2, targets.view(-1, 1, 1).expand(-1, len(counts), 1)).squeeze(2)
    original = target[:, 0]
    if float(original.mean()) <= 0:
        raise Unqualified(
            f"the targets' logits are {float(original.mean()):.2f} below the mean of all logits: deletion needs targets"
            " that the model predicts"
        )
    # An image that the model hardly assigns to its target would count without limit.
    return target / original.clamp(min=LEAST_LOGIT * float(original.mean())).unsqueeze(1)


def area(curves: Float[Tensor, "n k"]) -> Float[Tensor, " n"]:
    return torch.trapezoid(curves, dx=1 / (len(FRACTIONS) - 1), dim=1)


def random_area(subject: Subject, n: int, seed: int, fill: str) -> Float[Tensor, " n"]:
    """Mean area under random orders: the zero of both sides, once per subject."""
    key = ("random area", n, seed, fill)
    if key not in subject.cache:
        size = subject.inputs[0, 0].numel()
        orders = [
            maps.random_orders(n, size, generator=generator("orders", subject.name, i, seed)).to(subject.inputs.device)
            for i in range(RANDOM_ORDERS)
        ]
        subject.cache[key] = torch.stack([area(curve(subject, order, fill)) for order in orders]).mean(0)
    found: Tensor = subject.cache[key]
    return found


def advantages(
    method: Method, subject: Subject, n: int, seed: int, fill: str = "mean"
) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "2 n k"]]:
    """How much the map beats a random order on each of ``SIDES``, and both curves; once per method and fill."""
    key = ("advantages", method.name, method.explain, method.signed, n, seed, fill)
    if key not in subject.cache:
        attributions = reading(subject_maps(method, subject, 0, n, seed=seed), method)
        order = maps.strict_order(attributions.flatten(1), generator("ties", subject.name, seed))
        curves = torch.stack([curve(subject, order, fill), curve(subject, order.flip(1), fill)])
        random = random_area(subject, n, seed, fill)
        subject.cache[key] = torch.stack([random - area(curves[0]), area(curves[1]) - random]), curves
    found: tuple[Tensor, Tensor] = subject.cache[key]
    return found


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
    reference="Samek et al. 2017; Petsiuk et al. 2018; both sides: Bluecher et al. 2024 (SRG)",
    meaning="the map tells what the model needs no better than a random order, or than a map that never saw the model",
    if_fails=(
        "does the map follow brightness or edges? see the controls",
        "is a signed map read as a magnitude, or the other way round? say signed= on the method",
        "is the map coarser than a pixel (class activation maps)? then trust planted_deletion instead",
        "is the baseline of the method far from the mean that stands for a deleted pixel?",
    ),
)
def deletion_insertion(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Advantage over a random order, deleting from either end, and beyond the best control: the least of the three."""
    n = min(draw.n, len(subject))
    gains, curves = advantages(method, subject, n, draw.seed)
    name, control = best_control(subject, n, draw.seed)
    values = torch.stack([*gains, MARGIN + worst_side(gains) - control]).double().cpu().numpy()
    attributions = subject_maps(method, subject, 0, n, seed=draw.seed)
    return Scores(
        values=values[:, None, :],
        groups=(*SIDES, f"against the best control, {name} (+{MARGIN})"),
        degenerate=float(maps.degenerate(attributions).double().mean()),
        details={"fractions": FRACTIONS, "curves": dict(zip(SIDES, curves.mean(1).tolist(), strict=True))},
    )


def one_side(side: int, fill: str, method: Method, subject: Subject, draw: Draw) -> Scores:
    """One advantage alone, for the informational metrics."""
    gains, _ = advantages(method, subject, min(draw.n, len(subject)), draw.seed, fill)
    row: NDArray[np.float64] = gains[side].double().cpu().numpy()
    return Scores(values=row[None, None])
