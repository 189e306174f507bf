"""Images in which one coloured pixel names the class (Malhotra, Evans, Bowers 2020; Yasin, Hare, Marcu 2024).

Their data set was never published: position and colour are drawn per class, jittered per image, rounded and clipped.
Beside it stands the design of our own checks (:mod:`saliency_checks.fixtures.planted`): the pixel moves, it lies within
the images' range, seven decoys look like it, and a class "none" proves that each other one is seen.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from saliency_checks.fixtures import data, planted

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in the paper
FOLDER, SUFFIXES, FOLDER_SIZE = "images", (".jpg", ".jpeg", ".png"), 32
LEAST_PICTURES = 50  # every fifth is tested: one of each class at least
Condition = Literal["same", "different", "none"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """Where and how the pixel is planted.

    Attributes:
        data_seed: of the classes' positions and colours; of ``decoys`` it is the hue role, a where it is odd.
        position_sd: pixels by which a position varies from image to image.
        colour_sd: of a colour, in 8-bit levels.
        side: of the planted square; 1 is the paper's single pixel, more its cluster.
        colours: ``random`` over the RGB cube, or ``corners`` of it (the easy fixture).
        labels: ``independent`` of the background, so that nothing but the pixel tells the class, or the
            ``background``'s own class, as in the paper: there a network may learn either.
        kind: ``pixel``, the paper's, or ``decoys``, our checks': all the above but the seed says nothing there.
    """

    data_seed: int = 1
    position_sd: float = 0.0
    colour_sd: float = 0.0
    side: int = 1
    colours: Literal["random", "corners"] = "random"
    labels: Literal["independent", "background"] = "independent"
    kind: Literal["pixel", "decoys"] = "pixel"

    def jittered(self, position_sd: float, colour_sd: float) -> Design:
        """The same classes, seen with other deviations."""
        return replace(self, position_sd=position_sd, colour_sd=colour_sd)

    @property
    def outputs(self) -> int:
        """Classes that a network tells apart, "none" included."""
        return CLASSES if self.kind == "pixel" else planted.CLASSES + 1

    @property
    def shown(self) -> int:
        """Classes that have a pixel: one guess in so many is right by chance."""
        return CLASSES if self.kind == "pixel" else planted.CLASSES

    @property
    def role(self) -> str:
        """Hues of the classes among decoys."""
        return "a" if self.data_seed % 2 else "b"


@dataclass(frozen=True)
class Planted:
    """A batch of planted images.

    Attributes:
        inputs: (N, 3, H, W) in [0, 1].
        clean: the same without the pixel.
        labels: classes (N,).
        cause: the class whose pixel is planted (N,): another one under the condition ``different``.
        site: mask of what was planted (N, H, W); empty under the condition ``none``.
        decoys: masks of what looks like it (N, D, H, W); D is 0 in the paper's design.
    """

    inputs: Float[Tensor, "n 3 h w"]
    clean: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    cause: Int[Tensor, " n"]
    site: Bool[Tensor, "n h w"]
    decoys: Bool[Tensor, "n d h w"]

    def at(self, rows: Int[Tensor, " m"]) -> Planted:
        """Some of the images."""
        return Planted(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def to(self, device: torch.device) -> Planted:
        return Planted(**{f.name: getattr(self, f.name).to(device) for f in fields(self)})


def class_pixels(design: Design, size: tuple[int, int]) -> tuple[Int[Tensor, "k 2"], Float[Tensor, "k 3"]]:
    """Mean position (row, column) and colour in 8-bit levels of each class; no two classes share a position."""
    generator = Generator().manual_seed(design.data_seed)
    height, width = size
    rows, columns = height - design.side + 1, width - design.side + 1
    place = torch.randperm(rows * columns, generator=generator)[:CLASSES]
    positions = torch.stack([place // columns, place % columns], dim=1)
    random = torch.randint(256, (CLASSES, 3), generator=generator).float()
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 255.0])] * 3)[1:7]  # black and white are no colours
    order = torch.randperm(6, generator=generator)
    return positions, random if design.colours == "random" else corners[order[torch.arange(CLASSES) % 6]]


def plant(
    backgrounds: Float[Tensor, "n c h w"],
    classes: Int[Tensor, " n"],
    design: Design,
    generator: Generator,
    condition: Condition = "same",
) -> Planted:
    """Images with the pixel of their class, of another class, or with none."""
    if design.kind == "decoys":
        return _among_decoys(backgrounds, classes, design, generator, condition)
    clean = backgrounds.expand(-1, 3, -1, -1).clone()
    n, _, height, width = clean.shape
    # Drawn under every condition, so that the conditions of one image differ in nothing else.
    shift = design.position_sd * torch.randn(n, 2, generator=generator)
    tint = design.colour_sd * torch.randn(n, 3, generator=generator)
    cause = _cause(classes, CLASSES, generator, condition)
    no_decoys = torch.zeros(n, 0, height, width, dtype=torch.bool)
    if condition == "none":
        return Planted(clean.clone(), clean, classes, cause, torch.zeros(n, height, width, dtype=torch.bool), no_decoys)
    positions, colours = class_pixels(design, (height, width))
    limits = torch.tensor([height - design.side, width - design.side])
    places = torch.minimum((positions[cause] + shift).round().long().clamp(min=0), limits)
    levels = (colours[cause] + tint).round().clamp(0, 255) / 255
    rows = torch.arange(height).view(1, -1, 1) - places[:, 0].view(-1, 1, 1)
    columns = torch.arange(width).view(1, 1, -1) - places[:, 1].view(-1, 1, 1)
    site = (rows >= 0) & (rows < design.side) & (columns >= 0) & (columns < design.side)
    inputs = torch.where(site.unsqueeze(1), levels.view(n, 3, 1, 1), clean)
    return Planted(inputs, clean, classes, cause, site, no_decoys)


def _cause(classes: Int[Tensor, " n"], count: int, generator: Generator, condition: Condition) -> Int[Tensor, " n"]:
    other = (classes + torch.randint(1, count, (len(classes),), generator=generator)) % count
    return other if condition == "different" else classes


def _among_decoys(
    backgrounds: Float[Tensor, "n c h w"], classes: Int[Tensor, " n"], design: Design, generator: Generator,
    condition: Condition,
) -> Planted:  # fmt: skip
    """Scenes of our checks; ``clean`` has the background where the site was, and keeps the decoys."""
    cause = _cause(classes, planted.CLASSES, generator, condition)
    is_none = condition == "none"
    drawn = torch.full_like(cause, planted.NONE) if is_none else cause
    scene = planted.scenes(backgrounds.mean(1, keepdim=True), drawn, design.role, generator)
    masks = scene.masks
    site, decoys = (torch.zeros_like(masks[:, 0]), masks) if is_none else (masks[:, 0], masks[:, 1:])
    bare = planted.DARK + (planted.BRIGHT - planted.DARK) * backgrounds.mean(1, keepdim=True)
    return Planted(scene.inputs, torch.where(site.unsqueeze(1), bare, scene.inputs), classes, cause, site, decoys)


@cache
def backgrounds(
    name: str, folder: str | None, *, train: bool, size: int = 0
) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """Images in [0, 1] and their classes; callers must not write to them.

    Args:
        name: a set's, see :func:`saliency_checks.fixtures.load`, or ``images``: the pictures of a folder and of those
            in it, whose first four fifths by name are for training.
        folder: where it is; None for what is embedded.
        size: side in pixels; 0 for the set's own, and 32 for a folder's pictures, which are stretched to a square.

    Raises:
        FileNotFoundError: the folder holds no such set, or too few pictures; says what was looked for.
        ValueError: no such set, or one that is not embedded, without a folder.
    """
    images, own = _folder(Path(folder or "."), size or FOLDER_SIZE) if name == FOLDER else _set(name, folder, train)
    if name == FOLDER:
        first = len(images) - len(images) // 5
        images, own = (part[:first] if train else part[first:] for part in (images, own))
    if size and tuple(images.shape[-2:]) != (size, size):
        images = _resized(images, size)
    return images, own


def _set(name: str, folder: str | None, train: bool) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = data.load(folder, name, train=train)
    return found


def _folder(folder: Path, size: int) -> tuple[Tensor, Tensor]:
    from PIL import Image

    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    if len(files) < LEAST_PICTURES:
        raise FileNotFoundError(
            f"{len(files)} pictures ({', '.join(SUFFIXES)}) in {folder}: give a folder that holds at least"
            f" {LEAST_PICTURES} to be backgrounds"
        )
    opened = (np.array(Image.open(file).convert("RGB")) for file in files)
    pixels = [torch.from_numpy(values).permute(2, 0, 1)[None] / 255 for values in opened]
    return torch.cat([_resized(image, size) for image in pixels]), torch.arange(len(pixels)) % CLASSES


def _resized(images: Float[Tensor, "n c h w"], size: int) -> Float[Tensor, "n c size size"]:
    return F.interpolate(images, size=(size, size), mode="bilinear", antialias=True).clamp(0, 1)


def examples(
    design: Design, images: Float[Tensor, "n c h w"], own: Int[Tensor, " n"], seed: int, condition: Condition = "same"
) -> Planted:
    """Planted images over all backgrounds; labels drawn from ``seed`` where they are independent of them."""
    generator = Generator().manual_seed(seed)
    drawn = torch.randperm(len(images), generator=generator) % design.shown
    return plant(images, drawn if design.labels == "independent" else own, design, generator, condition)


def training_scenes(
    design: Design, images: Float[Tensor, "n c h w"], count: int, generator: Generator
) -> tuple[Float[Tensor, "m 3 h w"], Int[Tensor, " m"]]:
    """Scenes with decoys, a quarter of them "none", drawn anew for every epoch: a network does not learn them else."""
    scene = planted.draw_scenes(images.mean(1, keepdim=True), count, design.role, generator)
    return scene.inputs, scene.labels
