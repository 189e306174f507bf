"""Insertion alone: most relevant units shown first. That is deletion of the least relevant first, read backwards."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

LEAST = Curve(orders=("least",), against="random")
LEAST_BLACK = Curve(imputer="black", orders=("least",), against="random")


@metric(
    alone=True,
    readings=True,
    reference="Petsiuk et al. 2018, section 4.1",
    meaning="what ranks first does not bring the class",
)
def insertion(method: Method, subject: Subject, draw: Draw, settings: Curve = LEAST) -> Scores:
    """Area between the map's curve and a random order's, showing most relevant pixels first on the absent value."""
    return one_side(method, subject, draw, settings)


@metric(alone=True, readings=True, reference="Petsiuk et al. 2018, with a black start")
def insertion_black(method: Method, subject: Subject, draw: Draw, settings: Curve = LEAST_BLACK) -> Scores:
    """As ``insertion``, starting from a black image."""
    return one_side(method, subject, draw, settings)
