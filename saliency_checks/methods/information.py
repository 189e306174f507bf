"""Methods that measure in bits what the model needs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.layers import resize_like
from saliency_checks.method import method
from saliency_checks.methods.activation import editor, read
from saliency_checks.methods.cam import COARSE

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Activation = Float[Tensor, "n k i j"]

# Features that hardly vary would count with any small change.
LEAST_SPREAD = 0.01


@method(
    needs={"gradient", "conv", "references"},
    signed=False,
    stochastic=True,
    claims={"input_shift_invariance"},
    expected_failures=COARSE,
    profiles={"thorough"},
    reference="Schulz et al. 2020, Restricting the flow, equations 2 to 8 and section 3.2 (per-sample bottleneck)",
)
def iba(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    references: Images | None = None,
    layer: str | None = None,
    beta: float = 10.0,
    iterations: int = 10,
    rate: float = 1.0,
    copies: int = 10,
    start: float = 5.0,
    blur: float = 1.0,
) -> Float[Tensor, "n 1 h w"]:
    """Bits that each place of the activation must let through for the class.

    Noise takes the place of R: Z = l R + (1 - l) e, e ~ N(mean, spread^2) of each feature, l = blurred sigmoid(a).
    Adam lessens the cross entropy of the class plus beta times the mean of KL(Z || e) over the features.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        references: images whose activations have the mean and spread; without them, each image's own channels.
        layer: a module's name; default the last spatial activation. The paper takes one in the middle.
        beta: weight of the information.
        iterations: of Adam.
        rate: of Adam.
        copies: draws of the noise for each step.
        start: a to begin with: all but 1 / (1 + e^5) passes.
        blur: standard deviation, in places, of the Gaussian that keeps l smooth.
    """
    r = read(model, inputs, targets, layer)[0]
    mean, spread = _statistics(model, r, references, layer)
    run = editor(model, inputs, layer)
    noise = torch.randn(iterations, copies, *r.shape[1:]).to(r)

    def information(rows: Int[Tensor, " b"]) -> Float[Tensor, "b 1 i j"]:
        here, m, s = r[rows], mean[rows], spread[rows]
        normal = (here - m) / s
        a = torch.full_like(here, start).requires_grad_()
        adam = torch.optim.Adam([a], lr=rate)
        repeated = rows.repeat_interleave(copies)
        for drawn in noise:
            with torch.enable_grad():
                passed = transmission(a, blur).unsqueeze(1)
                z = passed * here.unsqueeze(1) + (1 - passed) * (m.unsqueeze(1) + s.unsqueeze(1) * drawn)
                logits = run(inputs[repeated], lambda _: z.flatten(0, 1))  # noqa: B023
                loss = F.cross_entropy(logits, targets[repeated], reduction="sum") / copies
                loss = loss + beta * divergence(transmission(a, blur), normal).mean((1, 2, 3)).sum()
            a.grad = torch.autograd.grad(loss, a)[0]
            adam.step()
        return divergence(transmission(a.detach(), blur), normal).sum(1, keepdim=True) / math.log(2)

    rows = torch.arange(len(inputs), device=inputs.device)
    return resize_like(chunked(information, rows, max(1, per_pass(inputs) // copies)), inputs)


def transmission(a: Activation, blur: float) -> Activation:
    """l, the share of each feature that passes: sigmoid(a), blurred within its channel; below 1."""
    radius = max(1, round(2 * blur))
    steps = torch.arange(-radius, radius + 1).to(a)
    kernel = torch.softmax(-((steps / blur) ** 2) / 2, 0)
    flat = F.pad(torch.sigmoid(a).flatten(0, 1).unsqueeze(1), 4 * [radius], mode="replicate")
    smooth = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return smooth.view_as(a).clamp(max=1 - torch.finfo(a.dtype).eps)


def divergence(passed: Activation, normal: Activation) -> Activation:
    """KL(N(l R, (1 - l)^2) || N(0, 1)) in nats, for the standardised activation R: 0 where l is 0."""
    return -(1 + 2 * torch.log1p(-passed) - (passed * normal) ** 2 - (1 - passed) ** 2) / 2


def _statistics(
    model: nn.Module, r: Activation, references: Images | None, layer: str | None
) -> tuple[Activation, Activation]:
    if references is None:
        mean, spread = r.mean((2, 3), keepdim=True), r.std((2, 3), keepdim=True)
    else:
        others = read(model, references, torch.zeros_like(references[:, 0, 0, 0]).long(), layer)[0]
        mean, spread = others.mean(0, keepdim=True), others.std(0, keepdim=True).nan_to_num()  # one has none
    return mean.expand_as(r), spread.clamp(min=LEAST_SPREAD).expand_as(r)
