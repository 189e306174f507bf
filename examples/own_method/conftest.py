"""What there is to say about the method. pytest reads this file, so the checks know the method by its name."""

import attribution

import saliency_checks as sc

# It wants to be told what "absent" means, gives contributions (for and against the class), and draws noise.
sc.method(needs={"gradient", "baseline"}, signed=True, stochastic=True)(attribution.smooth_ig)
