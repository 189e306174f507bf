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
