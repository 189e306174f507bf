"""The area between the two curves: least relevant first minus most relevant first."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored, side
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

PAIR = Curve()
TENTHS_INSIDE = Curve(fractions=tuple(i / 10 for i in range(1, 10)), rule="mean")
ROAD = Curve(imputer="noisy_linear", output="probability", scale="raw", fractions=(0.2, 0.4, 0.6, 0.8), rule="mean")


def difference(method: Method, subject: Subject, draw: Draw, settings: Curve, share: float = 1.0) -> Scores:
    """``share`` of the area under the second of ``settings.orders`` less that under the first."""
    n = min(draw.n, len(subject))
    first, second = (side(method, subject, n, draw.seed, settings, order) for order in settings.orders)
    between = (second[1] - first[1]).mean(0).tolist()
    values = share * (second[0] - first[0])
    return scored(values, method, subject, draw, fractions=settings.fractions, difference=between)


@metric(
    readings=True,
    reference="Bluecher et al. 2024, symmetric relevance gain, equation 6; Samek et al. 2017, ABPC",
    meaning="it hardly matters whether deletion starts with what the map ranks first or last",
)
def srg(method: Method, subject: Subject, draw: Draw, settings: Curve = PAIR) -> Scores:
    """Area between the curves of least and of most relevant first, in units of the original output; 0 at random."""
    return difference(method, subject, draw, settings)


@metric(
    readings=True,
    reference="Yang et al. 2023, recalibrated integrated gradients, DiffID",
    meaning="keeping what the map ranks first is no better than deleting it",
)
def diffid(method: Method, subject: Subject, draw: Draw, settings: Curve = TENTHS_INSIDE) -> Scores:
    """Output with the lowest-ranked share removed, less that with the highest-ranked removed; mean of .1 to .9."""
    return difference(method, subject, draw, settings)


@metric(
    readings=True,
    reference="Rong et al. 2022, ROAD; both sides as in pytorch-grad-cam: (least - most) / 2",
    meaning="where holes are filled from around, it hardly matters which end of the ranking they come from",
)
def road(method: Method, subject: Subject, draw: Draw, settings: Curve = ROAD) -> Scores:
    """Half the difference in probability, least against most relevant first, noisy linear imputation."""
    return difference(method, subject, draw, settings, share=0.5)
