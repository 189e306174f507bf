"""Deletion alone: most relevant pixels first. Measured and reported; maps of bright pixels do well on it."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.subject import Subject


@metric(readings=True, reference="Petsiuk et al. 2018, section 4.1", meaning="deleting what ranks first hurts little")
def deletion(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Area between a random order's curve and the map's, most relevant first, removed pixels at the absent value."""
    return one_side(0, "mean", method, subject, draw)


@metric(readings=True, reference="Samek et al. 2017, with the black fill that many papers use")
def deletion_black(method: Method, subject: Subject, draw: Draw) -> Scores:
    """As ``deletion``, removed pixels black: input magnitude alone beats the gradient here, so never gate on it."""
    return one_side(0, "black", method, subject, draw)
