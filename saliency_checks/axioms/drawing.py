"""Hypothesis strategies: for each axiom, networks and images that fulfil its premise, simple ones first."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from hypothesis import assume
from hypothesis import strategies as st
from torch import Tensor, nn

from saliency_checks.axioms.laws import LAWS, Found, Question
from saliency_checks.axioms.networks import (
    Blind,
    Combination,
    Exchanged,
    Minimum,
    Order,
    Saturating,
    convolutional,
    dense,
    linear,
)
from saliency_checks.axioms.printing import snippet
from saliency_checks.explain import ContractError
from saliency_checks.method import Method

if TYPE_CHECKING:
    from jaxtyping import Float

    Draw = Callable[[st.SearchStrategy[Any]], Any]

# Hypothesis shrinks towards the first. Fractions of two: sums of few of them are exact in any order.
VALUES = st.sampled_from((1.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1.5, -1.5, 0.25, -0.25))
WEIGHTS = st.sampled_from((1.0, 0.0, -1.0, 2.0, -2.0, 0.5, -0.5, 1.5, -1.5, 0.25))
BASELINES = st.sampled_from((0.0, 0.5, -0.5, 1.0))
PIXELS = st.sampled_from((1.0, 2.0, -1.0, 0.5, -2.0, 1.5, 0.25, 3.0, -0.5, 0.75))
BIASES = st.sampled_from((0.0, 1.0, -1.0, 0.5, -0.5, 2.0, -2.0))
ACTIVATIONS = st.sampled_from((nn.ReLU, nn.Softplus, nn.Tanh))
FACTORS = st.sampled_from((2.0, 3.0, 0.5, 10.0))
SHIFTS = st.sampled_from((1.0, -1.0, 0.5, 2.0))
SIZES = ((1, 1, 2), (3, 2, 2), (1, 4, 4), (1, 8, 8))  # (C, H, W)
MOST_PIXELS = 16
PERIOD = 13  # pixels that are drawn; a larger image repeats them
UNIT = 3  # features that a unit reads
MOST_HIDDEN, LEAST_CLASSES, MOST_CLASSES, MOST_REFERENCES = 3, 2, 3, 3
KINK = 1e-3  # as near as an image or baseline may come to a kink, where a slope is no longer a fact about f
# Of all that units change along a straight way: 20 steps lose less where a unit bends.
QUADRATURE = 0.05


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What is known before anything is drawn.

    Attributes:
        method: what a :class:`Question` asks.
        needs: of the method.
        size: (C, H, W) of the image.
        seed: of the method's draws.
    """

    method: Any
    needs: frozenset[str]
    size: tuple[int, int, int] = SIZES[0]
    seed: int = 0

    @property
    def pixels(self) -> tuple[int, ...]:
        """Those that networks read: all; of a large image four in a corner and four in the middle."""
        height, width = self.size[1:]
        if height * width <= MOST_PIXELS:
            return tuple(range(height * width))
        return tuple(
            (top + i) * width + left + j
            for top, left in ((0, 0), (height // 2, width // 2)) for i in (0, 1) for j in (0, 1)
        )  # fmt: skip

    @property
    def most_hidden(self) -> int:
        """Units or maps: the smallest images come with the smallest networks."""
        return min(MOST_HIDDEN, len(self.pixels) // 2)

    @property
    def features(self) -> tuple[int, ...]:
        """Their places in the flattened image."""
        channels, height, width = self.size
        return tuple(channel * height * width + pixel for channel in range(channels) for pixel in self.pixels)


@dataclass(frozen=True)
class Example:
    """One network and image that an axiom speaks about."""

    axiom: str
    question: Question
    arguments: dict[str, Any]

    @property
    def code(self) -> str:
        """Python that can be pasted and shows the violation."""
        return snippet(self.axiom, self.question, self.arguments)

    def look(self) -> Found:
        """Does the axiom hold here? A method that raises fulfils nothing."""
        try:
            return LAWS[self.axiom](self.question, **self.arguments)
        except ContractError as error:
            return Found(float("inf"), 0.0, str(error).splitlines()[0])


@functools.cache
def _list_of(values: st.SearchStrategy[float], count: int) -> st.SearchStrategy[list[float]]:
    return st.lists(values, min_size=count, max_size=count)


@functools.cache
def _few(columns: tuple[int, ...]) -> st.SearchStrategy[dict[int, float]]:
    """Some of the columns, and a number for each."""
    return st.dictionaries(st.sampled_from(columns), VALUES, min_size=1, max_size=UNIT)


# Images and networks --------------------------------------------------------------------------------------------------


def _images(draw: Draw, n: int, size: tuple[int, int, int], twins: tuple[int, int] | None = None) -> Tensor:
    features = size[0] * size[1] * size[2]
    values = draw(_list_of(PIXELS, min(n * features, PERIOD)))
    repeated = torch.tensor(values, dtype=torch.float64).repeat(-(-n * features // len(values)))
    images = repeated[: n * features].view(n, size[0], -1).clone()
    if twins:
        images[..., twins[1]] = images[..., twins[0]]
    return images.view(n, *size)


def _asked(draw: Draw, setup: Setup, twins: tuple[int, int] | None = None) -> tuple[int, Question]:
    """How many classes, and what is asked; two pixels may be twins in all images."""
    classes = draw(st.integers(LEAST_CLASSES, MOST_CLASSES))
    baseline = references = None
    if "baseline" in setup.needs:
        baseline = _numbers(draw, setup.size[0], BASELINES)
    if "references" in setup.needs:
        references = _images(draw, draw(st.integers(1, MOST_REFERENCES)), setup.size, twins)
    return classes, Question(
        method=setup.method, x=_images(draw, 1, setup.size, twins), target=draw(st.integers(0, classes - 1)),
        baseline=baseline, references=references, seed=setup.seed,
    )  # fmt: skip


def _sparse(draw: Draw, rows: int, columns: int, read: tuple[int, ...]) -> Float[Tensor, "r c"]:
    """Rows of a few numbers each, in columns that are ``read``."""
    matrix = torch.zeros(rows, columns, dtype=torch.float64)
    for row in range(rows):
        for place, value in draw(_few(read)).items():
            matrix[row, place] = value
    return matrix


def _numbers(draw: Draw, count: int, values: st.SearchStrategy[float] = BIASES) -> Float[Tensor, " n"]:
    return torch.tensor(draw(_list_of(values, count)), dtype=torch.float64)


def _head(draw: Draw, classes: int, hidden: int) -> Float[Tensor, "k hidden"]:
    return _numbers(draw, classes * hidden, WEIGHTS).view(classes, hidden)


@dataclass(frozen=True)
class Hidden:
    """The parts of a network of one hidden layer."""

    first: Tensor
    bias: Tensor
    last: Tensor
    offset: Tensor
    activation: nn.Module

    def built(self) -> nn.Module:
        return dense(self.first, self.bias, self.last, self.offset, self.activation)

    def slack(self, q: Question) -> float:
        """What quadrature may lose: a share of all that the units of the class change."""
        way = (q.x - q.start).abs().amax(0).flatten()
        whole = float(self.last[q.target].abs() @ (self.first.abs() @ way))
        return round(QUADRATURE * whole, 4)


def _hidden(draw: Draw, setup: Setup, q: Question, classes: int, read: tuple[int, ...]) -> Hidden:
    units = draw(st.integers(1, setup.most_hidden))
    first, bias = _sparse(draw, units, q.x.numel(), read), _numbers(draw, units)
    activation = draw(ACTIVATIONS)()
    if isinstance(activation, nn.ReLU):
        points = torch.cat([q.x, q.start, q.absent.expand_as(q.x)]).flatten(1)
        assume(float((points @ first.T + bias).abs().min()) > KINK)
    return Hidden(first, bias, _head(draw, classes, units), _numbers(draw, classes), activation)


def _kernel(draw: Draw, setup: Setup, q: Question, side: int) -> tuple[Tensor, Tensor]:
    maps, channels = draw(st.integers(1, setup.most_hidden)), q.x.shape[1]
    values = channels * side * side
    kernel = _sparse(draw, maps, values, tuple(range(values))).view(maps, channels, side, side)
    # No sum of the fractions drawn meets a third: no activation is at its kink.
    return kernel, _numbers(draw, maps) + 1 / 3


def _convolutional(draw: Draw, setup: Setup, q: Question, classes: int, side: int = 3) -> nn.Module:
    kernel, bias = _kernel(draw, setup, q, side)
    return convolutional(kernel, bias, _head(draw, classes, len(bias)), _numbers(draw, classes))


def _network(draw: Draw, setup: Setup, q: Question, classes: int) -> nn.Module:
    return (
        _convolutional(draw, setup, q, classes)
        if "conv" in setup.needs
        else _hidden(draw, setup, q, classes, setup.features).built()
    )


def probe(method: Method, size: tuple[int, int, int]) -> int:
    """How often the method calls a network to explain an image of this size; raises what the method raises."""
    x = torch.linspace(-1, 2, size[0] * size[1] * size[2], dtype=torch.float64).view(1, *size)
    references = x.flip(-1) if "references" in method.needs else None
    if "conv" in method.needs:
        kernel = torch.linspace(-1, 1, 2 * size[0] * 9, dtype=torch.float64).view(2, size[0], 3, 3)
        f = convolutional(kernel, torch.ones(2), torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.zeros(2))
    else:
        weight = torch.linspace(-1, 1, 2 * x.numel(), dtype=torch.float64).view(2, -1)
        f = dense(weight, torch.ones(2), torch.tensor([[1.0, -2.0], [0.5, 1.0]]), torch.zeros(2), nn.ReLU())
    calls: list[object] = []
    f.register_forward_hook(lambda *_: calls.append(None))
    Question(method=method, x=x, references=references).map(f)
    return len(calls)


# Axioms: a strategy each ----------------------------------------------------------------------------------------------


@st.composite
def completeness(draw: Draw, setup: Setup) -> Example:
    classes, q = _asked(draw, setup)
    if "conv" in setup.needs:
        return Example("completeness", q, {"f": _convolutional(draw, setup, q, classes)})
    if draw(st.sampled_from((False, True, True))):
        hidden = _hidden(draw, setup, q, classes, setup.features)
        return Example("completeness", q, {"f": hidden.built(), "slack": hidden.slack(q)})
    weight, offset = _sparse(draw, classes, q.x.numel(), setup.features), _numbers(draw, classes)
    return Example("completeness", q, {"f": linear(weight, offset)})


@st.composite
def dummy(draw: Draw, setup: Setup) -> Example:
    """Not connected, or connected twice so that it cancels."""
    classes, q = _asked(draw, setup)
    pixel = draw(st.sampled_from(setup.pixels))
    if "conv" in setup.needs:
        return Example("dummy", q, {"f": Blind(_convolutional(draw, setup, q, classes), pixel), "pixel": pixel})
    own = range(pixel, q.x.numel(), q.x[0, 0].numel())
    f = _hidden(draw, setup, q, classes, tuple(feature for feature in setup.features if feature not in own)).built()
    cancelling = draw(st.sampled_from(("", "unit", "order")))
    if cancelling == "unit":
        act, units = draw(ACTIVATIONS)(), torch.zeros(2, q.x.numel(), dtype=torch.float64)
        units[:, pixel] = draw(VALUES)
        share = draw(VALUES) * torch.tensor([[1.0, -1.0]], dtype=torch.float64)
        bias = draw(BIASES.filter(bool)) + 1 / 3
        twice = dense(units, torch.tensor([bias, bias]), share, torch.zeros(1), act)
        f = Combination(1.0, f, 1.0, twice)
    if cancelling == "order":
        other = draw(st.sampled_from([i for i in setup.pixels if i != pixel]))
        places = draw(st.permutations((pixel, other)))
        q = _beyond_the_kinks(draw, q, *places)
        f = Combination(1.0, f, 1.0, Order(0, *places), -1.0, Order(1, *places))
    return Example("dummy", q, {"f": f, "pixel": pixel})


@st.composite
def linearity(draw: Draw, setup: Setup) -> Example:
    classes, q = _asked(draw, setup)
    f, g = (_network(draw, setup, q, classes) for _ in range(2))
    return Example("linearity", q, {"f": f, "g": g, "a": draw(VALUES), "b": draw(VALUES)})


@st.composite
def symmetry(draw: Draw, setup: Setup) -> Example:
    """A function of pixels that are written alike, or f and f with the pixels exchanged."""
    i, j = sorted(draw(st.lists(st.sampled_from(setup.pixels), min_size=2, max_size=2, unique=True)))
    classes, q = _asked(draw, setup, twins=(i, j))
    f = _network(draw, setup, q, classes)
    return Example("symmetry", q, {"f": Combination(1.0, f, 1.0, Exchanged(f, i, j)), "i": i, "j": j})


@st.composite
def implementation_invariance(draw: Draw, setup: Setup) -> Example:
    """One function written in two ways (the pairs of Sundararajan et al. 2017, or hidden units rewritten)."""
    classes, q = _asked(draw, setup)
    if "conv" in setup.needs:
        kernel, bias = _kernel(draw, setup, q, 3)
        head, offset = _head(draw, classes, len(bias)), _numbers(draw, classes)
        f = convolutional(kernel, bias, head, offset)
        lift = draw(st.one_of(VALUES, st.just(0.0)))
        if not lift:  # the first channel becomes larger, or two halves
            first = draw(st.sampled_from((2.0, 3.0)))
            kernel, bias = torch.cat([first * kernel[:1], kernel]), torch.cat([first * bias[:1], bias])
            head = torch.cat([head[:, :1] / first / 2, head], 1)
            head[:, 1] /= 2
        return Example("implementation_invariance", q, {"f": f, "g": convolutional(kernel, bias, head, offset, lift)})
    kind = draw(st.sampled_from((Minimum, Order, None)))
    if kind:
        q = replace(q, target=0)
        i, j = draw(st.permutations(setup.pixels))[:2]
        q = q if kind is Minimum else _beyond_the_kinks(draw, q, i, j)
        return Example("implementation_invariance", q, {"f": kind(0, i, j), "g": kind(1, i, j)})
    hidden = _hidden(draw, setup, q, classes, setup.features)
    return Example("implementation_invariance", q, {"f": hidden.built(), "g": _rewritten(draw, hidden).built()})


def _beyond_the_kinks(draw: Draw, q: Question, i: int, j: int) -> Question:
    """The question with two pixels for which all parts of :class:`Order` are active."""
    x = q.x.clone()
    x[0, 0].view(-1)[[i, j]] = torch.tensor(draw(st.sampled_from(((3.0, 1.0), (2.0, 0.5), (4.0, 1.5)))), dtype=x.dtype)
    return replace(q, x=x)


def _rewritten(draw: Draw, net: Hidden) -> Hidden:
    """Units in another order, each split into two halves and, behind a ReLU, made larger where its weight shrinks."""
    units = len(net.bias)
    order = torch.tensor(draw(st.permutations(range(units))))
    size = draw(FACTORS) if isinstance(net.activation, nn.ReLU) else 1.0
    first, bias, last = size * net.first[order], size * net.bias[order], net.last[:, order] / size
    if draw(st.booleans()) or units == 1:
        first, bias, last = torch.cat(2 * [first]), torch.cat(2 * [bias]), torch.cat(2 * [last / 2], 1)
    return Hidden(first, bias, last, net.offset, net.activation)


@st.composite
def saturation(draw: Draw, setup: Setup) -> Example:
    """A pixel that is above the kink of 1 - ReLU(k - x), and below it where it is absent; all others are absent."""
    _, asked = _asked(draw, setup)
    level = asked.absent[0, :, 0, 0]
    pixel = draw(st.sampled_from(setup.pixels))
    x = asked.absent.expand_as(asked.x).clone()
    x.flatten(2)[0, 0, pixel] += 2.0
    kink = float(level[0]) + 1.0
    references = None if asked.references is None else asked.absent.expand_as(asked.references).clone()
    q = Question(method=asked.method, x=x, baseline=asked.baseline, references=references, seed=asked.seed)
    if "conv" not in setup.needs:
        return Example("saturation", q, {"f": Saturating(pixel, kink), "pixel": pixel})
    one = torch.ones(1, dtype=torch.float64)
    kernel = torch.zeros(1, setup.size[0], 1, 1, dtype=torch.float64)
    kernel[0, 0] = -1.0
    f = convolutional(kernel, kink * one, -one.view(1, 1), one)
    return Example("saturation", q, {"f": f, "pixel": pixel})


@st.composite
def input_shift_invariance(draw: Draw, setup: Setup) -> Example:
    classes, q = _asked(draw, setup)
    return Example("input_shift_invariance", q, {"f": _network(draw, setup, q, classes), "shift": draw(SHIFTS)})


@st.composite
def scale(draw: Draw, setup: Setup) -> Example:
    classes, q = _asked(draw, setup)
    return Example("scale", q, {"f": _network(draw, setup, q, classes), "factor": draw(FACTORS)})


DRAWN: dict[str, Callable[[Setup], st.SearchStrategy[Example]]] = {
    "completeness": completeness, "dummy": dummy, "implementation_invariance": implementation_invariance,
    "input_shift_invariance": input_shift_invariance, "linearity": linearity, "saturation": saturation,
    "scale": scale, "symmetry": symmetry,
}  # fmt: skip
