"""By segments: how fast the class goes, and how fast it comes."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import one_side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

SEGMENTS_OUT = Curve(
    unit="segment", output="probability", scale="own", orders=("most",), against="whole",
    fractions=tuple(i / 20 for i in range(21)),
)  # fmt: skip
SEGMENTS_IN = Curve(
    unit="segment", output="probability", scale="own", orders=("least",), fractions=SEGMENTS_OUT.fractions
)


@metric(
    alone=True,
    readings=True,
    reference="Rieger and Hansen 2020, IROF, equation 1",
    meaning="the class survives the removal of the segments that rank first",
)
def irof(method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_OUT) -> Scores:
    """Area over the curve of the class's relative probability, most relevant segments removed first."""
    return one_side(method, subject, draw, settings)


@metric(
    alone=True,
    readings=True,
    reference="Gevaert et al. 2022, iterative insertion of features: IROF from the other end",
    meaning="the segments that rank first do not bring the class",
)
def iiof(method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_IN) -> Scores:
    """Area under the curve of the class's relative probability, most relevant segments shown first."""
    return one_side(method, subject, draw, settings)
