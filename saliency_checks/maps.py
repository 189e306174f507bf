"""Pure tensor functions on attribution maps (N, H, W): reduce, rank, compare."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int


def reduce_channels(attributions: Float[Tensor, "n c h w"]) -> Float[Tensor, "n h w"]:
    """Signed sum over channels: contributions of one pixel add up, and only a sum keeps completeness."""
    return attributions.sum(dim=1)


def degenerate(maps: Float[Tensor, "n h w"]) -> Bool[Tensor, " n"]:
    """Maps that say nothing: constant up to rounding, all-zero included."""
    flat = maps.flatten(1)
    spread = flat.amax(1) - flat.amin(1)
    return spread <= 8 * torch.finfo(maps.dtype).eps * flat.abs().amax(1)


def settled(maps: Float[Tensor, "n h w"]) -> Float[Tensor, "n h w"]:
    """The maps, with zeros for those that are constant up to rounding: else their largest pixel would be a rounding."""
    return maps.masked_fill(degenerate(maps).view(-1, 1, 1), 0.0)


def strict_order(
    values: Float[Tensor, "n p"], generator: torch.Generator, *, descending: bool = True
) -> Int[Tensor, "n p"]:
    """Indices that sort each row; ties in a random order, so a constant row is exactly a random order.

    The shuffle comes from ``generator`` and depends on the number of rows only: one generator per call.
    """
    shuffle = random_orders(*values.shape, generator=generator).to(values.device)
    order = values.gather(1, shuffle).argsort(dim=1, descending=descending, stable=True)
    return shuffle.gather(1, order)


def random_orders(n: int, size: int, *, generator: torch.Generator) -> Int[Tensor, "n p"]:
    """One random permutation per row; row i does not depend on how many rows follow it."""
    return torch.stack([torch.randperm(size, generator=generator) for _ in range(n)])


def ranks(values: Float[Tensor, "n p"]) -> Float[Tensor, "n p"]:
    """Ranks 1..p of each row, ties at their mean rank, in float64."""
    n, size = values.shape
    ordered, order = values.sort(dim=1)
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    run = starts.cumsum(1) - 1 + torch.arange(n, device=values.device).view(-1, 1) * size
    position = torch.arange(1, size + 1, dtype=torch.float64, device=values.device).expand(n, size)
    zeros = torch.zeros(n * size, dtype=torch.float64, device=values.device)
    total = zeros.scatter_add(0, run.flatten(), position.flatten())
    count = zeros.scatter_add(0, run.flatten(), torch.ones_like(position).flatten())
    mean_rank = (total / count.clamp(min=1))[run]
    return torch.empty_like(mean_rank).scatter_(1, order, mean_rank)


def pearson(
    first: Float[Tensor, "n p"], second: Float[Tensor, "n p"], weight: Float[Tensor, "n p"] | None = None
) -> Float[Tensor, " n"]:
    """Correlation of each pair of rows; 0 where one of them is constant (it says nothing of the other)."""
    weight = torch.ones_like(first) if weight is None else weight
    total = weight.sum(1, keepdim=True).clamp(min=1)
    a = (first - (first * weight).sum(1, keepdim=True) / total) * weight
    b = (second - (second * weight).sum(1, keepdim=True) / total) * weight
    scale = (a.square().sum(1) * b.square().sum(1)).sqrt()
    return torch.where(scale > 0, (a * b).sum(1) / scale.clamp(min=torch.finfo(a.dtype).tiny), torch.zeros_like(scale))


def spearman(first: Float[Tensor, "n h w"], second: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Rank correlation of each pair of maps, ties at their mean rank; 0 for a constant map.

    Values that differ by rounding only are not ties: a map that is constant up to rounding counts as constant.
    """
    rho = pearson(ranks(first.flatten(1)), ranks(second.flatten(1)))
    return rho.masked_fill(degenerate(first) | degenerate(second), 0.0)


def magnitude_spearman(
    first: Float[Tensor, "n h w"], second: Float[Tensor, "n h w"], where: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Rank correlation of two unsigned maps over the pixels in ``where``.

    Off those pixels an input-multiplied map is zero whatever the weights are, and the shared zeros alone
    correlate .88 after complete randomisation; ``where`` leaves them out.
    """
    low = torch.finfo(first.dtype).min
    one, two = (ranks(maps.masked_fill(~where, low).flatten(1)) for maps in (first, second))
    rho = pearson(one, two, weight=where.flatten(1).to(torch.float64))
    return rho.masked_fill(degenerate(first) | degenerate(second), 0.0)


def similarity(
    first: Float[Tensor, "n h w"], second: Float[Tensor, "n h w"], present: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Spearman of signed maps; of unsigned ones over the pixels that are present in the input.

    Each image decides for itself, by its first map: the sign carries what is lost in an absolute map.
    """
    unsigned = (first >= 0).flatten(1).all(1)
    # Over all pixels that is the rank correlation of the signed maps; no branch has to wait for the device.
    return magnitude_spearman(first, second, present | ~unsigned.view(-1, 1, 1))


def over_masks(maps: Float[Tensor, "n h w"], masks: Bool[Tensor, "n k h w"]) -> Float[Tensor, "n k"]:
    """Mean of each map over each of its masks."""
    # In float64, sums of equal float32 values are exact: a constant map ties wherever the masks lie. Image by image,
    # because all the masks of a batch of large images fill the memory.
    pairs = zip(maps.flatten(1).double(), masks.flatten(2), strict=True)
    sums = [mask.double() @ torch.stack([values, torch.ones_like(values)], dim=1) for values, mask in pairs]
    if not sums:
        return maps.new_zeros(masks.shape[:2], dtype=torch.float64)
    total, area = torch.stack(sums).unbind(2)
    return total / area.clamp(min=1)


def entropy(maps: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Shannon entropy of |map| over pixels, divided by log(pixels): 1 for uniform, 0 for one pixel; 1 for zero maps."""
    share = maps.flatten(1).abs().double()
    total = share.sum(1, keepdim=True)
    share = torch.where(total > 0, share / total.clamp(min=torch.finfo(share.dtype).tiny), 1.0 / share.shape[1])
    nats: Tensor = torch.special.entr(share).sum(1)
    return nats / math.log(share.shape[1])


def gini(maps: Float[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Gini index of |map|: 0 for a uniform or zero map, 1 - 1/pixels for one pixel (Hurley and Rickard 2009)."""
    ordered = maps.flatten(1).abs().double().sort(dim=1).values
    size = ordered.shape[1]
    weight = (2 * torch.arange(1, size + 1, dtype=torch.float64, device=maps.device) - size - 1) / size
    total = ordered.sum(1)
    return (ordered * weight).sum(1).masked_fill(total == 0, 0.0) / total.masked_fill(total == 0, 1.0)


def top_hits(
    values: Float[Tensor, "n p"], masks: Bool[Tensor, "n p"], counts: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """How many pixels of its mask are among the ``counts`` (at least 1) largest values of each row.

    Values that tie at the edge count with the chance that a lot would take them, so nothing is drawn, and a constant
    row hits what a random order hits on average.
    """
    edge = values.sort(dim=1, descending=True).values.gather(1, (counts - 1).unsqueeze(1))
    above, tied = values > edge, values == edge
    share = (counts - above.sum(1)).double() / tied.sum(1)
    return (above & masks).sum(1) + share * (tied & masks).sum(1)
