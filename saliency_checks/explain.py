"""One safe call of a method: own random stream, cloned inputs, restored model, validated maps, a cache."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks import maps
from saliency_checks.chunking import chunked, is_out_of_memory, per_pass
from saliency_checks.method import Method
from saliency_checks.snapshot import Snapshot
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

# Images that are explained and kept together. A fixed number, because a stochastic method's draws depend on its batch:
# with it no result depends on how many images a check asks for.
BLOCK = 32
# Large images go to the method in smaller parts (on a CPU twice as fast at 224 pixels), never one by one: a batch
# shows what mixes its images.
LEAST_PER_CALL = 4


class ContractError(Exception):
    """A method that does not keep the explain contract; the text says what was expected and how to mend it."""


def derive(*parts: object) -> int:
    """A seed from a key, the same on every machine and worker."""
    return zlib.crc32("/".join(map(str, parts)).encode())


def generator(*parts: object) -> torch.Generator:
    """A CPU generator of its own, seeded from a key."""
    return torch.Generator().manual_seed(derive(*parts))


def rng_state() -> tuple[Any, ...]:
    """The state of every global generator that an attribution method may draw from."""
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []
    return torch.get_rng_state(), cuda, np.random.get_state(), random.getstate()  # noqa: NPY002


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed the global generators inside, and leave them as they were."""
    torch_state, cuda, numpy_state, python_state = rng_state()
    # Not torch.manual_seed: it walks the whole stack for every kind of accelerator that is not in use.
    torch.default_generator.manual_seed(seed)
    if cuda:
        torch.cuda.manual_seed_all(seed)
    if torch.backends.mps.is_available():
        torch.mps.manual_seed(seed)
    np.random.seed(seed)  # noqa: NPY002  (captum draws from the legacy generator)
    random.seed(seed)
    try:
        yield
    finally:
        torch.set_rng_state(torch_state)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)
        np.random.set_state(numpy_state)  # noqa: NPY002
        random.setstate(python_state)


@contextmanager
def in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode inside; afterwards every module has the mode that it had."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:  # one by one: a frozen batch norm inside a training model stays frozen
            module.training = True


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Eval mode without gradients inside."""
    with in_eval_mode(model), torch.no_grad():
        yield


@contextmanager
def untouched(model: nn.Module) -> Iterator[Snapshot]:
    """Eval mode and autograd inside; the model is bit for bit as before afterwards, also when the body raises."""
    before = Snapshot.of(model)
    model.eval()
    try:
        with torch.enable_grad():
            yield before
    finally:
        before.restore()


def explain(
    method: Method,
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    *,
    baseline: Float[Tensor, "1 c 1 1"] | None = None,
    references: Float[Tensor, "m c h w"] | None = None,
    seed: int = 0,
) -> Float[Tensor, "n h w"]:
    """Signed maps of one batch, on the inputs' device; the method gets as many images at once as memory likes.

    Args:
        baseline: what "absent" means for these inputs, for a method that needs one.
        references: other images, for a method that compares with some.

    Raises:
        ContractError: the method raised, or returned something that is no map of these inputs.
    """
    return maps.reduce_channels(explain_channels(method, model, inputs, targets, seed, baseline, references))


def explain_channels(
    method: Method,
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    seed: int,
    baseline: Float[Tensor, "1 c 1 1"] | None = None,
    references: Float[Tensor, "m c h w"] | None = None,
) -> Float[Tensor, " n #c h w"]:
    """As :func:`explain`, with the channels that the method gives, (N, C, H, W) or (N, 1, H, W)."""
    rows = torch.arange(len(inputs), device=inputs.device)
    size = max(LEAST_PER_CALL, per_pass(inputs))
    with untouched(model), seeded(seed):
        return chunked(lambda part: _call(method, model, inputs[part], targets[part], baseline, references), rows, size)


def call(
    method: Method,
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Float[Tensor, "1 c 1 1"] | None = None,
    references: Float[Tensor, "m c h w"] | None = None,
) -> Float[Tensor, "n h w"]:
    """The method's validated maps, with nothing restored: what :func:`explain` makes safe."""
    return maps.reduce_channels(_call(method, model, inputs, targets, baseline, references))


def _call(
    method: Method,
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Float[Tensor, "1 c 1 1"] | None,
    references: Float[Tensor, "m c h w"] | None,
) -> Float[Tensor, " n #c h w"]:
    try:
        lent = references.detach().clone() if references is not None and "references" in method.needs else None
        returned = method(model, inputs.detach().clone(), targets.clone(), baseline, lent)
    except Exception as error:
        if is_out_of_memory(error):
            raise  # fewer images may fit
        raise ContractError(
            f"{method.name} raised {type(error).__name__}: {error}\n"
            f"  called with model {type(model).__name__}, inputs {tuple(inputs.shape)} {inputs.dtype} on"
            f" {inputs.device}, targets {tuple(targets.shape)} int64"
        ) from error
    return _validated(returned, inputs, method.name)


def validated(returned: Any, inputs: Float[Tensor, "n c h w"], name: str) -> Float[Tensor, "n h w"]:
    """Maps (N, H, W) from what a method returned.

    Raises:
        ContractError: not numbers, not of the inputs' batch and size, or not finite.
    """
    return maps.reduce_channels(_validated(returned, inputs, name))


