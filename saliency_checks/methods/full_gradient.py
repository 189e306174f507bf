"""FullGrad: what the input and every bias of a network contribute to a logit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.layers import resize_like
from saliency_checks.method import method
from saliency_checks.methods.cam import ratio
from saliency_checks.methods.rules import Call, Rules, check_sum, image_weights, scores_under

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]

# Through these a multiple of the input is the same multiple of the output, so they have no bias of their own.
HOMOGENEOUS = frozenset({"abs", "absolute", "leaky_relu", "prelu", "relu"})


class Biases(Rules):
    """Plain gradients; notes what each function adds that is no multiple of its input.

    Attributes:
        found: pairs of a bias, in the shape of the function's output, and a zero that was added to the output: its
            gradient is the output's.
        spatial: for each, whether it is that of a layer with channels and places, which the map shows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[Tensor, Tensor]] = []
        self.spatial: list[bool] = []

    def noted(self, output: Tensor, bias: Tensor, is_in_place: bool = False, is_spatial: bool = False) -> Tensor:
        self.spatial.append(is_spatial)
        zero = torch.zeros_like(output).requires_grad_()
        self.found.append((bias.detach().expand_as(output), zero))
        return output.add_(zero) if is_in_place else output + zero

    def layer(self, call: Call) -> Tensor:
        """y = W x + b: the bias, or batch norm's effective one, is the output at 0."""
        output = call.own()
        is_spatial = call.name != "linear" and output.ndim == 4 and output.shape[-2:].numel() > 1
        return self.noted(output, call.on(torch.zeros_like(call.traced[0][:1])), is_spatial=is_spatial)

    def shift(self, call: Call) -> Tensor:
        if call.name in ("copy", "setitem"):
            return call.own()  # type: ignore[no-any-return]
        bias = call.on(*map(torch.zeros_like, call.traced)).clone()
        output = call.own()
        return self.noted(output, bias, output is call.traced[0]) if bias.any() else output

    def elementwise(self, call: Call) -> tuple[Tensor, bool]:
        """A function's implicit bias, a(z) - z a'(z)."""
        value, slope, is_in_place = call.slope()
        point = call.traced[0]
        output = value + (point - point.detach()) * slope
        if call.name in HOMOGENEOUS:
            return output, is_in_place
        return self.noted(output, value - point.detach() * slope), is_in_place

    def product(self, call: Call) -> tuple[Tensor, bool]:
        """u v - (u v + v u)."""
        value, is_in_place = call.apart()
        return self.noted(call.on(*(one.clone() for one in call.traced)), -value), is_in_place


def full_gradient(model: nn.Module, inputs: Images, targets: Classes) -> tuple[Images, list[Tensor]]:
    """The two parts of a logit: x * df/dx, and b * df/db for every bias b, in the shape of what it is added to.

    Biases are those of layers (batch norm's effective one), constants that are added, and what a smooth function adds
    that is no multiple of its input. Both parts together sum to the logit of each image.

    Raises:
        ValueError: they do not: the model calls a nonlinear function that has no rule here.
    """
    term, biases = _terms(model, inputs, targets)
    return term, [bias for bias, _ in biases]


def _terms(model: nn.Module, inputs: Images, targets: Classes) -> tuple[Images, list[tuple[Tensor, bool]]]:
    """Both parts; with each bias, whether the map shows it."""
    leaf, rules = inputs.detach().requires_grad_(), Biases()
    with torch.enable_grad():
        scores = scores_under(rules, model, leaf * 1, targets)
        ends = [leaf, *(zero for _, zero in rules.found)]
        slope, *slopes = torch.autograd.grad(scores.sum(), ends, allow_unused=True, retain_graph=True)
        _check(scores, leaf, ends, rules)
    shown = zip(rules.found, slopes, rules.spatial, strict=True)
    found = [(bias * one, is_spatial) for (bias, _), one, is_spatial in shown if one is not None]
    return inputs * slope, found


def _check(scores: Float[Tensor, " n"], leaf: Images, ends: list[Tensor], rules: Biases) -> None:
    """All terms sum to the logits; each image's weigh differently, or errors of two could cancel."""
    weighted = (image_weights(scores) * scores).sum()
    slopes = torch.autograd.grad(weighted, ends, allow_unused=True)
    factors = [leaf.detach(), *(bias for bias, _ in rules.found)]
    parts = [factor * slope for factor, slope in zip(factors, slopes, strict=True) if slope is not None]
    summed, size = (torch.stack([part.sum() for part in side]).sum() for side in (parts, [abs(one) for one in parts]))
    due = weighted.detach()
    check_sum("full_grad", summed.view(1), due.view(1), (size + due.abs()).view(1), rules)


def unit(maps: Float[Tensor, "n k i j"]) -> Float[Tensor, "n k i j"]:
    """Each image's magnitudes, over all channels, from 0 to 1; a map of one value is 0."""
    size = maps.abs()
    low, high = size.amin((1, 2, 3), keepdim=True), size.amax((1, 2, 3), keepdim=True)
    return ratio(size - low, high - low)


@method(
    needs={"gradient", "conv"},
    signed=False,
    expected_failures={
        "independent_randomization/fashion_cnn": "it adds up magnitudes, which stay where the image is bright when one"
        " layer is drawn again: |x * g| alone, one of its terms, moves by .58 there and it by .45 [.39, .52]",
    },
    profiles={"thorough"},
    reference="Srinivas and Fleuret 2019, Full-gradient representation for neural network visualization, equation 5",
)
def full_grad(model: nn.Module, inputs: Images, targets: Classes) -> Float[Tensor, "n 1 h w"]:
    """Sum of u(x * df/dx) and of u(b * df/db) over the channels of every spatial layer; u is the magnitude in [0, 1].

    Spatial layers are convolutions and batch norms, as in the paper; what else adds a bias, dense layers and the tokens
    of a transformer among them, counts in :func:`full_gradient`, which this raises with, and not in the map.
    """
    term, biases = _terms(model, inputs, targets)
    total = unit(term).sum(1, keepdim=True)
    for bias, is_spatial in biases:
        if is_spatial:
            total = total + resize_like(unit(bias).sum(1, keepdim=True), inputs)
    return total
