"""Methods that give a whole region one value."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import count as numbers
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.method import method
from saliency_checks.methods.path import integrated_gradients
from saliency_checks.methods.segments import Segments, segmented

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]

# Segments of each partition, from coarse to fine; their regions overlap.
COUNTS = (9, 25, 49, 100, 196)
# Turns between two looks at what is left: a look waits for the device.
LOOK = 8


@method(
    needs={"gradient"},
    signed=True,
    claims={"implementation_invariance", "input_shift_invariance", "saturation", "scale"},
    profiles={"thorough"},
    reference="Kapishnikov et al. 2019, XRAI, section 3 and algorithm 1",
)
def xrai(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    steps: int = 24,
    segments: Segments = "grid",
    counts: Sequence[int] = COUNTS,
) -> Float[Tensor, "n 1 h w"]:
    """The mean contribution of a pixel's region, where regions are taken in the order of what they still add.

    Contributions are integrated gradients, from black and from white (the image's own least and largest value).

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        steps: of each path.
        segments: the kind of the partitions; see :func:`~saliency_checks.methods.segments.segmented`. The paper
            takes graph-based ones (Felzenszwalb) of six scales.
        counts: segments of each partition.
    """
    ends = (inputs.amin((1, 2, 3), keepdim=True), inputs.amax((1, 2, 3), keepdim=True))
    paths = [integrated_gradients(model, inputs, targets, baseline=end, steps=steps) for end in ends]
    contributions = (torch.stack(paths).mean(0)).sum(1).flatten(1)
    partitions = torch.stack([segmented(inputs, segments, count).flatten(1) for count in counts], 1)
    sizes = partitions.amax(2, keepdim=True) + 1
    return ranked_regions(contributions, partitions + sizes.cumsum(1) - sizes).view_as(inputs[:, :1])


def ranked_regions(contributions: Float[Tensor, "n p"], labels: Int[Tensor, "n partitions p"]) -> Float[Tensor, "n p"]:
    """Region by region, the one whose pixels that are left have the largest mean first; the mean is their value.

    Args:
        contributions: of each pixel.
        labels: the region of each pixel in each partition; no two partitions share a label.
    """
    n, partitions, _ = labels.shape
    flat, found = labels.flatten(1), torch.zeros_like(contributions)
    left = torch.ones_like(contributions, dtype=torch.bool)
    empty = contributions.new_zeros(n, int(flat.max()) + 1)
    for turn in numbers():
        if turn % LOOK == 0 and not left.any():
            break  # where nothing is left, a further turn changes nothing
        size = empty.scatter_add(1, flat, left.to(found).repeat(1, partitions))
        total = empty.scatter_add(1, flat, (contributions * left).repeat(1, partitions))
        mean, best = torch.where(size > 0, total / size, -torch.inf).max(1, keepdim=True)
        region = (labels == best.unsqueeze(1)).any(1) & left
        found = torch.where(region, mean, found)
        left &= ~region
    return found
