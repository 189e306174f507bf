"""How small a cause can the map still find? Ground truth on the user's own model, see :mod:`saliency_checks.graft`."""

from __future__ import annotations

import time

import numpy as np
import torch
from numpy.typing import NDArray

from saliency_checks import maps
from saliency_checks.explain import explain, model_maps, subject_maps
from saliency_checks.fixtures import progress
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.pixel_recovery import strengths
from saliency_checks.subject import Subject

EFFECTS = (0.5, 1.0, 2.0, 4.0)
NEVER = 2 * EFFECTS[-1]  # stands for: not even the largest
TRIAL = 2  # images
RECOVERY = 0.75  # share of the images, as in pixel_recovery


def found(attributions: torch.Tensor, subject: Subject) -> NDArray[np.bool_]:
    """Where the mean |map| over the site exceeds that over every decoy; a tie has not found it."""
    strength = strengths(attributions, subject)
    return (strength[:, 0] > strength[:, 1:].amax(1)).cpu().numpy()


def thresholds(hits: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The effect from which on each image's cause is found: the step with the fewest exceptions, the later one of two.

    A monotone fit (least squares with one step) for each image; ``NEVER`` where the best step lies beyond all effects.

    Args:
        hits: array (effects, images), effects in rising order.
    """
    steps = len(hits) + 1
    early = np.stack([hits[:step].sum(0) for step in range(steps)])  # found before the step
    late = np.stack([(~hits[step:]).sum(0) for step in range(steps)])  # missed from there on
    best = steps - 1 - (early + late)[::-1].argmin(0)
    found_from: NDArray[np.float64] = np.asarray([*EFFECTS, NEVER])[best]
    return found_from


@metric(
    bound="<= 2",
    better="lower",
    needs={"graded"},
    quantile=RECOVERY,
    extra=lambda draw: 3 * len(EFFECTS),
    n=32,  # for each of three detectors and each effect
    reference="docs of this project (a graded cause grafted onto the model); detection thresholds: psychophysics",
    meaning="the map finds a cause in this model only where it is large against the model's other evidence",
    if_fails=(
        "does pixel_recovery on the graft fail too? then the map misses even a large cause",
        "does the map show the input, or a fixed model, rather than what the asked class depends on?",
        "is the map noisy? more samples, more steps",
        "is the gradient shattered in this model? then averaging methods find smaller causes",
    ),
)
def acuity(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Least effect (in spreads of the model's logits) from which three of four images' causes are found."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member) for member in members))
    hits, constant = np.zeros((len(members), len(EFFECTS), n), dtype=bool), 0.0
    effects = EFFECTS[:1] if method.control else EFFECTS  # which never looks at the model
    cells = [(i, member, j) for i, member in enumerate(members) for j in range(len(effects))]
    seconds, started = _trial(method, members[0]) * len(cells) * n, time.perf_counter()
    for done, (i, member, j) in enumerate(cells):
        if done:
            seconds = (time.perf_counter() - started) * (len(cells) / done - 1)
        with progress.line() as say:
            counted = f"{done * n} of {len(cells) * n} explanations"
            say(f"acuity/{method.name}/{subject.name}: {counted}, about {seconds:.0f} s left")
            attributions = _maps(method, member, effects[j], n, draw.seed)
        hits[i, j] = found(attributions, member)
        constant = max(constant, float(maps.degenerate(attributions).double().mean()))
    hits[:, len(effects) :] = hits[:, :1]
    recovery = [[round(float(row.mean()), 3) for row in rows] for rows in hits]
    return Scores(
        values=np.stack([thresholds(rows) for rows in hits])[:, None, :],
        groups=tuple(f"detector {i}" for i in range(len(members))),
        degenerate=constant,
        details={"effects": EFFECTS, "recovery": recovery, "note": _note(recovery)},
    )


def _maps(method: Method, member: Subject, effect: float, n: int, seed: int) -> torch.Tensor:
    if effect == member.model.effect:
        return subject_maps(method, member, 0, n, seed=seed)  # the maps of the other checks
    model = member.model.at(effect)  # type: ignore[operator]
    return model_maps(
        method, member, model, member.inputs, member.targets, 0, n, seed=seed, stream=f"effect {effect}"
    )  # fmt: skip


def _trial(method: Method, member: Subject) -> float:
    """Seconds that one explanation takes, measured before all the others so that the cost is known."""
    rows, started = slice(TRIAL), time.perf_counter()
    explain(method, member.model, member.inputs[rows], member.targets[rows], seed=0, **member.supplies)
    return (time.perf_counter() - started) / TRIAL


def _note(recovery: list[list[float]]) -> str:
    worst = [min(column) for column in zip(*recovery, strict=True)]
    curve = ", ".join(f"{effect:g}: {share:.2f}" for effect, share in zip(EFFECTS, worst, strict=True))
    return f"found in a share of the images, by effect (worst detector): {curve}"
