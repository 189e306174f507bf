"""Insertion alone: most relevant pixels shown first, which is deletion from the other end. Reported, not gated."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.subject import Subject


@metric(
    readings=True, reference="Petsiuk et al. 2018, section 4.1", meaning="what ranks first does not bring the class"
)
def insertion(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Area between the map's curve and a random order's, showing most relevant pixels first on the absent value."""
    return one_side(1, "mean", method, subject, draw)


@metric(readings=True, reference="Petsiuk et al. 2018, with a black start")
def insertion_black(method: Method, subject: Subject, draw: Draw) -> Scores:
    """As ``insertion``, starting from a black image."""
    return one_side(1, "black", method, subject, draw)
