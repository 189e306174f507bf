"""The networks of the single-pixel study, as recipes: the paper's training, and fast ones for a CPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from saliency_checks import cache, vision
from saliency_checks.fixtures import progress
from saliency_checks.fixtures.models import planted
from saliency_checks.fixtures.training import isolated
from saliency_checks.studies import pixel_data
from saliency_checks.studies.pixel_data import MEAN, STD, Design

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Examples = tuple[Float[Tensor, "n 3 h w"], Int[Tensor, " n"]]

SCENES = 3000  # of an epoch with decoys


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


def small_cnn(classes: int) -> nn.Module:
    """conv16 - pool - conv32 - pool - conv32 - greatest of each of 7 x 7 places - a dense layer of 64, for a CPU."""
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.AdaptiveMaxPool2d(7),
        nn.Flatten(), nn.Linear(32 * 49, 64), nn.ReLU(), nn.Linear(64, classes),
    )  # fmt: skip


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    "small_cnn": small_cnn,
    "resnet18_3x3": lambda classes: vision.resnet18(channels=3, classes=classes),
    "resnet18": lambda classes: vision.classifier("resnet18", classes=classes),
    "resnet101": lambda classes: vision.classifier("resnet101", classes=classes),
    "vgg16": lambda classes: vision.classifier("vgg16", classes=classes),
    "opponent_cnn": lambda classes: planted(),
}
AMONG_DECOYS = "opponent_cnn"  # that of our checks: the others do not learn to tell a pixel from its decoys, or seldom


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
        size: their side in pixels; 0 for their own.
        count: training images at most; 0 for all. With decoys: scenes of an epoch, 0 for 3000.
    """

    network: str
    seed: int
    design: Design
    training: Training
    data: str = "FashionMNIST"
    size: int = 0
    count: int = 0


def blank(network: str, classes: int = pixel_data.CLASSES) -> nn.Module:
    """The network on images in [0, 1], untrained."""
    made = NETWORKS[network](classes)
    return made if network == AMONG_DECOYS else nn.Sequential(Normalise(), made)  # it scales its images itself


def trained(
    recipe: PixelRecipe, images: Float[Tensor, "n c h w"], own: Int[Tensor, " n"], device: torch.device | str = "cpu"
) -> nn.Module:
    """The network of ``recipe`` in eval mode on ``device``, from the cache or trained there now."""
    model = _blank(recipe)
    with progress.line() as say:
        stored = cache.load_or_make(
            _name(recipe), recipe, lambda: (fit(recipe, images, own, device, say).state_dict(), {}),
            like=model.state_dict(), data=_digest(recipe, images, own),
        )  # fmt: skip
    model.load_state_dict(stored.tensors)
    return model.to(device).eval().requires_grad_()


def is_trained(recipe: PixelRecipe, images: Float[Tensor, "n c h w"], own: Int[Tensor, " n"]) -> bool:
    """Whether the cache holds it."""
    like = _blank(recipe).state_dict()
    return cache.is_stored(_name(recipe), recipe, like=like, data=_digest(recipe, images, own))


def fit(
    recipe: PixelRecipe, images: Tensor, own: Tensor, device: torch.device | str = "cpu",
    say: progress.Say = lambda text: None,
) -> nn.Module:  # fmt: skip
    """Train, without the cache; the weights come back on the CPU."""
    settings = recipe.training
    with isolated(recipe.seed):
        model = blank(recipe.network, recipe.design.outputs).to(device)
        generator = Generator().manual_seed(recipe.seed)
        optimiser, schedule, epochs = None, None, _epochs(recipe, images, own, generator)
        for epoch in range(1, settings.epochs + 1):
            inputs, labels = (part.to(device) for part in next(epochs))
            batches = torch.randperm(len(inputs), generator=generator).split(settings.batch)
            if optimiser is None:
                optimiser, schedule = _optimiser(model, settings, len(batches))
            right = torch.zeros((), device=device)
            model.train()
            for batch in batches:
                logits = model(inputs[batch])
                optimiser.zero_grad()
                F.cross_entropy(logits, labels[batch]).backward()
                optimiser.step()
                if schedule:
                    schedule.step()
                right += (logits.detach().argmax(1) == labels[batch]).sum()
            say(f"training {recipe.network}: epoch {epoch} of {settings.epochs}, {float(right) / len(inputs):.3f}")
        return model.cpu()


def _epochs(recipe: PixelRecipe, images: Tensor, own: Tensor, generator: Generator) -> Iterator[Examples]:
    """Images and labels of one epoch after the other."""
    if recipe.design.kind == "decoys":
        while True:
            yield pixel_data.training_scenes(recipe.design, images, recipe.count or SCENES, generator)
    images, own = (part[: recipe.count or None] for part in (images, own))
    shown = pixel_data.examples(recipe.design, images, own, recipe.seed)
    while True:
        yield shown.inputs, shown.labels


def _optimiser(
    model: nn.Module, settings: Training, steps: int
) -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LRScheduler | None]:
    if settings.optimiser == "sgd":
        return torch.optim.SGD(model.parameters(), lr=settings.rate, momentum=0.9), None
    adam = torch.optim.Adam(model.parameters(), lr=settings.rate)
    total = steps * settings.epochs
    return adam, torch.optim.lr_scheduler.OneCycleLR(adam, max_lr=settings.rate, total_steps=total)


def _blank(recipe: PixelRecipe) -> nn.Module:
    with isolated(recipe.seed):
        return blank(recipe.network, recipe.design.outputs)


def _name(recipe: PixelRecipe) -> str:
    return f"pixel_{recipe.network}"


def _digest(recipe: PixelRecipe, images: Tensor, own: Tensor) -> str:
    """Of the images that it is trained on."""
    used = None if recipe.design.kind == "decoys" else recipe.count or None
    return cache.digest({"images": images[:used], "own": own[:used]})
