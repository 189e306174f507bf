"""DeepLIFT: slopes between the image and a reference in place of derivatives.

In the first half of a batch are the images, in the second their references. A multiplier m becomes the gradient
through ``y + m (x - x)``: the value stays, bit for bit, and so does everything around it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.method import method
from saliency_checks.methods.path import Baseline, baseline_like
from saliency_checks.methods.reference_path import reference_images
from saliency_checks.methods.rules import MAX_POOLS, Call, Rules, check_sum, ratio, scores_under

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Sums = tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]

# Contributions may miss the change of the logit by this share of it. In networks whose functions all have rules they
# miss less than 1e-3 of it (float32), without a rule nearly all.
COMPLETENESS = 0.01


class Rescale(Rules):
    """Backward through a nonlinearity: the slope between reference and image in place of the derivative."""

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def fits(self, call: Call) -> bool:
        return all(one.ndim > 0 and one.shape[0] % (2 * self.images) == 0 for one in call.traced)

    def elementwise(self, call: Call) -> tuple[Tensor, bool]:
        """Shrikumar et al. 2017, equation 5; the derivative where the input does not differ from its reference."""
        both = call.traced[0]
        output, slope, is_in_place = call.slope()
        multiplier = ratio(_difference(output), _difference(both), slope)
        return output + (both - both.detach()) * multiplier, is_in_place

    def product(self, call: Call) -> tuple[Tensor, bool]:
        """What a factor changes while the other is halfway: each factor's Shapley value (Lundberg and Lee 2017)."""
        output, is_in_place = call.apart()
        first, second = call.traced
        change = call.on(first - first.detach(), _halfway(second)) + call.on(_halfway(first), second - second.detach())
        return output + change, is_in_place

    def maximum(self, call: Call) -> tuple[Tensor, bool]:
        """A maximum's change belongs to the place of the larger maximum."""
        both = call.traced[0]
        args, kwargs = call.arguments
        if call.name == "amax":
            return _global_max(both, *args[1:], **kwargs), False
        kwargs = {key: value for key, value in kwargs.items() if key != "return_indices"}
        return _route(both, *MAX_POOLS[call.name](*args, **kwargs)), False

    def level(self, values: Tensor) -> Tensor:
        """The same for an image and its reference, so that it does not change between them."""
        image, reference = values.chunk(2)
        return torch.cat(2 * [torch.maximum(image, reference)])


def _difference(both: Tensor) -> Tensor:
    image, reference = both.detach().chunk(2)
    return torch.cat(2 * [image - reference])


def _halfway(both: Tensor) -> Tensor:
    image, reference = both.detach().chunk(2)
    return torch.cat(2 * [(image + reference) / 2])


def _route(both: Tensor, output: Tensor, indices: Tensor) -> Tensor:
    """Overlapping windows add up at their place."""
    dims = output.ndim - 2
    output = output.detach()
    image, reference = output.chunk(2)
    at_image, at_reference = indices.chunk(2)
    winner = torch.cat(2 * [torch.where(image >= reference, at_image, at_reference)]).flatten(-dims)
    moved = _difference(both).flatten(-dims).gather(-1, winner)
    multiplier = ratio(_difference(output).flatten(-dims), moved, 1.0)
    change = (both - both.detach()).flatten(-dims).gather(-1, winner) * multiplier
    return output + change.view_as(output)


def _global_max(both: Tensor, dim: int | tuple[int, ...] = (), keepdim: bool = False) -> Tensor:
    """``amax`` over some dimensions."""
    dims = [d % both.ndim for d in ((dim,) if isinstance(dim, int) else dim or range(both.ndim))]
    kept = [d for d in range(both.ndim) if d not in dims]
    flat = both.permute(*kept, *dims).flatten(len(kept))
    output = _route(flat, *flat.max(-1, keepdim=True))
    return output.view([1 if d in dims else both.shape[d] for d in range(both.ndim)] if keepdim else flat.shape[:-1])


@method(
    needs={"gradient", "baseline"},
    signed=True,
    claims={"backward_rule", "completeness", "input_shift_invariance", "linearity", "saturation", "scale", "symmetry"},
    reference="Shrikumar et al. 2017, Learning important features through activation differences, section 3",
)
def deep_lift(model: nn.Module, inputs: Images, targets: Classes, baseline: Baseline = 0.0) -> Images:
    """(x - b) times the product of slopes between b and x along the network (the Rescale rule).

    Products, among them those of softmax, layer norm and attention, give each factor its Shapley value. Images come
    first in every activation.

    Raises:
        ValueError: the contributions do not add up to f(x) - f(b): the model calls a nonlinear function that
            has no rule here, which would otherwise be taken for linear in silence.
    """
    contributions, sums, rules = _rescaled(model, inputs, targets, baseline_like(inputs, baseline))
    check_sum("deep_lift", *sums, rules, COMPLETENESS)
    return contributions


def _rescaled(model: nn.Module, inputs: Images, targets: Classes, start: Images) -> tuple[Images, Sums, Rescale]:
    """Contributions that are not checked yet; their sums, what these should be, and sizes; the rules that were met."""
    rules, leaf = Rescale(len(inputs)), inputs.detach().requires_grad_()
    with torch.enable_grad():
        image, reference = scores_under(rules, model, torch.cat([leaf, start]), targets.repeat(2)).chunk(2)
        multipliers = torch.autograd.grad(image.sum(), leaf)[0]
    contributions = (inputs - start) * multipliers
    image, reference = image.detach(), reference.detach()
    size = contributions.abs().sum((1, 2, 3)) + image.abs() + reference.abs()
    return contributions, (contributions.sum((1, 2, 3)), image - reference, size), rules


@method(
    needs={"gradient", "references"},
    signed=True,
    claims={"backward_rule", "completeness", "input_shift_invariance", "linearity", "saturation", "scale", "symmetry"},
    profiles={"thorough"},
    reference="Lundberg and Lee 2017, A unified approach to interpreting model predictions, section 4.2, Deep SHAP",
)
def deep_lift_shap(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    references: float | Float[Tensor, "m c h w"] = 0.0,
    most: int = 20,
) -> Images:
    """Mean of deep_lift over the first ``most`` references; sums to f(x) minus the mean of f(r).

    An image is compared with many references at once. Raises as deep_lift does, once all is done: a look at the sums
    waits for the device.
    """
    found = reference_images(inputs, references)[:most]
    met: list[tuple[Sums, Rescale]] = []

    def of_one(image: Images, target: Classes) -> Images:
        def against(starts: Images) -> Images:
            contributions, sums, rules = _rescaled(model, image.expand_as(starts), target.expand(len(starts)), starts)
            met.append((sums, rules))
            return contributions

        return chunked(against, found, max(1, per_pass(found) // 2)).mean(0, keepdim=True)

    maps = torch.cat([of_one(inputs[i : i + 1], targets[i : i + 1]) for i in range(len(inputs))])
    summed, due, size = (torch.cat(some) for some in zip(*(sums for sums, _ in met), strict=True))
    check_sum("deep_lift_shap", summed, due, size, met[-1][1], COMPLETENESS, each=len(found))
    return maps
