"""Axioms of attribution, tested on small random networks: what each says, the networks, and the search.

Importing this does not import Hypothesis; the search does.
"""

from saliency_checks.axioms.laws import (
    LAWS,
    Found,
    Question,
    completeness,
    dummy,
    implementation_invariance,
    input_shift_invariance,
    linearity,
    saturation,
    scale,
    symmetry,
)
from saliency_checks.axioms.networks import (
    Blind,
    Combination,
    Exchanged,
    Minimum,
    Order,
    Saturating,
    Shifted,
    with_weights,
)

__all__ = [
    "LAWS",
    "Blind",
    "Combination",
    "Exchanged",
    "Found",
    "Minimum",
    "Order",
    "Question",
    "Saturating",
    "Shifted",
    "completeness",
    "dummy",
    "implementation_invariance",
    "input_shift_invariance",
    "linearity",
    "saturation",
    "scale",
    "symmetry",
    "with_weights",
]
