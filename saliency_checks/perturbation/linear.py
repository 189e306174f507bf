"""Removed pixels as weighted means of their neighbours: one sparse system per image and channel, solved in a batch.

Conjugate gradients with a multigrid cycle as preconditioner (Tatebe 1993): five to ten iterations, however large images
and holes are. Only shifts of whole batches and small matrix products: no system is ever written down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    Planes = Float[Tensor, "b c h w"]


@dataclass(frozen=True)
class Stencil:
    """What the neighbours of a pixel weigh.

    Attributes:
        edge, corner: a direct one, a diagonal one.
        relaxation: the Jacobi step that does most to an error that the coarser grid does not see: 2 / (a + b), where
            the operator takes waves of less than four pixels a to b times (Fourier analysis).
    """

    edge: float
    corner: float
    relaxation: float


# Rong et al. 2022 (ROAD), section 5: direct neighbours weigh twice as much as diagonal ones. Short waves: 2/3 to 4/3.
NOISY_LINEAR = Stencil(1 / 6, 1 / 12, 1.0)
# The discrete Laplace equation: each pixel is the mean of its four neighbours. Short waves: 1/2 to 2.
HARMONIC = Stencil(1 / 4, 0.0, 0.8)
COARSEST = 7  # pixels of a side
MOST_ITERATIONS = 64
# Iterations between two looks at which images are solved: a look waits for an accelerator, and costs a CPU nothing.
LOOK = 4
# What rounding leaves, in units of the type's accuracy, the largest pixel and the longer side.
ROUNDING = 4


def solved(
    images: Float[Tensor, "b c h w"],
    gone: Bool[Tensor, " b #c h w"],
    stencil: Stencil,
    otherwise: Float[Tensor, "#b c #h #w"],
    tolerance: float = 0.0,
    look: int | None = None,
) -> Float[Tensor, "b c h w"]:
    """The images whose removed pixels are the weighted means of those neighbours that lie in the image.

    Args:
        gone: what is removed.
        otherwise: what an image holds of which nothing stays.
        tolerance: how much each removed pixel may be off, about, in units of the images; at least what rounding
            leaves. An image's result does not depend on the others of its batch.
        look: every so many iterations images that are solved are left out; default 1 on a CPU, 4 elsewhere.
    """
    look = look or (1 if images.device.type == "cpu" else LOOK)
    with torch.autocast(images.device.type, enabled=False):
        out = gone.to(images.dtype)
        grid, known = _Grid.of(out, stencil), images * (1 - out)
        mean = known.sum((2, 3), keepdim=True) / (1 - out).sum((2, 3), keepdim=True).clamp(min=1)
        finest = ROUNDING * torch.finfo(images.dtype).eps * max(images.shape[-2:])
        enough = (finest * known.abs().amax((1, 2, 3), keepdim=True)).clamp(min=tolerance)
        found = _conjugate_gradients(grid, _around(known, stencil) * out, mean * out, enough, look)
    whole = gone.flatten(1).all(1).view(-1, 1, 1, 1)
    return torch.where(gone, torch.where(whole, otherwise, found), images)


@dataclass(frozen=True, eq=False)
class _Grid:
    """The system on one grid, and on those of half its size.

    Attributes:
        out: 1 where a pixel is unknown. On a coarser grid, where all four are.
        inside: what the neighbours that lie in the image weigh together.
        step: of Jacobi's iteration.
        down, across: bilinear interpolation from the coarser grid, of columns and of rows.
    """

    stencil: Stencil
    out: Float[Tensor, " b #c h w"]
    inside: Float[Tensor, "1 1 h w"]
    step: Float[Tensor, " b #c h w"]
    coarser: _Grid | None = None
    down: Float[Tensor, "h h2"] | None = None
    across: Float[Tensor, "w w2"] | None = None

    @classmethod
    def of(cls, out: Float[Tensor, " b #c h w"], stencil: Stencil) -> _Grid:
        inside = _around(torch.ones_like(out[:1, :1]), stencil)
        grid = cls(stencil, out, inside, out * (stencil.relaxation / inside))
        if max(out.shape[-2:]) <= COARSEST:
            return grid
        coarser = cls.of(1 - F.max_pool2d(1 - out, 2, ceil_mode=True), stencil)
        down, across = (_interpolation(size).to(out) for size in out.shape[-2:])
        return replace(grid, coarser=coarser, down=down, across=across)

    def of_rows(self, rows: Bool[Tensor, " b"]) -> _Grid:
        """That of some of the images."""
        coarser = None if self.coarser is None else self.coarser.of_rows(rows)
        return replace(self, out=self.out[rows], step=self.step[rows], coarser=coarser)

    def left(self, x: Planes) -> Planes:
        """The left side of the system, of values that are 0 where a pixel is known."""
        return _around(x, self.stencil).neg_().addcmul_(self.inside, x).mul_(self.out)

    def cycle(self, residual: Planes) -> Planes:
        """Nearly the solution of left(x) = residual: a Jacobi step, the same on the coarser grid, a Jacobi step."""
        keeps = 1 - self.stencil.relaxation
        x = self.step * residual
        if self.coarser is not None and self.down is not None and self.across is not None:
            left = (_around(x, self.stencil) * self.out).add_(residual, alpha=keeps)
            smooth = self.coarser.cycle((self.down.T @ left @ self.across).mul_(self.coarser.out))
            x.addcmul_(self.down @ smooth @ self.across.T, self.out)
        return (_around(x, self.stencil).add_(residual).mul_(self.step)).add_(x, alpha=keeps)


def _conjugate_gradients(grid: _Grid, rhs: Planes, x: Planes, enough: Float[Tensor, "b 1 1 1"], look: int) -> Planes:
    """The solution of left(x) = rhs for every plane at once, from a first guess.

    An image is solved when no pixel of its next correction, which is nearly its error, is larger than ``enough``; it
    stands still then, and is left out as soon as others are with it.
    """
    tiny = torch.finfo(rhs.dtype).tiny
    found, rows = x.clone(), torch.arange(len(x), device=x.device)
    residual = rhs - grid.left(x)
    direction = correction = grid.cycle(residual)
    size = _dot(residual, correction)
    for turn in range(1, MOST_ITERATIONS + 1):
        open_ = correction.abs().amax((1, 2, 3), keepdim=True) > enough
        if turn % look == 0 and 4 * (left := int(open_.sum())) <= 3 * len(x):
            found[rows] = x
            if not left:
                break
            some = open_.flatten()
            rows, open_, enough, grid = rows[some], open_[some], enough[some], grid.of_rows(some)
            x, residual, direction, size = x[some], residual[some], direction[some], size[some]
        image = grid.left(direction)
        length = torch.where(open_, size / _dot(direction, image).clamp(min=tiny), 0)
        x, residual = x.addcmul_(length, direction), residual.addcmul_(length, image, value=-1)
        correction = grid.cycle(residual)
        size, before = _dot(residual, correction), size
        direction = direction * (size / before.clamp(min=tiny)) + correction
    found[rows] = x
    return found


def _dot(a: Planes, b: Planes) -> Float[Tensor, "b c 1 1"]:
    return (a * b).sum((2, 3), keepdim=True)


def _around(x: Planes, stencil: Stencil) -> Planes:
    """The weighted neighbours of each pixel, those outside the image being 0: sums of shifted copies, on a CPU many
    times as fast as a convolution of single planes."""
    above_and_below = F.pad(x[..., :-1, :], (0, 0, 1, 0))
    above_and_below[..., :-1, :] += x[..., 1:, :]
    column = (stencil.edge * x).add_(above_and_below, alpha=stencil.corner)
    total = above_and_below.mul_(stencil.edge)
    total[..., 1:] += column[..., :-1]
    total[..., :-1] += column[..., 1:]
    return total


def _interpolation(size: int) -> Float[Tensor, "n n2"]:
    """Bilinear, from half as many pixels."""
    half = -(-size // 2)
    one = F.interpolate(torch.eye(half).unsqueeze(1), size=2 * half, mode="linear")
    return one.squeeze(1).T[:size]
