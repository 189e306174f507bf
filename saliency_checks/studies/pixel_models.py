"""The networks of the single-pixel study, as recipes: the paper's training, and a fast one for a CPU."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from saliency_checks import cache, vision
from saliency_checks.fixtures import progress
from saliency_checks.fixtures.training import isolated
from saliency_checks.studies import pixel_data
from saliency_checks.studies.pixel_data import CLASSES, MEAN, STD, Design

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Normalise(nn.Module):
    """The paper's input normalisation as a layer, so that images in [0, 1] are what is explained."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n 3 h w"]:
        return (x - self.mean) / self.std


def small_cnn() -> nn.Module:
    """conv16 - pool - conv32 - pool - conv32 - mean over places and a dense layer of 64, for a CPU."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(7),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, CLASSES),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[], nn.Module]] = {
    "small_cnn": small_cnn,
    "resnet18_3x3": lambda: vision.resnet18(channels=3, classes=CLASSES),
    "resnet18": lambda: vision.classifier("resnet18", classes=CLASSES),
    "resnet101": lambda: vision.classifier("resnet101", classes=CLASSES),
    "vgg16": lambda: vision.classifier("vgg16", classes=CLASSES),
}


@dataclass(frozen=True, kw_only=True)
class Training:
    """How a network is trained; ``adam`` with one cycle, or ``sgd`` with momentum 0.9 at a constant rate."""

    optimiser: str
    rate: float
    batch: int
    epochs: int


# Yasin, Hare, Marcu 2024, README and train.py of their code.
PAPER = Training(optimiser="sgd", rate=1e-3, batch=256, epochs=200)
FAST = Training(optimiser="adam", rate=2e-3, batch=64, epochs=8)
TRAININGS = {"paper": PAPER, "fast": FAST}


@dataclass(frozen=True, kw_only=True)
class PixelRecipe:
    """One network of the grid.

    Attributes:
        network: name from ``NETWORKS``.
        seed: of the weights, the order and the labels.
        data: name of the backgrounds.
        count: training images at most; 0 for all.
    """

    network: str
    seed: int
    design: Design
    training: Training
    data: str = "FashionMNIST"
    count: int = 0


def blank(network: str) -> nn.Module:
    """The network on images in [0, 1], untrained."""
    return nn.Sequential(Normalise(), NETWORKS[network]())


def trained(
    recipe: PixelRecipe, images: Float[Tensor, "n c h w"], own: Int[Tensor, " n"], device: torch.device | str = "cpu"
) -> nn.Module:
    """The network of ``recipe`` in eval mode on ``device``, from the cache or trained there now."""
    with isolated(recipe.seed):
        model = blank(recipe.network)
    identity = cache.digest({"images": images[:64], "own": own[:64]}, f"{tuple(images.shape)}")
    with progress.line() as say:
        stored = cache.load_or_make(
            f"pixel_{recipe.network}", recipe, lambda: (_fit(recipe, images, own, device, say), {}),
            like=model.state_dict(), data=identity,
        )  # fmt: skip
    model.load_state_dict(stored.tensors)
    return model.to(device).eval().requires_grad_()


def _fit(
    recipe: PixelRecipe, images: Tensor, own: Tensor, device: torch.device | str, say: progress.Say
) -> cache.Tensors:
    settings = recipe.training
    with isolated(recipe.seed):
        model = blank(recipe.network).to(device)
        generator = Generator().manual_seed(recipe.seed)
        images, own = (part[: recipe.count or None] for part in (images, own))
        shown = pixel_data.examples(recipe.design, images, own, recipe.seed)
        inputs, labels = shown.inputs.to(device), shown.labels.to(device)
        steps = -(-len(inputs) // settings.batch)
        optimiser, schedule = _optimiser(model, settings, steps)
        for epoch in range(1, settings.epochs + 1):
            right = torch.zeros((), device=device)
            model.train()
            for batch in torch.randperm(len(inputs), generator=generator).split(settings.batch):
                logits = model(inputs[batch])
                optimiser.zero_grad()
                F.cross_entropy(logits, labels[batch]).backward()
                optimiser.step()
                if schedule:
                    schedule.step()
                right += (logits.detach().argmax(1) == labels[batch]).sum()
            say(f"training {recipe.network}: epoch {epoch} of {settings.epochs}, {float(right) / len(inputs):.3f}")
        return {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}


def _optimiser(
    model: nn.Module, settings: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=0.9), None
    adam = torch.optim.Adam(model.parameters(), lr=settings.rate)
    total = steps * settings.epochs
    return adam, torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=settings.rate, total_steps=total)
