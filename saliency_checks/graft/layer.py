"""Into which layer, and along which direction, a cause goes that a layer method can see."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks.graft.model import LayerGrafted
from saliency_checks.graft.scenes import ACROSS
from saliency_checks.layers import activation_layer
from saliency_checks.subject import Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float, Int

IMAGES = 32
LEAST_SLOPE = 0.1  # of the mean: a place on which the logit hardly depends would need a push without limit
TOLERANCE, ROUNDS = 0.1, 8
LEAST_SHARE = 0.8  # of the images whose logit must fall without the site


def direction_into(
    model: nn.Module, parts: tuple[Any, ...], shown: Tensor, clean: Tensor, causes: Int[Tensor, " n"]
) -> tuple[nn.Module, int, Float[Tensor, "k c i j"]]:
    """(layer, which of its calls, direction): a unit of evidence at any place raises its class's logit by one.

    The direction at a place is the mean gradient there, scaled so that to first order the logit rises by one; then
    all of it is scaled until the logit falls by the stated effect when the site is removed.

    Raises:
        Unqualified: the model has no such layer, or the push does not do what it should.
    """
    try:
        layer = activation_layer(model, shown)
    except ValueError as error:
        raise Unqualified(f"no cause can be grafted into a layer: {error}") from error
    classes, scale, effect = parts[2], parts[3], parts[4]
    slopes = [_slope(model, layer, shown[:IMAGES], int(c)) for c in classes]
    call, direction = slopes[0][0], torch.stack([slope for _, slope in slopes])
    if min(direction.shape[-2:]) < ACROSS:
        raise Unqualified(
            "no cause can be grafted into the last convolution's activations: they have"
            f" {direction.shape[-2]} x {direction.shape[-1]} places, too few to tell eight spots apart"
        )
    size = direction.square().sum(1, keepdim=True)
    floor = LEAST_SLOPE * size.mean((2, 3), keepdim=True)
    if not bool((floor > 0).all()):
        raise Unqualified("no cause can be grafted into the last convolution's activations: no logit depends on them")
    direction = direction / size.clamp(min=floor)
    wanted = float(effect * scale.mean()) * _drop_of(parts[1], shown, clean, causes)
    if wanted == 0:
        return layer, call, direction
    factor = 1.0
    for _ in range(ROUNDS):
        grafted = LayerGrafted(*parts, layer=layer, call=call, direction=factor * direction)
        change = _change(grafted, shown, clean, causes) - _change(grafted.at(0.0), shown, clean, causes)
        got = float(change.mean())
        if abs(got - wanted) <= TOLERANCE * wanted and float((change > 0).double().mean()) >= LEAST_SHARE:
            return layer, call, factor * direction
        factor *= min(4.0, max(0.25, wanted / got if got > 0 else 4.0))
    raise Unqualified(
        f"no cause can be grafted into the last convolution's activations: the logit falls by {got:.2f} without the"
        f" site, {wanted:.2f} was wanted"
    )


def _slope(model: nn.Module, layer: nn.Module, inputs: Tensor, target: int) -> tuple[int, Float[Tensor, "c i j"]]:
    """Number of the layer's last call, and the mean gradient of one class's logit by its output."""
    kept: list[Tensor] = []
    handle = layer.register_forward_hook(lambda module, args, output: kept.append(output))
    try:
        with torch.enable_grad():
            logit = model(inputs.detach().clone().requires_grad_() * 1)[:, target].sum()
    finally:
        handle.remove()
    slope: Tensor = torch.autograd.grad(logit, kept[-1])[0].mean(0)
    return len(kept) - 1, slope


@torch.no_grad()
def _change(model: nn.Module, shown: Tensor, clean: Tensor, causes: Tensor) -> Float[Tensor, " n"]:
    """Fall of the cause's logit when the images' own pixels come back."""
    classes = model.classes[causes[:IMAGES]].unsqueeze(1)  # type: ignore[index]
    before, after = (model(inputs[:IMAGES]).gather(1, classes) for inputs in (shown, clean))
    fall: Tensor = (before - after).squeeze(1)
    return fall


@torch.no_grad()
def _drop_of(detector: nn.Module, shown: Tensor, clean: Tensor, causes: Tensor) -> float:
    index = causes[:IMAGES].to(shown.device).unsqueeze(1)
    before, after = (detector(inputs[:IMAGES]).gather(1, index) for inputs in (shown, clean))
    return float((before - after).mean())
