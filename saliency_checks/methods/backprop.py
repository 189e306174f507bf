"""Methods that replace the derivative of an activation by a rule of their own.

The rules act on the functions a model calls, not on its modules: ``F.relu``, ``x.relu_()``, ReLU6, and modules
that are in-place or used twice are all met, and the model is neither hooked nor copied. Hooks on ``nn.ReLU`` miss
the first three in silence, and replace the gradient of a skip connection together with that of its ReLU.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from saliency_checks.method import method
from saliency_checks.methods.gradient import class_scores, input_gradient
from saliency_checks.methods.path import Baseline, baseline_like

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# fmt: off
ELEMENTWISE = frozenset({
    "abs", "celu", "clamp", "clamp_max", "clamp_min", "elu", "exp", "gelu", "hardsigmoid", "hardswish", "hardtanh",
    "leaky_relu", "log", "log_sigmoid", "logsigmoid", "mish", "pow", "prelu", "relu", "relu6", "rrelu", "selu",
    "sigmoid", "silu", "softplus", "softsign", "sqrt", "square", "tanh", "threshold", "_threshold"
})
# fmt: on
MAX_POOLS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "max_pool1d": F.max_pool1d_with_indices,
    "max_pool2d": F.max_pool2d_with_indices,
    "max_pool3d": F.max_pool3d_with_indices,
    "adaptive_max_pool1d": F.adaptive_max_pool1d_with_indices,
    "adaptive_max_pool2d": F.adaptive_max_pool2d_with_indices,
    "adaptive_max_pool3d": F.adaptive_max_pool3d_with_indices,
}
# Contributions may miss the change of the logit by this share of it, and by this many roundings of what is summed.
# In networks whose functions all have rules the first is below 1e-3 (float32), without a rule near 1.
COMPLETENESS, ROUNDINGS = 0.01, 1000


class Rules(TorchFunctionMode):
    """Lets ``apply`` stand in for every function that a model calls."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        is_traced = torch.is_grad_enabled() and args and isinstance(args[0], Tensor) and args[0].requires_grad
        if not is_traced:
            return func(*args, **kwargs)
        return self.apply(getattr(func, "__name__", "").removesuffix("_"), func, args, kwargs)

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        raise NotImplementedError


class Guided(Rules):
    """Backward through a ReLU: 1[z > 0] ReLU(G) in place of 1[z > 0] G."""

    met = 0

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        output = func(*args, **kwargs)
        if name in {"relu", "relu6"} or (name in {"hardtanh", "clamp", "clamp_min"} and _lower(args, kwargs) == 0):
            output.register_hook(torch.relu)
            self.met += 1
        return output


