"""How few units decide: removed, they change the prediction; kept alone, they make it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.deletion_insertion import scored
from saliency_checks.perturbation import Curve, curve, whole
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float

REFERENCE = "Gevaert et al. 2022, minimal subset; Dabkowski and Gal 2017 (smallest sufficient region)"
# Finer where one expects it; the tenths are those of deletion and insertion, so that they cost nothing.
FEW = (0.01, 0.02, 0.05, 0.15)
SHARES = tuple(sorted({i / 10 for i in range(11)} | set(FEW)))
OUT = Curve(orders=("most",), fractions=SHARES, scale="raw", output="accuracy")
IN = replace(OUT, orders=("least",), fractions=tuple(sorted(round(1 - share, 9) for share in SHARES)))
SEGMENTS_OUT, SEGMENTS_IN = (replace(pixels, unit="segment", fractions=OUT.fractions) for pixels in (OUT, IN))


def smallest(is_enough: Bool[torch.Tensor, "n k"], shares: Float[torch.Tensor, " k"]) -> Float[torch.Tensor, " n"]:
    """The smallest share that is enough; 1 where none is."""
    return torch.where(is_enough, shares, 1.0).amin(1)


def deciding(method: Method, subject: Subject, draw: Draw, settings: Curve) -> Scores:
    """Most relevant first: the least share that, removed, changes the prediction. Least relevant first: the least
    share that, kept, leaves it as it is."""
    n, order = min(draw.n, len(subject)), settings.orders[0]
    before = whole(subject, n).predicted.unsqueeze(1)
    after = curve(method, subject, n, draw.seed, settings, order).predicted
    shares = torch.tensor(settings.fractions, dtype=torch.float64, device=after.device)
    found = smallest(after != before, shares) if order == "most" else smallest(after == before, 1 - shares)
    return scored(found, method, subject, draw)


@metric(
    alone=True, better="lower", readings=True, reference=REFERENCE, meaning="much must go before the prediction changes"
)
def minimal_subset_deletion(method: Method, subject: Subject, draw: Draw, settings: Curve = OUT) -> Scores:
    """Least share of the pixels, most relevant first, whose removal changes the prediction; 1 where none does."""
    return deciding(method, subject, draw, settings)


@metric(
    alone=True,
    better="lower",
    readings=True,
    reference=REFERENCE,
    meaning="much must be shown before the prediction is there",
)
def minimal_subset_insertion(method: Method, subject: Subject, draw: Draw, settings: Curve = IN) -> Scores:
    """Least share of the pixels, most relevant first, that alone makes the same prediction."""
    return deciding(method, subject, draw, settings)


@metric(
    alone=True,
    better="lower",
    readings=True,
    reference=REFERENCE,
    meaning="many segments must go before the prediction changes",
)
def segment_minimal_subset_deletion(
    method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_OUT
) -> Scores:
    """As ``minimal_subset_deletion``, of the segments."""
    return deciding(method, subject, draw, settings)


@metric(
    alone=True,
    better="lower",
    readings=True,
    reference=REFERENCE,
    meaning="many segments must be shown to make the prediction",
)
def segment_minimal_subset_insertion(
    method: Method, subject: Subject, draw: Draw, settings: Curve = SEGMENTS_IN
) -> Scores:
    """As ``minimal_subset_insertion``, of the segments."""
    return deciding(method, subject, draw, settings)
