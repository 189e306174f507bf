"""Which method beats a random map, by which metric, and do the metrics agree? After Gevaert et al. 2024.

One row per subject, method, metric, preset, repeat and image, in ``scores.parquet``; the random map is always among
the methods. What is there already is not measured again, so methods, metrics and subjects can be added later.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np

from saliency_checks import cache, registry
from saliency_checks.explain import ContractError, derive
from saliency_checks.loading import build_subject
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Metric
from saliency_checks.run import measured, worst_group
from saliency_checks.studies import benchmark_report
from saliency_checks.studies.store import Columns, Nothing, Store, Unit, code
from saliency_checks.subject import Subject, Unqualified

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


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One unit of the benchmark, by its objects."""

    subject: Subject
    method: Method
    metric: Metric
    repeat: int

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
    benchmark_report.arguments(parser)


def measure(options: argparse.Namespace, store: Store) -> None:
    """Every cell that the store does not hold yet: subject by subject, so that what methods share is made once."""
    store.setup(images=options.images, steps=options.steps, draws=options.draws, seed=options.seed)
    units: list[Unit] = []
    for spec in options.subjects:
        subject = build_subject(spec, options.device)
        digest = _digest(subject)
        store.forget(lambda part: part.columns["subject"] == subject.name and part.recipe["subject"] != digest)  # noqa: B023
        planned: set[Any] = set()
        for cell in cells(options, subject):
            unit = _unit(cell, options, digest)
            if store.read(unit) is None:
                unit = replace(unit, passes=_passes(cell, min(options.images, len(subject)), planned))
            units.append(unit)
        store.note(device=str(subject.inputs.device))
    store.run(units)


def report(options: argparse.Namespace, store: Store) -> None:
    benchmark_report.report(options, store)


def cells(options: argparse.Namespace, subject: Subject) -> Iterator[Cell]:
    """All cells of a subject that say something, the random map's first."""
    methods = {method.name: method for method in map(as_method, (RANDOM, *options.methods))}
    metrics = [coarser(registry.get("metrics", name), options.steps, options.draws) for name in options.metrics]
    for repeat in range(options.repeats):
        chosen = [metric for metric in metrics if not repeat or metric.name.partition("@")[0] in NOISY]
        for method in methods.values():
            for metric in chosen:
                if not metric.inapplicable(method, subject.offers, subject.name):
                    yield Cell(subject=subject, method=method, metric=metric, repeat=repeat)


def coarser(metric: Metric, steps: int | None, draws: int | None) -> Metric:
    """The same metric, of the same name, with at most so many steps and draws: what a slow machine can do."""
    changes: dict[str, Any] = {}
    shares = getattr(metric.settings, "fractions", ())
    if steps and len(shares) > (kept := max(2, steps)):
        changes["fractions"] = tuple(shares[round(i * (len(shares) - 1) / (kept - 1))] for i in range(kept))
    if draws and getattr(metric.settings, "draws", 0) > draws:
        changes["draws"] = draws
    return replace(metric.with_settings(**changes), name=metric.name) if changes else metric


def _unit(cell: Cell, options: argparse.Namespace, digest: str) -> Unit:
    seed = options.seed if not cell.repeat else derive("repeat", options.seed, cell.repeat)
    recipe = {
        "subject": digest, "images": options.images, "seed": seed, "method": code(cell.method.source),
        "metric": code(cell.metric.measure), "settings": repr(cell.metric.settings), "better": cell.metric.better,
    }  # fmt: skip
    return Unit(columns=cell.columns, recipe=recipe, make=partial(_scores, cell, options.images, seed, options.device))


def _scores(cell: Cell, images: int, seed: int, device: str) -> Columns:
    try:
        scores = measured(cell.metric, cell.method, cell.subject, n=images, seed=seed, device=device)
    except (Unqualified, ContractError) as error:
        raise Nothing(str(error)) from error
    values = worst_group(cell.metric, scores)
    return {"image": np.array(scores.images or range(len(values)), dtype=np.int64), "score": values.astype(np.float64)}


def _passes(cell: Cell, images: int, planned: set[Any]) -> int:
    """What is not planned yet, the explanations not counted; a score without a plan counts its draws."""
    plan = getattr(cell.metric.settings, "plan", None)
    if plan is None:
        return images * int(getattr(cell.metric.settings, "draws", 1))
    parts = {part if part.shared else (cell.method.name, part): part for part in plan.parts}
    steps: int = sum(part.steps for key, part in parts.items() if (key, cell.repeat) not in planned)
    planned |= {(key, cell.repeat) for key in parts}
    return images * steps


def _digest(subject: Subject) -> str:
    """Of the model's weights and kind, the images and the classes."""
    held = {f"model.{name}": value for name, value in subject.model.state_dict().items()}
    held |= {"inputs": subject.inputs, "targets": subject.targets}
    return cache.digest(held, f"{type(subject.model).__name__} {subject.absent}")[:16]
