"""Deletion alone: most relevant units first. Measured and reported; maps of bright pixels do well on it."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

MOST = Curve(orders=("most",), against="random")
MOST_BLACK = Curve(imputer="black", orders=("most",), against="random")


@metric(
    alone=True,
    readings=True,
    reference="Petsiuk et al. 2018, section 4.1",
    meaning="deleting what ranks first hurts little",
)
def deletion(method: Method, subject: Subject, draw: Draw, settings: Curve = MOST) -> Scores:
    """Area between a random order's curve and the map's, most relevant first, removed pixels at the absent value."""
    return one_side(method, subject, draw, settings)


@metric(alone=True, readings=True, reference="Samek et al. 2017, with the black fill that many papers use")
def deletion_black(method: Method, subject: Subject, draw: Draw, settings: Curve = MOST_BLACK) -> Scores:
    """As ``deletion``, removed pixels black: input magnitude alone beats the gradient here, so never gate on it."""
    return one_side(method, subject, draw, settings)
