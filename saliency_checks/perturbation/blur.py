"""Gaussian blur of a batch of images, as a product with one matrix per axis: any width costs the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Float

TRUNCATE = 4  # in standard deviations, as scipy.ndimage.gaussian_filter does


def blurred(images: Float[Tensor, "n c h w"], sigma: float, *, fade: bool = False) -> Float[Tensor, "n c h w"]:
    """Convolution with a Gaussian of ``sigma`` pixels.

    Args:
        images: images.
        sigma: standard deviation in pixels; 0 changes nothing.
        fade: what lies outside an image is 0, so that it fades from its borders; otherwise a pixel is the mean of
            the neighbours that there are, and a flat image stays as it is.
    """
    if sigma == 0:
        return images
    rows, columns = (_matrix(size, sigma, fade).to(images) for size in images.shape[-2:])
    return rows @ images @ columns.T


def _matrix(size: int, sigma: float, fade: bool) -> Float[Tensor, "s s"]:
    reach = int(TRUNCATE * sigma + 0.5)
    place = torch.arange(size, dtype=torch.float64)
    distance = (place[:, None] - place).abs()
    weights = torch.exp(-(distance**2) / (2 * sigma**2)).masked_fill(distance > reach, 0)
    whole = torch.exp(-(torch.arange(-reach, reach + 1, dtype=torch.float64) ** 2) / (2 * sigma**2)).sum()
    return weights / (whole if fade else weights.sum(1, keepdim=True))
