"""Tiny subjects whose truth is known, and methods that are right or wrong on purpose."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.method import Method
from saliency_checks.subject import Contrast, Subject

SIZE = 8
CLASSES = 4
# One pixel per class decides it; any other pixel is a decoy.
SITES = ((1, 2), (3, 6), (5, 1), (6, 4))


class Detector(nn.Module):
    """Linear: the logit of class k is ``weight`` times (pixel at its site - 0.5), and nothing else."""

    def __init__(self, channels: int = 1, weight: float = 8.0) -> None:
        super().__init__()
        self.head = nn.Linear(channels * SIZE * SIZE, CLASSES)
        mask = torch.zeros(CLASSES, channels, SIZE, SIZE)
        for k, (row, column) in enumerate(SITES):
            mask[k, :, row, column] = weight / channels
        with torch.no_grad():
            self.head.weight.copy_(mask.flatten(1))
            self.head.bias.fill_(-0.5 * weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x.flatten(1))


def noise(n: int, channels: int = 1, *, seed: int = 0, size: int = SIZE) -> Tensor:
    """Images between .3 and .5."""
    rng = torch.Generator().manual_seed(seed)
    return 0.3 + 0.2 * torch.rand(n, channels, size, size, generator=rng)


def site_masks() -> Tensor:
    """(CLASSES, H, W): the pixel of each class."""
    masks = torch.zeros(CLASSES, SIZE, SIZE, dtype=torch.bool)
    for k, (row, column) in enumerate(SITES):
        masks[k, row, column] = True
    return masks


def detector(n: int = 64, channels: int = 1, *, decoys: int = 7, seed: int = 0, **fields: Any) -> Subject:
    """The linear detector on noise: the target's site is bright, so it alone makes the class."""
    rng = torch.Generator().manual_seed(seed + 1)
    inputs, targets, sites = noise(n, channels, seed=seed), torch.arange(n) % CLASSES, site_masks()
    inputs[sites[targets].unsqueeze(1).expand_as(inputs)] = 0.9
    free = (~sites.any(0)).flatten().nonzero()[:, 0]
    masks = torch.zeros(n, decoys, SIZE * SIZE, dtype=torch.bool)
    for image in range(n):
        chosen = free[torch.randperm(len(free), generator=rng)[:decoys]]
        masks[image, torch.arange(decoys), chosen] = True
    both = torch.stack([targets, (targets + 1) % CLASSES], dim=1)
    pairs = inputs.clone()
    pairs[sites[both[:, 1]].unsqueeze(1).expand_as(pairs)] = 0.9
    return Subject(
        Detector(channels).eval(), inputs, targets, truth=sites[targets], decoys=masks.view(n, decoys, SIZE, SIZE),
        contrast=Contrast(inputs=pairs, targets=both, sites=sites[both]), removable=True, absent=0.4,
        **{"name": "detector", **fields},
    )  # fmt: skip


