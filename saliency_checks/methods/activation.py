"""The activation that class activation maps read: found, with its slope, and run again with another one in its place.

The model is neither changed nor copied. Without a layer's name it is the last spatial activation at or behind a
convolution, whatever function made it; a layer's name takes the output of that module.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Self

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.methods.gradient import class_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Activation = Float[Tensor, "n k i j"]

Edit = Callable[[Tensor], Tensor]  # (n, k, i, j) -> (n, k, i, j)
# Tokens of a vision transformer that stand for no place: the class and, in some, what it was distilled from.
MOST_EXTRA_TOKENS = 2


class LastActivation(TorchFunctionMode):
    """Remembers the last spatial activation at or behind a convolution, whatever made it (see ``layers``).

    A hook on the convolution would miss the ReLU behind it; a hook on the ReLU needs a module of its own,
    which ``F.relu`` in a ``forward`` is not. The tensor itself is kept, so a later in-place operation is seen.

    Attributes:
        found: the activation, of inputs that require a gradient.
        place: which of the model's four-dimensional results it is.
    """

    found: Tensor | None = None
    place = seen = 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, Tensor) or output.ndim != 4:
            return output
        self.seen += 1
        is_behind = self.found is not None or getattr(func, "__name__", "") == "conv2d"
        if output.requires_grad and is_behind and output.shape[-2:].numel() > 1:
            self.found, self.place = output, self.seen
        return output


class EditedActivation(TorchFunctionMode):
    """Puts ``edit(activation)`` in the place that :class:`LastActivation` found."""

    def __init__(self, place: int, edit: Edit) -> None:
        super().__init__()
        self.place, self.edit, self.seen = place, edit, 0

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, Tensor) or output.ndim != 4:
            return output
        self.seen += 1
        if self.seen != self.place:
            return output
        is_in_place = any(output is argument for argument in args)  # the caller may go on with its argument
        return output.copy_(self.edit(output)) if is_in_place else self.edit(output)


class NamedActivation:
    """Remembers the output of one module, and puts ``edit(output)`` in its place."""

    def __init__(self, model: nn.Module, layer: str, edit: Edit | None = None) -> None:
        modules = dict(model.named_modules())
        if layer not in modules:
            raise ValueError(f"the model has no layer {layer!r}; it has {', '.join(filter(None, modules))}")
        self.module, self.layer, self.edit = modules[layer], layer, edit
        self.found: Tensor | None = None

    def __enter__(self) -> Self:
        self.handle = self.module.register_forward_hook(self._hook)
        return self

    def __exit__(self, *_: object) -> None:
        self.handle.remove()

    def _hook(self, module: nn.Module, args: Any, output: Any) -> Tensor:
        if self.found is not None:
            raise ValueError(f"layer {self.layer!r} runs more than once, so its activation is not one; name another")
        if not isinstance(output, Tensor):
            raise ValueError(f"layer {self.layer!r} returns {type(output).__name__}, expected a tensor; name another")
        self.found, passed_on = output, output.clone()  # what follows may work in place
        if self.edit is not None:
            places = as_grid(passed_on, self.layer)
            places.copy_(self.edit(places.clone()))  # through the view
        return passed_on


def as_grid(activation: Tensor, layer: str = "") -> Activation:
    """A view (n, k, i, j) of an activation; tokens (n, t, k) of a square image lose those that stand for no place.

    Raises:
        ValueError: it has no places.
    """
    if activation.ndim == 4 and activation.shape[-2:].numel() > 1:
        return activation
    if activation.ndim == 3 and (side := math.isqrt(activation.shape[1])) > 1:
        extra = activation.shape[1] - side**2
        if extra <= MOST_EXTRA_TOKENS:
            tokens: Tensor = activation[:, extra:].unflatten(1, (side, side))
            return tokens.permute(0, 3, 1, 2)
    raise ValueError(
        f"layer {layer!r} returns {tuple(activation.shape)}, expected a spatial activation (n, k, i, j) or the tokens"
        " (n, t, k) of a square image; name another"
    )


def read(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> tuple[Activation, Activation]:
    """The activation A of each image, and the slope G = d f_c / d A.

    Args:
        layer: a module's name in ``model.named_modules()``; default see :class:`LastActivation`.

    Raises:
        ValueError: there is no spatial activation.
    """

    def both(rows: Classes) -> Float[Tensor, "n 2 k i j"]:
        scores, found = _traced(model, inputs[rows], targets[rows], layer)
        with torch.enable_grad():
            slope = torch.autograd.grad(scores.sum(), found)[0]
        return torch.stack([as_grid(found.detach(), layer or ""), as_grid(slope, layer or "")], 1)

    rows = torch.arange(len(inputs), device=inputs.device)
    activation, slope = chunked(both, rows, per_pass(inputs)).unbind(1)
    return activation, slope


def _traced(model: nn.Module, inputs: Images, targets: Classes, layer: str | None) -> tuple[Tensor, Tensor]:
    with torch.enable_grad():
        images = inputs.detach().clone().requires_grad_() * 1  # no leaf: the first layer may work in place
        with LastActivation() if layer is None else NamedActivation(model, layer) as tap:
            scores = class_scores(model, images, targets)
    if tap.found is None and layer is not None:
        raise ValueError(f"layer {layer!r} does not run; name another")
    if tap.found is None:
        raise ValueError("this model has no convolution with a spatial output, so it has no class activation map")
    return scores, tap.found


def editor(
    model: nn.Module, inputs: Images, layer: str | None = None
) -> Callable[[Images, Edit], Float[Tensor, "n classes"]]:
    """``(images, edit) -> logits`` of the model with ``edit(activation)`` in place of the activation.

    Args:
        inputs: images; one is enough to find the place.
        layer: see :func:`read`, which also says what is wrong with a model that has no such place.
    """
    if layer is not None:

        def named(images: Images, edit: Edit) -> Float[Tensor, "n classes"]:
            with NamedActivation(model, layer, edit):
                return model(images.clone())  # type: ignore[no-any-return]

        return named
    with torch.enable_grad():
        image = inputs[:1].detach().clone().requires_grad_() * 1  # no leaf: the first layer may work in place
        with LastActivation() as last:
            model(image)
    place = last.place

    def unnamed(images: Images, edit: Edit) -> Float[Tensor, "n classes"]:
        images = images.clone()
        with EditedActivation(place, edit) as edited:
            logits = model(images)
        if edited.seen < place:
            raise ValueError("the model calls other functions without gradients than with them; name a layer")
        return logits  # type: ignore[no-any-return]

    return unnamed
