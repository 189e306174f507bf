"""The axioms, each as one comparison of two sides: of a map with a number, of two pixels, or of two maps.

A stochastic method draws alike on both sides where networks are compared. Where one map is compared with a number or
with itself, it may err by chance: then the mean over draws is compared, within five standard errors.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks.axioms.networks import Combination, Shifted
from saliency_checks.explain import derive, explain
from saliency_checks.method import Method, as_method

if TYPE_CHECKING:
    from jaxtyping import Float

    Values = Float[Tensor, " p"]

ROUNDING, TINY = 1e-4, 1e-7  # of the largest value involved (a method may work in float32); of anything
DRAWS, SIGMAS = 20, 5.0
LEAST_SHARE = 0.1  # of a change, that the one pixel that made it must get


@dataclass(frozen=True, kw_only=True)
class Question:
    """What a method is asked about a network.

    Attributes:
        method: anything that explains, or the name of it.
        x: the image (1, C, H, W), float64.
        target: the class.
        baseline: what "absent" means, one value per channel (C,); for a method that asks for none it is black, 0.
        references: other images (M, C, H, W), for a method that asks for some.
        seed: of its draws.
    """

    method: Any
    x: Float[Tensor, "1 c h w"]
    target: int = 0
    baseline: Float[Tensor, " c"] | None = None
    references: Float[Tensor, "m c h w"] | None = None
    seed: int = 0

    @property
    def explained(self) -> Method:
        return as_method(self.method)

    @property
    def absent(self) -> Float[Tensor, "1 c 1 1"]:
        channels = self.x.shape[1]
        value = torch.zeros(channels, dtype=self.x.dtype) if self.baseline is None else self.baseline
        return value.view(1, channels, 1, 1)

    @property
    def start(self) -> Float[Tensor, "m c h w"]:
        """What the image is compared with: the references, or the baseline."""
        return self.absent.expand_as(self.x) if self.references is None else self.references

    def map(self, network: nn.Module, draw: int = 0, shift: float = 0.0) -> Values:
        """The image's map, pixel by pixel; explained beside its negative, so that a method that mixes images shows.

        With a ``shift``, all images that the method sees are moved by it, the baseline and the references too.
        """
        images = torch.cat([self.x, -self.x.flip(-1)]) + shift
        references = None if self.references is None else self.references + shift
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a hundred networks, a hundred times the same advice
            maps = explain(
                self.explained, network, images, torch.full((2,), self.target), baseline=self.absent + shift,
                references=references, seed=derive(self.seed, draw),
            )  # fmt: skip
        return maps[0].flatten()

    def score(self, network: nn.Module, images: Float[Tensor, "n c h w"]) -> Tensor:
        """The mean logit of the class."""
        with torch.no_grad():
            logits = network(images)
        mean: Tensor = logits[:, self.target].mean()
        return mean

    def pixel(self, number: int) -> str:
        return f"pixel ({number // self.x.shape[-1]}, {number % self.x.shape[-1]})"


@dataclass(frozen=True)
class Found:
    """How far two sides are apart, and how far they may be; ``text`` says it with the numbers."""

    apart: float
    allowed: float
    text: str

    @property
    def holds(self) -> bool:
        return self.apart <= self.allowed

    def __str__(self) -> str:
        relation = "within" if self.holds else "more than"
        return f"{self.text} ({relation} the {self.allowed:.2g} that is allowed)"


Sides = Callable[[int], tuple[Tensor, Tensor]]


def compared(
    q: Question, sides: Sides, text: Callable[[int, str, str], str], *, scale: Tensor | None = None,
    slack: float = 0.0, by_chance: bool = False,
) -> Found:  # fmt: skip
    """The worst place of two sides.

    Args:
        sides: of one draw.
        text: of the worst place's number and both sides there.
        scale: the largest value involved, where it is not among the sides.
        slack: how far apart they may be beside rounding.
        by_chance: a stochastic method's sides need to agree only in the mean over draws.
    """
    left, right = sides(0)
    largest = torch.stack([left.abs().amax(), right.abs().amax(), *([] if scale is None else [scale.abs().amax()])])
    allowed = torch.full_like(left, slack + TINY) + ROUNDING * largest.amax()
    if by_chance and q.explained.stochastic and ((left - right).abs() > allowed).any():
        drawn = [torch.stack(each) for each in zip(*(sides(draw) for draw in range(DRAWS)), strict=True)]
        allowed = allowed + SIGMAS * (drawn[0] - drawn[1]).std(0) / math.sqrt(DRAWS)
        left, right = (each.mean(0) for each in drawn)
    apart = (left - right).abs()
    worst = int((apart - allowed).argmax())
    said = text(worst, *(f"{float(side[worst]):.6g}" for side in (left, right)))
    return Found(float(apart[worst]), float(allowed[worst]), said)


def completeness(q: Question, f: nn.Module, slack: float = 0.0) -> Found:
    """sum A = f(x) - f(b), or f(x) - the mean of f over the references (Sundararajan et al. 2017, proposition 1)."""
    change = (q.score(f, q.x) - q.score(f, q.start)).view(1)
    name = "baseline" if q.references is None else "references"
    return compared(
        q, lambda draw: (q.map(f, draw).sum().view(1), change), slack=slack, by_chance=True,
        text=lambda _, left, right: f"the map sums to {left}, but f(x) - f({name}) is {right}",
    )  # fmt: skip


def dummy(q: Question, f: nn.Module, pixel: int) -> Found:
    """A_i = 0 where f does not depend on x_i, however it is written (Sundararajan et al. 2017, section 2.1)."""
    map_ = q.map(f)
    return compared(
        q, lambda draw: (q.map(f, draw)[pixel].view(1), torch.zeros_like(map_[:1])), scale=map_, by_chance=True,
        text=lambda _, left, right: f"f does not depend on {q.pixel(pixel)}, which gets {left}",
    )  # fmt: skip


def linearity(q: Question, f: nn.Module, g: nn.Module, a: float, b: float) -> Found:
    """A(a f + b g) = a A(f) + b A(g) (Sundararajan et al. 2017, section 4)."""
    both = Combination(a, f, b, g)
    one, other = q.map(f), q.map(g)
    return compared(
        q, lambda draw: (q.map(both), a * one + b * other), scale=torch.cat([one, other]),
        text=lambda i, left, right: f"{q.pixel(i)} gets {left} from a f + b g, but a A(f) + b A(g) is {right} there",
    )  # fmt: skip


def symmetry(q: Question, f: nn.Module, i: int, j: int) -> Found:
    """A_i = A_j where x_i = x_j and exchanging them never changes f (Sundararajan et al. 2017, section 4.1)."""
    return compared(
        q, lambda draw: q.map(f, draw)[[i, j]].view(2, 1).unbind(0), scale=q.map(f), by_chance=True,  # type: ignore[arg-type,return-value]
        text=lambda _, left, right: f"{q.pixel(i)} and {q.pixel(j)} are alike in f and x, but get {left} and {right}",
    )  # fmt: skip


def implementation_invariance(q: Question, f: nn.Module, g: nn.Module) -> Found:
    """A(f) = A(g) where f = g everywhere (Sundararajan et al. 2017, section 2.2)."""
    return compared(
        q, lambda draw: (q.map(f), q.map(g)),
        text=lambda i, left, right: f"f and g are one function, but {q.pixel(i)} gets {left} from f and {right} from g",
    )  # fmt: skip


def saturation(q: Question, f: nn.Module, pixel: int) -> Found:
    """A_i has a part of f(x) - f(b) where x and b differ in x_i alone (sensitivity (a), Sundararajan et al. 2017)."""
    change = q.score(f, q.x) - q.score(f, q.start)

    def share(draw: int) -> tuple[Values, Values]:
        found = (q.map(f, draw)[pixel] / change).view(1)
        return found, found.clamp(min=LEAST_SHARE)

    got = float(q.map(f)[pixel])
    return compared(
        q, share, by_chance=True,
        text=lambda *_: f"{q.pixel(pixel)} alone moved f by {float(change):.6g}, and gets {got:.6g}",
    )  # fmt: skip


def input_shift_invariance(q: Question, f: nn.Module, shift: float) -> Found:
    """A(f(x - s)) at x + s = A(f) at x (Kindermans et al. 2019); what counts as absent moves with the images."""
    return compared(
        q, lambda draw: (q.map(Shifted(f, shift), shift=shift), q.map(f)),
        text=lambda i, left, right: (
            f"{q.pixel(i)} gets {right} from f(x), and {left} from the same function of images moved by {shift:g}"
        ),
    )  # fmt: skip


def scale(q: Question, f: nn.Module, factor: float) -> Found:
    """A(c f) = c A(f) for c > 0."""
    return compared(
        q, lambda draw: (q.map(Combination(factor, f)), factor * q.map(f)),
        text=lambda i, left, right: f"{q.pixel(i)} gets {left} from {factor:g} f, but {factor:g} A(f) is {right} there",
    )  # fmt: skip


LAWS: dict[str, Callable[..., Found]] = {
    law.__name__: law
    for law in (
        completeness, dummy, implementation_invariance, input_shift_invariance, linearity, saturation, scale, symmetry
    )
}  # fmt: skip
