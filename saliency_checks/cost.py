"""What a method costs, measured: passes through the model and memory, on a small network of its own."""

from __future__ import annotations

import weakref
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from saliency_checks.explain import explain
from saliency_checks.method import Method

IMAGES, SIDE, CLASSES = 4, 32, 10


class Passes:
    """Counts images that go through a model, forward and backward, and through every copy made of it."""

    def __init__(self) -> None:
        self.count: Counter[str] = Counter()

    def watch(self, model: nn.Module) -> None:
        model.register_forward_hook(self._forward)

    def __deepcopy__(self, memo: dict[int, Any]) -> Passes:
        return self  # a copied model goes on counting here

    def _forward(self, module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        self.count["forward"] += len(output)
        if output.requires_grad:
            output.register_hook(lambda grad: self.count.update(backward=len(grad)))


class PeakMemory(TorchDispatchMode):
    """The most bytes that tensors made inside held at once, on any device; what autograd keeps included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(output):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return output

    def _count(self, storage: torch.UntypedStorage) -> None:
        place, size = storage._cdata, storage.nbytes()
        if place in self.known:
            return
        self.known.add(place)
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._gone, place, size)

    def _gone(self, place: int, size: int) -> None:
        self.known.discard(place)
        self.now -= size


@dataclass(frozen=True, kw_only=True)
class Cost:
    """What one image costs.

    Attributes:
        forward, backward: passes through the model.
        memory: peak, as a multiple of what the plain gradient takes for the same images.
    """

    forward: float
    backward: float
    memory: float


def cost(method: Method) -> Cost:
    """Measured on four images of 32 x 32 pixels and a small convolutional network.

    Passes hardly depend on the images' size; memory is that of a whole batch at once.
    """
    passes, peak = _spent(method)
    return Cost(
        forward=passes["forward"] / IMAGES, backward=passes["backward"] / IMAGES, memory=peak / _spent(_GRADIENT)[1]
    )


def _gradient(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    leaf = inputs.requires_grad_()
    return torch.autograd.grad(model(leaf).gather(1, targets.unsqueeze(1)).sum(), leaf)[0]


_GRADIENT = Method(name="gradient_pass", explain=_gradient)


def _spent(method: Method) -> tuple[Counter[str], int]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Flatten(), nn.Linear(8 * (SIDE // 2) ** 2, CLASSES),
        )  # fmt: skip
        inputs = torch.randn(IMAGES, 3, SIDE, SIDE)
    passes = Passes()
    passes.watch(model)
    baseline = inputs.mean((0, 2, 3), keepdim=True)
    with PeakMemory() as memory:
        explain(method, model, inputs, torch.arange(IMAGES), baseline=baseline, references=inputs.flip(3))
    return passes.count, memory.peak
