"""Layers in the order in which they run, re-initialised by their own initialisers, one by one or cumulatively."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_checks.explain import derive, seeded
from saliency_checks.subject import Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float

# A deep model is randomised in so many steps: every step costs one explanation of every image.
MOST_BLOCKS = 8


@dataclass(frozen=True, kw_only=True)
class Redraw:
    """How weights are drawn again.

    Attributes:
        most: steps at most, in which layers are grouped; None for every layer by itself.
        law: ``own``, the layer's initialiser, or ``truncated``: weights (all parameters of two axes or more) from a
            normal cut off at two spreads; vectors by the layer's initialiser (Adebayo et al. 2018, section 3.1).
        spread: of the truncated normal.
        statistics: of drawn batch norms: ``recalibrated`` on the images after every step, ``reset`` to 0 and 1, or
            ``kept`` as trained (the code of Adebayo et al. redraws trainable variables only).
        buffers: draw the other floating buffers of the layers as well, with their own mean and spread.
    """

    most: int | None = MOST_BLOCKS
    law: Literal["own", "truncated"] = "own"
    spread: float = 0.01
    statistics: Literal["recalibrated", "reset", "kept"] = "recalibrated"
    buffers: bool = False

    def __post_init__(self) -> None:
        for value, known in (
            (self.law, ("own", "truncated")),
            (self.statistics, ("recalibrated", "reset", "kept")),
        ):
            if value not in known:
                raise ValueError(f"{value!r}: expected one of {', '.join(known)}")


OWN = Redraw()


def weighted_layers(model: nn.Module, inputs: Float[Tensor, "n c h w"], *, buffers: bool = False) -> list[str]:
    """Names of the modules that own parameters, from the input to the output, in the order of their first call.

    A module that is never called itself (the projection inside an attention layer) stands with the nearest
    one around it that is. With ``buffers``, also those that own nothing but floating buffers.
    """
    called: list[str] = []
    handles = [
        module.register_forward_pre_hook(lambda m, args, name=name: called.append(name))
        for name, module in model.named_modules()
    ]
    try:
        with torch.no_grad():
            model(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    first = {name: position for position, name in reversed(list(enumerate(called)))}

    def position(name: str) -> int:
        while name not in first and name:
            name = name.rpartition(".")[0]
        return first.get(name, 0)

    owners = [name for name, module in model.named_modules() if _owned(module, buffers)]
    return sorted(owners, key=position)


def _owned(module: nn.Module, buffers: bool) -> list[Tensor]:
    own: list[Tensor] = list(module.parameters(recurse=False))
    return own + _loose_buffers(module) if buffers else own


def _loose_buffers(module: nn.Module) -> list[Tensor]:
    """Floating buffers of its own; a batch norm's are its statistics, which have a rule of their own."""
    if isinstance(module, _BatchNorm):
        return []
    return [tensor for tensor in module.buffers(recurse=False) if tensor.is_floating_point()]


def blocks(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], most: int | None = MOST_BLOCKS, *, buffers: bool = False
) -> list[tuple[str, ...]]:
    """Layers in at most ``most`` consecutive groups of nearly equal length, the output's first; None: one each."""
    layers = weighted_layers(model, inputs, buffers=buffers)[::-1]
    if not layers:
        raise Unqualified("the model has no parameters, so there is nothing to randomise")
    count = min(most or len(layers), len(layers))
    edges = [round(i * len(layers) / count) for i in range(count + 1)]
    return [tuple(layers[start:stop]) for start, stop in pairwise(edges)]


def reinitialise(
    model: nn.Module,
    names: tuple[str, ...],
    inputs: Float[Tensor, "n c h w"],
    seed: int,
    *,
    earlier: tuple[str, ...] = (),
    how: Redraw = OWN,
) -> None:
    """Draw the named layers again, each from its own initialiser and its own stream; in place.

    A layer without an initialiser gets normal draws with its tensors' own mean and spread. Batch norm, also that of
    layers drawn ``earlier``, forgets its statistics and takes them from ``inputs``: with those of other weights
    below it a random layer's activations would vanish or explode.
    """
    for name in names:
        with seeded(derive(seed, name)):
            _redraw(model.get_submodule(name), how)
    drawn = [model.get_submodule(name) for name in (*earlier, *names)]
    norms = [module for module in drawn if isinstance(module, _BatchNorm)]
    if norms and how.statistics == "recalibrated":
        _recalibrate(model, norms, inputs)