def _validated(returned: Any, inputs: Float[Tensor, "n c h w"], name: str) -> Float[Tensor, " n #c h w"]:
    n, c, h, w = inputs.shape
    expected = f"expected ({n}, {c}, {h}, {w}), ({n}, 1, {h}, {w}) or ({n}, {h}, {w})"
    if isinstance(returned, tuple | list) and len(returned) == 1:
        returned = returned[0]
    if isinstance(returned, np.ndarray | np.generic):
        if returned.dtype.kind not in "iuf":
            raise ContractError(f"{name} returned an array of {returned.dtype}, expected real numbers {expected}")
        returned = torch.from_numpy(np.array(returned, dtype=np.float64))
    if not isinstance(returned, Tensor):
        raise ContractError(f"{name} returned {type(returned).__name__}, {expected} as a tensor or array")
    if returned.is_complex() or returned.dtype == torch.bool:
        raise ContractError(f"{name} returned {returned.dtype}, expected real numbers {expected}")
    shape = tuple(returned.shape)
    if shape not in {(n, c, h, w), (n, 1, h, w), (n, h, w)}:
        raise ContractError(f"{name} returned shape {shape}, {expected}{_shape_hint(shape, (n, c, h, w))}")
    # A copy: the method may write into its own buffer again.
    attributions = returned.detach().to(device=inputs.device, dtype=inputs.dtype, copy=True)
    bad = ~torch.isfinite(attributions.flatten(1)).all(1)
    if bad.any():
        raise ContractError(
            f"{name} returned NaN or infinite values for {int(bad.sum())} of {n} images (first: image"
            f" {int(bad.nonzero()[0])}); guard divisions by the map's own maximum or sum, which may be 0"
        )
    return attributions if attributions.ndim == 4 else attributions.unsqueeze(1)


def _shape_hint(shape: tuple[int, ...], inputs: tuple[int, int, int, int]) -> str:
    n, c, h, w = inputs
    if len(shape) in (3, 4) and shape[0] == n and shape[-2:] != (h, w):
        if shape[-1] in (1, c) and shape[1:3] == (h, w):
            return "; it looks like channels last: permute(0, 3, 1, 2)"
        return f"; resize it: torch.nn.functional.interpolate(maps, size=({h}, {w}), mode='bilinear')"
    if shape in {(h, w), (c, h, w)} and n != 1:
        return "; one map came back for a batch: explain every image"
    return ""


def subject_maps(
    method: Method, subject: Subject, start: int, stop: int, *, seed: int = 0, stream: str = "maps"
) -> Float[Tensor, "n h w"]:
    """Maps of the subject's images ``start`` to ``stop``, explained once per (method, seed, stream)."""
    return model_maps(
        method, subject, subject.model, subject.inputs, subject.targets, start, stop, seed=seed, stream=stream
    )


def subject_channel_maps(
    method: Method, subject: Subject, start: int, stop: int, *, seed: int = 0
) -> Float[Tensor, " n #c h w"]:
    """The same with the channels that the method gives, (N, C, H, W) or (N, 1, H, W); not to be written into."""
    own = (subject.model, subject.inputs, subject.targets)
    blocks = list(_blocks(method, subject, *own, start, stop, seed, "maps", keep=True))
    return blocks[0] if len(blocks) == 1 else torch.cat(blocks)


def constant_maps(method: Method, subject: Subject, n: int, *, seed: int = 0) -> Bool[Tensor, " n"]:
    """Which of the maps of the first n images say nothing: remembered where the map itself is not."""
    found = []
    for first in range(0, n, BLOCK):
        key = ("constant", *_key(method, seed, "maps", first))
        if key not in subject.cache:
            subject_channel_maps(method, subject, first, min(first + BLOCK, len(subject)), seed=seed)
        found.append(subject.cache[key])
    return torch.cat(found)[:n]


def model_maps(
    method: Method,
    subject: Subject,
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    start: int,
    stop: int,
    *,
    seed: int = 0,
    stream: str,
    keep: bool = True,
) -> Float[Tensor, "n h w"]:
    """Maps of any model on any images that belong to ``subject``, in whole blocks, kept a while as ``stream``."""
    found = _blocks(method, subject, model, inputs, targets, start, stop, seed, stream, keep=keep)
    return torch.cat([maps.reduce_channels(block) for block in found])


def _blocks(
    method: Method, subject: Subject, model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"],
    start: int, stop: int, seed: int, stream: str, *, keep: bool,
) -> Iterator[Float[Tensor, " b #c h w"]]:  # fmt: skip
    for first in range(start - start % BLOCK, stop, BLOCK):
        key = _key(method, seed, stream, first)

        def made(first: int = first, key: tuple[Any, ...] = key) -> Float[Tensor, " b #c h w"]:
            rows = slice(first, first + BLOCK)
            own = derive(method.name, subject.name, seed, stream, subject.first + first)
            block = explain_channels(method, model, inputs[rows], targets[rows], own, **subject.supplies)
            if keep:
                subject.cache["constant", *key] = maps.degenerate(maps.reduce_channels(block))
            return block

        block = subject.recent.get(key, made) if keep else made()
        yield block[max(start - first, 0) : stop - first]


def _key(method: Method, seed: int, stream: str, first: int) -> tuple[Any, ...]:
    return "map", method.name, method.explain, seed, stream, first
