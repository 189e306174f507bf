"""Methods that change the image and watch the logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.method import method
from saliency_checks.methods.gradient import class_scores
from saliency_checks.methods.path import Baseline, baseline_like

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

IMAGES_PER_PASS = 512


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin; the last one ends at the border."""
    return sorted({*range(0, size - window, stride), size - window})


def _windows(height: int, width: int, window: int, stride: int, device: torch.device) -> Bool[Tensor, "k h w"]:
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    tops = torch.tensor(_starts(height, window, stride), device=device)[:, None]
    lefts = torch.tensor(_starts(width, window, stride), device=device)[:, None]
    in_rows = (rows >= tops) & (rows < tops + window)
    in_columns = (columns >= lefts) & (columns < lefts + window)
    return (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(0, 1)


@method(
    needs={"baseline"},
    signed=True,
    claims={"implementation_invariance", "linearity", "saturation"},
    reference="Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2",
)
@torch.no_grad()
def occlusion(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    window: int | None = None,
    stride: int | None = None,
) -> Float[Tensor, "n 1 h w"]:
    """f(x) - f(x with a window set to the baseline), averaged over the windows that cover a pixel.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: what an occluded pixel holds; see :func:`~saliency_checks.methods.path.baseline_like`.
        window: side in pixels; default a ninth of the image's shorter side, at least 3, which makes about
            two hundred windows for an image of any size.
        stride: default two thirds of the window.
    """
    height, width = inputs.shape[-2:]
    side = min(window or max(3, min(height, width) // 9), height, width)
    step = min(stride or max(1, round(side * 2 / 3)), side)  # no pixel stays uncovered
    windows = _windows(height, width, side, step, inputs.device)
    start = baseline_like(inputs, baseline)
    whole = class_scores(model, inputs.clone(), targets)
    total = torch.zeros_like(inputs[:, 0])
    for some in torch.split(windows, max(1, IMAGES_PER_PASS // len(inputs))):
        occluded = torch.where(some[:, None, None], start, inputs).flatten(0, 1)
        drop = whole - class_scores(model, occluded, targets.repeat(len(some))).view(len(some), -1)
        total += torch.einsum("kn,khw->nhw", drop, some.to(drop.dtype))
    return (total / windows.sum(0)).unsqueeze(1)
