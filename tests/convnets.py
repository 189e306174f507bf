"""Small convolutional networks and images in float64, for tests whose oracle is a formula."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def images(n: int = 3, channels: int = 3, size: int = 8, seed: int = 0) -> Tensor:
    return torch.rand(n, channels, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def randomised(model: nn.Module, seed: int = 0) -> nn.Module:
    """Normal weights and biases: without biases many defects stay hidden."""
    generator = torch.Generator().manual_seed(seed)
    model.double().eval()
    with torch.no_grad():
        for tensor in model.parameters():
            scale = 1 / max(1, tensor[0].numel()) ** 0.5
            tensor.copy_(scale * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))
    return model


def convnet(channels: int = 3, seed: int = 0) -> nn.Module:
    return randomised(
        nn.Sequential(
            nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        ),
        seed,
    )  # fmt: skip


def linear(features: int = 3 * 8 * 8, classes: int = 4) -> nn.Module:
    return randomised(nn.Sequential(nn.Flatten(), nn.Linear(features, classes)))


class Cam(nn.Module):
    """Convolution, activation, global average pooling, linear: the class activation map is known."""

    def __init__(self, activation: Callable[[Tensor], Tensor] = F.relu, stride: int = 1) -> None:
        super().__init__()
        self.conv, self.activation = nn.Conv2d(3, 7, 3, stride=stride, padding=1), activation
        self.fc = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.activation(self.conv(x)).mean((2, 3)))


class Cramped(nn.Module):
    """A model on a device with room for so many images."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__()
        self.model, self.room = model, room

    def forward(self, x: Tensor) -> Tensor:
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no room")
        return self.model(x)


class Calls(nn.Module):
    """A network whose activation is any function."""

    def __init__(self, activation, features: int = 192, hidden: int = 12) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(features, hidden), nn.Linear(hidden, hidden)
        self.last, self.activation = nn.Linear(hidden, 4), activation

    def forward(self, x):
        hidden = self.activation(self.first(x.flatten(1)))
        return self.last(self.activation(self.second(hidden)))


class Reused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relu = nn.ReLU(inplace=True)

    def forward(self, z):
        return self.relu(z)


def side_effect(z: Tensor) -> Tensor:
    F.relu(z, inplace=True)
    return z


RELUS = {
    "side effect": side_effect,
    "module": nn.ReLU(), "inplace module": nn.ReLU(inplace=True), "reused": Reused(),
    "functional": F.relu, "functional in place": lambda z: F.relu(z, inplace=True), "functional_": F.relu_,
    "method": lambda z: z.relu(), "method_": lambda z: z.relu_(), "torch": torch.relu, "torch_": torch.relu_,
    "clamp": lambda z: z.clamp(min=0), "clamp_min": lambda z: z.clamp_min(0),
}  # fmt: skip


class PreActivation(nn.Module):
    """h + conv(ReLU(h)), with the ReLU reading a tensor that also feeds the skip."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv = nn.Conv2d(3, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
        self.relu, self.head = nn.ReLU(), nn.Linear(5, 4)

    def forward(self, x):
        h = self.stem(x)
        h = h + self.conv(self.relu(h))
        return self.head(self.relu(h).mean((2, 3)))


def pooled(*pool: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1), *pool, nn.Conv2d(5, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)
    )


class MaxOver(nn.Module):
    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x):
        return x.amax(dim=(-2, -1), keepdim=self.keepdim).flatten(1)


HARD_NETS = {
    "relu then pool": lambda: pooled(nn.ReLU(), nn.MaxPool2d(2)),
    "pool then relu": lambda: pooled(nn.MaxPool2d(2), nn.ReLU()),
    "overlapping pool": lambda: pooled(nn.ReLU(), nn.MaxPool2d(3, 2, 1)),
    "in place": lambda: pooled(nn.ReLU(inplace=True), nn.MaxPool2d(3, 2)),
    "adaptive pool": lambda: pooled(nn.AdaptiveMaxPool2d(3)),
    "global max": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), MaxOver(False), nn.Linear(5, 4)),
    "global max, kept": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.ReLU(), MaxOver(True), nn.Linear(5, 4)),
    "residual": PreActivation,
    "batch norm": lambda: pooled(nn.BatchNorm2d(5), nn.GELU(), nn.AvgPool2d(2)),
}


def hard(name: str) -> nn.Module:
    model = HARD_NETS[name]().double().eval()
    model(images())  # lazy layers
    return randomised(model)


class Skip(nn.Module):
    """2x goes into a ReLU and past it."""

    def forward(self, x: Tensor) -> Tensor:
        h = 2 * x.flatten(1)
        return -3 * h + F.relu(h)


def change(model: nn.Module, x: Tensor, y: Tensor, start: Tensor) -> Tensor:
    return (model(x) - model(start)).gather(1, y[:, None]).squeeze(1).detach()


def pair(values: list[float]) -> Tensor:
    return torch.tensor([[values]], dtype=torch.float64).view(1, 1, 1, 2)


def odd() -> nn.Module:
    """Odd, and with a function for which there is no rule."""

    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.last = nn.Linear(3 * 64, 5, bias=False), nn.Linear(5, 3, bias=False)

        def forward(self, x):
            return self.last(torch.sinh(self.first(x.flatten(1))))

    return randomised(Odd())
