"""Model outputs on images whose first k pixels, by an order, are replaced."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.chunking import ELEMENTS_PER_PASS, chunked
from saliency_checks.explain import evaluating

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CHUNK_ELEMENTS = ELEMENTS_PER_PASS


def outputs(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    fill: Float[Tensor, "n c h w"],
    order: Int[Tensor, "n p"],
    counts: Sequence[int],
) -> Float[Tensor, "n k classes"]:
    """Logits after replacing the first ``counts[k]`` pixels of each image's ``order`` by ``fill``.

    Images and steps form one batch, cut into chunks by size; a chunk that does not fit into memory is
    halved. ``p`` = h * w: all channels of a pixel go together.
    """
    n, c, h, w = inputs.shape
    place = torch.empty_like(order).scatter_(
        1, order, torch.arange(h * w, device=order.device).expand_as(order)
    )  # place[i, pixel]: when the pixel goes
    steps = torch.as_tensor(counts, device=order.device)
    rows = torch.arange(n * len(steps), device=inputs.device)

    def forward(chunk: Int[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        image, step = chunk // len(steps), chunk % len(steps)
        gone = (place[image] < steps[step].unsqueeze(1)).view(-1, 1, h, w)
        return model(torch.where(gone, fill[image], inputs[image]))  # type: ignore[no-any-return]

    with evaluating(model):
        logits = chunked(forward, rows, max(1, CHUNK_ELEMENTS // (c * h * w)))
    return logits.view(n, len(steps), -1)
