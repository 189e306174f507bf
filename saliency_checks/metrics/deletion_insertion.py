"""On natural images: does deleting what the map ranks first hurt more, and what it ranks last less, than chance?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from saliency_checks import registry
from saliency_checks.explain import constant_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, same_images
from saliency_checks.perturbation import Curve, area, curve, random_curves, scaled, whole
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float

# The bound is calibrated against a random order. Beside a control any gain counts, so that row is raised by as much.
MARGIN = 0.05
SIDES = ("most relevant first", "least relevant first")
BOTH = Curve(against="random")


def side(
    method: Method, subject: Subject, n: int, seed: int, settings: Curve, order: str
) -> tuple[Float[Tensor, " n"], Float[Tensor, "n k"]]:
    """The score of one curve, and the curve: its area, or how much better that is than ``settings.against``."""
    found = scaled(curve(method, subject, n, seed, settings, order), subject, settings)
    under = area(found, settings)
    if settings.against == "nothing":
        return under, found
    zero = zero_area(subject, n, seed, settings)
    return (zero - under if order == "most" else under - zero), found


def zero_area(subject: Subject, n: int, seed: int, settings: Curve) -> Float[Tensor, " n"]:
    """What an area is measured from: the whole image's output, or the mean area under random orders."""
    if settings.against == "whole":
        return scaled(whole(subject, n).unsqueeze(-1), subject, settings).squeeze(-1)
    return area(scaled(random_curves(subject, n, seed, settings), subject, settings), settings).mean(0)


def advantages(
    method: Method, subject: Subject, n: int, seed: int, settings: Curve = BOTH
) -> tuple[Float[Tensor, "2 n"], Float[Tensor, "2 n k"]]:
    """How much the map beats a random order on each of ``SIDES``, and both curves."""
    gains, curves = zip(*(side(method, subject, n, seed, settings, order) for order in settings.orders), strict=True)
    return torch.stack(gains), torch.stack(curves)


def worst_side(gains: Float[Tensor, "2 n"]) -> Float[Tensor, " n"]:
    return gains[int(gains.mean(1).argmin())]


def best_control(subject: Subject, n: int, seed: int, settings: Curve) -> tuple[str, Float[Tensor, " n"]]:
    """The model-blind map that does best on its own worst side."""
    gains = {
        name: worst_side(advantages(control, subject, n, seed, settings)[0])
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
def deletion_insertion(method: Method, subject: Subject, draw: Draw, settings: Curve = BOTH) -> Scores:
    """Advantage over a random order, deleting from either end, and beyond the best control: the least of the three."""
    n = min(draw.n, len(subject))
    gains, pair = advantages(method, subject, n, draw.seed, settings)
    name, control = best_control(subject, n, draw.seed, settings)
    values = torch.stack([*gains, MARGIN + worst_side(gains) - control]).double().cpu().numpy()
    return Scores(
        values=values[:, None, :],
        groups=(*SIDES, f"against the best control, {name} (+{MARGIN})"),
        degenerate=float(constant_maps(method, subject, n, seed=draw.seed).double().mean()),
        details={"fractions": settings.fractions, "curves": dict(zip(SIDES, pair.mean(1).tolist(), strict=True))},
    )


def one_side(method: Method, subject: Subject, draw: Draw, settings: Curve) -> Scores:
    """The score of the first of ``settings.orders`` alone, for the informational metrics."""
    n = min(draw.n, len(subject))
    score, found = side(method, subject, n, draw.seed, settings, settings.orders[0])
    return scored(score, method, subject, draw, fractions=settings.fractions, curve=found.mean(0).tolist())


def scored(values: Float[Tensor, " n"], method: Method, subject: Subject, draw: Draw, **details: Any) -> Scores:
    """Scores of the first images, and how many of their maps are constant: under a bound these are a failure."""
    constant = constant_maps(method, subject, len(values), seed=draw.seed)
    return Scores(
        values=values.double().cpu().numpy()[None, None], degenerate=float(constant.double().mean()), details=details
    )
