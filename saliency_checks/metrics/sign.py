"""Is the known cause of the class given a positive contribution?"""

from __future__ import annotations

import numpy as np

from saliency_checks import maps
from saliency_checks.explain import subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, own_images
from saliency_checks.subject import Subject


def _only_signed(method: Method) -> str:
    if method.signed:
        return ""
    return f"{method.name} does not say that its sign means for or against the class (signed=True would)"


@metric(
    bound=">= 0.50",
    needs={"removal"},
    applies=_only_signed,
    n=96,
    shows=own_images,
    reference="Ancona et al. 2018, section 2 (contributions); sign by construction",
    meaning="the map says that the cause of the class speaks against it",
    if_fails=(
        "is the map multiplied by -1, or is a loss explained instead of the class's logit?",
        "is the explained class the asked one?",
        "is the method really signed? sensitivities (gradients) are not: signed=False",
    ),
)
def sign(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Mean sign of the map, summed over the planted site, for the true class: 1 always positive, -1 always negative."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member) for member in members))
    found = [subject_maps(method, member, 0, n, seed=draw.seed) for member in members]
    values = []
    for attributions, member in zip(found, members, strict=True):
        assert member.truth is not None
        values.append(maps.over_masks(attributions, member.truth[:n].unsqueeze(1))[:, 0].sign().double().cpu().numpy())
    return Scores(
        values=np.stack(values)[:, None, :],
        groups=tuple(f"replica {i}" for i in range(len(members))),
        degenerate=max(float(maps.degenerate(a).double().mean()) for a in found),
    )
