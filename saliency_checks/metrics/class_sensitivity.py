"""Does the map depend on the class that is asked?"""

from __future__ import annotations

from saliency_checks import maps
from saliency_checks.asking import classes
from saliency_checks.explain import model_maps, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.cascading_randomization import LEAST_REPEAT, present, repeat
from saliency_checks.subject import Subject, Unqualified


def _fall(which: str, method: Method, subject: Subject, draw: Draw) -> Scores:
    """Fall of similarity from a second call for the same class to a call for another one, by repeatability."""
    n = min(draw.n, len(subject))
    other = classes(subject, which, draw.seed)
    original = subject_maps(method, subject, 0, n, seed=draw.seed)
    changed = model_maps(
        method, subject, subject.model, subject.inputs, other, 0, n, seed=draw.seed, stream=f"class {which}"
    )
    repeated = repeat(method, subject, draw, n)
    rho = maps.similarity(original, changed, present(subject, n))
    # The least likely class may be the one that was given: then there is no other map to expect.
    fall = ((repeated - rho) / repeated.clamp(min=LEAST_REPEAT))[(other != subject.targets)[:n]]
    if not len(fall):
        raise Unqualified(f"{subject.name}: the {which} class is the given one on all {n} images")
    return Scores(
        values=fall.double().cpu().numpy()[None, None],
        degenerate=float(maps.degenerate(original).double().mean()),
        details={"similarity": float(rho.mean()), "repeat": float(repeated.mean())},
    )


@metric(
    reference="Sixt et al. 2020, section 5.2 (random-logit test)",
    meaning="another class gets the same map",
    if_fails=("is the target argument used?", "does a backward rule ignore the upper layers?"),
)
def random_logit(method: Method, subject: Subject, draw: Draw) -> Scores:
    """1 - similarity of the maps of the given and of a random other class, by repeatability; 0: the class is ignored.

    A map that does not repeat itself (noise) scores 0 as well.
    """
    return _fall("random", method, subject, draw)


@metric(reference="Zhang et al. 2024 (saliencysense): least likely class as negative control")
def least_likely_contrast(method: Method, subject: Subject, draw: Draw) -> Scores:
    """As ``random_logit``, with the class that the model finds least likely."""
    return _fall("least_likely", method, subject, draw)
