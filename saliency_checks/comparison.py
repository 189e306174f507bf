"""How alike two maps (N, H, W) are, by structure: SSIM, histograms of oriented gradients, cosine.

What these numbers mean depends on the marginal distribution of the maps. Unrelated heavy-tailed maps, scaled to
[0, 1], share their flat background and reach an SSIM of .6 at 224 pixels. Read each beside :func:`shuffled`'s floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_checks import maps

if TYPE_CHECKING:
    from jaxtyping import Float

    Maps = Float[Tensor, "n h w"]
    Measure = Callable[[Maps, Maps], Float[Tensor, " n"]]

ORIENTATIONS, BLOCK, CLIP = 9, 3, 0.2  # of the histograms, as in Dalal and Triggs 2005
MOST_CELL, CELLS = 16, 4  # cells of 16 pixels, or a quarter of a smaller side


def unit_range(attributions: Maps) -> Maps:
    """Each map affinely to [0, 1]; a constant one to 0."""
    flat = attributions.flatten(1).double()
    low, high = flat.amin(1, keepdim=True), flat.amax(1, keepdim=True)
    return ((flat - low) / torch.where(high > low, high - low, 1)).view_as(attributions)


def clipped_magnitude(attributions: Float[Tensor, "n c h w"]) -> Maps:
    """sum_c |a|, cut off at its 99th percentile and scaled to [0, 1] (Adebayo et al. 2018, their code)."""
    total = attributions.abs().sum(1)
    top = total.flatten(1).double().quantile(0.99, dim=1).to(total).view(-1, 1, 1)
    return unit_range(torch.minimum(total, top))


def diverging(attributions: Float[Tensor, "n c h w"]) -> Maps:
    """sum_c a over |its 99th percentile|, cut off at -1 and 1 (Adebayo et al. 2018, their code)."""
    total = attributions.sum(1).double()
    span = total.flatten(1).quantile(0.99, dim=1).abs().view(-1, 1, 1)
    return (total / torch.where(span > 0, span, 1)).clamp(-1, 1)


def cosine(first: Maps, second: Maps) -> Float[Tensor, " n"]:
    """Cosine of the angle between two maps; 0 where one of them is zero."""
    a, b = first.flatten(1).double(), second.flatten(1).double()
    scale = a.norm(dim=1) * b.norm(dim=1)
    return torch.where(scale > 0, (a * b).sum(1) / torch.where(scale > 0, scale, 1), 0.0)


def ssim(first: Maps, second: Maps, *, window: int = 5, data_range: float = 1.0) -> Float[Tensor, " n"]:
    """Mean structural similarity over all uniform windows that lie inside the maps (Wang et al. 2004).

    Args:
        window: odd side of the window in pixels.
        data_range: largest difference that values may have; 1 for maps in [0, 1], 2 in what scikit-image < 0.16
            took for floats.
    """
    if window % 2 == 0 or window > min(first.shape[-2:]):
        raise ValueError(f"window {window}: expected an odd number up to the side {min(first.shape[-2:])}")
    a, b = first.double().unsqueeze(1), second.double().unsqueeze(1)
    mean = partial(F.avg_pool2d, kernel_size=window, stride=1)
    unbiased = window**2 / (window**2 - 1)
    ma, mb = mean(a), mean(b)
    va, vb, both = ((mean(x * y) - u * v) * unbiased for x, y, u, v in ((a, a, ma, ma), (b, b, mb, mb), (a, b, ma, mb)))
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = (2 * ma * mb + c1) * (2 * both + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return similarity.flatten(1).mean(1)


def either_sign(measure: Measure, first: Maps, second: Maps) -> Float[Tensor, " n"]:
    """The larger similarity of a map to another and to its negative: a random network may flip it (Sixt et al. 2020).

    Both maps are scaled to [0, 1] first.
    """
    one = unit_range(first)
    return torch.maximum(measure(one, unit_range(second)), measure(one, unit_range(-second)))


def hog(attributions: Maps, cell: int | None = None) -> Float[Tensor, "n d"]:
    """Histograms of oriented gradients: 9 unsigned orientations, blocks of 3x3 cells, L2-Hys (Dalal and Triggs 2005).

    Args:
        cell: side of a cell in pixels; default 16, or a quarter of the smaller side where that is less.
    """
    cell = cell or max(1, min(MOST_CELL, min(attributions.shape[-2:]) // CELLS))
    values = attributions.double()
    down, across = torch.zeros_like(values), torch.zeros_like(values)
    down[:, 1:-1] = values[:, 2:] - values[:, :-2]
    across[:, :, 1:-1] = values[:, :, 2:] - values[:, :, :-2]
    magnitude = torch.hypot(down, across)
    angle = torch.rad2deg(torch.atan2(down, across)) % 180
    bin_of = (angle / (180 / ORIENTATIONS)).long().clamp(max=ORIENTATIONS - 1)
    per_bin = F.one_hot(bin_of, ORIENTATIONS).permute(0, 3, 1, 2) * magnitude.unsqueeze(1)
    histograms = F.avg_pool2d(per_bin, cell)
    if min(histograms.shape[-2:]) < BLOCK:
        raise ValueError(f"cells of {cell} pixels: maps of {tuple(attributions.shape[-2:])} hold fewer than 3x3")
    blocks = F.unfold(histograms, BLOCK).transpose(1, 2)
    blocks = _normalised(_normalised(blocks).clamp(max=CLIP))
    return blocks.flatten(1)


def _normalised(blocks: Float[Tensor, "n b d"]) -> Float[Tensor, "n b d"]:
    return blocks / (blocks.square().sum(2, keepdim=True) + 1e-10).sqrt()


def hog_correlation(first: Maps, second: Maps, cell: int | None = None) -> Float[Tensor, " n"]:
    """Rank correlation of the two descriptors of maps scaled to [0, 1]; 0 for a constant map."""
    one, two = (maps.ranks(hog(unit_range(side), cell)) for side in (first, second))
    return maps.pearson(one, two)


def magnitude_null(share: float) -> float:
    """Rank correlation of |x g| and |x h| for independent noise g, h where a ``share`` of x is 1 and the rest 0.

    3 (1 - p) / (3 (1 - p) + p^2): the zeros tie below everything, so an input-multiplied map agrees with that of any
    other network by .99 on MNIST (p = .19), and this says nothing about either.
    """
    return 3 * (1 - share) / (3 * (1 - share) + share**2) if share else math.nan


def shuffled(attributions: Maps, generator: torch.Generator) -> Maps:
    """Each map's values at random places: as unlike as a map with those values can be."""
    flat = attributions.flatten(1)
    orders = maps.random_orders(*flat.shape, generator=generator).to(flat.device)
    return flat.gather(1, orders).view_as(attributions)


# What the studies report for each pair of maps. The paper's two are those of its code's figures.
MEASURES: dict[str, Callable[[Float[Tensor, "n c h w"], Float[Tensor, "n c h w"]], Float[Tensor, " n"]]] = {
    "spearman": lambda a, b: maps.spearman(a.sum(1), b.sum(1)),
    "abs_spearman": lambda a, b: maps.spearman(a.abs().sum(1), b.abs().sum(1)),
    "paper_signed": lambda a, b: maps.spearman(diverging(a), diverging(b)),
    "paper_abs": lambda a, b: maps.spearman(clipped_magnitude(a), clipped_magnitude(b)),
    "ssim": lambda a, b: either_sign(ssim, a.sum(1), b.sum(1)),
    "ssim_abs": lambda a, b: ssim(clipped_magnitude(a), clipped_magnitude(b)),
    "hog": lambda a, b: hog_correlation(a.sum(1), b.sum(1)),
    "cosine": lambda a, b: cosine(a.sum(1), b.sum(1)),
}
