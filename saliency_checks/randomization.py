"""Layers in the order in which they run, re-initialised by their own initialisers, one by one or cumulatively."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from saliency_checks.explain import derive, seeded
from saliency_checks.subject import Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float

# A deep model is randomised in so many steps: every step costs one explanation of every image.
MOST_BLOCKS = 8


def weighted_layers(model: nn.Module, inputs: Float[Tensor, "n c h w"]) -> list[str]:
    """Names of the modules that own parameters, from the input to the output, in the order of their first call.

    A module that is never called itself (the projection inside an attention layer) stands with the nearest
    one around it that is.
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

    owners = [name for name, module in model.named_modules() if any(True for _ in module.parameters(recurse=False))]
    return sorted(owners, key=position)


def blocks(model: nn.Module, inputs: Float[Tensor, "n c h w"], most: int = MOST_BLOCKS) -> list[tuple[str, ...]]:
    """Layers in at most ``most`` consecutive groups of nearly equal length, the output's first."""
    layers = weighted_layers(model, inputs)[::-1]
    if not layers:
        raise Unqualified("the model has no parameters, so there is nothing to randomise")
    count = min(most, len(layers))
    edges = [round(i * len(layers) / count) for i in range(count + 1)]
    return [tuple(layers[start:stop]) for start, stop in pairwise(edges)]


def reinitialise(
    model: nn.Module,
    names: tuple[str, ...],
    inputs: Float[Tensor, "n c h w"],
    seed: int,
    *,
    earlier: tuple[str, ...] = (),
) -> None:
    """Draw the named layers again, each from its own initialiser and its own stream; in place.

    A layer without an initialiser gets normal draws with its tensors' own mean and spread. Batch norm, also that of
    layers drawn ``earlier``, forgets its statistics and takes them from ``inputs``: with those of other weights
    below it a random layer's activations would vanish or explode.
    """
    for name in names:
        with seeded(derive(seed, name)):
            _reset(model.get_submodule(name))
    drawn = [model.get_submodule(name) for name in (*earlier, *names)]
    norms = [module for module in drawn if isinstance(module, _BatchNorm)]
    if norms:
        _recalibrate(model, norms, inputs)


def _reset(module: nn.Module) -> None:
    initialise = getattr(module, "reset_parameters", None) or getattr(module, "_reset_parameters", None)
    own = list(module.parameters(recurse=False))
    if not callable(initialise):
        with torch.no_grad():
            for parameter in own:
                spread = parameter.std() if parameter.numel() > 1 else parameter.abs()
                spread = torch.where(spread > 1e-6 * parameter.abs().mean(), spread, parameter.abs().mean())
                parameter.copy_(torch.randn_like(parameter) * spread + parameter.mean())
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


def cascading(model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """(last layer drawn again, model) from the output down, cumulatively (Adebayo et al. 2018, section 3.1).

    The same copy is handed out at every step, one block further randomised; the model itself stays as it is.
    """
    twin = _copy(model)
    done: tuple[str, ...] = ()
    for names in blocks(twin, inputs):
        reinitialise(twin, names, inputs, seed, earlier=done)
        done += names
        yield names[-1], twin


def independent(model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """(layer, model) with one block drawn again and all others as trained, from the output down."""
    for names in blocks(_copy(model), inputs):
        twin = _copy(model)
        reinitialise(twin, names, inputs, seed)
        yield names[-1], twin


def complete(model: nn.Module, inputs: Float[Tensor, "n c h w"], seed: int) -> Iterator[tuple[str, nn.Module]]:
    """(first layer, model) with all weights drawn again: one step, no cascade."""
    twin = _copy(model)
    (names,) = blocks(twin, inputs, most=1)
    reinitialise(twin, names, inputs, seed)
    yield names[-1], twin


def _copy(model: nn.Module) -> nn.Module:
    try:
        return copy.deepcopy(model).eval()
    except Exception as error:
        raise Unqualified(
            f"the model cannot be copied to draw its weights again ({type(error).__name__}: {error});"
            " give a model that copy.deepcopy accepts"
        ) from error
