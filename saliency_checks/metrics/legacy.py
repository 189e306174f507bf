"""Forms in which papers report these properties. Each has a known way to mislead, so none is gated."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from saliency_checks import maps, randomization
from saliency_checks.explain import derive, explain, generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.cascading_randomization import similarities
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float


@metric(alone=True, better="lower", needs={"randomization"}, reference="Adebayo et al. 2018, Figure 2, last column")
def cascading_final_similarity(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Signed rank correlation with the map of the fully randomised model; a random map scores best, 0."""
    _, rho = similarities(randomization.cascading, method, subject, draw, min(draw.n, len(subject)))
    return Scores(values=rho[:, -1].double().cpu().numpy()[None])


@metric(better="lower", needs={"randomization"}, reference="Adebayo et al. 2018, absolute rank correlation")
def cascading_abs_similarity(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Absolute rank correlation with the fully randomised model's map; .9 for anything multiplied by the input."""
    n = min(draw.n, len(subject))
    original = subject_maps(method, subject, 0, n, seed=draw.seed).abs()
    values = []
    for redraw in range(draw.redraws):
        seed = derive("cascading", subject.name, draw.seed, redraw)
        *_, (_, model) = randomization.cascading(subject.model, subject.inputs, seed)
        changed = explain(
            method, model, subject.inputs[:n], subject.targets[:n], seed=derive(seed, method.name), **subject.supplies
        )  # fmt: skip
        values.append(maps.spearman(original, changed.abs()).cpu().numpy())
    return Scores(values=np.stack(values)[None])


def _points_at(attributions: Float[Tensor, "n h w"], subject: Subject, rng: str) -> Scores:
    assert subject.truth is not None
    n = len(attributions)
    first = maps.strict_order(attributions.flatten(1), generator(rng, subject.name))[:, :1]
    hit = subject.truth[:n].flatten(1).gather(1, first)[:, 0]
    return Scores(values=hit.double().cpu().numpy()[None, None])


@metric(needs={"truth"}, binary=True, reference="Yasin, Hare, Marcu 2024: attribution_correct_accuracy")
def pointing(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of images whose largest signed value lies on the planted pixel; ties by lot (the paper: a hit).

    On planted_pixel_mlp the pixel has a fixed position, as in the paper.
    """
    return _points_at(subject_maps(method, subject, 0, min(draw.n, len(subject)), seed=draw.seed), subject, "pointing")


@metric(needs={"truth"}, binary=True, reference="Yasin, Hare, Marcu 2024, on the magnitude")
def pointing_magnitude(method: Method, subject: Subject, draw: Draw) -> Scores:
    """As ``pointing``, on the absolute map."""
    attributions = subject_maps(method, subject, 0, min(draw.n, len(subject)), seed=draw.seed).abs()
    return _points_at(attributions, subject, "pointing magnitude")
