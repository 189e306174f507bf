"""Small networks that axioms are tested on, and the Python code that builds each of them again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from jaxtyping import Float

# Where two ways to write a minimum have their kink: no quadrature rule has a point there.
BEND = 0.3183


def with_weights(network: nn.Module, *values: Any) -> nn.Module:
    """The network in float64 and eval mode, its parameters set in order from numbers or tensors."""
    with torch.no_grad():
        for parameter, value in zip(network.double().parameters(), values, strict=True):
            parameter.copy_(torch.as_tensor(value, dtype=torch.float64))
    return network.eval()


class Built(nn.Module):
    """A network that is known by what it was built from."""

    def __init__(self, *parts: Any) -> None:
        super().__init__()
        self.parts = parts
        self.networks = nn.ModuleList([part for part in parts if isinstance(part, nn.Module)])


class Combination(Built):
    """a f + b g + ...; built from a, f, b, g, ..."""

    def forward(self, x: Tensor) -> Tensor:
        total: Tensor = sum(a * f(x) for a, f in zip(self.parts[::2], self.parts[1::2], strict=True))
        return total


class Shifted(Built):
    """f(x - s); built from f and s."""

    def forward(self, x: Tensor) -> Tensor:
        shifted: Tensor = self.parts[0](x - self.parts[1])
        return shifted


class Blind(Built):
    """f of the image without one of its pixels; built from f and the pixel's number."""

    def forward(self, x: Tensor) -> Tensor:
        kept = torch.ones_like(x[:1, :1]).flatten()
        kept[self.parts[1]] = 0
        blind: Tensor = self.parts[0](x * kept.view(1, 1, *x.shape[-2:]))
        return blind


class Exchanged(Built):
    """f of the image with two of its pixels exchanged; built from f and the pixels' numbers."""

    def forward(self, x: Tensor) -> Tensor:
        i, j = self.parts[1:]
        order = list(range(x[0, 0].numel()))
        order[i], order[j] = j, i
        exchanged: Tensor = self.parts[0](x.flatten(2)[..., order].view_as(x))
        return exchanged


class Minimum(Built):
    """min(a, b) of two pixels, as a - ReLU(a - b) or as b - ReLU(b - a); built from the form (0, 1) and the pixels.

    b is moved by 0.3183: the forms differ in the slope that they have at the kink itself.
    """

    def forward(self, x: Tensor) -> Tensor:
        form, i, j = self.parts
        a, b = x[:, 0].flatten(1)[:, [i, j]].unbind(1)
        b = b + BEND
        return (b - F.relu(b - a) if form else a - F.relu(a - b))[:, None]


class Order(Built):
    """ReLU(z1 - 1 - ReLU(z2)) or ReLU(ReLU(z1 - 1) - z2), z = ReLU(x): one function; from the form and the pixels.

    Sundararajan et al. 2017, appendix B.
    """

    def forward(self, x: Tensor) -> Tensor:
        form, i, j = self.parts
        z = F.relu(x[:, 0].flatten(1))[:, [i, j]]
        inner = F.relu(z[:, :1] - 1) - z[:, 1:] if form else z[:, :1] - 1 - F.relu(z[:, 1:])
        return F.relu(inner)


class Saturating(Built):
    """1 - ReLU(k - x) of one pixel: constant above the kink; from its number and k."""

    def forward(self, x: Tensor) -> Tensor:
        pixel, kink = self.parts
        return 1 - F.relu(kink - x[:, 0].flatten(1)[:, pixel : pixel + 1])


def dense(
    first: Float[Tensor, "hidden features"], bias: Float[Tensor, " hidden"], last: Float[Tensor, "k hidden"],
    offset: Float[Tensor, " k"], activation: nn.Module,
) -> nn.Module:  # fmt: skip
    """One hidden layer."""
    layers = nn.Flatten(), nn.Linear(*first.T.shape), activation, nn.Linear(*last.T.shape)
    return with_weights(nn.Sequential(*layers), first, bias, last, offset)


def linear(weight: Float[Tensor, "k features"], offset: Float[Tensor, " k"]) -> nn.Module:
    return with_weights(nn.Sequential(nn.Flatten(), nn.Linear(*weight.T.shape)), weight, offset)


def convolutional(
    kernel: Float[Tensor, "maps c h w"], bias: Float[Tensor, " maps"], last: Float[Tensor, "k maps"],
    offset: Float[Tensor, " k"], lift: float = 0.0,
) -> nn.Module:  # fmt: skip
    """Convolution, ReLU, average over the image, linear.

    With a ``lift`` a further convolution adds that number to all activations, and the head takes it off again: the
    same function.
    """
    maps, channels, side, _ = kernel.shape
    layers: list[nn.Module] = [nn.Conv2d(channels, maps, side, padding=side // 2), nn.ReLU()]
    values = [kernel, bias]
    if lift:
        layers.append(nn.Conv2d(maps, maps, 1))
        values += [torch.eye(maps)[..., None, None], torch.full((maps,), lift)]
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(maps, len(last))]
    return with_weights(nn.Sequential(*layers), *values, last, offset - lift * last.sum(1))


def code(value: Any) -> str:
    """An expression that builds the value again, with ``torch``, ``nn`` and the names of this file in scope."""
    if isinstance(value, Tensor):
        return f"torch.tensor({value.tolist()}, dtype=torch.float64)"
    if isinstance(value, Built):
        return f"{type(value).__name__}({_listed(map(code, value.parts))})"
    if isinstance(value, nn.Sequential):
        layers = _listed(f"nn.{layer!r}" for layer in value)
        values = _listed(repr(parameter.tolist()) for parameter in value.parameters())
        return f"with_weights(nn.Sequential({layers}), {values})"
    return repr(value)


def _listed(parts: Any) -> str:
    return ", ".join(parts)


def names_in(text: str) -> Sequence[str]:
    """The names of this file that a piece of code uses."""
    known = (with_weights, Combination, Shifted, Blind, Exchanged, Minimum, Order, Saturating)
    return [each.__name__ for each in known if f"{each.__name__}(" in text]
