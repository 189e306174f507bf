"""Removed pixels as weighted means of their neighbours: one sparse system per image and channel, solved in a batch."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Planes = Float[Tensor, "b 1 h w"]

# Rong et al. 2022 (ROAD), section 5: direct neighbours weigh twice as much as diagonal ones.
NOISY_LINEAR = ((1 / 12, 1 / 6, 1 / 12), (1 / 6, 0, 1 / 6), (1 / 12, 1 / 6, 1 / 12))
# The discrete Laplace equation: each pixel is the mean of its four neighbours.
HARMONIC = ((0, 1 / 4, 0), (1 / 4, 0, 1 / 4), (0, 1 / 4, 0))
# Iterations between two looks at the residual: a look waits for the device.
LOOK = 32


def solved(
    images: Float[Tensor, "b c h w"],
    gone: Bool[Tensor, " b #c h w"],
    weights: tuple[tuple[float, ...], ...],
    otherwise: Float[Tensor, "#b c #h #w"],
) -> Float[Tensor, "b c h w"]:
    """The images whose removed pixels are the weighted means of those neighbours that lie in the image.

    The system is symmetric and positive definite where at least one pixel stays: conjugate gradients, for all images
    and channels at once, from a coarse-to-fine guess.

    Args:
        gone: what is removed.
        weights: of the 3 x 3 neighbours; symmetric.
        otherwise: what an image holds of which nothing stays.
    """
    kernel = images.new_tensor(weights).view(1, 1, 3, 3)
    known, out = (plane.flatten(0, 1).unsqueeze(1) for plane in (images, gone.expand_as(images)))
    inside = F.conv2d(torch.ones_like(known[:1]), kernel, padding=1)
    rhs = F.conv2d(known.masked_fill(out, 0), kernel, padding=1).masked_fill(~out, 0)

    def left(x: Planes) -> Planes:
        return (inside * x - F.conv2d(x, kernel, padding=1)).masked_fill(~out, 0)

    start = _pulled(known.masked_fill(out, 0), (~out).to(known.dtype)).masked_fill(~out, 0)
    found = torch.where(out, _conjugate_gradients(left, rhs, start), known).view_as(images)
    return torch.where(gone.flatten(1).all(1).view(-1, 1, 1, 1), otherwise, found)


def _conjugate_gradients(left: Callable[[Planes], Planes], rhs: Planes, x: Planes) -> Planes:
    """The solution of left(x) = rhs for every plane at once, from a first guess."""

    def dot(a: Planes, b: Planes) -> Planes:
        return (a * b).sum((1, 2, 3), keepdim=True)

    tiny = torch.finfo(rhs.dtype).tiny
    enough = (100 * torch.finfo(rhs.dtype).eps) ** 2 * dot(rhs, rhs)
    residual = rhs - left(x)
    direction, size = residual, dot(residual, residual)
    for step in range(4 * sum(rhs.shape[-2:])):
        if step % LOOK == 0 and bool((size <= enough).all()):
            break
        image = left(direction)
        # A plane that is solved stands still: 0 / tiny.
        length = size / dot(direction, image).clamp(min=tiny)
        x, residual = x + length * direction, residual - length * image
        size, before = dot(residual, residual), size
        direction = residual + size / before.clamp(min=tiny) * direction
    return x


def _pulled(values: Planes, weight: Planes) -> Planes:
    """What is known, and elsewhere the mean of what is known around, from halved images (Gortler et al. 1996)."""
    if min(values.shape[-2:]) <= 1:
        return values / weight.clamp(min=torch.finfo(values.dtype).tiny)
    size = values.shape[-2:]
    total, count = (F.avg_pool2d(plane, 2, ceil_mode=True, count_include_pad=False) for plane in (values, weight))
    some = count > 0
    coarse = _pulled(torch.where(some, total / count.clamp(min=1e-9), 0), some.to(values.dtype))
    around = F.interpolate(coarse, size=size, mode="bilinear", align_corners=False)
    return torch.where(weight > 0, values, around)
