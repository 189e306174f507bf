"""Class activation maps whose channels are weighed by changing something and calling the model again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.layers import resize_like
from saliency_checks.method import method
from saliency_checks.methods.activation import editor, read
from saliency_checks.methods.cam import COARSE, SITE_IN_A_CELL
from saliency_checks.methods.gradient import class_scores
from saliency_checks.methods.masking import masked_scores, whole_scores
from saliency_checks.methods.path import Baseline, baseline_like

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Map = Float[Tensor, "n 1 h w"]
    Activation = Float[Tensor, "n k i j"]
    Weights = Float[Tensor, "n k"]


def unit(maps: Float[Tensor, "n k h w"]) -> Float[Tensor, "n k h w"]:
    """Each map from 0 to 1; a constant one is 0."""
    low, high = maps.amin((2, 3), keepdim=True), maps.amax((2, 3), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1)


def weighted(activation: Activation, weights: Weights) -> Float[Tensor, "n 1 i j"]:
    return torch.einsum("nk,nkij->nij", weights, activation).unsqueeze(1)


@method(
    needs={"gradient", "conv", "baseline"},
    signed=False,
    claims={"input_shift_invariance"},
    expected_failures=SITE_IN_A_CELL,
    profiles={"thorough"},
    reference="Wang et al. 2020, Score-CAM, equations 3 to 6 and algorithm 1",
)
def score_cam(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    layer: str | None = None,
) -> Map:
    """ReLU(sum of w_k A_k), w = softmax over k of f(x masked by A_k, enlarged and scaled to [0, 1]).

    The score of the masked-out image, which the paper subtracts, cancels in the softmax. A channel that is
    constant masks nothing and has no weight.

    Args:
        baseline: what a masked pixel holds; the paper multiplies the image by the mask, which is 0.
    """
    a, _ = read(model, inputs, targets, layer)
    start = baseline_like(inputs, baseline)

    def keep(which: Int[Tensor, " b"], image: Int[Tensor, " b"]) -> Float[Tensor, "b 1 h w"]:
        return unit(resize_like(a[image, which].unsqueeze(1), inputs))

    scores = masked_scores(model, inputs, targets, start, a.shape[1], keep).T
    is_flat = a.amax((2, 3)) == a.amin((2, 3))
    weights = scores.masked_fill(is_flat, -torch.inf).softmax(1).nan_to_num()
    return resize_like(weighted(a, weights).relu(), inputs)


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance", "scale"},
    expected_failures=COARSE,
    profiles={"thorough"},
    reference="Desai and Ramaswamy 2020, Ablation-CAM, equations 5 and 6",
)
def ablation_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """ReLU(sum of w_k A_k), w_k = f(x) - f(x with A_k set to 0).

    The paper divides the weights by f(x): that scales a map, and turns it round where the logit is negative.
    """
    a, _ = read(model, inputs, targets, layer)
    run = editor(model, inputs, layer)

    def drop(rows: Int[Tensor, "b 2"]) -> Float[Tensor, " b"]:
        image, channel = rows.unbind(1)
        logits = run(inputs[image], lambda a: _without(a, channel))
        return scores[image] - logits.gather(1, targets[image, None]).squeeze(1)

    with torch.no_grad():
        scores = whole_scores(model, inputs, targets)
        alive = a.flatten(2).any(2).nonzero()  # a channel of zeros changes nothing
        weights = a.new_zeros(a.shape[:2])
        weights[tuple(alive.T)] = chunked(drop, alive, per_pass(inputs)) if len(alive) else a.new_zeros(0)
    return resize_like(weighted(a, weights).relu(), inputs)


def _without(activation: Activation, channel: Int[Tensor, " n"]) -> Activation:
    ablated = activation.clone()
    ablated[torch.arange(len(ablated), device=channel.device), channel] = 0
    return ablated


@method(
    needs={"gradient", "conv", "baseline"},
    signed=False,
    claims={"input_shift_invariance"},
    expected_failures=SITE_IN_A_CELL,
    profiles={"thorough"},
    reference="Zhang et al. 2024, Opti-CAM, section 3.2",
)
def opti_cam(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    layer: str | None = None,
    iterations: int = 50,
    rate: float = 0.1,
) -> Map:
    """Sum of softmax(u)_k ReLU(A_k), with u such that the image masked by it keeps its score.

    Adam lessens |f(x masked) - f(x)| from equal weights on; the mask is the map, enlarged and scaled to [0, 1].

    Args:
        baseline: what a masked pixel holds; the paper multiplies the image by the mask, which is 0.
    """
    start = baseline_like(inputs, baseline)
    a = read(model, inputs, targets, layer)[0].relu()

    def optimised(rows: Int[Tensor, " b"]) -> Weights:
        x, b, y = inputs[rows], start[rows], targets[rows]
        u = torch.zeros_like(a[rows, :, 0, 0]).requires_grad_()
        adam = torch.optim.Adam([u], lr=rate)
        with torch.no_grad():
            goal = class_scores(model, x.clone(), y)
        for _ in range(iterations):
            with torch.enable_grad():
                mask = unit(resize_like(weighted(a[rows], u.softmax(1)), inputs))
                missed = (class_scores(model, b + mask * (x - b), y) - goal).abs().sum()
            u.grad = torch.autograd.grad(missed, u)[0]
            adam.step()
        return u.detach().softmax(1)

    weights = chunked(optimised, torch.arange(len(inputs), device=inputs.device), per_pass(inputs))
    return resize_like(weighted(a, weights), inputs)
