"""Maps that never look at the model: no check may pass them.

Each is a picture that a broken explanation may well look like. All are non-negative but the noise.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.maps import reduce_channels
from saliency_checks.method import Explain, method
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.cam_perturbation import unit

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Map = Float[Tensor, "n 1 h w"]

    Images = Float[Tensor, "n c h w"]

control = method(control=True, signed=False)
noise = method(control=True, signed=True, stochastic=True)


@noise
def random(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Map:
    """White noise, N(0, 1)."""
    return torch.randn_like(inputs[:, :1])


@noise
def smooth_noise(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], cells: int = 7) -> Map:
    """Noise of few cells, enlarged: as smooth as a class activation map."""
    grid = torch.randn(len(inputs), 1, cells, cells, dtype=inputs.dtype, device=inputs.device)
    return F.interpolate(grid, size=inputs.shape[-2:], mode="bilinear", align_corners=False)


@control
def constant(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Map:
    """One everywhere."""
    return torch.ones_like(inputs[:, :1])


@control
def input_magnitude(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Images:
    """|x|: what is left of an input-multiplied method without its gradient."""
    return inputs.abs()


@control
def input_contrast(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Images:
    """|x - mean of the image's channel|."""
    return (inputs - inputs.mean((2, 3), keepdim=True)).abs()


@control
def edges(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Images:
    """Sobel magnitude per channel; what a map that only recovers the image looks like (Adebayo et al. 2018)."""
    across = inputs.new_tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    dx, dy = (_filtered(inputs, kernel) for kernel in (across, across.T))
    return (dx**2 + dy**2).sqrt()


@control
def laplacian(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Images:
    """|x - mean of its 3x3 neighbourhood|: finds every single pixel that stands out."""
    return (inputs - _filtered(inputs, torch.full_like(inputs[0, 0, :1, :1], 1 / 9).expand(3, 3))).abs()


@control
def center_blob(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Map:
    """A Gaussian in the middle, a quarter of the side wide: real evidence on photographs of centred things."""
    height, width = inputs.shape[-2:]
    rows, columns = (torch.linspace(-2, 2, size).to(inputs) for size in (height, width))
    blob = torch.exp(-(rows[:, None] ** 2 + columns**2) / 2)
    return blob.expand(len(inputs), 1, -1, -1).clone()


@control
def chroma(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Map:
    """max - min over the channels, colourfulness; images of one channel have none, so there it is zero."""
    return inputs.amax(1, keepdim=True) - inputs.amin(1, keepdim=True)


@control
def fake_cam(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Map:
    """One everywhere but for the corner: scores well where the kept share of an image is not counted (Poppi 2021)."""
    maps = torch.ones_like(inputs[:, :1])
    maps[..., 0, 0] = 0
    return maps


@method(
    needs={"gradient", "conv"},
    signed=False,
    profiles=(),  # made to be wrong: judged only where it is named
    reference="Zhang et al. 2025, saliencysense: the least likely class as a negative control",
)
def least_likely_complement(
    model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], base: Explain = grad_cam
) -> Map:
    """1 - the map of the least likely class, scaled to [0, 1]; it looks at the model, but not at ``targets``."""
    with torch.no_grad():
        least = model(inputs.clone()).argmin(1)
    return 1 - unit(reduce_channels(base(model, inputs, least)).unsqueeze(1))


def _filtered(images: Images, kernel: Float[Tensor, "3 3"]) -> Images:
    """Each channel alone; borders are replicated, so that they are no edges."""
    channels = images.shape[1]
    padded = F.pad(images, (1, 1, 1, 1), mode="replicate")
    return F.conv2d(padded, kernel.expand(channels, 1, 3, 3), groups=channels)
