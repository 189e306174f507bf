"""What the model says of perturbed images: orders x images x steps in one batch, cut to the memory there is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import evaluating

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int, Shaped

    # (which image, what is gone of it) -> the image without it
    Impute = Callable[[Int[Tensor, " b"], Bool[Tensor, " b #c h w"]], Float[Tensor, "b c h w"]]

OUTPUTS = ("logit", "centred", "log_probability", "probability", "margin", "accuracy")


@dataclass(frozen=True, eq=False)
class Answers:
    """What is kept of the logits: five numbers per image, from which every output is read.

    Attributes:
        values: the target's logit, the mean of all logits, the logarithm of the sum of their exponentials, the
            largest logit but the target's, the predicted class (..., 5).
    """

    values: Float[Tensor, "... 5"]

    @classmethod
    def of(cls, logits: Float[Tensor, "b classes"], targets: Int[Tensor, " b"]) -> Answers:
        logits = logits if logits.dtype == torch.float64 else logits.float()
        target = logits.gather(1, targets.unsqueeze(1))
        others = logits.scatter(1, targets.unsqueeze(1), -torch.inf)
        top, predicted = others.max(1, keepdim=True)
        predicted = torch.where(target >= top, targets.unsqueeze(1), predicted)
        mean, total = logits.mean(1, keepdim=True), logits.logsumexp(1, keepdim=True)
        return cls(torch.cat([target, mean, total, top, predicted.to(logits.dtype)], dim=1))

    def unsqueeze(self, dim: int) -> Answers:
        """With another axis, before the five numbers."""
        return Answers(self.values.unsqueeze(dim if dim >= 0 else dim - 1))

    @property
    def predicted(self) -> Float[Tensor, ...]:
        return self.values[..., 4]

    def read(self, output: str) -> Float[Tensor, ...]:
        """One of ``OUTPUTS``: the target's logit, less the mean of all (``centred``: a shift common to all classes does
        not count), less the best other (``margin``); its log-probability and probability; 1 where it is predicted."""
        target, mean, total, top, _ = self.values.unbind(-1)
        if output == "logit":
            return target
        if output == "centred":
            return target - mean
        if output == "log_probability":
            return target - total
        if output == "probability":
            return (target - total).exp()
        if output == "margin":
            return target - top
        if output == "accuracy":
            return (target >= top).to(target.dtype)
        raise ValueError(f"output {output!r}: expected one of {', '.join(OUTPUTS)}")


@dataclass(frozen=True, eq=False, kw_only=True)
class Removal:
    """What is gone, in each order, image and step: the units whose turn lies in [low, high). This is data; no pass is
    made yet.

    Attributes:
        turn: when each unit goes (orders, n or 1, units).
        low, high: of each step (n or 1, steps).
        cells: the unit of each entry of an image (n or 1, c or 1, h, w).
        is_raster: every entry is its own unit, in raster order: nothing is to be gathered.
    """

    turn: Shaped[Tensor, " o #n u"]
    low: Shaped[Tensor, "#n k"]
    high: Shaped[Tensor, "#n k"]
    cells: Int[Tensor, "#n #c h w"]
    is_raster: bool = False

    def shape(self, images: int) -> tuple[int, int, int]:
        """(orders, images, steps): their product is the number of passes."""
        return len(self.turn), images, self.low.shape[1]

    def gone(
        self, order: Int[Tensor, " b"], image: Int[Tensor, " b"], step: Int[Tensor, " b"]
    ) -> Bool[Tensor, " b #c h w"]:
        turn = self.turn[order, image % self.turn.shape[1]]
        low, high = (end[image % len(end), step].unsqueeze(1) for end in (self.low, self.high))
        units = (turn >= low) & (turn < high)
        cells = self.cells[image % len(self.cells)]
        if self.is_raster:
            return units.view(len(units), *cells.shape[1:])
        return units.gather(1, cells.flatten(1)).view_as(cells)


def answers(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"], removal: Removal, impute: Impute
) -> Answers:
    """What the model says of every image in every order and step (orders, n, steps, 5)."""
    shape = removal.shape(len(inputs))

    def one(row: Int[Tensor, " b"]) -> Float[Tensor, "b 5"]:
        order, image, step = _places(row, shape)
        perturbed = impute(image, removal.gone(order, image, step))
        return Answers.of(model(perturbed), targets[image]).values

    return Answers(forwarded(model, one, shape, inputs))


def forwarded(
    model: nn.Module,
    function: Callable[[Int[Tensor, " b"]], Float[Tensor, "b f"]],
    shape: tuple[int, ...],
    inputs: Float[Tensor, "n c h w"],
) -> Float[Tensor, "... f"]:
    """``function`` of the rows of a table of this shape, as many at once as images like ``inputs`` fit into memory."""
    total = torch.Size(shape).numel()
    with evaluating(model):
        found = chunked(function, torch.arange(total, device=inputs.device), per_pass(inputs))
    return found.view(*shape, -1)


def outputs(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    fill: Float[Tensor, "n c h w"],
    order: Int[Tensor, "n p"],
    counts: Sequence[int],
) -> Float[Tensor, "n k classes"]:
    """Logits after replacing the first ``counts[k]`` pixels of each image's ``order`` by ``fill``; p = h * w."""
    high = torch.as_tensor(counts, device=order.device).unsqueeze(0)
    height, width = inputs.shape[-2:]
    cells = raster(1, height, width, order.device)
    low, turn = torch.zeros_like(high), turns(order).unsqueeze(0)
    removal = Removal(turn=turn, low=low, high=high, cells=cells, is_raster=True)
    shape = removal.shape(len(inputs))

    def one(row: Int[Tensor, " b"]) -> Float[Tensor, "b classes"]:
        places = _places(row, shape)
        return model(torch.where(removal.gone(*places), fill[places[1]], inputs[places[1]]))  # type: ignore[no-any-return]

    return forwarded(model, one, shape, inputs)[0]


def turns(order: Int[Tensor, "n u"]) -> Int[Tensor, "n u"]:
    """When each unit goes, from the order in which they go."""
    return torch.empty_like(order).scatter_(
        1, order, torch.arange(order.shape[1], device=order.device).expand_as(order)
    )


def raster(channels: int, height: int, width: int, device: torch.device) -> Int[Tensor, "1 c h w"]:
    """Every pixel, or every entry, its own unit."""
    return torch.arange(channels * height * width, device=device).view(1, channels, height, width)


def _places(
    row: Int[Tensor, " b"], shape: tuple[int, int, int]
) -> tuple[Int[Tensor, " b"], Int[Tensor, " b"], Int[Tensor, " b"]]:
    _, images, steps = shape
    return row // (images * steps), row // steps % images, row % steps
