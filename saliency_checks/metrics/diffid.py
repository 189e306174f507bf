"""Keeping what ranks first against deleting it, at every share: the same two curves, at their inner steps."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.srg import difference
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

TENTHS_INSIDE = Curve(fractions=tuple(i / 10 for i in range(1, 10)), rule="mean")


@metric(
    alone=True,
    readings=True,
    reference="Yang et al. 2023, recalibrated integrated gradients, DiffID",
    meaning="keeping what the map ranks first is no better than deleting it",
)
def diffid(method: Method, subject: Subject, draw: Draw, settings: Curve = TENTHS_INSIDE) -> Scores:
    """Output with the lowest-ranked share removed, less that with the highest-ranked removed; mean of .1 to .9."""
    return difference(method, subject, draw, settings)
