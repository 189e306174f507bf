"""Both sides of the ranking with holes that are filled from around them, so that the mask itself tells nothing."""

from __future__ import annotations

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.srg import difference
from saliency_checks.perturbation import Curve
from saliency_checks.subject import Subject

ROAD = Curve(imputer="noisy_linear", output="probability", scale="raw", fractions=(0.2, 0.4, 0.6, 0.8), rule="mean")


@metric(
    alone=True,
    readings=True,
    reference="Rong et al. 2022, ROAD; both sides as in pytorch-grad-cam: (least - most) / 2",
    meaning="where holes are filled from around, it hardly matters which end of the ranking they come from",
)
def road(method: Method, subject: Subject, draw: Draw, settings: Curve = ROAD) -> Scores:
    """Half the difference in probability, least against most relevant first, noisy linear imputation."""
    return difference(method, subject, draw, settings, share=0.5)
