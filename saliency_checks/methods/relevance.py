"""Layer-wise relevance propagation (LRP).

The relevance of a unit is its value times what comes back to it, so c = R / value is carried along as if it were a
gradient, and a rule is a change of slope. A sum (a skip connection: each summand gets in proportion to its value),
average and max pooling and ReLU need none: their gradient is their rule. Layers follow z+ or epsilon, with the batch
norm behind them folded in. What constants get, biases and stabilisers, is counted: with it relevance sums to the logit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from saliency_checks.method import method
from saliency_checks.methods.composites import COMPOSITES
from saliency_checks.methods.reference_path import limits
from saliency_checks.methods.rules import Call, Rules, check_sum, image_weights, ratio, scores_under

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]

Composite = Literal["epsilon", "epsilon_plus"]
First = Literal["same", "flat", "w_squared", "box"]
# What divides is a scale and gets no relevance: the identity rule of Achtibat et al. 2024, section 3.3.3.
SCALES = frozenset({"rsqrt", "reciprocal"})
# Functions of one pixel each, which pass all its relevance on: a normalisation inside the model.
ONE_TO_ONE = frozenset({
    "add", "clone", "contiguous", "div", "double", "flatten", "float", "mul", "neg", "radd", "reshape", "rsub", "sub",
    "to", "true_divide", "unsqueeze", "view",
})  # fmt: skip


@dataclass(frozen=True, eq=False)
class Layer:
    """A convolution or a linear layer that was met: ``run(x, weight, bias)``."""

    name: str
    run: Callable[[Tensor, Tensor, Tensor | None], Tensor]
    x: Tensor
    weight: Tensor
    bias: Tensor | None

    @classmethod
    def of(cls, call: Call) -> Layer:
        args, kwargs = call.arguments
        given = dict(zip(("input", "weight", "bias"), args, strict=False)) | kwargs
        x, weight, bias = given.pop("input"), given.pop("weight"), given.pop("bias", None)
        return cls(call.name, lambda x, w, b: call.func(x, w, b, *args[3:], **given), x, weight, bias)

    @property
    def is_dense(self) -> bool:
        return self.name == "linear"

    def along_outputs(self, values: Tensor) -> Tensor:
        """One number per output channel, to be added to the output."""
        return values if self.is_dense else values.view(-1, *[1] * (self.weight.ndim - 2))

    def folded(self, scale: Tensor, shift: Tensor) -> Layer:
        """This layer and the affine map behind it as one layer."""
        weight = self.weight * scale.view(-1, *[1] * (self.weight.ndim - 1))
        bias = shift if self.bias is None else self.bias * scale + shift
        return Layer(self.name, self.run, self.x, weight, bias)


class Relevance(Rules):
    """Values as they are, slopes of the rules.

    Attributes:
        share: 1 for each pixel; its slope is the pixel's relevance.
        one: 1; its slope is the relevance of all constants.
    """

    composites = {name: parts for name, parts in COMPOSITES.items() if name != "softmax"}  # noqa: RUF012

    def __init__(
        self, image: Images, composite: Composite, epsilon: float, first: First, bounds: tuple[float, float] | None
    ) -> None:
        super().__init__()
        self.composite, self.epsilon, self.first, self.bounds = composite, epsilon, first, bounds
        self.share, self.one = torch.ones_like(image).requires_grad_(), image.new_ones(()).requires_grad_()
        self.image = image
        self.pixels, self.edge = [image], list[tuple[Tensor, Tensor, Tensor]]()
        self.last: tuple[Tensor, int, Layer] | None = None

    def carried(self, value: Tensor, path: Tensor, known: Tensor | None = None) -> Tensor:
        """``value``, whose relevance goes along ``path``, as much as is ``known``; the rest goes to a constant."""
        rest = (value - (path if known is None else known)).detach() * (self.one - self.one.detach())
        return value.detach() + (path - path.detach()) + rest

    # Where the image ends and the network begins

    def apply(self, call: Call) -> Any:
        read = [one for one in call.traced if any(one is pixels for pixels in self.pixels)]
        if read and call.name in ONE_TO_ONE and len(call.places) == 1:
            output = call.own()
            if output.numel() == self.image.numel():
                self.pixels.append(output)
                return output
        if read and _computes(call):
            for pixels in read:
                self.anchor(pixels)
        return super().apply(call)

    def anchor(self, pixels: Tensor) -> None:
        """From here on relevance is counted: what the model did to each pixel alone has no part in it."""
        low, high = (self.as_read(pixels, limit) for limit in limits(self.image.detach(), self.bounds))
        self.edge.append((pixels, low, high))
        self.pixels = [one for one in self.pixels if one is not pixels]
        pixels.copy_(pixels.detach().clone() * self.share.view_as(pixels))

    def as_read(self, pixels: Tensor, value: float | Tensor) -> Tensor:
        """What a pixel of this value looks like behind a normalisation."""
        slope = torch.autograd.grad(pixels.sum(), self.image, retain_graph=True)[0]
        return pixels.detach() + (slope * (value - self.image.detach())).view_as(pixels)

    # Rules

    def layer(self, call: Call) -> Tensor:
        if call.name == "batch_norm":
            return self.batch_norm(call)
        layer = Layer.of(call)
        output = self.spread(layer)
        self.last = (output, output._version, layer)
        return output

    def batch_norm(self, call: Call) -> Tensor:
        """Folded into the layer that it follows, else a layer of its own."""
        args, kwargs = call.arguments
        names = ("input", "mean", "var", "weight", "bias", "training", "momentum", "eps")
        given: dict[str, Any] = {"weight": None, "bias": None, "training": False, "eps": 1e-5}
        given |= dict(zip(names, args, strict=False)) | kwargs
        if given["training"]:
            return self.unknown(call)  # type: ignore[no-any-return]
        scale = (given["var"] + given["eps"]).rsqrt() * (1 if given["weight"] is None else given["weight"])
        shift = (0 if given["bias"] is None else given["bias"]) - given["mean"] * scale
        x = given["input"]
        if self.last is not None and self.last[0] is x and self.last[1] == x._version and "trans" not in call.name:
            return self.spread(self.last[2].folded(scale, shift))
        return self.carried(call.own(), x * scale.view(-1, *[1] * (x.ndim - 2)))

    def spread(self, layer: Layer) -> Tensor:
        """Relevance of a layer's output over its input."""
        value = layer.run(layer.x.detach(), layer.weight, layer.bias)
        edge = next((edge for edge in self.edge if edge[0] is layer.x), None)
        if edge is not None and self.first != "same":
            path = self.of_pixels(layer, *edge)
            return self.carried(value, path * ratio(value, path.detach(), 0.0))
        if layer.is_dense or self.composite == "epsilon":
            path = layer.run(layer.x, layer.weight, None)
            return self.carried(value, path * (value / (value + self.epsilon * torch.where(value < 0, -1, 1))))
        path = layer.run(layer.x.clamp(min=0), layer.weight.clamp(min=0), None)
        path = path + layer.run(layer.x.clamp(max=0), layer.weight.clamp(max=0), None)
        bias = 0 if layer.bias is None else layer.along_outputs(layer.bias.clamp(min=0))
        return self.carried(value, path * ratio(value, path.detach() + bias, 0.0))

    def of_pixels(self, layer: Layer, pixels: Tensor, low: Tensor, high: Tensor) -> Tensor:
        """What each pixel counts in the first layer."""
        share, weight = self.share.view_as(pixels), layer.weight
        if self.first == "flat":
            return layer.run(share, torch.ones_like(weight), None)
        if self.first == "w_squared":
            return layer.run(share, weight**2, None)
        ends = layer.run(low * share, weight.clamp(min=0), None) + layer.run(high * share, weight.clamp(max=0), None)
        return layer.run(pixels.detach() * share, weight, None) - ends

    def shift(self, call: Call) -> Any:
        """A constant that is added keeps its share."""
        if call.name in ("copy", "setitem"):
            return call.own()
        constant = call.on(*map(torch.zeros_like, call.traced)).clone()
        output = call.own()
        rest = constant * (self.one - self.one.detach())
        return output.add_(rest) if output is call.traced[0] else output + rest

    def nonlinear(self) -> Any:
        return *super().nonlinear(), (frozenset({"softmax"}), self.softmax)

    def elementwise(self, call: Call) -> tuple[Tensor, bool]:
        """All relevance passes through; what the function makes of 0 is a constant's."""
        point = call.traced[0]
        value, slope, is_in_place = call.slope()
        if call.name in SCALES:
            return value, is_in_place
        at_zero = call.on(torch.zeros_like(point))
        if not at_zero.isfinite().all():
            return self.unknown(call), is_in_place
        change = value - at_zero
        return self.carried(value, point * ratio(change, point.detach(), slope)), is_in_place

    def product(self, call: Call) -> tuple[Tensor, bool]:
        """Half of it to each factor: Achtibat et al. 2024, equation 14."""
        value, is_in_place = call.apart()
        return self.carried(value, call.on(*(one.clone() for one in call.traced)) / 2, value), is_in_place

    def softmax(self, call: Call) -> tuple[Tensor, bool]:
        """Gradient times input: Achtibat et al. 2024, equation 13."""
        point = call.traced[0]
        args, kwargs = call.arguments
        dim = args[1] if len(args) > 1 else kwargs["dim"]
        path = call.own()
        value, z = path.detach(), point.detach()
        return self.carried(value, path, value * (z - (value * z).sum(dim, keepdim=True))), False


