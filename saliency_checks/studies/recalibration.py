"""Re-calibrated feature attributions (Yang et al. 2023): thirteen methods, six also re-calibrated, under DiffID.

DiffID at a share r: the output with the lowest-ranked share r removed, less that with the highest-ranked share
removed. Their numbers could not be obtained; these are ours, beside controls that never look at the model.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks.explain import subject_maps
from saliency_checks.loading import build_subject, name_of
from saliency_checks.method import Method, as_method
from saliency_checks.metrics.deletion_insertion import side
from saliency_checks.registry import get
from saliency_checks.studies.figures import COLOURS, DIVERGING, SEQUENTIAL, figure
from saliency_checks.studies.questions import question
from saliency_checks.studies.store import Columns, Store, Unit
from saliency_checks.studies.table import Table, head, mean_with_limits, row, with_limits
from saliency_checks.subject import Subject

PATHS = ("ig_uniform", "ig_smoothgrad", "ig_squared", "expected_gradients", "agi", "lpi")
OTHERS = (
    "gradient", "grad_cam", "smoothgrad", "full_grad", "integrated_gradients", "gradient_weighted_contrast", "random",
)  # fmt: skip
CONTROLS = ("input_magnitude", "edges", "center_blob")
PRESETS = ("recalibration", "recalibration_accuracy")
SUBJECTS = ("fashion_cnn", "fashion_cnn_masked", "planted_pixel_a")
WITHIN = {"recalibration": None, "recalibration_accuracy": (-1.0, 1.0)}  # where DiffID can lie
LABELS = {"recalibration": "logit", "recalibration_accuracy": "accuracy"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``saliency-checks study recalibration``."""
    add = parser.add_argument
    add("--subject", action="append", metavar="NAME", help=f"default {', '.join(SUBJECTS)}; repeatable")
    add("--method", action="append", metavar="NAME", help="further methods")
    add("--images", type=int, default=64, help="per subject; default 64")
    add("--picture", type=int, default=3, help="number of the image that is shown; default 3")


def measure(options: argparse.Namespace, store: Store) -> None:
    """All parts that are missing."""
    store.setup(images=options.images, picture=options.picture)
    store.run(list(_units(options, store)))


def report(options: argparse.Namespace, store: Store) -> None:
    """Tables, curves, panels and the summary."""
    whole = store.table()
    table = Table(whole)
    store.save("values.parquet", whole.drop_columns(["picture"]))
    subjects = table.distinct("subject")
    for subject in subjects:
        own = table.where(subject=subject)
        _curves(store, own, subject)
        _panels(store, own.where(metric="picture"), subject)
    store.write("summary.md", "\n".join(_summary(table, subjects)) + "\n")


def _units(options: argparse.Namespace, store: Store) -> Iterator[Unit]:
    named = [*OTHERS, *(options.method or ()), *CONTROLS, *PATHS, *(f"recalibrated_{base}" for base in PATHS)]
    methods = [*map(as_method, named), *(positive(as_method(base)) for base in PATHS)]
    for spec in options.subject or SUBJECTS:
        subject = build_subject(spec, options.device)
        store.note(device=str(subject.inputs.device))
        for method in methods:
            for what in (*PRESETS, "picture"):
                yield _unit(spec, subject, method, what, options)


def positive(method: Method) -> Method:
    """The same map without what speaks against the class.

    A control: DiffID reads magnitudes, and a re-calibrated map has no negative part, so what that alone gains must be
    known.
    """

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor, **supplied: Tensor) -> Tensor:
        found: Tensor = torch.as_tensor(method.explain(model, inputs, targets, **supplied))
        return found.clamp(min=0)

    return replace(method, name=f"positive_{method.name}", explain=explain, signed=False, source=None)


def _unit(spec: str, subject: Subject, method: Method, what: str, options: argparse.Namespace) -> Unit:
    def make(images: int) -> Columns:
        if what == "picture":
            return _picture(method, subject, min(options.picture, len(subject) - 1), options.seed)
        return curves(method, subject, what, images, options.seed)

    columns = {"subject": name_of(spec), "metric": what, "method": method.name}
    return question(columns, method, subject, options, make)


def curves(method: Method, subject: Subject, preset: str, n: int, seed: int) -> dict[str, list[Any]]:
    """Rows (share removed, image): what removing the lowest-ranked and the highest-ranked leaves, and DiffID."""
    settings = get("metrics", "diffid").with_preset(preset).settings
    kept = {order: side(method, subject, n, seed, settings, order)[1] for order in settings.orders}
    first, second = (np.asarray(kept[order]) for order in settings.orders)
    shares = list(settings.fractions)
    return {
        "redraw": [0] * (n * len(shares)),
        "share": [share for share in shares for _ in range(n)],
        "image": list(range(n)) * len(shares),
        "highest_removed": first.T.flatten().tolist(),
        "lowest_removed": second.T.flatten().tolist(),
        "diffid": (second - first).T.flatten().tolist(),
    }


def _picture(method: Method, subject: Subject, image: int, seed: int) -> dict[str, list[Any]]:
    found = subject_maps(method, subject, image, image + 1, seed=seed)[0]
    shown = subject.inputs[image].mean(0)
    return {"kind": ["image", "map"], "picture": [part.tolist() for part in (shown, found)]}


