"""Small networks in float64 whose maps are known, and a look at where a method evaluates them."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS, SIZE, CLASSES = 2, 4, 4
FEATURES = CHANNELS * SIZE * SIZE
Y = torch.tensor([0, 3, 1])


def images(n: int = 3, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)
    return torch.rand(n, CHANNELS, SIZE, SIZE, dtype=torch.float64, generator=rng)


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Normal weights and biases."""
    rng = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in model.double().eval().parameters():
            tensor.copy_(torch.randn(tensor.shape, dtype=torch.float64, generator=rng) / tensor[0].numel() ** 0.5)
    return model


def linear(seed: int = 0, classes: int = CLASSES) -> nn.Module:
    return randomised(nn.Sequential(nn.Flatten(), nn.Linear(FEATURES, classes)), seed)


def weights(model: nn.Module, y: Tensor) -> Tensor:
    """Of a linear model: the map w of each class that is asked for."""
    found: Tensor = model[1].weight[y].detach().view(-1, CHANNELS, SIZE, SIZE)
    return found


class Hidden(nn.Module):
    """One hidden layer."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = torch.tanh, classes: int = CLASSES) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(FEATURES, 9), nn.Linear(9, classes)
        self.activation = activation

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.activation(self.first(x.flatten(1))))


def smooth(seed: int = 0) -> nn.Module:
    return randomised(Hidden(), seed)


def kinked(seed: int = 0) -> nn.Module:
    return randomised(Hidden(F.relu), seed)


class Negated(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return -self.model(x)


class Elementwise(nn.Module):
    """f_k(x) = sum_i (k + 1) g(x_i): a pixel acts alone, so every axiomatic map is known."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x).flatten(1).sum(1, keepdim=True) * torch.arange(1, 1 + CLASSES).to(x)


def slope(model: nn.Module, x: Tensor, y: Tensor, step: float = 1e-5) -> Tensor:
    """The gradient of each image's logit by central differences: autograd has no part in it."""
    shifts = step * torch.eye(FEATURES, dtype=x.dtype).view(FEATURES, 1, *x.shape[1:])
    with torch.no_grad():
        up, down = (model((x + sign * shifts).flatten(0, 1)).view(FEATURES, len(x), -1) for sign in (1, -1))
    change = (up - down)[:, torch.arange(len(x)), y] / (2 * step)
    return change.T.reshape(x.shape)


@contextmanager
def watched(model: nn.Module):
    """A list that fills with the images that the model is asked about."""
    seen: list[Tensor] = []
    handle = model.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach().clone()))
    try:
        yield seen
    finally:
        handle.remove()