def _computes(call: Call) -> bool:
    """Whether numbers come out that depend on the pixels: not a shape, say."""
    found = pytree.tree_leaves(call.on(*(one.detach().clone() for one in call.traced)))
    return any(isinstance(one, Tensor) and one.is_floating_point() for one in found)


@method(
    needs={"gradient"},
    signed=True,
    claims={"backward_rule"},
    profiles={"thorough"},
    reference="Bach et al. 2015, On pixel-wise explanations; Montavon et al. 2019, LRP: an overview, section 10.2;"
    " Kohlbrenner et al. 2020, Towards best practice (composite); Achtibat et al. 2024, AttnLRP (transformers)",
)
def lrp(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    composite: Composite = "epsilon_plus",
    epsilon: float = 1e-6,
    first: First = "same",
    bounds: tuple[float, float] | None = None,
) -> Images:
    """Relevance of each pixel.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        composite: rules of the layers: epsilon everywhere, or z+ for convolutions and epsilon for dense layers.
        epsilon: stabiliser of the epsilon rule, added to the size of what is divided by.
        first: rule of the layer that reads the pixels: that of the others, flat, w^2, or z^B, the box of all images.
        bounds: the box: smallest and largest value of a pixel, by default those that the image has.

    Raises:
        ValueError: relevance is lost or made: the model calls a nonlinear function that has no rule here.
    """
    with torch.enable_grad():
        image = inputs.detach().requires_grad_() * 1
        rules = Relevance(image, composite, epsilon, first, bounds)
        scores = scores_under(rules, model, image, targets)
        weight = image_weights(scores)  # relevance is linear in the logit
        score = (weight * scores).sum()
        found, constant = torch.autograd.grad(score, (rules.share, rules.one), materialize_grads=True)
    size = found.abs().sum() + constant.abs() + score.detach().abs()
    check_sum("lrp", (found.sum() + constant).view(1), score.detach().view(1), size.view(1), rules)
    return found / weight.view(-1, 1, 1, 1)
