"""Methods that add up what happens on the way from a baseline to the image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks.method import AXIOMS, method
from saliency_checks.methods.gradient import image_range, input_gradient
from saliency_checks.perturbation.blur import blurred

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

Named = Literal["black", "white", "mean", "blurred"]
Baseline = float | Tensor | Named
Quadrature = Literal["gauss_legendre", "trapezoid", "midpoint", "left", "right"]

# A blurred baseline has lost what is smaller than a tenth of the image (22 pixels of 224: Sturmfels et al. 2020).
BLURRED = 0.1
# Guided integrated gradients: two distances are the same.
CLOSE = 1e-9
# Turns of one of its steps between two looks at what is left to move, which wait for the device. As it is by default,
# a step takes no more.
LOOK = 4


def baseline_like(inputs: Float[Tensor, "n c h w"], baseline: Baseline) -> Float[Tensor, "n c h w"]:
    """The images that hold nothing.

    Args:
        inputs: images.
        baseline: a number; a tensor that broadcasts to the images; ``"black"`` or ``"white"``, 0 or 1, for images
            in [0, 1]; ``"mean"``: each image's own mean colour (the batch's mean would make an image's map depend
            on its neighbours); or ``"blurred"``: each image, blurred by a tenth of its shorter side.

    Raises:
        ValueError: another name, or black or white of images that were normalised: there these are no numbers 0
            and 1.
    """
    if not isinstance(baseline, str):
        return torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)
    if baseline == "mean":
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    if baseline == "blurred":
        return blurred(inputs, BLURRED * min(inputs.shape[-2:]))
    if baseline not in ("black", "white"):
        raise ValueError(f"baseline {baseline!r}: expected a number, a tensor or 'mean', 'blurred', 'black', 'white'")
    if inputs.min() < 0 or inputs.max() > 1:
        raise ValueError(
            f"baseline {baseline!r} is for images in [0, 1], these lie in [{inputs.min():.3g}, {inputs.max():.3g}]:"
            f" give the value that {baseline} has here, as a tensor (C, 1, 1)"
        )
    return torch.full_like(inputs, float(baseline == "white"))


def quadrature(rule: Quadrature, steps: int) -> Iterator[tuple[float, float]]:
    """Points in [0, 1] and their weights, which sum to one: a constant gradient is integrated exactly by any rule."""
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        nodes, weights = (1 + nodes) / 2, weights / 2  # [-1, 1] -> [0, 1]
    elif rule == "trapezoid":
        nodes = np.linspace(0, 1, max(2, steps))
        weights = np.r_[0.5, np.ones(len(nodes) - 2), 0.5] / (len(nodes) - 1)
    elif rule in ("left", "midpoint", "right"):
        nodes = (np.arange(steps) + {"left": 0, "midpoint": 0.5, "right": 1}[rule]) / steps
        weights = np.full(steps, 1 / steps)
    else:
        raise ValueError(f"quadrature {rule!r}: expected gauss_legendre, trapezoid, midpoint, left or right")
    return zip(nodes.tolist(), weights.tolist(), strict=True)


@method(
    needs={"gradient", "baseline"},
    signed=True,
    claims=AXIOMS,
    reference="Sundararajan et al. 2017, Axiomatic attribution for deep networks, equation 1",
)
def integrated_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    steps: int = 24,
    rule: Quadrature = "gauss_legendre",
) -> Float[Tensor, "n c h w"]:
    """(x - b) times the integral over [0, 1] of g(b + t (x - b)) dt, by quadrature.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: where the way begins; see :func:`baseline_like`.
        steps: gradients to take.
        rule: of quadrature. The weights of each sum to one, so a linear model is explained exactly by any of them.
    """
    start = baseline_like(inputs, baseline)
    way = inputs - start
    total = torch.zeros_like(inputs)
    for place, weight in quadrature(rule, steps):
        total += weight * input_gradient(model, start + place * way, targets)
    return way * total


@method(
    needs={"gradient", "baseline"},
    signed=True,
    stochastic=True,
    claims=AXIOMS - {"completeness"},
    reference="Smilkov et al. 2017, SmoothGrad, section 3.4; Adebayo et al. 2018, IG-SG",
    profiles={"thorough"},
)
def smoothgrad_ig(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    samples: int = 15,
    noise: float = 0.15,
    steps: int = 10,
) -> Float[Tensor, "n c h w"]:
    """Mean of IG(x + N(0, s^2)), with s = ``noise`` times the range of the image."""
    maps = _noisy_integrated_gradients(model, inputs, targets, baseline, samples, noise, steps)
    return sum(maps, torch.zeros_like(inputs)) / samples


@method(
    needs={"gradient", "baseline"},
    signed=False,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "saturation", "symmetry"},
    reference="Hooker et al. 2019, A benchmark for interpretability methods, SmoothGrad-Squared of IG",
    profiles={"thorough"},
)
def smoothgrad_squared_ig(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    samples: int = 15,
    noise: float = 0.15,
    steps: int = 10,
) -> Float[Tensor, "n c h w"]:
    """Mean of IG(x + N(0, s^2))^2; s as for smoothgrad_ig."""
    maps = _noisy_integrated_gradients(model, inputs, targets, baseline, samples, noise, steps)
    return sum((found**2 for found in maps), torch.zeros_like(inputs)) / samples


def _noisy_integrated_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline,
    samples: int,
    noise: float,
    steps: int,
) -> Iterator[Float[Tensor, "n c h w"]]:
    start, spread = baseline_like(inputs, baseline), noise * image_range(inputs)
    for _ in range(samples):
        noisy = inputs + spread * torch.randn_like(inputs)
        yield integrated_gradients(model, noisy, targets, baseline=start, steps=steps)


@method(
    needs={"gradient"},
    signed=True,
    claims={"dummy", "implementation_invariance", "linearity", "saturation", "scale"},
    reference="Xu et al. 2020, Attribution in scale and space, equation 4",
    profiles={"thorough"},
)
def blur_ig(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    max_sigma: float = 50.0,
    steps: int = 100,
) -> Float[Tensor, "n c h w"]:
    """Integral of g along the path on which the image, blurred by ``max_sigma`` pixels, becomes sharp.

    Midpoint rule on the chords between ``steps`` widths, so a linear model's map sums to f(x) - f(blurred x) exactly.
    Outside the image there is 0, as in the authors' code; the widths grow with the square of the step, where theirs
    are equally far apart: half a pixel of blur removes most of what a small image shows.
    """
    total, sharper = torch.zeros_like(inputs), inputs
    for step in range(1, steps + 1):
        softer = blurred(inputs, max_sigma * (step / steps) ** 2, fade=True)
        total += (sharper - softer) * input_gradient(model, (sharper + softer) / 2, targets)
        sharper = softer
    return total


@method(
    needs={"gradient", "baseline"},
    signed=True,
    claims={"dummy"},  # the gradient at the baseline chooses the way, and a black one is a kink of many networks
    reference="Kapishnikov et al. 2021, Guided integrated gradients, algorithm 1",
    profiles={"thorough"},
)
def guided_ig(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    steps: int = 200,
    fraction: float = 0.25,
    max_dist: float = 0.02,
) -> Float[Tensor, "n c h w"]:
    """Integral of g along a path on which the values of the smallest gradient go first.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: where the path begins; see :func:`baseline_like`.
        steps: each takes the path nearer to the image by the same share of the L1 distance.
        fraction: of the values, those of smallest gradient, that are moved together.
        max_dist: how far, as a share of its way, a value may be from the straight line; 0 is integrated gradients.
    """
    start = baseline_like(inputs, baseline)
    point, total = start.clone(), torch.zeros_like(inputs)
    for step in range(1, steps + 1):
        gradient = input_gradient(model, point, targets)
        moved = _guided_step(point, start, inputs, gradient.abs(), step / steps, fraction, max_dist)
        total += (moved - point) * gradient
        point = moved
    return total


def _guided_step(
    point: Float[Tensor, "n c h w"],
    start: Float[Tensor, "n c h w"],
    end: Float[Tensor, "n c h w"],
    slope: Float[Tensor, "n c h w"],
    progress: float,
    fraction: float,
    max_dist: float,
) -> Float[Tensor, "n c h w"]:
    """Move ``point`` until the rest of its L1 distance to ``end`` is 1 - progress of the whole one."""
    way = end - start
    low, high = max(progress - max_dist, 0.0), min(progress + max_dist, 1.0)
    target = (1 - progress) * _length(way)
    point = torch.where(_behind(point, start, way, low), start + low * way, point)
    limit = start + high * way
    rank = int(fraction * (slope[0].numel() - 1)) + 1
    excess = _length(end - point) - target
    open_ = excess > CLOSE * _length(way)
    for turn in range(-(-slope[0].numel() // rank)):  # each moves so many to their limit, or the rest
        free = open_ & (point != limit)
        if turn and turn % LOOK == 0 and not free.any():
            break  # where none is left to move, a further turn moves none
        smallest = slope.masked_fill(~free, torch.inf).flatten(1).sort(dim=1).values[:, rank - 1]
        chosen = free & (slope <= smallest.view(-1, 1, 1, 1))
        room = _length((limit - point) * chosen)
        partly = point + excess / room.clamp(min=torch.finfo(room.dtype).tiny) * (limit - point)
        point = torch.where(chosen, torch.where(room > excess, partly, limit), point)
        open_ &= room <= excess
        excess = _length(end - point) - target
    return point


def _behind(
    point: Float[Tensor, "n c h w"], start: Float[Tensor, "n c h w"], way: Float[Tensor, "n c h w"], share: float
) -> Bool[Tensor, "n c h w"]:
    return (point - start) * way.sign() < share * way.abs()


def _length(way: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
    return way.abs().sum((1, 2, 3), keepdim=True)
