"""Does the map change when one layer's weights are replaced by random ones, each layer in turn?"""

from __future__ import annotations

from saliency_checks import randomization
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, same_images
from saliency_checks.metrics.cascading_randomization import randomization_scores
from saliency_checks.subject import Subject


@metric(
    alone=True,
    bound=">= 0.50",
    needs={"randomization"},
    n=64,
    extra=lambda draw: draw.redraws * randomization.MOST_BLOCKS + 1,
    shows=same_images,
    reference="Adebayo et al. 2018, section 3.2",
    meaning="the map hardly moves although one layer's weights were drawn again",
    if_fails=(
        "which layer? details['similarity'] has one number per layer, the output's first",
        "does the explainer skip layers (a backward rule, a fixed model)?",
        "does cascading_randomization fail too?",
    ),
)
def independent_randomization(method: Method, subject: Subject, draw: Draw) -> Scores:
    """1 - similarity to the original map, mean over the layers, each drawn again alone."""
    return randomization_scores(randomization.independent, method, subject, draw)
