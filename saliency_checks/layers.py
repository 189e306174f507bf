"""The layer that class activation maps read, and how its maps come back to the size of the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float


def activation_layer(model: nn.Module, inputs: Float[Tensor, "n c h w"]) -> nn.Module:
    """The module whose output class activation maps read: the last spatial one, at or behind the last convolution.

    That is where the usual choices lie: the last block of a ResNet, ``features[-1]`` of a VGG (its pooling). On the
    planted fixtures the pooled activation finds the site more often than the one before pooling, whose cells beside
    the site respond as well. Outputs of a single cell (a head, squeeze and excitation) have no map.

    Raises:
        ValueError: where no convolution has a spatial output.
    """
    calls: list[tuple[nn.Module, tuple[int, ...]]] = []

    def record(module: nn.Module, _: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == 4:
            calls.append((module, tuple(output.shape[-2:])))

    handles = [module.register_forward_hook(record) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            model(inputs[:1].clone())
    finally:
        for handle in handles:
            handle.remove()
    sizes = [size for module, size in calls if isinstance(module, nn.Conv2d) and size != (1, 1)]
    if not sizes:
        raise ValueError("this model has no convolution with a spatial output, so it has no class activation map")
    last = max(i for i, (module, size) in enumerate(calls) if isinstance(module, nn.Conv2d) and size != (1, 1))
    return [module for module, size in calls[last:] if size != (1, 1)][-1]


def resize_like(maps: Float[Tensor, "n k i j"], inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k h w"]:
    """Layer maps at the inputs' height and width, bilinear."""
    return F.interpolate(maps, size=inputs.shape[-2:], mode="bilinear", align_corners=False)
