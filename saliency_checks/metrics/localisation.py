"""Does the map lie where the cause (or the object) is known to be?

All measures read the evidence for the class: the positive part of a signed map, the size of another. A map without
any (zero, constant, all negative) is a uniform one: it gets the mask's share of the image.
Right places for wrong reasons, and objects in the middle of photos, raise all of these: nothing here is gated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from saliency_checks import maps
from saliency_checks.explain import subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


@dataclass(frozen=True, kw_only=True)
class Pointing:
    """How near the largest value must lie to the mask, in pixels (Euclidean); Zhang et al. 2018 take 15 of 224."""

    tolerance: float = 0.0


EXACTLY = Pointing()


@dataclass(frozen=True)
class Located:
    """Evidence and truth of the images that have any truth, and the share of constant maps."""

    evidence: Float[Tensor, "n h w"]
    mask: Bool[Tensor, "n h w"]
    rows: Tensor
    degenerate: float

    def scores(self, values: Tensor | NDArray[Any]) -> Scores:
        found = values.double().cpu().numpy() if isinstance(values, Tensor) else values
        return Scores(values=found[None, None], degenerate=self.degenerate)

    @property
    def size(self) -> Tensor:
        return self.mask.flatten(1).sum(1)


def located(method: Method, subject: Subject, draw: Draw) -> Located:
    assert subject.truth is not None
    n = min(draw.n, len(subject))
    found = subject_maps(method, subject, 0, n, seed=draw.seed)
    evidence = maps.settled(found.clamp(min=0) if method.signed else found.abs())
    mask = subject.truth[:n]
    rows = mask.flatten(1).any(1).nonzero()[:, 0]
    if not len(rows):
        raise Unqualified(f"{subject.name}: the truth of all {n} images is empty, so there is no place to find")
    return Located(evidence[rows], mask[rows], rows, float(maps.degenerate(found).double().mean()))


def mass_share(evidence: Float[Tensor, "n h w"], mask: Bool[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of the evidence that lies on the mask; the mask's share of the image where there is none."""
    flat, where = evidence.double().flatten(1), mask.flatten(1)
    total = flat.sum(1)
    return torch.where(total > 0, (flat * where).sum(1) / total.where(total > 0, 1), where.double().mean(1))


def near(mask: Bool[Tensor, "n h w"], tolerance: float) -> Bool[Tensor, "n h w"]:
    """Pixels within this distance of the mask."""
    if tolerance <= 0:
        return mask
    from scipy import ndimage

    far = [ndimage.distance_transform_edt(~one) for one in mask.cpu().numpy()]
    return torch.from_numpy(np.stack(far) <= tolerance).to(mask.device)


@metric(
    alone=True,
    needs={"mask"}, readings=True, binary=True, reference="Zhang et al. 2018, section 4.2 (Excitation Backprop)",
    meaning="the largest value lies off the cause",
)  # fmt: skip
def pointing_game(method: Method, subject: Subject, draw: Draw, settings: Pointing = EXACTLY) -> Scores:
    """Share of images whose largest value lies on the mask; of several largest, the share that does."""
    found = located(method, subject, draw)
    one = torch.ones_like(found.rows)
    where = near(found.mask, settings.tolerance).flatten(1)
    return found.scores(maps.top_hits(found.evidence.flatten(1), where, one))


@metric(alone=True, needs={"mask"}, readings=True, reference="Arras, Osman, Samek 2022, equation 1 (CLEVR-XAI)")
def relevance_mass_accuracy(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of the evidence that lies on the mask."""
    found = located(method, subject, draw)
    return found.scores(mass_share(found.evidence, found.mask))


@metric(alone=True, needs={"mask"}, readings=True, reference="Arras, Osman, Samek 2022, equation 2 (CLEVR-XAI)")
def relevance_rank_accuracy(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of the mask among as many largest values as the mask has pixels."""
    found = located(method, subject, draw)
    return found.scores(maps.top_hits(found.evidence.flatten(1), found.mask.flatten(1), found.size) / found.size)


@metric(
    alone=True,
    needs={"mask"},
    readings=True,
    reference="attribench 0.1.9, impact coverage: as many pixels as the truth has",
)
def iou_top_area(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Intersection over union of the mask and as many largest values: h / (2 k - h) for h hits of k pixels."""
    found = located(method, subject, draw)
    hits = maps.top_hits(found.evidence.flatten(1), found.mask.flatten(1), found.size)
    return found.scores(hits / (2 * found.size - hits))


@metric(alone=True, needs={"mask"}, readings=True, reference="saliencysense: pixels above the map's own mean")
def iou_above_mean(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Intersection over union of the mask and the pixels above the map's mean."""
    found = located(method, subject, draw)
    above = found.evidence.double() > found.evidence.double().mean((1, 2), keepdim=True)
    both, either = (above & found.mask).flatten(1).sum(1), (above | found.mask).flatten(1).sum(1)
    return found.scores(both / either)
