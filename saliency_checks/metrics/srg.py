"""The area between the two curves: least relevant first minus most relevant first."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored, side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

PAIR = Curve()


def difference(method: Method, subject: Subject, draw: Draw, settings: Curve, share: float = 1.0) -> Scores:
    """``share`` of the area under the second of ``settings.orders`` less that under the first."""
    n = min(draw.n, len(subject))
    first, second = (side(method, subject, n, draw.seed, settings, order) for order in settings.orders)
    between = (second[1] - first[1]).mean(0).tolist()
    values = share * (second[0] - first[0])
    return scored(values, method, subject, draw, fractions=settings.fractions, difference=between)


@metric(
    alone=True,
    readings=True,
    reference="Bluecher et al. 2024, symmetric relevance gain, equation 6; Samek et al. 2017, ABPC",
    meaning="it hardly matters whether deletion starts with what the map ranks first or last",
)
def srg(method: Method, subject: Subject, draw: Draw, settings: Curve = PAIR) -> Scores:
    """Area between the curves of least and of most relevant first, in units of the original output; 0 at random."""
    return difference(method, subject, draw, settings)
