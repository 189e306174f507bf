"""How concentrated is the map? No threshold separates methods from noise, so only degeneracy is gated."""

from __future__ import annotations

from dataclasses import dataclass

from saliency_checks import maps
from saliency_checks.explain import subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, same_images
from saliency_checks.subject import Subject

# Above: the same everywhere, up to a trace. Noise has .96, gradients .80 to .94, class activation maps up to .99.
UNIFORM = 0.999
# Below: one pixel and nothing else. Worth a look, not a failure.
SPARSE = 0.05


@dataclass(frozen=True, kw_only=True)
class Smallest:
    """The size from which on a pixel counts: a share of the map's largest, or in the map's own unit.

    ``in_pixels`` gives their number instead of their share.
    """

    threshold: float = 0.01
    of_largest: bool = True
    in_pixels: bool = False


ONE_PERCENT = Smallest()


@metric(alone=True, better="lower", reference="Bhatt et al. 2020, equation 5, divided by log(pixels)")
def entropy(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Entropy of |map| over pixels, as a share of the largest possible: 1 is uniform, 0 is one pixel."""
    attributions = subject_maps(method, subject, 0, min(draw.n, len(subject)), seed=draw.seed)
    return Scores(
        values=maps.entropy(attributions).cpu().numpy()[None, None],
        degenerate=float(maps.degenerate(attributions).double().mean()),
    )


@metric(
    alone=True,
    bound=">= 0.90",
    binary=True,
    n=96,
    shows=same_images,
    reference="Bhatt et al. 2020, equation 5; only degeneracy: entropies of methods and of noise overlap",
    meaning="the map is the same everywhere: it distinguishes nothing",
    if_fails=("is the map constant, all zero, or flattened by a normalisation?", "is the gradient detached?"),
)
def complexity(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of images whose map is not uniform: entropy at most .999 of the largest possible."""
    measured = entropy.measure(method, subject, draw)
    mean = float(measured.values.mean())
    sparse = ": almost all of the map lies on one pixel" if mean < SPARSE else ""
    return Scores(
        values=(measured.values <= UNIFORM).astype(float),
        degenerate=measured.degenerate,
        details={"entropy": mean, "note": f"mean entropy {mean:.2f} of the largest possible{sparse}"},
    )


@metric(alone=True, reference="Chalasani et al. 2020, section 3.3 (Gini index); Hurley and Rickard 2009")
def sparseness(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Gini index of |map| over pixels: 0 is uniform (and a zero map), towards 1 is one pixel."""
    attributions = subject_maps(method, subject, 0, min(draw.n, len(subject)), seed=draw.seed)
    return Scores(
        values=maps.gini(attributions).cpu().numpy()[None, None],
        degenerate=float(maps.degenerate(attributions).double().mean()),
    )


@metric(
    alone=True,
    better="lower",
    reference="Nguyen and Martinez 2020, effective complexity, against the map's own largest value",
)
def effective_complexity(method: Method, subject: Subject, draw: Draw, settings: Smallest = ONE_PERCENT) -> Scores:
    """Share of the pixels whose size exceeds 1 % of the largest; a zero map gets 1, as a constant one does."""
    attributions = subject_maps(method, subject, 0, min(draw.n, len(subject)), seed=draw.seed)
    size = attributions.flatten(1).abs()
    largest = size.amax(1, keepdim=True)
    counted = size > settings.threshold * (largest if settings.of_largest else 1.0)
    counted |= largest == 0  # nothing stands out where nothing is
    return Scores(
        values=counted.double().mean(1).cpu().numpy()[None, None] * (size.shape[1] if settings.in_pixels else 1),
        degenerate=float(maps.degenerate(attributions).double().mean()),
    )
