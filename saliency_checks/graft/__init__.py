"""Ground truth on the user's own model: a known cause is grafted onto it, and the explanation has to find it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Generator, Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import derive, in_eval_mode
from saliency_checks.fixtures.planted import CLASSES, NONE, SPOTS
from saliency_checks.graft.detector import (
    Detector,
    DetectorRecipe,
    classes_found,
    evidence,
    train_ahead,
    trained,
    without,
)
from saliency_checks.graft.layer import direction_into
from saliency_checks.graft.model import Grafted, LayerGrafted
from saliency_checks.graft.scenes import ROLES, Canvas, Scene, paint
from saliency_checks.subject import Contrast, Subject, SubjectFactory, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Bool, Int

__all__ = ["EFFECT", "Grafted", "LayerGrafted", "factory", "graft"]

EFFECT = 4.0  # at which every sound method finds the cause (docs: acuity)
DETECTORS = 3  # seeds; they are the clusters, and the worst is judged
LEAST_IMAGES = 8
SCENES, LARGE_SCENES = 2400, 1600  # to learn from in an epoch; larger spots cost more and are easier to learn
MOST_IMAGES = 256  # to learn from and to show: what the detector does is proven scene by scene, not assumed
PIXELS, POOL = 3_200_000, (64, 256)  # of all scenes together; number of scenes
SCENES_PER_IMAGE = 16
SPREAD_IMAGES = 32

LEAST_SHARE = 0.60  # of the scenes that must show the cause; those that do not are left out
LEAST_DROP = 1.0  # fall of the evidence without the site
MOST_DECOYS = 0.25  # change of the evidence without the decoys, relative to that
MOST_LEAK = 0.10  # evidence where there is no site, relative to that


def graft(subject: Subject | str, effect: float = EFFECT, *, detector: int = 0, device: str | None = None) -> Subject:
    """The subject's own model and images with a known cause, and its truth mask.

    The model's logit of a few classes depends on one more thing: a small spot, which a detector, trained in seconds
    on pieces of the subject's own images, tells from seven decoys that look alike. The model itself is not changed.

    Args:
        subject: what is explained: a Subject, a registered name or ``package.module:attribute``.
        effect: how much the cause adds to its class's logit, in units of the spread of the model's own logits
            (standard deviation over images and classes, each image's mean taken off).
        detector: which of three detectors: they differ in seed and in which spots are classes and which decoys. The
            others are the replicas of the first.
        device: as for :func:`saliency_checks.run`.

    Raises:
        Unqualified: no cause can be grafted (images too small or too few), or it does not hold; says the numbers.
    """
    from saliency_checks.loading import build_subject

    return _member(build_subject(subject, device), effect, detector)


def _member(base: Subject, effect: float, detector: int) -> Subject:
    with in_eval_mode(base.model):
        return _held(base, effect, detector)


def _held(base: Subject, effect: float, detector: int) -> Subject:
    """The graft, at the first or the second try."""
    canvas = Canvas.of(base.inputs)
    if len(base.inputs) < LEAST_IMAGES:
        raise Unqualified(f"no cause can be grafted onto {len(base.inputs)} images; give at least {LEAST_IMAGES}")
    images = base.inputs.cpu()[:MOST_IMAGES]
    if not detector:
        train_ahead(images, [_recipe(canvas, number) for number in range(DETECTORS)])
    problems = []
    for attempt in range(2):  # a training may fail once
        recipe = _recipe(canvas, detector, attempt)
        found = trained(images, recipe).to(base.inputs)
        try:
            return _grafted(base, found, recipe, images.to(base.inputs), effect, detector)
        except Unqualified as reason:
            problems.append(str(reason))
    raise Unqualified("; the second try: ".join(problems))


def _recipe(canvas: Canvas, detector: int, attempt: int = 0) -> DetectorRecipe:
    scenes = SCENES if canvas.unit == 1 else LARGE_SCENES
    return DetectorRecipe(canvas=canvas, role=ROLES[detector % 2], seed=detector + 100 * attempt, scenes=scenes)


def factory(spec: Any) -> SubjectFactory:
    """The graft of a subject that is not built yet, as a subject of its own."""
    from saliency_checks.loading import name_of

    return SubjectFactory(
        name=f"{name_of(spec)}_graft",
        build=partial(graft, spec),
        offers=frozenset({"mask", "truth", "removal", "contrast", "graded"}),
        serves=frozenset({"mask", "truth", "removal", "deletion", "contrast", "graded"}),
    )


def _grafted(
    base: Subject, detector: Detector, recipe: DetectorRecipe, images: Tensor, effect: float, number: int
) -> Subject:
    generator = Generator().manual_seed(derive("graft", base.name, number))
    classes = _classes(base)
    n = min(max(POOL[0], min(POOL[1], PIXELS // images[0, 0].numel())), SCENES_PER_IMAGE * len(images))
    images = images.repeat(-(-n // len(images)), 1, 1, 1)[:n]
    causes = torch.arange(n) % len(classes)
    scene = _paint(images, causes, recipe, generator)
    causes = scene.labels
    drop, kept, facts = verify(detector, scene, images, recipe, generator)
    spread = logit_spread(base)
    facts |= {"effect": effect, "spread": spread, "role": recipe.role, "detector": number}
    scale = torch.full((len(classes),), spread / drop).to(base.inputs)
    model = Grafted(base.model, detector, classes, scale, effect)
    masks = scene.masks[kept]
    contrast = partial(_contrast, detector, images, classes, recipe, derive("graft pairs", base.name, number))
    shown = scene.inputs[kept]

    def of(model: nn.Module, others: tuple[Any, ...], layered: Any = None) -> Subject:
        return Subject(
            model, shown, classes[causes[kept]], name=f"{base.name}_graft", absent=_absent(base),
            truth=masks[:, 0], decoys=masks[:, 1:], contrast=contrast, clean=images[kept], references=base.references,
            removable=True, indivisible=not recipe.canvas.is_coloured, natural=False, randomizable=False, graded=True,
            replicas=others, least_replicas=len(others), layered=layered, facts=facts,
        )  # fmt: skip

    others = tuple(partial(_member, base, effect, i) for i in range(1, DETECTORS)) if not number else ()

    def layered() -> Subject:
        pieces = (base.model, detector, classes, scale, effect)
        layer, call, direction = direction_into(base.model, pieces, shown, images[kept], causes[kept])
        deeper = tuple(partial(_layered_graft, build) for build in others)
        return of(LayerGrafted(*pieces, layer=layer, call=call, direction=direction), deeper)

    return of(model, others, layered)


def _layered_graft(build: Any) -> Subject:
    built: Subject = build()
    assert built.layered is not None
    return built.layered()


def _classes(base: Subject) -> Int[Tensor, " k"]:
    """Up to three classes that the subject's images have most often."""
    with torch.no_grad():
        count = base.model(base.inputs[:1]).shape[1]
    frequency = base.targets.bincount(minlength=count)
    return frequency.argsort(descending=True, stable=True)[: min(CLASSES, count)]


def _absent(base: Subject) -> float | tuple[float, ...]:
    return tuple(base.absent_value.flatten().tolist())


def _paint(
    images: Tensor, causes: Tensor, recipe: DetectorRecipe, generator: Generator, second: Tensor | None = None
) -> Scene:
    """On the CPU, where the draws are the same for every device."""
    scene = paint(images.cpu(), causes, recipe.role, recipe.canvas, generator, second=second)
    return scene.to(images.device)


@torch.no_grad()
def logit_spread(base: Subject) -> float:
    """Standard deviation of the model's own logits over images and classes, each image's mean taken off."""
    if "logit spread" not in base.cache:  # once for all detectors
        inputs = base.inputs[:SPREAD_IMAGES]
        logits = chunked(base.model, inputs, per_pass(inputs))
        base.cache["logit spread"] = float((logits - logits.mean(1, keepdim=True)).double().std())
    spread: float = base.cache["logit spread"]
    return spread


def verify(
    detector: Detector, scene: Scene, images: Tensor, recipe: DetectorRecipe, generator: Generator
) -> tuple[float, Bool[Tensor, " n"], dict[str, Any]]:
    """(mean fall of the evidence without the site, scenes that show the cause, numbers), by intervention, per scene.

    Raises:
        Unqualified: too few scenes show it.
    """
    causes = scene.labels.unsqueeze(1)
    none = _paint(images, torch.full((len(images),), NONE), recipe, generator)
    before, gone, bare, empty = (
        evidence(detector, inputs)
        for inputs in (
            scene.inputs, without(scene, images, 0), without(scene, images, *range(1, SPOTS)), none.inputs,
        )
    )  # fmt: skip
    drop = (before - gone).gather(1, causes).squeeze(1)
    decoys = (before - bare).abs().amax(1)
    right = classes_found(before) == scene.labels
    typical = float(drop.clamp(min=0).mean())
    left = gone.amax(1)
    kept = right & (drop >= LEAST_DROP) & (decoys <= MOST_DECOYS * typical) & (left <= MOST_LEAK * typical)
    facts = {
        "graft_verified": _mean(kept), "detector_accuracy": _mean(right), "drop_without_site": _mean(drop),
        "change_without_decoys": _mean(decoys), "left_without_site": _mean(left),
        "leak": _mean(empty.amax(1)) / max(typical, 1e-9),
    }  # fmt: skip
    if _mean(kept) < LEAST_SHARE or int(kept.sum()) < LEAST_IMAGES:
        numbers = ", ".join(f"{key.replace('_', ' ')} {value:.3g}" for key, value in facts.items())
        raise Unqualified(
            f"the graft does not hold: {_mean(kept):.0%} of the scenes show by intervention that the spot, and"
            f" nothing beside it, is what the detector sees (expected {LEAST_SHARE:.0%}); {numbers}"
        )
    return float(drop[kept].mean()), kept, facts


def _contrast(detector: Detector, images: Tensor, classes: Tensor, recipe: DetectorRecipe, seed: int) -> Contrast:
    """Scenes with the causes of two classes, each of which is lost with its own site.

    Raises:
        Unqualified: too few are.
    """
    first = torch.arange(len(images)) % len(classes)
    second = (first + 1 + torch.arange(len(images)) // len(classes) % (len(classes) - 1)) % len(classes)
    scene = _paint(images, first, recipe, Generator().manual_seed(seed), second)
    pairs = torch.stack([first, second], dim=1).to(images.device)
    before = evidence(detector, scene.inputs)
    drops = [(before - evidence(detector, without(scene, images, spot)))[:, :CLASSES] for spot in (0, 1)]
    lost = torch.stack([drop.gather(1, pairs[:, i : i + 1]).squeeze(1) for i, drop in enumerate(drops)], dim=1)
    kept = (lost >= LEAST_DROP).all(1)
    if int(kept.sum()) < LEAST_IMAGES:
        raise Unqualified(f"the graft does not hold: two causes at once are seen in {_mean(kept):.0%} of the scenes")
    return Contrast(inputs=scene.inputs[kept], targets=classes[pairs[kept]], sites=scene.masks[kept, :2])


def _mean(values: Tensor) -> float:
    return round(float(values.double().mean()), 4)