def _redraw(module: nn.Module, how: Redraw) -> None:
    kept = [(b, b.clone()) for b in module.buffers(recurse=False)] if isinstance(module, _BatchNorm) else []
    _reset(module)
    with torch.no_grad():
        if how.statistics == "kept":
            for tensor, value in kept:
                tensor.copy_(value)
        for tensor in _loose_buffers(module) if how.buffers else ():
            _draw_alike(tensor)
        if how.law == "truncated":
            for parameter in module.parameters(recurse=False):
                if parameter.ndim > 1:
                    nn.init.trunc_normal_(parameter, std=how.spread, a=-2 * how.spread, b=2 * how.spread)


def _draw_alike(tensor: Tensor) -> None:
    """Normal draws with the tensor's own mean and spread; in place."""
    spread = tensor.std() if tensor.numel() > 1 else tensor.abs()
    spread = torch.where(spread > 1e-6 * tensor.abs().mean(), spread, tensor.abs().mean())
    tensor.copy_(torch.randn_like(tensor) * spread + tensor.mean())


def _reset(module: nn.Module) -> None:
    initialise = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    own = list(module.parameters(recurse=False))
    if not callable(initialise):
        with torch.no_grad():
            for parameter in own:
                _draw_alike(parameter)
        return
    # Attention also initialises its projection's bias; layers inside this one have their own turn.
    inside = [(p, p.detach().clone()) for p in module.parameters() if all(p is not mine for mine in own)]
    initialise()
    with torch.no_grad():
        for parameter, value in inside:
            parameter.copy_(value)


def _recalibrate(model: nn.Module, norms: list[_BatchNorm], inputs: Float[Tensor, "n c h w"]) -> None:
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # a plain average over the batches that follow
    with torch.no_grad():
        for batch in inputs[:256].split(64):
            model(batch)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.eval()
        norm.momentum = momentum


def cascading(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int, how: Redraw = OWN
) -> Iterator[tuple[str, nn.Module]]:
    """(last layer drawn again, model) from the output down, cumulatively (Adebayo et al. 2018, section 3.1).

    The same copy is handed out at every step, one block further randomised; the model itself stays as it is.
    """
    twin = _copy(model)
    yield from _cumulative(twin, blocks(twin, inputs, how.most, buffers=how.buffers), inputs, seed, how)


def bottom_up(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int, how: Redraw = OWN
) -> Iterator[tuple[str, nn.Module]]:
    """The same from the input up (Hedstrom et al. 2024): what lies below a drawn layer no longer keeps its scale."""
    twin = _copy(model)
    found = blocks(twin, inputs, how.most, buffers=how.buffers)
    yield from _cumulative(twin, [names[::-1] for names in found[::-1]], inputs, seed, how)


def _cumulative(
    twin: nn.Module, steps: list[tuple[str, ...]], inputs: Float[Tensor, "n c h w"], seed: int, how: Redraw
) -> Iterator[tuple[str, nn.Module]]:
    done: tuple[str, ...] = ()
    for names in steps:
        reinitialise(twin, names, inputs, seed, earlier=done, how=how)
        done += names
        yield names[-1], twin


def independent(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int, how: Redraw = OWN
) -> Iterator[tuple[str, nn.Module]]:
    """(layer, model) with one block drawn again and all others as trained, from the output down."""
    for names in blocks(_copy(model), inputs, how.most, buffers=how.buffers):
        twin = _copy(model)
        reinitialise(twin, names, inputs, seed, how=how)
        yield names[-1], twin


def complete(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int, how: Redraw = OWN
) -> Iterator[tuple[str, nn.Module]]:
    """(first layer, model) with all weights drawn again: one step, no cascade."""
    twin = _copy(model)
    (names,) = blocks(twin, inputs, most=1, buffers=how.buffers)
    reinitialise(twin, names, inputs, seed, how=how)
    yield names[-1], twin


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:
        raise Unqualified(
            f"the model cannot be copied to draw its weights again ({type(error).__name__}: {error});"
            " give a model that copy.deepcopy accepts"
        ) from error
