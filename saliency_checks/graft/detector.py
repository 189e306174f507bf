"""The small convolutional network that turns a spot into evidence; trained on pieces of the subject's own images.

It is told where the spots are (a label for each spot and for the background), which it learns in a few seconds; told
the image's class only, it takes several times as long and sometimes fails.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from saliency_checks import cache
from saliency_checks.chunking import chunked, per_pass
from saliency_checks.fixtures import progress
from saliency_checks.fixtures.models import hue_vectors
from saliency_checks.fixtures.planted import CLASSES, NONE
from saliency_checks.fixtures.training import isolated, one_thread, plain
from saliency_checks.graft.scenes import Canvas, Scene, orientations, paint

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

VERSION = 1
WIDTH, FEATURES = 12, 24
DECOY_WEIGHT = 0.3  # there are seven for each site and each background
ABSENT = -30.0
_GENERATOR = Lock()  # torch has one default generator for all threads
_made: dict[Path, cache.Stored] = {}  # by this process: what is trained ahead is not lost where no file can be written


@dataclass(frozen=True, kw_only=True)
class DetectorRecipe:
    """How a detector comes about; with the images' digest, the key of the cache."""

    canvas: Canvas
    role: str
    seed: int
    scenes: int
    epochs: int = 12
    batch: int = 64
    rate: float = 1e-2
    version: int = VERSION


class Rescale(nn.Module):
    """From the images' own range to [-2, 2] per channel."""

    centre: Tensor
    scale: Tensor

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        low, high = canvas.limits(torch.zeros(1))
        self.register_buffer("centre", (low + high) / 2)
        self.register_buffer("scale", (high - low) / 4)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        scaled: Tensor = (x - self.centre) / self.scale
        return scaled


