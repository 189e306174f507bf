"""Attribution methods, one file per family; importing this registers them all."""

from saliency_checks.methods import backprop, cam, controls, gradient, path, perturbation

__all__ = ["backprop", "cam", "controls", "gradient", "path", "perturbation"]