def per_image(rows: Table) -> Any:
    """Mean DiffID of each image over the shares."""
    by_share = [rows.where(share=s).rows.sort_by("image")["diffid"].to_numpy() for s in rows.distinct("share")]
    return np.mean(by_share, axis=0)


def _summary(table: Table, subjects: Sequence[str]) -> list[str]:
    lines = [
        "# Re-calibration under DiffID",
        "",
        "Mean over nine shares (95 % interval over images).",
    ]
    for subject in subjects:
        own = table.where(subject=subject)
        lines += ["", f"## {subject}", "", *(f"![{kind}]({kind}_{subject}.png)" for kind in ("diffid", "panels")), ""]
        lines += head(["method", "logit", "accuracy"])
        for method in own.distinct("method"):
            found = [_limits(own.where(metric=p, method=method), within=WITHIN[p]) for p in PRESETS]
            lines.append(row([method, *found]))
        lines += ["", "Re-calibrated, less the map as it is, and less its positive part alone (paired):", ""]
        against = {"as it is": "{}", "positive part": "positive_{}"}
        lines += head(["method", *(f"{LABELS[p]}, {name}" for p in PRESETS for name in against)])
        for base in PATHS:
            ours = {p: own.where(metric=p, method=f"recalibrated_{base}") for p in PRESETS}
            theirs = [(p, own.where(metric=p, method=name.format(base))) for p in PRESETS for name in against.values()]
            lines.append(row([base, *(_limits(ours[p], other) for p, other in theirs)]))
    return lines


def _limits(rows: Table, less: Table | None = None, within: tuple[float, float] | None = None) -> str:
    """Mean and interval over images of DiffID, or of how much it is more; nothing where there are no rows."""
    if not len(rows.rows) or (less is not None and not len(less.rows)):
        return ""
    values = per_image(rows) - (per_image(less) if less is not None else 0.0)
    return with_limits(mean_with_limits(values[None], within=within), "+.3f")


def _curves(store: Store, own: Table, subject: str) -> None:
    """One panel per path method: without and with re-calibration; the random order in grey."""
    with figure(
        store.out / f"diffid_{subject}.png",
        rows=len(PRESETS),
        columns=len(PATHS),
        size=(14, 5),
        sharex=True,
        sharey="row",
    ) as (whole, axes):
        for line, preset in zip(axes, PRESETS, strict=True):
            rows = own.where(metric=preset)
            for ax, base in zip(line, PATHS, strict=True):
                shown = (
                    ("random", "#999999", "--"),
                    (base, COLOURS[0], "-"),
                    (f"recalibrated_{base}", COLOURS[1], "-"),
                    (f"positive_{base}", COLOURS[2], ":"),
                )
                for i, (method, colour, dashes) in enumerate(shown):
                    if not len((one := rows.where(method=method)).rows):
                        continue  # not measured
                    shares = one.distinct("share")
                    mean, low, high = np.array([one.where(share=s).mean("diffid", WITHIN[preset]) for s in shares]).T
                    name = ("random order", "as it is", "re-calibrated", "positive part alone")[i]
                    ax.plot(shares, mean, dashes, color=colour, marker="os^D"[i], markersize=3, label=name)
                    ax.fill_between(shares, low, high, color=colour, alpha=0.15, linewidth=0)
                ax.set_title(base)
                ax.axhline(0, color="k", linewidth=0.5)
            line[0].set_ylabel(f"DiffID, {LABELS[preset]}")
        for ax in axes[-1]:
            ax.set_xlabel("share removed")
        handles, labels = axes[0][0].get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=4)
        whole.suptitle(f"{subject}: lowest-ranked removed minus highest-ranked removed")


def _panels(store: Store, rows: Table, subject: str) -> None:
    """As the paper's: the image, signed maps, and for path methods the re-calibrated one below."""
    columns = ["image", *(m for m in OTHERS if m != "random"), *PATHS]
    with figure(store.out / f"panels_{subject}.png", rows=2, columns=len(columns), size=(1.2 * len(columns), 3)) as (
        _,
        axes,
    ):
        for ax in axes.flat:
            ax.set_axis_off()
        for top, below, name in zip(*axes, columns, strict=True):
            top.set_title(name.replace("integrated", "int.").replace("_", "\n"), fontsize=6.5, loc="center")
            if name == "image":
                top.imshow(_shown(rows.where(method="gradient", kind="image")), cmap="gray")
                continue
            if not len(rows.where(method=name).rows):
                continue
            picture = _shown(rows.where(method=name, kind="map"))
            reach = np.quantile(np.abs(picture), 0.99) or 1.0
            top.imshow(picture / reach, cmap=DIVERGING, vmin=-1, vmax=1)
            if name in PATHS:
                picture = _shown(rows.where(method=f"recalibrated_{name}", kind="map"))
                below.imshow(picture / (np.quantile(picture, 0.99) or 1.0), cmap=SEQUENTIAL, vmin=0, vmax=1)
                below.set_title("re-calibrated", fontsize=6, loc="center")


def _shown(rows: Table) -> Any:
    return np.array(rows.rows["picture"].to_pylist()[0])
