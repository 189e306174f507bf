"""The area over the perturbation curve: how fast the output falls, most relevant units first."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

FALL = Curve(orders=("most",), rule="mean", against="whole")
SEGMENTS_OUT = Curve(
    unit="segment", output="probability", scale="own", orders=("most",), against="whole",
    fractions=tuple(i / 20 for i in range(21)),
)  # fmt: skip
SEGMENTS_IN = Curve(
    unit="segment", output="probability", scale="own", orders=("least",), fractions=SEGMENTS_OUT.fractions
)


@metric(
    readings=True,
    reference="Samek et al. 2017, equation 12, with pixels in the place of 9 x 9 blocks",
    meaning="the output hardly falls when what ranks first is removed",
)
def aopc(method: Method, subject: Subject, draw: Draw, settings: Curve = FALL) -> Scores:
    """Mean fall of the output over the removed shares, in units of the original output."""
    return one_side(method, subject, draw, settings)


@metric(
    readings=True,
    reference="Rieger and Hansen 2020, IROF, equation 1",
    meaning="the class survives the removal of the segments that rank first",
)
def irof(method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_OUT) -> Scores:
    """Area over the curve of the class's relative probability, most relevant segments removed first."""
    return one_side(method, subject, draw, settings)


@metric(
    readings=True,
    reference="Gevaert et al. 2022, iterative insertion of features: IROF from the other end",
    meaning="the segments that rank first do not bring the class",
)
def iiof(method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_IN) -> Scores:
    """Area under the curve of the class's relative probability, most relevant segments shown first."""
    return one_side(method, subject, draw, settings)
