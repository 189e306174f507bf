"""The hot loop: orders x counts x fills -> model outputs, batched over images and steps together."""

from saliency_checks.perturbation.engine import outputs as outputs
from saliency_checks.perturbation.imputers import FILLS as FILLS
