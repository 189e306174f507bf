"""Methods that read the gradient of the class's logit at the input."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.method import method

if TYPE_CHECKING:
    from jaxtyping import Float, Int


def class_scores(model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]) -> Float[Tensor, " n"]:
    """The logit of each image's class."""
    logits = model(inputs)
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise TypeError(f"the model returned {found}, expected logits ({len(inputs)}, classes); wrap it to return them")
    return logits.gather(1, targets[:, None]).squeeze(1)


def input_gradient(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """d logit / d input; touches neither the parameters' ``.grad`` nor the tensor that was given."""
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        total = class_scores(model, leaf.clone(), targets).sum()  # a clone: the first layer may work in place
    gradient: Tensor = torch.autograd.grad(total, leaf)[0]
    return gradient


@method(
    needs={"gradient"},
    signed=False,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "linearity", "scale", "symmetry"},
    reference="Simonyan et al. 2014, Deep inside convolutional networks, section 3.1",
)
def gradient(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """g = d f_c / d x: how the logit reacts to a small change. A sensitivity: its sign is the change's direction."""
    return input_gradient(model, inputs, targets)


@method(
    needs={"gradient"},
    signed=False,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "scale", "symmetry"},
    expected_failures={
        "label_permutation/fashion_cnn": "without the sign, twins of one task are hardly more alike than one that"
        " memorised noise; undecided, .09 [.08, .10]",
    },
    reference="Simonyan et al. 2014, Deep inside convolutional networks, section 3.1",
    profiles={"thorough"},
)
def gradient_magnitude(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """|g|, so that channels add up instead of cancelling."""
    return input_gradient(model, inputs, targets).abs()


@method(
    needs={"gradient"},
    signed=True,
    claims={"dummy", "implementation_invariance", "linearity", "scale", "symmetry"},
    reference="Shrikumar et al. 2016, Not just a black box, section 3",
)
def input_x_gradient(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """x * g; sums to the logit where the network is piecewise linear and has no biases."""
    return inputs * input_gradient(model, inputs, targets)


@method(
    needs={"gradient"},
    signed=False,
    claims={"dummy", "implementation_invariance", "scale", "symmetry"},
    expected_failures={
        "label_permutation/fashion_cnn": "|x| is in every map and alike for all twins: .04 of a gap [.02, .06]"
    },
    reference="Yasin, Hare and Marcu 2024, |grad| * |input|",
    profiles={"thorough"},
)
def abs_gradient_x_abs_input(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n c h w"]:
    """|g| * |x|: the magnitude of x * g in each channel."""
    return (inputs * input_gradient(model, inputs, targets)).abs()


@method(
    needs={"gradient"},
    signed=False,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "linearity", "scale", "symmetry"},
    reference="Smilkov et al. 2017, SmoothGrad, section 2",
)
def smoothgrad(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    samples: int = 20,
    noise: float = 0.15,
) -> Float[Tensor, "n c h w"]:
    """Mean of g(x + N(0, s^2)), with s = ``noise`` times the range of the image (each its own, not the batch's)."""
    return sum(noisy_gradients(model, inputs, targets, samples, noise), torch.zeros_like(inputs)) / samples


@method(
    needs={"gradient"},
    signed=False,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "symmetry"},
    reference="Hooker et al. 2019, A benchmark for interpretability methods, SmoothGrad-Squared",
    profiles={"thorough"},
)
def smoothgrad_squared(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    samples: int = 20,
    noise: float = 0.15,
) -> Float[Tensor, "n c h w"]:
    """Mean of g(x + N(0, s^2))^2; s as for smoothgrad."""
    squares = (gradient**2 for gradient in noisy_gradients(model, inputs, targets, samples, noise))
    return sum(squares, torch.zeros_like(inputs)) / samples


@method(
    needs={"gradient"},
    signed=False,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "symmetry"},
    reference="Adebayo et al. 2018, Local explanation methods for deep neural networks lack sensitivity, VarGrad",
    profiles={"thorough"},
)
def vargrad(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    samples: int = 20,
    noise: float = 0.15,
) -> Float[Tensor, "n c h w"]:
    """Variance of g(x + N(0, s^2)); s as for smoothgrad. Zero wherever the gradient does not change.

    Deviations from a running mean are added up (Welford 1962): a difference of two means may fall below zero.
    """
    mean, squares = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for count, gradient in enumerate(noisy_gradients(model, inputs, targets, samples, noise), start=1):
        deviation = gradient - mean
        mean += deviation / count
        squares += deviation * (gradient - mean)
    return squares / samples


def image_range(inputs: Float[Tensor, "n c h w"]) -> Float[Tensor, "n 1 1 1"]:
    """Largest minus smallest value of each image: the scale of noise, whatever the normalisation and the batch."""
    return inputs.amax((1, 2, 3), keepdim=True) - inputs.amin((1, 2, 3), keepdim=True)


def noisy_gradients(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"], samples: int, noise: float
) -> Iterator[Float[Tensor, "n c h w"]]:
    """g at ``samples`` points around each image."""
    spread = noise * image_range(inputs)
    for _ in range(samples):
        yield input_gradient(model, inputs + spread * torch.randn_like(inputs), targets)
