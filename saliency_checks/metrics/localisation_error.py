"""Is the box around the map the box around the cause?

A box is the smallest one around a connected part of a mask; rows and columns are inclusive on both ends. A map
without evidence (see localisation.py) has no box, which is an error, and its energy is the boxes' share of the image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.localisation import Located, located, mass_share
from saliency_checks.neighbours import predicted
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    Box = tuple[slice, slice]


@dataclass(frozen=True, kw_only=True)
class BoxMatch:
    """The overlap (IoU) that two boxes need to be the same thing (ILSVRC)."""

    overlap: float = 0.5


HALF = BoxMatch()


def boxes(mask: NDArray[np.bool_]) -> list[Box]:
    """The box of each connected part (neighbours also across corners) of one mask (H, W)."""
    from scipy import ndimage

    return list(ndimage.find_objects(ndimage.label(mask, np.ones((3, 3)))[0]))


def largest_box(mask: NDArray[np.bool_]) -> Box | None:
    """The box of the part with most pixels; None where the mask is empty."""
    from scipy import ndimage

    parts, count = ndimage.label(mask, np.ones((3, 3)))
    if not count:
        return None
    largest = int(np.bincount(parts.ravel())[1:].argmax())
    found: Box = ndimage.find_objects(parts)[largest]
    return found


def overlap(one: Box, other: Box) -> float:
    """Intersection over union of two boxes."""
    both = np.prod([max(0, min(a.stop, b.stop) - max(a.start, b.start)) for a, b in zip(one, other, strict=True)])
    areas = [np.prod([side.stop - side.start for side in box]) for box in (one, other)]
    return float(both / (sum(areas) - both))


def box_errors(found: Located, settings: BoxMatch) -> NDArray[np.float64]:
    """1 where the box around the largest part above the map's mean matches no box of the truth."""
    above = found.evidence.double() > found.evidence.double().mean((1, 2), keepdim=True)
    pairs = zip(above.cpu().numpy(), found.mask.cpu().numpy(), strict=True)
    found_boxes = [(largest_box(drawn), boxes(truth)) for drawn, truth in pairs]
    hits = [box is not None and max(overlap(box, one) for one in true) > settings.overlap for box, true in found_boxes]
    return 1.0 - np.array(hits, dtype=np.float64)


@metric(needs={"mask"}, readings=True, reference="Wang et al. 2020, equation 6 (Score-CAM)")
def energy_pointing_game(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of the evidence that lies in the truth's boxes."""
    found = located(method, subject, draw)
    inside = np.zeros(found.mask.shape, dtype=bool)
    for filled, mask in zip(inside, found.mask.cpu().numpy(), strict=True):
        for box in boxes(mask):
            filled[box] = True
    return found.scores(mass_share(found.evidence, torch.from_numpy(inside).to(found.mask.device)))


@metric(
    better="lower",
    needs={"mask"},
    readings=True,
    binary=True,
    reference="ILSVRC 2014 localisation with the class given",
)
def localisation_error(method: Method, subject: Subject, draw: Draw, settings: BoxMatch = HALF) -> Scores:
    """Share of images in which the box of the map matches no box of the truth."""
    found = located(method, subject, draw)
    return found.scores(box_errors(found, settings))


@metric(
    better="lower",
    needs={"mask"},
    readings=True,
    binary=True,
    reference="ILSVRC 2014 localisation, top 1 (saliencysense: OM)",
)
def localisation_error_top1(method: Method, subject: Subject, draw: Draw, settings: BoxMatch = HALF) -> Scores:
    """As ``localisation_error``, and an image whose explained class the model does not predict is an error too."""
    found = located(method, subject, draw)
    wrong = (predicted(subject, subject.inputs[found.rows]) != subject.targets[found.rows]).cpu().numpy()
    return found.scores(np.maximum(box_errors(found, settings), wrong))
