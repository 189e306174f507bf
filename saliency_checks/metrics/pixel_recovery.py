"""Does the map find the one pixel that causes the class, among decoys that look alike?"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.explain import generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, own_images
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float


def strengths(attributions: Float[Tensor, "n h w"], subject: Subject) -> Float[Tensor, "n k"]:
    """Mean |map| over the site, then over each decoy."""
    assert subject.truth is not None
    assert subject.decoys is not None
    n = len(attributions)
    masks = torch.cat([subject.truth[:n].unsqueeze(1), subject.decoys[:n]], dim=1)
    return maps.over_masks(attributions.abs(), masks)


def beats_decoys(
    attributions: Float[Tensor, "n h w"], subject: Subject, rng: torch.Generator
) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """1 where the mean |map| over the site exceeds that over every decoy, else 0; ties fall by lot.

    Whoever cannot tell the class's hue from the decoys' wins with probability 1/(decoys + 1) exactly: no
    tolerance in pixels, and a coarse map is not blamed for being coarse.
    """
    winner = maps.strict_order(strengths(attributions, subject), rng)[:, 0]
    return (winner == 0).double().cpu().numpy()


@metric(
    bound=">= 0.75",
    needs={"truth"},
    binary=True,
    n=96,
    shows=own_images,
    reference="Yasin, Hare, Marcu 2024 (one discriminative pixel); decoys: docs of this project",
    meaning="the map ranks a pixel that the model does not use above the one that alone decides the class",
    if_fails=(
        "are the maps for these inputs, in this order and orientation (transposed, flipped, shifted)?",
        "is the asked class explained, not the predicted or a fixed one?",
        "does a baseline or a magnitude of the input decide the map instead of the model?",
    ),
)
def pixel_recovery(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of images in which the planted site outranks all decoys; the worst replica counts."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member) for member in members))
    found = [subject_maps(method, member, 0, n, seed=draw.seed) for member in members]
    values = [
        beats_decoys(attributions, member, generator("ties", member.name, i, draw.seed))
        for i, (attributions, member) in enumerate(zip(found, members, strict=True))
    ]
    return Scores(
        values=np.stack(values)[:, None, :],
        groups=tuple(f"replica {i}" for i in range(len(members))),
        degenerate=max(float(maps.degenerate(a).double().mean()) for a in found),
    )
