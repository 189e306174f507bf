"""What takes a removed unit's place."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional as F

from saliency_checks.perturbation.blur import blurred
from saliency_checks.perturbation.linear import HARMONIC, NOISY_LINEAR, solved

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from saliency_checks.perturbation.engine import Impute

    Images = Float[Tensor, "n c h w"]

NOISE = 0.01  # standard deviation of what noisy linear imputation adds (Rong et al. 2022, appendix)
EXACT = NOISE / 100  # nobody sees an error of that size below the noise
BLUR = 16  # the standard deviation of the blur is the shorter side over this


@dataclass(frozen=True, eq=False, kw_only=True)
class Scene:
    """What an imputer knows.

    Attributes:
        inputs: a block of images (n, c, h, w).
        absent: the subject's value for "nothing here" (1, c, 1, 1).
        everything: all images of the subject; their statistics stand for the dataset's.
        generator: what is drawn from it is the same for all methods.
    """

    inputs: Images
    absent: Float[Tensor, "1 c 1 1"]
    everything: Float[Tensor, "m c h w"]
    generator: torch.Generator

    def normal(self) -> Images:
        return torch.randn(self.inputs.shape, generator=self.generator, dtype=torch.float64).to(self.inputs)

    def uniform(self) -> Images:
        return torch.rand(self.inputs.shape, generator=self.generator, dtype=torch.float64).to(self.inputs)


def absent(scene: Scene) -> Images:
    """The subject's own value for "nothing here"; by default its mean image colour."""
    return scene.absent.to(scene.inputs).expand_as(scene.inputs)


def black(scene: Scene) -> Images:
    """Zero. Papers use it; a map of bright pixels then looks faithful, so nothing is gated on it."""
    return torch.zeros_like(scene.inputs)


def dataset_mean(scene: Scene) -> Images:
    """The mean of each channel over all images of the subject."""
    return scene.everything.mean((0, 2, 3), keepdim=True).expand_as(scene.inputs)


def image_mean(scene: Scene) -> Images:
    """The mean of each channel of the image itself."""
    return scene.inputs.mean((2, 3), keepdim=True).expand_as(scene.inputs)


def blur(scene: Scene) -> Images:
    """The image blurred by a Gaussian, a sixteenth of its shorter side wide; it keeps the image's colours."""
    return blurred(scene.inputs, min(scene.inputs.shape[-2:]) / BLUR)


def noise(scene: Scene) -> Images:
    """Normal noise with each channel's mean and standard deviation over all images of the subject."""
    deviation, mean = torch.std_mean(scene.everything, dim=(0, 2, 3), keepdim=True)
    return mean + deviation * scene.normal()


def uniform(scene: Scene) -> Images:
    """Uniform noise between each image's least and largest value."""
    low, high = (end((1, 2, 3), keepdim=True) for end in (scene.inputs.amin, scene.inputs.amax))
    return low + (high - low) * scene.uniform()


def local_mean(inputs: Images) -> Images:
    """Grey mean of the 5 x 5 neighbourhood without the pixel itself: the spot goes, its surroundings stay."""
    grey = inputs.mean(1, keepdim=True)
    kernel = torch.ones(1, 1, 5, 5, dtype=inputs.dtype, device=inputs.device)
    kernel[0, 0, 2, 2] = 0
    total = F.conv2d(grey, kernel, padding=2)
    count = F.conv2d(torch.ones_like(grey[:1]), kernel, padding=2)
    return (total / count).expand_as(inputs)


def kernel_blur(side: int, deviation: float) -> Callable[[Scene], Images]:
    """A Gaussian cut to ``side`` pixels, whose tails are reflected into it, on an image with zeros around it.

    This is what RISE's code does (scipy's ``gaussian_filter`` of a point, in a box of its own).
    """

    def fill(scene: Scene) -> Images:
        from scipy.ndimage import gaussian_filter1d

        point = torch.zeros(side, dtype=torch.float64)
        point[side // 2] = 1
        line = torch.from_numpy(gaussian_filter1d(point.numpy(), deviation)).to(scene.inputs)
        planes = scene.inputs.flatten(0, 1).unsqueeze(1)
        rows = F.conv2d(planes, line.view(1, 1, -1, 1), padding=(side // 2, 0))
        return F.conv2d(rows, line.view(1, 1, 1, -1), padding=(0, side // 2)).view_as(scene.inputs)

    return fill


FILLS: dict[str, Callable[[Scene], Images]] = {
    "absent": absent,
    "black": black,
    "dataset_mean": dataset_mean,
    "image_mean": image_mean,
    "blur": blur,
    "noise": noise,
    "uniform": uniform,
    "local_mean": lambda scene: local_mean(scene.inputs),
    "blur_rise": kernel_blur(11, 5.0),  # Petsiuk et al. 2018, their code
    "blur_saliencysense": kernel_blur(5, 5.0),  # Zhang et al. 2025, their code
}


def kept_mean(scene: Scene) -> Impute:
    """One number per image: the mean of the entries that stay (Yang et al. 2023, DiffID); absent where none does."""

    def impute(
        image: Int[Tensor, " b"],
        gone: Bool[Tensor, " b #c h w"],
    ) -> Images:
        x = scene.inputs[image]
        stays = (~gone).expand_as(x)
        count = stays.sum((1, 2, 3), keepdim=True)
        mean = (x * stays).sum((1, 2, 3), keepdim=True) / count.clamp(min=1)
        return torch.where(gone, torch.where(count > 0, mean, scene.absent.to(x)), x)

    return impute


def noisy_linear(scene: Scene) -> Impute:
    """Weighted means of the neighbours, and a little noise (Rong et al. 2022, ROAD, section 5)."""
    added = NOISE * scene.normal()

    def impute(
        image: Int[Tensor, " b"],
        gone: Bool[Tensor, " b #c h w"],
    ) -> Images:
        x = scene.inputs[image]
        return torch.where(gone, solved(x, gone, NOISY_LINEAR, scene.absent.to(x), EXACT) + added[image], x)

    return impute


def inpainting(scene: Scene) -> Impute:
    """Harmonic inpainting: the smoothest surface through what stays (the Laplace equation, no flow over borders)."""

    def impute(
        image: Int[Tensor, " b"],
        gone: Bool[Tensor, " b #c h w"],
    ) -> Images:
        x = scene.inputs[image]
        return solved(x, gone, HARMONIC, scene.absent.to(x))

    return impute


MASKED: dict[str, Callable[[Scene], Impute]] = {
    "kept_mean": kept_mean,
    "noisy_linear": noisy_linear,
    "inpainting": inpainting,
}
IMPUTERS = (*FILLS, *MASKED)


def filled(name: str, scene: Scene) -> Images:
    """The images that hold what a removed unit is replaced by, whatever else is removed.

    Raises:
        ValueError: this imputer depends on what is removed, so that there is no such image.
    """
    if name not in FILLS:
        raise ValueError(f"imputer {name!r}: expected one that does not depend on the mask: {', '.join(FILLS)}")
    return FILLS[name](scene)


def imputer(name: str, scene: Scene) -> Impute:
    """How images lose what is removed."""
    if name in MASKED:
        return MASKED[name](scene)
    fill = filled(name, scene)
    return lambda image, gone: torch.where(gone, fill[image], scene.inputs[image])
