"""The map against that of a model whose weights were all drawn again at once.

A random map changes completely too and so scores best, 0: read it beside a check of recovery. A zero or constant map
never moves: 1. ``cascading_randomization`` is the form that is gated.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from saliency_checks import maps, randomization
from saliency_checks.explain import derive, model_maps, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.cascading_randomization import drawn
from saliency_checks.subject import Subject


@dataclass(frozen=True, kw_only=True)
class Reset:
    """How often all weights are drawn again; None as the profile says."""

    redraws: int | None = None


BY_PROFILE = Reset()


@metric(
    alone=True,
    better="lower", needs={"randomization"}, reference="Gevaert et al. 2024 (attribench); Adebayo et al. 2018",
    meaning="the map stays although all weights were drawn again",
)  # fmt: skip
def parameter_randomization(method: Method, subject: Subject, draw: Draw, settings: Reset = BY_PROFILE) -> Scores:
    """Rank correlation of the signed maps before and after all weights are drawn again; the class asked stays."""
    n = min(draw.n, len(subject))
    original = subject_maps(method, subject, 0, n, seed=draw.seed)
    constant = maps.degenerate(original)
    values = []
    for redraw in range(settings.redraws or draw.redraws):
        seed = derive("complete", subject.name, draw.seed, redraw)
        ((_, model),) = drawn(randomization.complete, subject, seed)
        changed = model_maps(
            method, subject, model, subject.inputs, subject.targets, 0, n, seed=draw.seed, stream=f"complete {redraw}"
        )
        values.append(maps.spearman(original, changed).masked_fill(constant, 1.0).cpu().numpy())
    return Scores(values=np.stack(values)[None], degenerate=float(constant.double().mean()))
