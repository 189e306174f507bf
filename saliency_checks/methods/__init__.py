"""Attribution methods, one file per family; importing this registers them all."""

from saliency_checks.methods import (
    backprop,
    cam,
    contrastive,
    controls,
    gradient,
    path,
    perturbation,
    recalibrated,
    references,
)

__all__ = [
    "backprop",
    "cam",
    "contrastive",
    "controls",
    "gradient",
    "path",
    "perturbation",
    "recalibrated",
    "references",
]
