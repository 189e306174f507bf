"""The class's score on masked images: what every method that only calls the model is made of."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.methods.gradient import class_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int, Shaped

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]


@torch.no_grad()
def whole_scores(model: nn.Module, inputs: Images, targets: Classes) -> Float[Tensor, " n"]:
    """f_c(x)."""
    rows = torch.arange(len(inputs), device=inputs.device)
    return chunked(lambda some: class_scores(model, inputs[some], targets[some]), rows, per_pass(inputs))


@torch.no_grad()
def masked_scores(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    start: Images,
    count: int,
    keep: Callable[[Int[Tensor, " b"], Int[Tensor, " b"]], Shaped[Tensor, "b 1 h w"]],
) -> Float[Tensor, "count n"]:
    """f_c(b + m (x - b)) for ``count`` masks of every image, images and masks in one batch.

    Args:
        model: from images to logits.
        inputs: images x.
        targets: classes c.
        start: what a pixel holds that is masked, b.
        count: masks per image.
        keep: (which mask, which image) -> masks m, True or 1 where the image stays.
    """
    n = len(inputs)

    def forward(rows: Int[Tensor, " b"]) -> Float[Tensor, " b"]:
        which, image = rows // n, rows % n
        mask = keep(which, image)
        x, b = inputs[image], start[image]
        masked = torch.where(mask, x, b) if mask.dtype == torch.bool else b + mask * (x - b)
        return class_scores(model, masked, targets[image])

    rows = torch.arange(count * n, device=inputs.device)
    return chunked(forward, rows, per_pass(inputs)).view(count, n)
