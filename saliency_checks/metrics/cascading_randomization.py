"""Does the map change when the model's weights are replaced by random ones, layer after layer?"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks import maps, randomization
from saliency_checks.explain import BLOCK, derive, explain, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, same_images
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

    States = Callable[[nn.Module, Float[Tensor, "n c h w"], int], Iterator[tuple[str, nn.Module]]]

# Below this repeatability a fall in similarity says nothing, so it never divides by less.
LEAST_REPEAT = 0.3
# A fully randomised net above chance by more than this still knows the task.
ABOVE_CHANCE = 0.10
# All random states of one redraw are kept up to this size.
KEPT_BYTES = 1 << 25


def present(subject: Subject, n: int) -> Bool[Tensor, "n h w"]:
    """Pixels that hold something: off the absent value in any channel."""
    return (subject.inputs[:n] - subject.absent_value).abs().amax(1) > 1e-6


def repeat(method: Method, subject: Subject, draw: Draw, n: int) -> Float[Tensor, " n"]:
    """Similarity of two explanations of the same model under different global seeds: 1 for a deterministic method."""
    first = subject_maps(method, subject, 0, n, seed=draw.seed)
    second = subject_maps(method, subject, 0, n, seed=draw.seed, stream="repeat")
    return maps.similarity(first, second, present(subject, n))


def similarities(
    states: States, method: Method, subject: Subject, draw: Draw, n: int
) -> tuple[list[str], Float[Tensor, "r s n"]]:
    """(layers, similarity to the original map) for every redraw and step; cached, block by block.

    A map that becomes constant under random weights has similarity 0: it did change.
    """
    rows, layers = [], []
    for first in range(0, n, BLOCK):
        key = ("randomised", states.__name__, method.name, method.explain, draw.seed, draw.redraws, first)
        if key not in subject.cache:
            subject.cache[key] = _block(states, method, subject, draw, slice(first, first + BLOCK))
        layers, block = subject.cache[key]
        rows.append(block)
    return layers, torch.cat(rows, dim=2)[..., :n]


def _block(
    states: States, method: Method, subject: Subject, draw: Draw, rows: slice
) -> tuple[list[str], Float[Tensor, "r s n"]]:
    inputs, targets = subject.inputs[rows], subject.targets[rows]
    original = subject_maps(method, subject, rows.start, rows.start + len(inputs), seed=draw.seed)
    where = (inputs - subject.absent_value).abs().amax(1) > 1e-6
    redraws: list[Tensor] = []
    layers: list[str] = []
    for redraw in range(draw.redraws):
        seed = derive(states.__name__, subject.name, draw.seed, redraw)
        steps, layers = [], []
        for layer, model in drawn(states, subject, seed):
            stream = derive(
                method.name, subject.name, draw.seed, states.__name__, redraw, layer, subject.first + rows.start
            )
            changed = explain(method, model, inputs, targets, seed=stream, **subject.supplies)
            steps.append(maps.similarity(original, changed, where))
            layers.append(layer)
        redraws.append(torch.stack(steps))
    return layers, torch.stack(redraws)


def drawn(states: States, subject: Subject, seed: int) -> Iterable[tuple[str, nn.Module]]:
    """The randomised models; those of a small model are kept, because every method and control asks for them again."""
    size = sum(tensor.nbytes for tensor in subject.model.state_dict().values())
    if size * randomization.MOST_BLOCKS > KEPT_BYTES:
        return states(subject.model, subject.population.inputs, seed)
    key = ("drawn", states.__name__, seed)
    if key not in subject.cache:
        models = states(subject.model, subject.population.inputs, seed)
        subject.cache[key] = [(layer, copy.deepcopy(model)) for layer, model in models]
    kept: list[tuple[str, nn.Module]] = subject.cache[key]
    return kept


def require_chance(subject: Subject, draw: Draw) -> None:
    """Raise Unqualified when the fully randomised net still solves the task, on average over the redraws."""
    subject = subject.population
    key = ("randomised accuracy", draw.seed, draw.redraws)
    if key not in subject.cache:
        subject.cache[key] = float(np.mean([_random_accuracy(subject, draw, i) for i in range(draw.redraws)]))
    shares = subject.targets.bincount().double() / len(subject)
    chance = float(shares.max())
    accuracy: float = subject.cache[key]
    if accuracy > chance + ABOVE_CHANCE:
        raise Unqualified(
            f"the fully randomised model is still right on {accuracy:.0%} of the images (chance {chance:.0%}): its"
            " layers are not what decides"
        )


def _random_accuracy(subject: Subject, draw: Draw, redraw: int) -> float:
    seed = derive("cascading", subject.name, draw.seed, redraw)
    *_, (_, model) = drawn(randomization.cascading, subject, seed)
    with torch.no_grad():
        predicted = torch.cat([model(batch).argmax(1) for batch in subject.inputs[:256].split(64)])
    return float((predicted == subject.targets[:256]).double().mean())


def randomization_scores(states: States, method: Method, subject: Subject, draw: Draw) -> Scores:
    """Fall of similarity, mean over all steps, in units of the method's own repeatability."""
    require_chance(subject, draw)
    n = min(draw.n, len(subject))
    repeated = repeat(method, subject, draw, n)
    layers, rho = similarities(states, method, subject, draw, n)
    fall = (repeated - rho.mean(1)) / repeated.clamp(min=LEAST_REPEAT)
    original = subject_maps(method, subject, 0, n, seed=draw.seed)
    return Scores(
        values=fall.double().cpu().numpy()[None],
        degenerate=float(maps.degenerate(original).double().mean()),
        details={
            "layers": layers,
            "similarity": rho.mean((0, 2)).tolist(),
            "repeat": float(repeated.mean()),
            "note": _note(float(repeated.mean())),
        },
    )


def _note(repeated: float) -> str:
    if repeated >= LEAST_REPEAT:
        return ""
    return f"the map is not repeatable (two calls agree {repeated:.2f}), so this says nothing about the weights"


@metric(
    alone=True,
    bound=">= 0.50",
    needs={"randomization"},
    n=64,
    extra=lambda draw: draw.redraws * randomization.MOST_BLOCKS + 1,
    shows=same_images,
    reference="Adebayo et al. 2018, section 3.1; signed maps, fixed class and all steps: Sixt et al. 2020, Binder 2023",
    meaning="the map hardly moves although the model's weights were drawn again",
    if_fails=(
        "is the explainer bound to one model, so that it goes on explaining the trained one?",
        "are gradients replaced by a backward rule that ignores the upper layers (guided backprop)?",
        "does the input itself show through (edges, magnitudes)?",
        "is the map repeatable at all? see contract",
    ),
)
def cascading_randomization(method: Method, subject: Subject, draw: Draw) -> Scores:
    """1 - similarity to the original map, mean over all top-down cumulative randomisations; 0 if it never moves."""
    return randomization_scores(randomization.cascading, method, subject, draw)
