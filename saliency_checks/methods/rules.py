"""Where a method meets the functions that a model calls, and puts a rule of its own in their place.

The rules act on functions, not on modules: ``F.relu``, ``x.relu_()``, ReLU6, ``x + y`` and modules that are in-place or
used twice are all met, and the model is neither hooked nor copied. Hooks on ``nn.ReLU`` miss the first ones in
silence, and replace the gradient of a skip connection together with that of its ReLU.

A rule keeps a function's value and gives it another slope, so everything around it is what it was. Functions fall into
a few kinds (``LINEAR``, ``SHIFTS``, ``LAYERS``, ``ELEMENTWISE``, ``PRODUCTS``, ``MAXIMA``); attention and
normalisations are made of these. What is of no kind keeps its own slope and is remembered: each method checks a sum
that is only right if its rules covered all, and names those functions where it is not (see :func:`check_sum`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils import _pytree as pytree

from saliency_checks.methods.composites import COMPOSITES, QUOTIENTS
from saliency_checks.methods.gradient import class_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

# fmt: off
ELEMENTWISE = frozenset({
    "abs", "absolute", "arctan", "atan", "celu", "clamp", "clamp_max", "clamp_min", "clip", "cos", "elu", "erf", "exp",
    "expm1", "gelu", "hardshrink", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log", "log1p", "log_sigmoid",
    "logsigmoid", "mish", "pow", "prelu", "rdiv", "reciprocal", "relu", "relu6", "rpow", "rrelu", "rsqrt", "rtruediv",
    "selu", "sigmoid", "silu", "sin", "softplus", "softshrink", "softsign", "sqrt", "square", "tanh", "tanhshrink",
    "threshold",
})
# A number times the input gives that number times the output.
LINEAR = frozenset({
    "adaptive_avg_pool1d", "adaptive_avg_pool2d", "adaptive_avg_pool3d", "alpha_dropout", "avg_pool1d", "avg_pool2d",
    "avg_pool3d", "channel_shuffle", "chunk", "clone", "contiguous", "cumsum", "diagonal", "double", "dropout",
    "dropout1d", "dropout2d", "dropout3d", "expand", "expand_as", "feature_alpha_dropout", "flatten", "flip", "float",
    "fold", "gather", "getitem", "get", "index_select", "interpolate", "masked_select", "mean", "moveaxis", "movedim",
    "narrow", "native_channel_shuffle", "neg", "negative", "permute", "pixel_shuffle", "pixel_unshuffle", "positive",
    "ravel", "repeat", "repeat_interleave", "requires_grad", "reshape", "reshape_as", "roll", "select", "split",
    "squeeze", "sum", "swapaxes", "swapdims", "t", "tensor_split", "tile", "to", "transpose", "tril", "triu", "type",
    "type_as", "unbind", "unflatten", "unfold", "unsqueeze", "upsample", "view", "view_as",
})
# Linear in all that depends on the image; beside it there may stand constants.
SHIFTS = frozenset({
    "add", "cat", "concat", "concatenate", "copy", "hstack", "pad", "radd", "rsub", "setitem", "stack", "sub",
    "subtract", "vstack", "where",
})
LAYERS = frozenset({
    "linear", "conv1d", "conv2d", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "batch_norm",
})
# Linear in each of two factors; a single one that depends on the image makes a linear function.
PRODUCTS = frozenset({"mul", "multiply", "matmul", "mm", "bmm", "mv", "dot", "einsum", "rmul", "rmatmul"})
# fmt: on
MAX_POOLS: dict[str, Callable[..., tuple[Tensor, Tensor]]] = {
    "max_pool1d": F.max_pool1d_with_indices,
    "max_pool2d": F.max_pool2d_with_indices,
    "max_pool3d": F.max_pool3d_with_indices,
    "adaptive_max_pool1d": F.adaptive_max_pool1d_with_indices,
    "adaptive_max_pool2d": F.adaptive_max_pool2d_with_indices,
    "adaptive_max_pool3d": F.adaptive_max_pool3d_with_indices,
}
MAXIMA = frozenset({*MAX_POOLS, "amax"})
# Sums are compared up to this many roundings of what is summed.
ROUNDINGS = 1000


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a function on something that depends on the image.

    Attributes:
        name: the function's, without the underscores of its in-place and its operator form.
        func: the function.
        leaves: its arguments, lists and dictionaries unfolded.
        shape: how to fold them again.
        places: which leaves depend on the image.
    """

    name: str
    func: Callable[..., Any]
    leaves: tuple[Any, ...]
    shape: pytree.TreeSpec
    places: tuple[int, ...]

    @classmethod
    def of(cls, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
        leaves, shape = pytree.tree_flatten((args, kwargs))
        places = tuple(place for place, leaf in enumerate(leaves) if is_traced(leaf))
        return cls(getattr(func, "__name__", str(func)).strip("_"), func, tuple(leaves), shape, places)

    @property
    def traced(self) -> tuple[Tensor, ...]:
        """The tensors among the arguments that depend on the image."""
        return tuple(self.leaves[place] for place in self.places)

    @property
    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        args, kwargs = pytree.tree_unflatten(list(self.leaves), self.shape)
        return args, kwargs

    def own(self) -> Any:
        """What the model itself would have got."""
        args, kwargs = self.arguments
        return self.func(*args, **kwargs)

    def on(self, *tensors: Tensor) -> Any:
        """The same function on other tensors in place of the traced ones."""
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, kwargs = pytree.tree_unflatten(leaves, self.shape)
        return self.func(*args, **kwargs)

    def apart(self) -> tuple[Tensor, bool]:
        """The value, with nothing written to the arguments, and whether the function would have written to the first.

        An in-place function returns the very tensor that it was given.
        """
        first, *others = (tensor.detach().clone() for tensor in self.traced)
        output = self.on(first, *others)
        return output, output is first

    def slope(self) -> tuple[Tensor, Tensor, bool]:
        """Value and derivative of an elementwise function, and whether it would have written to its argument."""
        place = self.traced[0].detach().requires_grad_()
        with torch.enable_grad():
            point = place.clone()
            output = self.on(point)
            derivative = torch.autograd.grad(output.sum(), place)[0]
        return output.detach(), derivative, output is point


def is_traced(thing: Any) -> bool:
    """Whether it depends on the image; parameters do not, since :func:`scores_under` detaches them."""
    return isinstance(thing, Tensor) and thing.requires_grad


class Rules(TorchFunctionMode):
    """Lets a rule stand in for a function that a model calls; by default each keeps its own slope.

    Attributes:
        composites: functions that are made of others, and how.
        unruled: functions of no kind that were met.
    """

    composites: Mapping[str, Callable[..., Any]] = COMPOSITES

    def __init__(self) -> None:
        super().__init__()
        self.unruled: list[str] = []

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        call = Call.of(func, args, kwargs or {})
        if not call.places or not torch.is_grad_enabled():
            return call.own()
        parts = self.composites.get(call.name)
        if parts is None or (call.name in QUOTIENTS and not _divides(call)):
            return self.apply(call)
        with self:
            output = parts(self, *args, **(kwargs or {}))
        return args[0].copy_(output) if func.__name__.endswith("_") else output

    def apply(self, call: Call) -> Any:
        """The rule of the kind that the function is of."""
        name, count = call.name, len(call.places)
        if name in LINEAR or (name in PRODUCTS | QUOTIENTS and count == 1 and not _divides(call)):
            return call.own()
        if name in SHIFTS:
            return self.shift(call)
        if name in LAYERS and count == 1:
            return self.layer(call)
        rule = next((rule for kind, rule in self.nonlinear() if name in kind), None)
        if rule is None or (name in ELEMENTWISE and count > 1) or not self.fits(call):
            return self.unknown(call)
        output, is_in_place = rule(call)
        return call.traced[0].copy_(output) if is_in_place else output

    def fits(self, call: Call) -> bool:
        """Whether a nonlinear function's arguments are laid out as its rule expects."""
        return True

    def nonlinear(self) -> Sequence[tuple[frozenset[str], Callable[[Call], tuple[Tensor, bool]]]]:
        return (ELEMENTWISE, self.elementwise), (PRODUCTS, self.product), (MAXIMA, self.maximum)

    def shift(self, call: Call) -> Any:
        return call.own()

    def layer(self, call: Call) -> Any:
        return call.own()

    def elementwise(self, call: Call) -> tuple[Tensor, bool]:
        """The output, and whether the function writes it to its argument."""
        raise NotImplementedError

    def product(self, call: Call) -> tuple[Tensor, bool]:
        raise NotImplementedError

    def maximum(self, call: Call) -> tuple[Tensor, bool]:
        return call.own(), False

    def level(self, values: Tensor) -> Tensor:
        """What a softmax subtracts from its input: any number that is the same all along a row."""
        return values

    def unknown(self, call: Call) -> Any:
        output = call.own()
        if any(map(is_traced, pytree.tree_leaves(output))) and call.name not in self.unruled:
            self.unruled.append(call.name)
        return output


def _divides(call: Call) -> bool:
    args, _ = call.arguments
    return call.name in QUOTIENTS and len(args) > 1 and is_traced(args[1])


# A model under rules -------------------------------------------------------------------------------------------------


def scores_under(
    rules: Rules, model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """The logit of each image's class, in a graph of the rules' slopes; only what the inputs reach is in it.

    Gradients must be enabled around it, as for any graph.

    Raises:
        TypeError: the model is compiled code, which does not show what functions it calls.
    """
    model = eager(model)
    fixed = {name: parameter.detach() for name, parameter in model.named_parameters()}

    def forward(images: Tensor) -> Any:
        return torch.func.functional_call(model, fixed, (images,))

    with rules:
        return class_scores(forward, inputs, targets)  # type: ignore[arg-type]


def eager(model: nn.Module) -> nn.Module:
    """The model as Python code: compiled and scripted code does not show which functions it calls."""
    if any(isinstance(module, torch.jit.ScriptModule) for module in model.modules()):
        raise TypeError(
            "the model is TorchScript, whose activations cannot be met one by one; give the nn.Module itself"
        )
    original: nn.Module = getattr(model, "_orig_mod", model)
    return original


def ratio(change: Tensor, of: Tensor, otherwise: Tensor | float) -> Tensor:
    """change / of, and ``otherwise`` where ``of`` is no more than rounding."""
    is_moving = of.abs() > torch.finfo(of.dtype).eps * 10
    return torch.where(is_moving, change / torch.where(is_moving, of, 1), otherwise)


def image_weights(scores: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """For a sum over images in which errors of two shall not cancel; powers of two, which are exact."""
    return 2.0 ** (torch.arange(len(scores), device=scores.device, dtype=scores.dtype) % 3)


def check_sum(
    what: str,
    found: Float[Tensor, " n"],
    due: Float[Tensor, " n"],
    size: Float[Tensor, " n"],
    rules: Rules,
    slack: float = 0.0,
    each: int = 1,
) -> None:
    """Raise where contributions do not sum to what the method promises.

    Args:
        what: the method, for the message.
        found: sums of the contributions.
        due: what they should be.
        size: sums of the magnitudes that went into them, to which roundings are in proportion.
        rules: those that were met.
        slack: share of ``due`` that may be missed beside rounding.
        each: sums of an image, which follow each other.

    Raises:
        ValueError: names the functions that have no rule.
    """
    excess = (found - due).abs() - slack * due.abs() - ROUNDINGS * torch.finfo(size.dtype).eps * size
    if not bool((excess <= 0).all()):  # one look: this stands in a loop
        worst = int(excess.nan_to_num(nan=torch.inf).argmax())
        missing = ", ".join(rules.unruled) or "none by name; a value computed outside autograd, or an overflow"
        whose = f"image {worst // each}" if len(due) > 1 else "the images"
        raise ValueError(
            f"{what}: the contributions of {whose} sum to {float(found[worst]):.4g}, but should to"
            f" {float(due[worst]):.4g}: the model calls a nonlinear function that has no rule here ({missing});"
            " use integrated_gradients instead"
        )
