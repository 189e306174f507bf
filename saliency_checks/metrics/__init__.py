"""One file per property; importing this package registers them all."""

from saliency_checks.metrics import (  # noqa: F401
    acuity,
    axioms,
    cascading_randomization,
    class_contrast,
    complexity,
    contract,
    deletion,
    deletion_insertion,
    independent_randomization,
    insertion,
    label_permutation,
    legacy,
    pixel_recovery,
    planted_deletion,
    sign,
)
