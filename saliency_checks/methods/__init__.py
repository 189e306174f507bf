"""Attribution methods, one file per family; importing this registers them all."""

from saliency_checks.methods import (
    backprop,
    cam,
    cam_perturbation,
    contrastive,
    controls,
    deep_lift,
    full_gradient,
    gradient,
    information,
    path,
    perturbation,
    recalibrated,
    references,
    regions,
    relevance,
)

__all__ = [
    "backprop",
    "cam",
    "cam_perturbation",
    "contrastive",
    "controls",
    "deep_lift",
    "full_gradient",
    "gradient",
    "information",
    "path",
    "perturbation",
    "recalibrated",
    "references",
    "regions",
    "relevance",
]
