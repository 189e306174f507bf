"""Which method beats a random map, by which metric, and do the metrics agree? After Gevaert et al. 2024.

One row per subject, method, metric, preset, repeat and image, in ``scores.parquet``; the random map is always among
the methods. What is there already is not measured again, so methods, metrics and subjects can be added later.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from saliency_checks import registry
from saliency_checks.device import PRECISIONS
from saliency_checks.explain import BLOCK, derive
from saliency_checks.loading import build_subject
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Metric
from saliency_checks.studies import benchmark_report, engines
from saliency_checks.studies.provenance import code, digest_of
from saliency_checks.studies.scoring import Scoring, coarser
from saliency_checks.studies.store import Store, Unit
from saliency_checks.subject import Subject

RANDOM = "random"
METHODS = (
    "deep_lift_shap", "expected_gradients", "deep_lift", "grad_cam", "grad_cam_plus_plus", "score_cam", "xrai",
    "kernel_shap", "lime", "smoothgrad", "vargrad", "integrated_gradients", "input_x_gradient", "gradient",
    "guided_backprop", "guided_grad_cam", "deconvolution",
)  # fmt: skip
METRICS = (
    "impact_coverage@attribench", "deletion@attribench", "deletion@attribench_lerf", "insertion@attribench",
    "insertion@attribench_lerf", "irof@attribench", "irof@attribench_lerf", "infidelity@attribench_square",
    "infidelity@attribench_noisy_baseline", "sensitivity_n@attribench", "segment_sensitivity_n@attribench",
    "minimal_subset_deletion@attribench", "minimal_subset_insertion@attribench", "max_sensitivity@attribench",
)  # fmt: skip
# Scores whose noise over repeated draws is asked for: the same with pixels and with segments.
NOISY = ("sensitivity_n", "segment_sensitivity_n")
IMAGES = 128
SHARD = 256  # images that are in memory at once


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is measured, by its objects; and the method's name as it was asked for."""

    subject: Subject
    method: Method
    metric: Metric
    repeat: int
    spec: str

    @property
    def columns(self) -> dict[str, str | int]:
        base, _, preset = self.metric.name.partition("@")
        return {
            "subject": self.subject.name, "method": self.method.name, "metric": base, "preset": preset,
            "repeat": self.repeat,
        }  # fmt: skip


def arguments(parser: argparse.ArgumentParser) -> None:
    named = "a registered name or package.module:attribute"
    parser.add_argument("--methods", nargs="+", default=METHODS, metavar="M", help=f"{named}; default those of 2024")
    parser.add_argument("--metrics", nargs="+", default=METRICS, metavar="M", help="METRIC or METRIC@PRESET")
    parser.add_argument("--subjects", nargs="+", default=["fashion_cnn"], metavar="S", help=named)
    parser.add_argument("--images", type=int, default=IMAGES, metavar="N", help=f"of each subject; default {IMAGES}")
    parser.add_argument("--steps", type=int, metavar="N", help="at most so many steps of a curve")
    parser.add_argument("--draws", type=int, metavar="N", help="at most so many random draws in every score")
    parser.add_argument(
        "--repeats", type=int, default=1, metavar="R", help=f"measure {' and '.join(NOISY)} so often; default once"
    )
    parser.add_argument(
        "--shard", type=int, default=SHARD, metavar="N", help=f"images in memory at once, in {BLOCK}s; default {SHARD}"
    )
    parser.add_argument("--precision", choices=PRECISIONS, default="fp32", help="networks compute in; default fp32")
    engines.arguments(parser)
    benchmark_report.arguments(parser)


def measure(options: argparse.Namespace, store: Store) -> None:
    """Every cell that the store does not hold yet: subject by subject, so that what methods share is made once."""
    engine, shard = engines.of(options), BLOCK * max(1, round(options.shard / BLOCK))
    store.setup(
        images=options.images,
        steps=options.steps,
        draws=options.draws,
        seed=options.seed,
        shard=shard,
        precision=options.precision,
    )
    units: list[Unit] = []
    for spec in options.subjects:
        subject = build_subject(spec, options.device)
        digest = digest_of(subject)
        store.forget(lambda part: part.columns["subject"] == subject.name and part.recipe["subject"] != digest)  # noqa: B023
        for rows in _shards(min(options.images, subject.size), shard):
            planned: set[Any] = set()
            for cell in cells(options, subject):
                if cell.metric.alone or rows[0] == 0:
                    unit = _unit(cell, options, spec, digest, rows)
                    if not (store.parts / unit.file).exists():  # for the bar; whether it is whole is read once, later
                        unit = replace(unit, passes=_passes(cell, rows[1] - rows[0], planned))
                    units.append(unit)
        store.note(device=str(subject.inputs.device), engine=options.engine)
    store.run(units, engine)


def report(options: argparse.Namespace, store: Store) -> None:
    benchmark_report.report(options, store)


def cells(options: argparse.Namespace, subject: Subject) -> Iterator[Cell]:
    """All cells of a subject that say something, the random map's first."""
    specs = dict.fromkeys((RANDOM, *options.methods))
    methods = {method.name: (method, spec) for method, spec in zip(map(as_method, specs), specs, strict=True)}
    metrics = [coarser(registry.get("metrics", name), options.steps, options.draws) for name in options.metrics]
    for repeat in range(options.repeats):
        for method, spec in methods.values():
            for metric in metrics:
                again = not repeat or metric.name.partition("@")[0] in NOISY
                if again and not metric.inapplicable(method, subject.offers, subject.name):
                    yield Cell(subject=subject, method=method, metric=metric, repeat=repeat, spec=spec)


def _shards(images: int, size: int) -> Iterator[tuple[int, int]]:
    for first in range(0, images, size):
        yield first, min(first + size, images)


def _unit(cell: Cell, options: argparse.Namespace, subject: str, digest: str, rows: tuple[int, int]) -> Unit:
    """Of the images ``rows``; of all where an image's score depends on the others."""
    seed = options.seed if not cell.repeat else derive("repeat", options.seed, cell.repeat)
    recipe = {
        "subject": digest, "images": options.images, "seed": seed, "method": code(cell.method.source),
        "metric": code(cell.metric.measure), "settings": repr(cell.metric.settings), "better": cell.metric.better,
    }  # fmt: skip
    mine = rows if cell.metric.alone else None
    make = Scoring(
        subject=subject, method=cell.spec, metric=cell.metric.name, steps=options.steps, draws=options.draws,
        images=options.images, seed=seed, device=options.device, rows=mine, precision=options.precision,
    )  # fmt: skip
    shares = (f"{subject} {mine}", f"{cell.spec} {seed}")
    return Unit(columns=cell.columns, recipe=recipe, make=make, rows=mine, shares=shares)


def _passes(cell: Cell, images: int, planned: set[Any]) -> int:
    """What is not planned yet, the explanations not counted; a score without a plan counts its draws."""
    plan = getattr(cell.metric.settings, "plan", None)
    if plan is None:
        return images * int(getattr(cell.metric.settings, "draws", 1))
    parts = {part if part.shared else (cell.method.name, part): part for part in plan.parts}
    steps: int = sum(part.steps for key, part in parts.items() if (key, cell.repeat) not in planned)
    planned |= {(key, cell.repeat) for key in parts}
    return images * steps