def _lower(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    lower = args[1] if len(args) > 1 else kwargs.get("min_val", kwargs.get("min"))
    return None if isinstance(lower, Tensor) else lower


@method(
    needs={"gradient"},
    signed=False,
    claims={"backward_rule", "input_shift_invariance", "scale", "symmetry"},
    expected_failures={
        "cascading_randomization": "it recovers the image more than the model: where negative gradients are dropped,"
        " the map converges to one that hardly depends on the upper layers (Adebayo et al. 2018; Sixt et al. 2020)",
        "independent_randomization": "for the same reason it hardly moves when one upper layer is drawn again"
        " (Adebayo et al. 2018, Figure 4)",
    },
    reference="Springenberg et al. 2015, Striving for simplicity, section 3.4",
)
def guided_backprop(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """The gradient, with the negative part dropped behind every ReLU."""
    with Guided() as rules:
        gradient = input_gradient(_eager(model), inputs, targets)
    if not rules.met:
        warnings.warn("guided_backprop met no ReLU in this model: its map is the plain gradient", stacklevel=2)
    return gradient


class Rescale(Rules):
    """Backward through a nonlinearity: the slope between reference and input in place of the derivative.

    The first half of a batch are the images, the second their references. A multiplier m becomes the gradient
    through ``y + m (x - x)``: the value stays, bit for bit, and so does everything around it.
    """

    def __init__(self, images: int) -> None:
        super().__init__()
        self.images = images

    def apply(self, name: str, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        both = args[0]
        is_ruled = name in ELEMENTWISE or name in MAX_POOLS or name == "amax"
        if not is_ruled or both.ndim == 0 or both.shape[0] % (2 * self.images):
            return func(*args, **kwargs)
        is_in_place = kwargs.pop("inplace", False) or func.__name__.endswith("_")
        if name in ELEMENTWISE:
            output = _rescale(both, lambda z: func(z, *args[1:], **kwargs))
        elif name == "amax":
            output = _global_max(both, *args[1:], **kwargs)
        else:
            kwargs.pop("return_indices", None)
            output = _route(both, *MAX_POOLS[name](*args, **kwargs))
        return both.copy_(output) if is_in_place else output


def _ratio(change: Tensor, of: Tensor, otherwise: Tensor | float) -> Tensor:
    """change / of, and ``otherwise`` where ``of`` is no more than rounding."""
    is_moving = of.abs() > torch.finfo(of.dtype).eps * 10
    return torch.where(is_moving, change / torch.where(is_moving, of, 1), otherwise)


def _difference(both: Tensor) -> Tensor:
    image, reference = both.detach().chunk(2)
    return torch.cat(2 * [image - reference])


def _rescale(both: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """Shrikumar et al. 2017, equation 5; the derivative where the input does not differ from its reference."""
    point = both.detach().clone().requires_grad_()
    output = function(point.clone())
    slope = torch.autograd.grad(output.sum(), point)[0]
    multiplier = _ratio(_difference(output), _difference(both), slope)
    return output.detach() + (both - both.detach()) * multiplier


def _route(both: Tensor, output: Tensor, indices: Tensor) -> Tensor:
    """A maximum's change belongs to the place of the larger maximum; overlapping windows add up at their place."""
    dims = output.ndim - 2
    output = output.detach()
    image, reference = output.chunk(2)
    at_image, at_reference = indices.chunk(2)
    winner = torch.cat(2 * [torch.where(image >= reference, at_image, at_reference)]).flatten(-dims)
    moved = _difference(both).flatten(-dims).gather(-1, winner)
    multiplier = _ratio(_difference(output).flatten(-dims), moved, 1.0)
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
def deep_lift(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
) -> Float[Tensor, "n c h w"]:
    """(x - b) times the product of slopes between b and x along the network (the Rescale rule).

    Raises:
        ValueError: the contributions do not add up to f(x) - f(b): the model calls a nonlinear function that
            has no rule here, which would otherwise be taken for linear in silence.
    """
    start = baseline_like(inputs, baseline)
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad(), Rescale(len(inputs)):
        image, reference = class_scores(_eager(model), torch.cat([leaf, start]), targets.repeat(2)).chunk(2)
        multipliers = torch.autograd.grad(image.sum(), leaf)[0]
    contributions = (inputs - start) * multipliers
    _check_complete(contributions, image.detach(), reference.detach())
    return contributions


def _check_complete(
    contributions: Float[Tensor, "n c h w"], image: Float[Tensor, " n"], reference: Float[Tensor, " n"]
) -> None:
    flat, change = contributions.flatten(1), image - reference
    summed = flat.abs().sum(1) + image.abs() + reference.abs()
    allowed = COMPLETENESS * change.abs() + ROUNDINGS * torch.finfo(summed.dtype).eps * summed
    excess = (flat.sum(1) - change).abs() - allowed
    worst = int(excess.argmax())
    if excess[worst] > 0:
        raise ValueError(
            f"deep_lift: the contributions of image {worst} sum to {float(flat[worst].sum()):.4g}, but the logit"
            f" changes by {float(change[worst]):.4g} from the baseline: the model calls a nonlinear function that"
            " has no rule here (known: activations of one input, max pooling, amax); use integrated_gradients instead"
        )


def _eager(model: nn.Module) -> nn.Module:
    """The model as Python code: compiled and scripted code does not show which functions it calls."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "the model is TorchScript, whose activations cannot be met one by one; give the nn.Module itself"
        )
    original: nn.Module = getattr(model, "_orig_mod", model)
    return original
