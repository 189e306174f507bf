"""Methods that add up what happens on the way from a baseline to the image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks.method import method
from saliency_checks.methods.gradient import input_gradient

if TYPE_CHECKING:
    from jaxtyping import Float, Int

Baseline = float | Tensor | Literal["mean"]


def baseline_like(inputs: Float[Tensor, "n c h w"], baseline: Baseline) -> Float[Tensor, "n c h w"]:
    """The images that hold nothing.

    Args:
        inputs: images.
        baseline: a number; a tensor that broadcasts to the images; or ``"mean"``: each image's own mean colour
            (the batch's mean would make an image's map depend on its neighbours).
    """
    if isinstance(baseline, str):
        if baseline != "mean":
            raise ValueError(f"baseline {baseline!r}: expected a number, a tensor or 'mean'")
        return inputs.mean((2, 3), keepdim=True).expand_as(inputs)
    return torch.as_tensor(baseline, dtype=inputs.dtype, device=inputs.device).expand_as(inputs)


@method(
    needs={"gradient", "baseline"},
    signed=True,
    claims={"completeness", "dummy", "implementation_invariance", "linearity", "saturation"},
    reference="Sundararajan et al. 2017, Axiomatic attribution for deep networks, equation 1",
)
def integrated_gradients(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    steps: int = 24,
) -> Float[Tensor, "n c h w"]:
    """(x - b) times the integral over [0, 1] of g(b + t (x - b)) dt, by Gauss-Legendre quadrature.

    The weights sum to one for any number of steps, so a linear model is explained exactly.
    """
    start = baseline_like(inputs, baseline)
    way = inputs - start
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(inputs)
    for node, weight in zip(nodes.tolist(), weights.tolist(), strict=True):  # [-1, 1] -> [0, 1]
        total += weight / 2 * input_gradient(model, start + (1 + node) / 2 * way, targets)
    return way * total
