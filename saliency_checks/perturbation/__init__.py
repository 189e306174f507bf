"""The hot loop: orders x shares x imputers x images -> what the model says, planned before it is measured."""

from saliency_checks.perturbation.curves import area as area
from saliency_checks.perturbation.curves import curve as curve
from saliency_checks.perturbation.curves import random_curves as random_curves
from saliency_checks.perturbation.curves import scaled as scaled
from saliency_checks.perturbation.curves import whole as whole
from saliency_checks.perturbation.engine import OUTPUTS as OUTPUTS
from saliency_checks.perturbation.engine import Answers as Answers
from saliency_checks.perturbation.engine import Removal as Removal
from saliency_checks.perturbation.engine import answers as answers
from saliency_checks.perturbation.engine import outputs as outputs
from saliency_checks.perturbation.imputers import IMPUTERS as IMPUTERS
from saliency_checks.perturbation.imputers import imputer as imputer
from saliency_checks.perturbation.imputers import local_mean as local_mean
from saliency_checks.perturbation.nudges import Nudges as Nudges
from saliency_checks.perturbation.settings import Curve as Curve
from saliency_checks.perturbation.settings import Perturbation as Perturbation
from saliency_checks.perturbation.settings import Plan as Plan
from saliency_checks.perturbation.subsets import Subsets as Subsets
