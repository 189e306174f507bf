"""Is the map of a turned image the turned map?

Only a model that is itself equivariant deserves agreement 1, and a picture of the image has it without a model
(input magnitude, edges): nothing here is gated. A constant or zero map agrees 0, as a random one does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from saliency_checks import maps
from saliency_checks.augment import AUGMENTATIONS, Augmentation, augmented, covered, moved
from saliency_checks.explain import BLOCK, model_maps, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Metric, Scores, metric
from saliency_checks.metrics.planted_deletion import reading
from saliency_checks.neighbours import predicted
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Bool, Float


def agreement(method: Method, subject: Subject, draw: Draw, augmentation: str | Augmentation) -> Scores:
    """Correlation of the map of the transformed image with the transformed map, where the images overlap.

    MixUp mixes the maps of both images, each explained for the first one's class.
    """
    n = min(draw.n, len(subject))
    change = moved(subject, augmentation, draw.seed)
    changed = augmented(subject, augmentation, draw.seed, first=-(-n // BLOCK) * BLOCK)
    own = reading(subject_maps(method, subject, 0, n, seed=draw.seed), method).unsqueeze(1)
    other = own
    if change.partners is not None:
        mixed_in = model_maps(
            method, subject, subject.model, subject.inputs[change.partners], subject.targets, 0, n,
            seed=draw.seed, stream=f"partners {augmentation!r}",
        )  # fmt: skip
        other = reading(mixed_in, method).unsqueeze(1)
    found = reading(subject_maps(method, changed, 0, n, seed=draw.seed), method)
    where = covered(subject, change, n)
    expected = change.apply(own, other)[:, 0]
    same = predicted(subject, changed.inputs[:n]) == predicted(subject, subject.inputs[:n])
    return Scores(
        values=linear(expected, found, where).cpu().numpy()[None, None],
        degenerate=float(maps.degenerate(own[:, 0]).double().mean()),
        details={
            "ranks": float(maps.magnitude_spearman(expected, found, where).mean()),
            "same prediction": float(same.double().mean()),
        },
    )


def linear(
    one: Float[Tensor, "n h w"], other: Float[Tensor, "n h w"], where: Bool[Tensor, "n h w"]
) -> Float[Tensor, " n"]:
    """Linear correlation over the pixels in ``where``; 0 for a constant map.

    Not of ranks: where one pixel matters, the ranks are those of all the others' noise.
    """
    flat = (found.double().flatten(1) for found in (one, other, where))
    return maps.pearson(*flat).masked_fill(maps.degenerate(one) | maps.degenerate(other), 0.0)


def _register(name: str) -> Metric:
    def measure(method: Method, subject: Subject, draw: Draw) -> Scores:
        return agreement(method, subject, draw, name)

    measure.__doc__ = f"Correlation of the map of the image after {name} with the map after {name}."
    return metric(
        name=f"{name}_agreement",
        n=32,
        readings=True,
        reference="images of Zhang et al. 2024 (saliencysense), table 4; Wang et al. 2020 (SEAM)",
        meaning="the map depends on where and how large things are shown",
    )(measure)


METRICS = tuple(_register(name) for name in AUGMENTATIONS)
