"""The straight way from a reference to the image, where it may begin, and where it is looked at.

The parts of the methods in :mod:`~saliency_checks.methods.references`; each of those is written as the paths it takes.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks.methods.gradient import image_range, input_gradient

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Ratio = float | Float[Tensor, "n 1 1 1"]


@dataclass(frozen=True, kw_only=True)
class Path:
    """What is seen on the straight way from a reference r to the image x, at k points.

    Attributes:
        way: x - r.
        left: x - point, for each point.
        gradients: g at each point.
        share: how much this path counts.
    """

    way: Images
    left: Float[Tensor, "k n c h w"]
    gradients: Float[Tensor, "k n c h w"]
    share: Ratio = 1.0

    def points(self) -> Float[Tensor, "k n c h w"]:
        """Each point's own product, (x - point) g / k."""
        return self.left * self.gradients / len(self.gradients)

    def whole(self) -> Images:
        """The reference's own product, (x - r) times the mean of g."""
        return self.way * self.gradients.mean(0)

    def attribution(self) -> Images:
        """What the method itself adds up."""
        return self.share * self.whole()


class SquaredPath(Path):
    """Products are squared once their sign has been looked at, so they keep it."""

    def points(self) -> Float[Tensor, "k n c h w"]:
        return super().points() * super().points().abs()

    def whole(self) -> Images:
        return super().whole() * super().whole().abs()

    def attribution(self) -> Images:
        return self.share * self.way * self.gradients.mean(0) ** 2


class Attack(Path):
    """No straight way: every point stands for itself."""

    def points(self) -> Float[Tensor, "k n c h w"]:
        return self.left * self.gradients

    def whole(self) -> Images:
        return self.points().sum(0)


def added(paths: Callable[..., Iterable[Path]]) -> Callable[..., Tensor]:
    """The method that adds up the attributions of its paths."""

    @functools.wraps(paths)
    def explain(model: nn.Module, inputs: Images, *given: Any, **settings: Any) -> Images:
        followed = paths(model, inputs, *given, **settings)
        return sum((path.attribution() for path in followed), torch.zeros_like(inputs))

    return explain


def straight(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    start: Images,
    places: Iterable[Ratio],
    share: Ratio = 1.0,
    kind: type[Path] = Path,
) -> Path:
    """The way from ``start`` (0) to the images (1), looked at in some places."""
    way = inputs - start
    places = list(places)
    gradients = [input_gradient(model, start + place * way, targets) for place in places]
    left = torch.stack([(1 - place) * way for place in places])
    return kind(way=way, left=left, gradients=torch.stack(gradients), share=share)


# Where a path may begin, and where it is looked at --------------------------------------------------------------------


def even(steps: int) -> list[float]:
    """Both ends and points between at equal distances."""
    return [step / (steps - 1) for step in range(steps)] if steps > 1 else [1.0]


def anywhere(inputs: Images, steps: int, away: float = 0.0) -> list[Float[Tensor, "n 1 1 1"]]:
    """Points drawn from the whole way, for each image its own."""
    return [away + (1 - 2 * away) * torch.rand_like(inputs[:, :1, :1, :1]) for _ in range(steps)]


def limits(inputs: Images, bounds: tuple[float, float] | None) -> tuple[Ratio, Ratio]:
    """The smallest and the largest value that a pixel may have; by default those that the image has."""
    if bounds is not None:
        return bounds
    return inputs.amin((1, 2, 3), keepdim=True), inputs.amax((1, 2, 3), keepdim=True)


def clipped(images: Images, low: Ratio, high: Ratio) -> Images:
    return images.clamp(*(torch.as_tensor(limit).to(images) for limit in (low, high)))


def noisy(inputs: Images, noise: float, bounds: tuple[float, float] | None) -> Images:
    """x + N(0, s^2), no further than the limits; s = ``noise`` times the range of the image."""
    return clipped(inputs + noise * image_range(inputs) * torch.randn_like(inputs), *limits(inputs, bounds))


def reference_images(inputs: Images, references: float | Tensor) -> Float[Tensor, "m c h w"]:
    """Reference images, from images or from anything that broadcasts to one."""
    found = torch.as_tensor(references, dtype=inputs.dtype, device=inputs.device)
    return found if found.ndim == 4 else found.expand_as(inputs[:1])


def picked(inputs: Images, references: float | Tensor) -> Images:
    """One of the references for each image, by lot."""
    found = reference_images(inputs, references)
    return found[torch.randint(len(found), (len(inputs),), device=inputs.device)].expand_as(inputs)
