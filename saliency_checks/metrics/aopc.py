"""The area over the perturbation curve: how fast the output falls, most relevant units first."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

FALL = Curve(orders=("most",), rule="mean", against="whole")


@metric(
    alone=True,
    readings=True,
    reference="Samek et al. 2017, equation 12, with pixels in the place of 9 x 9 blocks",
    meaning="the output hardly falls when what ranks first is removed",
)
def aopc(method: Method, subject: Subject, draw: Draw, settings: Curve = FALL) -> Scores:
    """Mean fall of the output over the removed shares, in units of the original output."""
    return one_side(method, subject, draw, settings)
