"""Asked for two classes in turn, does the map point at each one's own cause?"""

from __future__ import annotations

import numpy as np
import torch

from saliency_checks import maps
from saliency_checks.explain import model_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, Shown, metric
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.subject import Subject


def _asked_first(method: Method, subject: Subject, draw: Draw, group: int) -> Shown:
    """The images with two causes and the maps of the first class, whose own site is the truth."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member.pairs.inputs) for member in members))
    contrast = members[group].pairs
    found = model_maps(
        method, members[group], members[group].model, contrast.inputs, contrast.targets[:, 0], 0, n,
        seed=draw.seed, stream="contrast 0",
    )  # fmt: skip
    return Shown(inputs=contrast.inputs[:n], maps=found, truth=contrast.sites[:n, 0])


@metric(
    bound=">= 0.70",
    needs={"contrast"},
    n=96,
    extra=lambda draw: 2,
    shows=_asked_first,
    reference="Yona & Greenfeld 2021 (two labellings of one image); Sixt et al. 2020 (random-logit test)",
    meaning="the map does not depend on the class that it is asked to explain, or points at the wrong one",
    if_fails=(
        "is the target argument used at all, and the same one for gradient and forward pass?",
        "is the sign right: positive for what speaks for the class?",
        "is the map an absolute value? then evidence against a class counts for it",
    ),
)
def class_contrast(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of questions for which the asked class's own site outranks the other class's; chance is 1/2."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member.pairs.inputs) for member in members))
    values, constant = [], []
    for member in members:
        contrast, won = member.pairs, []
        for asked in (0, 1):
            attributions = model_maps(
                method, member, member.model, contrast.inputs, contrast.targets[:, asked], 0, n,
                seed=draw.seed, stream=f"contrast {asked}",
            )  # fmt: skip
            # On a graft the asked logit does not depend on the other site at all, so that a magnitude is enough.
            read = attributions if member.clean is None else reading(attributions, method)
            own, other = maps.over_masks(read, contrast.sites[:n]).roll(-asked, dims=1).unbind(1)
            won.append((own > other).double() + 0.5 * (own == other).double())
            constant.append(float(maps.degenerate(attributions).double().mean()))
        values.append(torch.stack(won).mean(0).cpu().numpy())
    return Scores(
        values=np.stack(values)[:, None, :],
        groups=tuple(f"replica {i}" for i in range(len(members))),
        degenerate=max(constant),
    )
