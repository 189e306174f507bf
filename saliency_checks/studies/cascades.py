"""What the randomisation study measures: how alike two maps of one image are when the network has changed.

Every function returns columns, one value per image and state.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks import comparison, randomization
from saliency_checks.explain import derive, explain_channels, generator
from saliency_checks.method import Method
from saliency_checks.metrics.label_permutation import twins_of
from saliency_checks.randomization import Redraw
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Channels = Float[Tensor, "n #c h w"]
    States = Callable[[nn.Module, Float[Tensor, "n c h w"], int, Redraw], Iterator[tuple[str, nn.Module]]]

MOST_COUNTED = 256  # images, for the accuracy of a network
STATES: dict[str, States] = {
    "top_down": randomization.cascading,
    "bottom_up": randomization.bottom_up,
    "independent": randomization.independent,
}


def _input_x_noise(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """x times noise instead of a gradient: what of a similarity is the input's own."""
    return inputs * torch.randn_like(inputs)


NULL = Method(name="input_x_noise", explain=_input_x_noise, signed=True, stochastic=True, control=True)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How similarity is measured.

    Attributes:
        images: the first so many of the subject.
        redraws: how often the weights are drawn again.
        predicted: explain the class that each network predicts, as the paper's code does: then the question changes
            along with the network. Otherwise the same class throughout.
        how: initialiser, batch-norm statistics and steps.
    """

    images: int = 16
    redraws: int = 3
    predicted: bool = False
    how: Redraw = field(default_factory=Redraw)


@dataclass
class _Rows:
    columns: dict[str, list[Any]] = field(default_factory=dict)

    def add(self, first: Channels, second: Channels, **state: Any) -> None:
        values = {name: measure(first, second).tolist() for name, measure in comparison.MEASURES.items()}
        n = len(first)
        constant = ((second - second.mean((1, 2, 3), keepdim=True)).flatten(1).abs().amax(1) == 0).tolist()
        every = {**{k: [v] * n for k, v in state.items()}, "image": list(range(n)), "constant": constant, **values}
        for name, column in every.items():
            self.columns.setdefault(name, []).extend(column)


@dataclass(frozen=True, eq=False)
class Asked:
    """One method on some images of one subject, those from ``first`` on."""

    method: Method
    subject: Subject
    images: int
    seed: int = 0
    first: int = 0

    @property
    def inputs(self) -> Float[Tensor, "n c h w"]:
        return self.subject.inputs[self.first : self.first + self.images]

    @property
    def targets(self) -> Int[Tensor, " n"]:
        return self.subject.targets[self.first : self.first + self.images]

    def maps(self, model: nn.Module, *stream: object, predicted: bool = False) -> Channels:
        """Maps under another network, with a random stream of their own."""
        targets = self.targets
        if predicted:
            with torch.no_grad():
                targets = model(self.inputs).argmax(1)
        seed = derive("sanity", self.method.name, self.subject.name, self.seed, *stream)
        return explain_channels(self.method, model, self.inputs, targets, seed, **self.subject.supplies)

    def states(self, order: str, redraw: int, how: Redraw) -> Iterator[tuple[str, nn.Module]]:
        seed = derive("sanity", order, self.subject.name, self.seed, redraw)
        return STATES[order](self.subject.model, self.subject.inputs, seed, how)


def randomised(asked: Asked, order: str, protocol: Protocol) -> dict[str, list[Any]]:
    """Each state's map against the trained network's."""
    rows = _Rows()
    original = asked.maps(asked.subject.model, "original", predicted=protocol.predicted)
    for redraw in range(protocol.redraws):
        for step, (layer, model) in enumerate(asked.states(order, redraw, protocol.how), start=1):
            changed = asked.maps(model, order, redraw, layer, predicted=protocol.predicted)
            rows.add(original, changed, redraw=redraw, step=step, state=layer)
    return rows.columns


def accuracies(asked: Asked, protocol: Protocol) -> dict[str, list[Any]]:
    """Whether each state's network still sees the class of each image, from the output down.

    It must fall to chance: the map of a network that knows no class any more has no class to explain.
    """
    rows: dict[str, list[Any]] = {name: [] for name in ("redraw", "step", "state", "image", "score")}
    inputs, targets = asked.subject.inputs[:MOST_COUNTED], asked.subject.targets[:MOST_COUNTED]
    for redraw in range(protocol.redraws):
        for step, (layer, model) in enumerate(asked.states("top_down", redraw, protocol.how), start=1):
            with torch.no_grad():
                predicted = torch.cat([model(part) for part in inputs.split(32)]).argmax(1)
            for image, right in enumerate((predicted == targets).double().tolist()):
                for name, value in zip(rows, (redraw, step, layer, image, right), strict=True):
                    rows[name].append(value)
    return rows


def references(asked: Asked, protocol: Protocol, retrained: nn.Module | None) -> dict[str, list[Any]]:
    """What similarity would be at least and at most: shuffled pixels, a second call, the same task learned again."""
    rows = _Rows()
    original = asked.maps(asked.subject.model, "original")
    rows.add(original, asked.maps(asked.subject.model, "again"), redraw=0, step=0, state="repeated")
    if retrained is not None:
        rows.add(original, asked.maps(retrained, "retrained"), redraw=0, step=0, state="retrained")
    for redraw in range(protocol.redraws):
        *_, (_, model) = asked.states("top_down", redraw, protocol.how)
        changed = asked.maps(model, "top_down", redraw, "floor")
        order = generator("shuffled", asked.subject.name, asked.seed, redraw)
        shuffled = _shuffled(changed, order)
        rows.add(original, shuffled, redraw=redraw, step=0, state="shuffled")
    return rows.columns


def permuted(asked: Asked) -> dict[str, list[Any]]:
    """Networks that learned permuted labels, and those that learned the true ones again, on the same test images."""
    rows, twins = _Rows(), twins_of(asked.subject)
    reference, *same = twins.same
    original = asked.maps(reference, "reference")
    for state, models in (("same task", same), ("permuted labels", twins.permuted)):
        for i, model in enumerate(models):
            rows.add(original, asked.maps(model, state, i), redraw=i, step=0, state=state)
    return rows.columns


def pictured(asked: Asked, image: int, how: Redraw) -> dict[str, list[Any]]:
    """The maps of one image, of the trained network and of each step from the output down."""
    one = replace(asked, first=image, images=1)
    found = [("image", one.inputs), ("trained", one.maps(one.subject.model, "original"))]
    found += [(layer, one.maps(model, "picture", layer)) for layer, model in one.states("top_down", 0, how)]
    return {
        "redraw": [0] * len(found), "step": list(range(len(found))), "state": [layer for layer, _ in found],
        "image": [image] * len(found), "constant": [False] * len(found),
        "picture": [maps[0].sum(0).tolist() for _, maps in found],
    }  # fmt: skip


def _shuffled(attributions: Channels, order: torch.Generator) -> Channels:
    """All channels of a pixel move together."""
    n, c, h, w = attributions.shape
    places = torch.stack([torch.randperm(h * w, generator=order) for _ in range(n)]).to(attributions.device)
    return attributions.flatten(2).gather(2, places.unsqueeze(1).expand(-1, c, -1)).view(n, c, h, w)
