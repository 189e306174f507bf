"""What takes a removed pixel's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float

    Fill = Callable[[Float[Tensor, "n c h w"], Float[Tensor, "1 c 1 1"]], Float[Tensor, "n c h w"]]


def absent(inputs: Float[Tensor, "n c h w"], value: Float[Tensor, "1 c 1 1"]) -> Float[Tensor, "n c h w"]:
    """The subject's own value for "nothing here"; by default its mean image colour."""
    return value.to(inputs).expand_as(inputs)


def black(inputs: Float[Tensor, "n c h w"], value: Float[Tensor, "1 c 1 1"]) -> Float[Tensor, "n c h w"]:
    """Zero. Papers use it; a map of bright pixels then looks faithful, so nothing is gated on it."""
    return torch.zeros_like(inputs)


def local_mean(inputs: Float[Tensor, "n c h w"], value: Float[Tensor, "1 c 1 1"]) -> Float[Tensor, "n c h w"]:
    """Grey mean of the 5 x 5 neighbourhood without the pixel itself: the spot goes, its surroundings stay."""
    grey = inputs.mean(1, keepdim=True)
    kernel = torch.ones(1, 1, 5, 5, dtype=inputs.dtype, device=inputs.device)
    kernel[0, 0, 2, 2] = 0
    total = F.conv2d(grey, kernel, padding=2)
    count = F.conv2d(torch.ones_like(grey[:1]), kernel, padding=2)
    return (total / count).expand_as(inputs)


FILLS: dict[str, Fill] = {"mean": absent, "black": black, "local_mean": local_mean}