def conv_net(channels: int = 3, classes: int = CLASSES, *, seed: int = 0) -> nn.Sequential:
    """Convolutions, batch norm with statistics of its own, dropout; smooth, so that gradients are nowhere zero."""
    torch.manual_seed(seed)
    net = nn.Sequential(
        nn.Conv2d(channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.SiLU(), nn.Dropout(0.3),
        nn.Conv2d(6, 6, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(6 * SIZE * SIZE, classes),
    )  # fmt: skip
    for parameter in net.parameters():
        nn.init.normal_(parameter, std=0.3)
    net(noise(32, channels, seed=seed + 1))
    return net.eval()


def mlp(channels: int = 1, classes: int = CLASSES, *, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(channels * SIZE * SIZE, 16), nn.Tanh(), nn.Linear(16, classes)).eval()


def subject_of(model: nn.Module, channels: int, n: int = 16, **fields: Any) -> Subject:
    """An untrained model on noise: enough for what does not depend on the task."""
    return Subject(model, noise(n, channels), torch.arange(n) % CLASSES, **fields)


def plain_gradient(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """Through autograd alone: touches neither hooks nor ``.grad``."""
    inputs = inputs.requires_grad_()
    score = model(inputs).gather(1, targets.view(-1, 1)).sum()
    return torch.autograd.grad(score, inputs)[0]


def made(explain: Callable[..., Any], name: str = "", **fields: Any) -> Method:
    return Method(name=name or explain.__name__.strip("_<>"), explain=explain, **fields)


gradient = made(plain_gradient, "gradient", signed=True)


def changed(change: Callable[[Tensor], Tensor], name: str, **fields: Any) -> Method:
    """The gradient's maps (N, C, H, W) after ``change``."""
    return made(lambda m, x, t: change(plain_gradient(m, x, t)), name, **{"signed": True, **fields})


negated = changed(torch.neg, "negated")
inverted = changed(lambda g: g.abs().amax() - g.abs() + 1, "inverted")
zero = changed(torch.zeros_like, "zero")
constant = made(lambda m, x, t: torch.ones_like(x) / 3, "constant", signed=True)
magnitude = made(lambda m, x, t: x.abs(), "magnitude", signed=True)
white_noise = made(lambda m, x, t: torch.randn_like(x), "white_noise", signed=True, stochastic=True)


def trained(model: nn.Module, inputs: Tensor, targets: Tensor, *, steps: int = 60, lr: float = 0.02) -> nn.Module:
    """Full-batch Adam: well under a second for the nets above."""
    model.train()
    optimiser = torch.optim.Adam(model.parameters(), lr)
    for _ in range(steps):
        optimiser.zero_grad()
        F.cross_entropy(model(inputs), targets).backward()
        optimiser.step()
    for parameter in model.parameters():
        parameter.grad = None
    return model.eval()


class Weighted(nn.Module):
    """Linear in all entries, in float64."""

    def __init__(self, channels: int, size: int, classes: int, seed: int) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        shape = (classes, channels, size, size)
        self.weight = nn.Parameter(torch.randn(shape, generator=rng, dtype=torch.float64))
        self.bias = nn.Parameter(torch.randn(classes, generator=rng, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight) + self.bias


def weighted(
    n: int = 12,
    channels: int = 1,
    *,
    size: int = 6,
    classes: int = 3,
    seed: int = 0,
    absent: float = 0.3,
    **fields: Any,
) -> Subject:
    """A linear model on noise, explained for what it predicts."""
    model = Weighted(channels, size, classes, seed).eval()
    rng = torch.Generator().manual_seed(seed + 1)
    inputs = torch.rand(n, channels, size, size, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        targets = model(inputs).argmax(1)
    return Subject(model, inputs, targets, absent=absent, **{"name": "weighted", **fields})


def of_weights(change: Callable[[Tensor, Tensor], Tensor], name: str, **fields: Any) -> Method:
    """A map from the weights of the target class and the image (N, C, H, W)."""
    return made(lambda m, x, t: change(m.weight[t].detach(), x), name, **{"signed": True, **fields})


effect = of_weights(lambda w, x: w * (x - 0.3), "effect")  # what each entry adds to the logit beyond an absent one
against = of_weights(lambda w, x: -w * (x - 0.3), "against")
weight = of_weights(lambda w, x: w, "weight")


class Pixelwise(nn.Module):
    """The logit of class k is (k + 1) times the sum of x^2: a pixel acts alone, wherever it is."""

    def forward(self, x):
        return x.square().flatten(1).sum(1, keepdim=True) * torch.arange(1, 5).to(x)


def smooth(model, n=12):
    """Images of a few large cells, so that resampling hardly changes them."""
    coarse = noise(n, 1, size=4)
    inputs = nn.functional.interpolate(coarse, size=12, mode="bilinear")
    return Subject(model, inputs, torch.arange(n) % 4, absent=0.0)


class MeanColour(nn.Module):
    """The logit of class k is the mean of channel k, times a hundred."""

    def __init__(self, scale: float = 100.0) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x):
        return self.scale * x.mean((2, 3))


def colours(n=40, *, targets=0):
    """Each image's class, as the model sees it, or so many further."""
    inputs = noise(n, 3, size=20)
    return Subject(MeanColour(), inputs, (inputs.mean((2, 3)).argmax(1) + targets) % 3, name="colours")


def contribution(m, x, t):
    """Of each pixel, beyond what it has in every image."""
    x = x.detach()
    return x.gather(1, t.view(-1, 1, 1, 1).expand(-1, 1, *x.shape[2:])) - x.mean(1, keepdim=True)
