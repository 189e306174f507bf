"""Do the contributions in a random subset add up to what the output loses without it?"""

from __future__ import annotations

from dataclasses import replace

import torch

from saliency_checks import maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored
from saliency_checks.perturbation import Subsets
from saliency_checks.perturbation.subsets import drawn, sums, without
from saliency_checks.perturbation.units import blocks, unit_values, units_of
from saliency_checks.subject import Subject

PIXELS = Subsets()
SEGMENTS = replace(PIXELS, unit="segment", sizes=(0.1, 0.2, 0.3, 0.4, 0.5))


def correlations(method: Method, subject: Subject, draw: Draw, settings: Subsets) -> Scores:
    """Mean over the sizes of the correlation over subsets; 0 where either side is constant."""
    n, found = min(draw.n, len(subject)), []
    for rows in blocks(subject, n):
        units = units_of(subject, rows, settings)
        subsets = drawn(subject, rows, draw.seed, settings, units)
        values = unit_values(method, subject, rows, draw.seed, settings, units)
        # f(x) is the same for all subsets, and so does not change the correlation.
        lost = -without(subject, rows, draw.seed, settings, subsets).read(settings.output).double()
        of_size = [
            maps.pearson(sums(subset, values).T, lost_of_size.T)
            for subset, lost_of_size in zip(subsets, lost.unbind(2), strict=True)
        ]
        found.append(torch.stack(of_size).mean(0))
    return scored(torch.cat(found)[:n], method, subject, draw)


@metric(
    alone=True,
    readings=True,
    n=32,
    reference="Ancona et al. 2018, sensitivity-n, equation 5; as measured by Gevaert et al. 2022",
    meaning="what the map attributes to a set of pixels does not tell what the output loses without it",
)
def sensitivity_n(method: Method, subject: Subject, draw: Draw, settings: Subsets = PIXELS) -> Scores:
    """Correlation over random sets of pixels of their contributions' sum with the fall of the logit without them."""
    return correlations(method, subject, draw, settings)


@metric(
    alone=True,
    readings=True,
    n=32,
    reference="Gevaert et al. 2022, segment sensitivity-n: less noise than single pixels",
    meaning="what the map attributes to a set of segments does not tell what the output loses without it",
)
def segment_sensitivity_n(method: Method, subject: Subject, draw: Draw, settings: Subsets = SEGMENTS) -> Scores:
    """As ``sensitivity_n``, over random sets of segments."""
    return correlations(method, subject, draw, settings)
