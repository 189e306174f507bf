"""Images in which one coloured pixel names the class (Malhotra, Evans, Bowers 2020; Yasin, Hare, Marcu 2024).

Their data set was never published: position and colour are drawn per class, jittered per image, rounded and clipped.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional as F

from saliency_checks.fixtures import data

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

CLASSES = 10
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, as in the paper
Condition = Literal["same", "different", "none"]


@dataclass(frozen=True, kw_only=True)
class Design:
    """Where and how the pixel is planted.

    Attributes:
        data_seed: of the classes' positions and colours.
        position_sd: pixels by which a position varies from image to image.
        colour_sd: of a colour, in 8-bit levels.
        side: of the planted square; 1 is the paper's single pixel, more its cluster.
        colours: ``random`` over the RGB cube, or ``corners`` of it (the easy fixture).
        labels: ``independent`` of the background, so that nothing but the pixel tells the class, or the
            ``background``'s own class, as in the paper: there a network may learn either.
    """

    data_seed: int = 1
    position_sd: float = 0.0
    colour_sd: float = 0.0
    side: int = 1
    colours: Literal["random", "corners"] = "random"
    labels: Literal["independent", "background"] = "independent"

    def jittered(self, position_sd: float, colour_sd: float) -> Design:
        """The same classes, seen with other deviations."""
        return replace(self, position_sd=position_sd, colour_sd=colour_sd)


@dataclass(frozen=True)
class Planted:
    """A batch of planted images.

    Attributes:
        inputs: (N, 3, H, W) in [0, 1].
        clean: the same without the pixel.
        labels: classes (N,).
        site: mask of what was planted (N, H, W); empty under the condition ``none``.
    """

    inputs: Float[Tensor, "n 3 h w"]
    clean: Float[Tensor, "n 3 h w"]
    labels: Int[Tensor, " n"]
    site: Bool[Tensor, "n h w"]


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
    clean = backgrounds.expand(-1, 3, -1, -1).clone()
    n, _, height, width = clean.shape
    site = torch.zeros(n, height, width, dtype=torch.bool)
    # Drawn under every condition, so that the conditions of one image differ in nothing else.
    shift = design.position_sd * torch.randn(n, 2, generator=generator)
    tint = design.colour_sd * torch.randn(n, 3, generator=generator)
    other = (classes + torch.randint(1, CLASSES, (n,), generator=generator)) % CLASSES
    if condition == "none":
        return Planted(clean.clone(), clean, classes, site)
    shown = other if condition == "different" else classes
    positions, colours = class_pixels(design, (height, width))
    limits = torch.tensor([height - design.side, width - design.side])
    places = torch.minimum((positions[shown] + shift).round().long().clamp(min=0), limits)
    levels = (colours[shown] + tint).round().clamp(0, 255) / 255
    rows = torch.arange(height).view(1, -1, 1) - places[:, 0].view(-1, 1, 1)
    columns = torch.arange(width).view(1, 1, -1) - places[:, 1].view(-1, 1, 1)
    site = (rows >= 0) & (rows < design.side) & (columns >= 0) & (columns < design.side)
    inputs = torch.where(site.unsqueeze(1), levels.view(n, 3, 1, 1), clean)
    return Planted(inputs, clean, classes, site)


def backgrounds(name: str, folder: str | None, *, train: bool) -> tuple[Float[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """Images in [0, 1] and their classes: a set's name, or ``images`` for the pictures of a folder.

    Raises:
        FileNotFoundError: the folder holds none.
    """
    if name != "images":
        found: tuple[Tensor, Tensor] = data.load(folder, name, train=train)
        return found
    from PIL import Image

    files = sorted(f for f in Path(folder or ".").rglob("*") if f.suffix.lower() in (".jpg", ".jpeg", ".png"))
    if not files:
        raise FileNotFoundError(f"no .jpg or .png in {folder}: give the folder that holds the backgrounds")
    opened = (np.array(Image.open(file).convert("RGB")) for file in files)
    pixels = [torch.from_numpy(values).permute(2, 0, 1)[None] / 255 for values in opened]
    small = torch.cat([F.interpolate(image, size=(32, 32), mode="bilinear", antialias=True) for image in pixels])
    half = len(small) - len(small) // 5
    chosen = small[:half] if train else small[half:]
    return chosen, torch.arange(len(chosen)) % CLASSES


def examples(
    design: Design, images: Float[Tensor, "n c h w"], own: Int[Tensor, " n"], seed: int, condition: Condition = "same"
) -> Planted:
    """Planted images over all backgrounds; labels drawn from ``seed`` where they are independent of them."""
    generator = Generator().manual_seed(seed)
    drawn = torch.randperm(len(images), generator=generator) % CLASSES
    return plant(images, drawn if design.labels == "independent" else own, design, generator, condition)
