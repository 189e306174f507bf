"""Spots on a subject's own images: one of them is the cause, seven look just like it.

The design of :mod:`saliency_checks.fixtures.planted`, for images of any size, range and number of channels. Spots of
colour images differ in hue; where there is no colour, in the orientation of one pattern without symmetry: for a map
that never saw the detector, and does not prefer one direction to another, site and decoys are exchangeable.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Generator, Tensor

from saliency_checks.fixtures.models import hue_vectors
from saliency_checks.fixtures.planted import (
    CHROMA,
    CHROMA_JITTER,
    CLASSES,
    HIGH,
    LOW,
    LUMINANCE,
    LUMINANCE_SD,
    NONE,
    SPOTS,
)  # fmt: skip
from saliency_checks.subject import Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

ACROSS, CROP_ACROSS = 7, 5  # cells on the shorter side of an image, and of the pieces to learn from
SIDES_PER_UNIT = 56  # a spot's unit is this part of the shorter side: 1 pixel at 28, 2 at 160, 4 at 224
# No rotation or reflection maps it on itself, and of all such patterns its eight orientations are the least alike.
PATTERN = ((-1.0, -1.0, -1.0), (-1.0, 1.0, 1.0), (1.0, -1.0, 1.0))
ROLES = ("a", "b")  # in b, classes and decoys change places


def orientations() -> Float[Tensor, "8 3 3"]:
    """The eight orientations of ``PATTERN``."""
    pattern = torch.tensor(PATTERN)
    return torch.stack([side.rot90(quarter) for quarter in range(4) for side in (pattern, pattern.T)])


@dataclass(frozen=True)
class Canvas:
    """What spots look like on some images.

    Attributes:
        low, high: least and greatest value of each channel.
        size: height and width of the images.
        unit: side of a colour spot, or of one of the nine fields of a pattern, in pixels.
        across: cells on the shorter side; each holds one spot at most.
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    size: tuple[int, int]
    unit: int
    across: int = ACROSS

    @classmethod
    def of(cls, images: Float[Tensor, "n c h w"]) -> Canvas:
        """Raises Unqualified where eight spots have no room, or a channel is the same everywhere."""
        low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
        height, width = images.shape[-2:]
        canvas = cls(
            tuple(low.tolist()), tuple(high.tolist()), (height, width), max(1, min(height, width) // SIDES_PER_UNIT)
        )
        if flat := [i for i, (a, b) in enumerate(zip(canvas.low, canvas.high, strict=True)) if not a < b]:
            raise Unqualified(f"no cause can be grafted: channel {flat[0]} has the same value in all images")
        if canvas.cell < canvas.extent:
            least = ACROSS * canvas.extent
            raise Unqualified(
                f"no cause can be grafted: images of {height} x {width} pixels have no room for eight spots; they need"
                f" a shorter side of {least} pixels"
            )
        return canvas

    @property
    def is_coloured(self) -> bool:
        return len(self.low) >= 3

    @property
    def extent(self) -> int:
        """Side of a spot in pixels."""
        return self.unit if self.is_coloured else 3 * self.unit

    @property
    def cell(self) -> int:
        """Side of a cell in pixels."""
        return min(self.size) // self.across

    def crop(self) -> Canvas:
        """The same spots, closer together, on the small pieces that a detector is trained on."""
        side = min(*self.size, CROP_ACROSS * (self.extent + self.unit))
        return replace(self, size=(side, side), across=CROP_ACROSS)

    def limits(self, like: Tensor) -> tuple[Float[Tensor, "c 1 1"], Float[Tensor, "c 1 1"]]:
        low, high = (torch.tensor(values, dtype=like.dtype, device=like.device) for values in (self.low, self.high))
        return low.view(-1, 1, 1), high.view(-1, 1, 1)


@dataclass(frozen=True)
class Scene:
    """Images with eight spots each.

    Attributes:
        inputs: images (N, C, H, W), as the subject's model takes them.
        labels: which cause they hold: 0, 1, 2, or 3 for none.
        corners: row and column of each spot's upper left pixel (N, 8, 2); the site comes first.
        extent: side of a spot in pixels.
    """

    inputs: Float[Tensor, "n c h w"]
    labels: Int[Tensor, " n"]
    corners: Int[Tensor, "n s 2"]
    extent: int

    @property
    def masks(self) -> Bool[Tensor, "n s h w"]:
        """One mask for each spot."""
        return self.covered(1)

    def covered(self, step: int) -> Bool[Tensor, "n s i j"]:
        """What each spot touches on a grid whose fields have ``step`` pixels a side; the last takes what is left."""
        rows, columns = (
            _touched(self.corners[..., axis], self.extent, step, side)
            for axis, side in enumerate(self.inputs.shape[-2:])
        )
        return rows[..., :, None] & columns[..., None, :]

    def to(self, device: torch.device) -> Scene:
        return Scene(self.inputs.to(device), self.labels.to(device), self.corners.to(device), self.extent)


def _touched(first: Int[Tensor, "n s"], extent: int, step: int, side: int) -> Bool[Tensor, "n s i"]:
    fields = torch.arange(side // step, device=first.device)
    low, high = ((pixel // step).clamp(max=len(fields) - 1).unsqueeze(-1) for pixel in (first, first + extent - 1))
    return (low <= fields) & (fields <= high)


def paint(
    images: Float[Tensor, "n c h w"],
    labels: Int[Tensor, " n"],
    role: str,
    canvas: Canvas,
    generator: Generator,
    *,
    second: Int[Tensor, " n"] | None = None,
) -> Scene:
    """Images with the causes ``labels``; a ``second`` cause takes the place of the first decoy."""
    n = len(images)
    corners = _corners(n, canvas, generator)
    kinds = CLASSES + torch.randint(CLASSES, (n, SPOTS), generator=generator)  # decoys
    kinds[:, 0] = torch.where(labels == NONE, kinds[:, 0], labels)
    if second is not None:
        kinds[:, 1] = second
    look = (kinds + CLASSES * ROLES.index(role)) % (2 * CLASSES)
    spots = _spots(look, canvas, generator).clamp(LOW, HIGH)  # (n, s, c, e * e), from 0 to 1
    channels = spots.shape[2]  # of an image with more than three, the first three
    low, high = (limit[:channels] for limit in canvas.limits(images))
    values = low.flatten(1) + (high - low).flatten(1) * spots
    step = torch.arange(canvas.extent)
    pixels = (corners[..., :1] + step).unsqueeze(3) * images.shape[3] + (corners[..., 1:] + step).unsqueeze(2)
    flat = images.flatten(2).clone()
    index = pixels.flatten(1).unsqueeze(1).expand(-1, channels, -1)
    flat[:, :channels] = flat[:, :channels].scatter(2, index, values.transpose(1, 2).flatten(2).to(flat.dtype))
    return Scene(flat.view_as(images), labels, corners, canvas.extent)


def _spots(look: Int[Tensor, "n s"], canvas: Canvas, generator: Generator) -> Float[Tensor, "n s c p"]:
    # Jitter of both, or float ties would tell the site from its decoys.
    luminance = LUMINANCE + LUMINANCE_SD * torch.randn(look.shape, generator=generator)
    amplitude = CHROMA * (1 + CHROMA_JITTER * (2 * torch.rand(look.shape, generator=generator) - 1))
    if canvas.is_coloured:
        hues = 120.0 * (look % CLASSES) + 60.0 * (look // CLASSES)
        colours: Tensor = luminance.unsqueeze(2) + amplitude.unsqueeze(2) * hue_vectors(hues)
        return colours.unsqueeze(3).expand(-1, -1, -1, canvas.extent**2)
    fields = orientations()[look].repeat_interleave(canvas.unit, -1).repeat_interleave(canvas.unit, -2).flatten(2)
    grey: Tensor = luminance.unsqueeze(2) + amplitude.unsqueeze(2) * fields
    return grey.unsqueeze(2).expand(-1, -1, len(canvas.low), -1)


def _corners(n: int, canvas: Canvas, generator: Generator) -> Int[Tensor, "n s 2"]:
    """One random place in each of eight distinct cells, in random order."""
    down, across = (side // canvas.cell for side in canvas.size)
    cell = torch.rand(n, down * across, generator=generator).argsort(1)[:, :SPOTS]
    inside = torch.randint(canvas.cell - canvas.extent + 1, (n, SPOTS, 2), generator=generator)
    return torch.stack([cell // across, cell % across], dim=2) * canvas.cell + inside
