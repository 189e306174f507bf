"""Images cut into segments: rectangles, superpixels or given labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Labels = Int[Tensor, "n h w"]

Segments = Literal["grid", "slic"] | Tensor
# About as many as the benchmarks take (Gevaert et al. 2022: 50).
SEGMENTS = 49


def segmented(inputs: Images, segments: Segments = "grid", count: int = SEGMENTS) -> Labels:
    """The segment of each pixel: 0, 1, ... in each image.

    Args:
        inputs: images.
        segments: ``"grid"``: rectangles; ``"slic"``: superpixels of each image, from scikit-image; or labels
            (H, W) or (N, H, W).
        count: about how many.
    """
    if isinstance(segments, Tensor):
        labels = segments.to(inputs.device).long().expand(len(inputs), *inputs.shape[-2:])
        return torch.stack([_numbered(one) for one in labels])
    if segments == "grid":
        height, width = inputs.shape[-2:]
        return grid(height, width, count).to(inputs.device).expand(len(inputs), -1, -1)
    if segments == "slic":
        return torch.stack([_superpixels(image, count) for image in inputs])
    raise ValueError(f"segments {segments!r}: expected 'grid', 'slic' or labels (H, W) or (N, H, W)")


def grid(height: int, width: int, count: int) -> Int[Tensor, "h w"]:
    """Rectangles, as near to squares as the pixels allow."""
    rows = min(height, count, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(1, round(count / rows)))
    down, across = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    labels: Tensor = down[:, None] * columns + across
    return labels


def _numbered(labels: Int[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers


def _superpixels(image: Float[Tensor, "c h w"], count: int) -> Int[Tensor, "h w"]:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        message = "segments='slic' needs scikit-image: pip install 'saliency-checks[segments]', or take 'grid'"
        raise ImportError(message) from error
    low, high = image.amin(), image.amax()
    scaled = ((image - low) / torch.where(high > low, high - low, 1)).permute(1, 2, 0).double().cpu().numpy()
    return _numbered(torch.from_numpy(slic(scaled, n_segments=count, slic_zero=True, start_label=0)).to(image.device))