class Detector(nn.Module):
    """Images (N, C, H, W) -> evidence (N, 3), at least 0: the strongest place of each class's map.

    Where no spot is, the evidence is exactly 0, so that the grafted model is there the user's own.

    Attributes:
        scores: what each place says for each class (N, 3, I, J); above 0 for its spot.
        step: side of a place, in pixels.
    """

    def __init__(self, canvas: Canvas) -> None:
        super().__init__()
        coarse = max(1, canvas.unit // 4)  # a spot's unit is then a few pixels wide, whatever the image's size
        if canvas.is_coloured:
            lens = nn.Conv2d(len(canvas.low), WIDTH, 1)
        else:
            apart = canvas.unit // coarse
            lens = nn.Conv2d(len(canvas.low), WIDTH, 3, dilation=apart, padding=apart)
        self.scores = nn.Sequential(
            Rescale(canvas), nn.AvgPool2d(coarse) if coarse > 1 else nn.Identity(), lens, nn.ReLU(),
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(WIDTH, FEATURES, 1), nn.ReLU(), nn.Conv2d(FEATURES, CLASSES, 1),
        )  # fmt: skip
        self.rectify = nn.ReLU()
        self.step = 2 * coarse
        height, width = (side // self.step for side in canvas.size)
        self.strongest = nn.Sequential(nn.MaxPool2d((height, width)), nn.Flatten())
        for layer in self.scores:
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                assert layer.bias is not None
                nn.init.zeros_(layer.bias)
        with torch.no_grad():
            lens.weight.copy_(_lens(canvas, lens.weight))

    def places(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3 i j"]:
        """Evidence by place, of which the detector's output is the greatest."""
        found: Tensor = self.rectify(self.scores(x))
        return found

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3"]:
        if not torch.is_grad_enabled():  # a gradient would come back laid out like this
            # Its few channels of many pixels take two thirds of the time.
            x = x.contiguous(memory_format=torch.channels_last)
        evidence: Tensor = self.strongest(self.places(x))
        return evidence


def _lens(canvas: Canvas, like: Tensor) -> Tensor:
    """Opponent colours, or the eight orientations: with random filters the training sometimes fails."""
    weight = torch.zeros_like(like)
    if canvas.is_coloured:
        weight[:, :3] = hue_vectors(torch.arange(WIDTH) * 360.0 / WIDTH)[:, :, None, None]
    else:
        eight = orientations()
        weight[:] = (like / like.std()).mean(1, keepdim=True) / 3
        weight[: len(eight)] = eight.unsqueeze(1) / 3
        weight /= len(canvas.low)
    return weight


def trained(images: Float[Tensor, "n c h w"], recipe: DetectorRecipe) -> Detector:
    """The detector of ``recipe`` for these images, in eval mode, from the cache or trained now."""

    def make() -> tuple[cache.Tensors, cache.Facts]:
        with progress.line() as say:
            return fit(images, recipe, say).state_dict(), {}

    blank = _blank(recipe.canvas)
    data = cache.digest({"images": images})
    file = cache.path("graft", recipe, data)
    stored = _made.get(file) or cache.load_or_make("graft", recipe, make, like=blank.state_dict(), data=data)
    if stored.fresh:
        _made[file] = stored
    blank.load_state_dict(stored.tensors)
    return blank.eval().requires_grad_()


def train_ahead(images: Float[Tensor, "n c h w"], recipes: Sequence[DetectorRecipe]) -> None:
    """Have the detectors of all recipes in the cache; they are trained at once, and share the cores."""
    with one_thread(), ThreadPoolExecutor(len(recipes)) as pool:
        jobs = [pool.submit(copy_context().run, trained, images, recipe) for recipe in recipes]
        for job in jobs:
            job.result()


def fit(images: Float[Tensor, "n c h w"], recipe: DetectorRecipe, say: progress.Say = lambda text: None) -> Detector:
    """Train, without the cache."""
    crop = recipe.canvas.crop()
    detector = _blank(recipe.canvas, recipe.seed)
    with one_thread(), plain():
        detector.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        generator = Generator().manual_seed(recipe.seed)
        optimiser = torch.optim.Adam(detector.parameters(), lr=recipe.rate)
        steps = recipe.epochs * -(-recipe.scenes // recipe.batch)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=recipe.rate, total_steps=steps)
        for epoch in range(recipe.epochs):
            say(f"graft: training a detector, epoch {epoch + 1} of {recipe.epochs}")
            labels = torch.randint(CLASSES + 1, (recipe.scenes,), generator=generator)
            pieces = _pieces(images, recipe.scenes, crop.size[0], generator)
            scene = paint(pieces, labels, recipe.role, crop, generator)
            spots = scene.covered(detector.step)
            for batch in torch.randperm(recipe.scenes, generator=generator).split(recipe.batch):
                optimiser.zero_grad()
                scores = detector.scores(scene.inputs[batch])
                _loss(scores, spots[batch], labels[batch]).backward()
                optimiser.step()
                schedule.step()
        detector.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return detector


def _loss(
    scores: Float[Tensor, "n 3 i j"], spots: Bool[Tensor, "n s i j"], labels: Int[Tensor, " n"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the strongest place within each spot, and of all between them; "none" scores 0."""
    regions = torch.cat([spots, ~spots.any(1, keepdim=True)], dim=1)
    strongest = scores.unsqueeze(1).masked_fill(~regions.unsqueeze(2), ABSENT).flatten(3).amax(3)
    logits = F.pad(strongest, (0, 1))
    wanted = torch.full(logits.shape[:2], NONE)
    wanted[:, 0] = labels
    each = F.cross_entropy(logits.flatten(0, 1), wanted.flatten(), reduction="none").view_as(wanted)
    return (each[:, 0] + DECOY_WEIGHT * each[:, 1:-1].sum(1) + each[:, -1]).mean()


def _pieces(images: Float[Tensor, "n c h w"], count: int, side: int, generator: Generator) -> Tensor:
    drawn = torch.randint(len(images), (count,), generator=generator).tolist()
    tops = torch.randint(images.shape[2] - side + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(images.shape[3] - side + 1, (count,), generator=generator).tolist()
    cut = [images[i, :, y : y + side, x : x + side] for i, y, x in zip(drawn, tops, lefts, strict=True)]
    return torch.stack(cut)


def _blank(canvas: Canvas, seed: int = 0) -> Detector:
    with _GENERATOR, isolated(seed):
        return Detector(canvas)


def classes_found(evidence: Float[Tensor, "n 3"]) -> Int[Tensor, " n"]:
    """The class of the greatest evidence; ``NONE`` where there is none at all."""
    best, found = evidence.max(1)
    return found.masked_fill(best <= 0, NONE)


@torch.no_grad()
def evidence(detector: Detector, inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 3"]:
    return chunked(detector, inputs, per_pass(inputs))


def without(scene: Scene, images: Float[Tensor, "n c h w"], *spots: int) -> Float[Tensor, "n c h w"]:
    """The scenes with the images' own pixels where these spots were."""
    gone = scene.masks[:, list(spots)].any(1, keepdim=True)
    return torch.where(gone, images, scene.inputs)
