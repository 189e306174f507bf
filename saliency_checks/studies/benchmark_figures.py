"""The benchmark's figures, one question each."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saliency_checks.studies import statistics
from saliency_checks.studies.figures import COLOURS, DIVERGING, MARKERS, figure, heatmap

if TYPE_CHECKING:
    from saliency_checks.studies.benchmark_report import Rows, Scored


SAME = 1e-9  # distances that are rounding


def draw(out: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    """All that there is data for, as ``{question}_{subject}.png``."""
    for make in (_superiority, _agreement, _correlation, _clusters, _pairs, _noise, _convergence):
        make(out / f"{make.__name__.strip('_')}_{subject}.png", subject, found, answers)


def _superiority(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    metrics = [scored.metric for scored in found]
    methods = sorted({row["method"] for row in answers["superiority"]})
    cells = {(r["metric"], r["method"]): r["superiority"] for r in answers["superiority"] if r["beats_random"]}
    values = np.array([[cells.get((metric, method), np.nan) for method in methods] for metric in metrics])
    size = (1.0 + 0.5 * len(methods), 0.8 + 0.34 * len(metrics))
    with figure(file, size=size) as (_, axes):
        heatmap(axes[0, 0], 100 * values, metrics, methods, low=50, high=100, form=".0f")
        axes[0, 0].set_title(
            f"{subject}: better than a random map on so many images (%)\nempty: no evidence that it is"
        )


def _agreement(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    rows = sorted((r for r in answers["agreement"] if r["alpha"] == r["alpha"]), key=lambda row: row["alpha"])
    if not rows:
        return
    with figure(file, size=(5.0, 0.9 + 0.3 * len(rows))) as (_, axes):
        axes[0, 0].barh([row["metric"] for row in rows], [row["alpha"] for row in rows], color=COLOURS[0], height=0.7)
        axes[0, 0].axvline(0, color="0.3", linewidth=0.8)
        axes[0, 0].set(
            xlim=(min(0, rows[0]["alpha"]) - 0.02, 1), xlabel="Krippendorff's alpha: 0 by chance, 1 all alike"
        )
        axes[0, 0].set_title(f"{subject}: do the images rank the methods alike?")


def _correlation(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    metrics = [scored.metric for scored in found]
    if len(metrics) < 2:
        return
    values = np.eye(len(metrics))
    for row in answers["correlation"]:
        i, j = metrics.index(row["metric"]), metrics.index(row["other"])
        values[i, j] = values[j, i] = row["spearman"]
    side = 1.2 + 0.46 * len(metrics)
    with figure(file, size=(side, side)) as (_, axes):
        heatmap(axes[0, 0], values, metrics, metrics, low=-1, high=1, colours=DIVERGING)
        axes[0, 0].set_title(f"{subject}: do two metrics prefer the same images?\nSpearman, mean over methods")


def _clusters(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    from scipy.cluster import hierarchy

    shared = sorted(set.intersection(*(set(scored.methods) for scored in found)))
    medians = {s.metric: np.nanmedian(s.signed[[s.methods.index(m) for m in shared]], axis=1) for s in found}
    # One that says the same of all methods is like none.
    told = {metric: values for metric, values in medians.items() if np.ptp(values) > 0}
    joined = statistics.linkage(np.array(list(told.values()))) if len(shared) > 2 else None
    if joined is None or joined[-1, 2] <= SAME:
        return
    with figure(file, size=(5.0, 0.9 + 0.3 * len(told))) as (_, axes):
        hierarchy.dendrogram(
            joined, labels=list(told), orientation="left", ax=axes[0, 0], color_threshold=0,
            above_threshold_color=COLOURS[0],
        )  # fmt: skip
        axes[0, 0].tick_params(labelsize=8)
        axes[0, 0].set_xlabel("1 - correlation of the methods' median scores (single linkage)")
        axes[0, 0].spines["left"].set_visible(False)
        axes[0, 0].set_title(f"{subject}: which metrics rank methods alike?")


def _pairs(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    shown = [scored for scored in found if len(scored.methods) > 1]
    if not shown:
        return
    across = min(4, len(shown))
    down = -(-len(shown) // across)
    with figure(file, rows=down, columns=across, size=(0.8 + 2.9 * across, 0.8 + 2.6 * down)) as (made, axes):
        for axis, scored in zip(axes.flat, shown, strict=False):
            order = sorted(scored.methods)
            values = np.full((len(order), len(order)), np.nan)
            for row in answers["pairs"]:
                if row["metric"] == scored.metric:
                    share = row["superiority"] if row["differs"] else 0.5
                    values[order.index(row["method"]), order.index(row["other"])] = share
            image = axis.imshow(values, vmin=0, vmax=1, cmap=DIVERGING)
            axis.set_title(scored.metric, fontsize=8)
            axis.set_yticks(range(len(order)), order, fontsize=5)
            axis.set_xticks(range(len(order)), order, fontsize=5, rotation=90)
            axis.tick_params(length=0)
        for axis in axes.flat[len(shown) :]:
            axis.set_visible(False)
        made.colorbar(image, ax=axes, shrink=0.5, label="row better than column, share of images; 1/2: no evidence")
        made.suptitle(f"{subject}: which method beats which?", x=0.01, ha="left", fontsize=10)


def _noise(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    repeated = [scored for scored in found if scored.repeats]
    if not repeated:
        return
    methods = sorted({method for scored in repeated for method in scored.repeats})
    with figure(file, size=(2.0 + 0.5 * len(methods), 4.0)) as (_, axes):
        axis, width = axes[0, 0], 0.8 / len(repeated)
        for i, scored in enumerate(repeated):
            ratios = [
                statistics.signal_to_noise(scored.repeats[method]) for method in methods if method in scored.repeats
            ]
            places = np.array([methods.index(method) for method in methods if method in scored.repeats])
            boxes = axis.boxplot(
                [values[np.isfinite(values) & (values > 0)] for values in ratios], widths=width * 0.85,
                positions=places + (i - (len(repeated) - 1) / 2) * width, patch_artist=True, sym="",
                medianprops={"color": "k"}, manage_ticks=False,
            )  # fmt: skip
            for box in boxes["boxes"]:
                box.set_facecolor(COLOURS[i % len(COLOURS)])
            axis.plot([], [], "s", color=COLOURS[i % len(COLOURS)], label=scored.metric)
        axis.set(yscale="log", ylabel="squared mean / variance over repeats")
        axis.set_xticks(range(len(methods)), methods, rotation=60, ha="right", rotation_mode="anchor")
        axis.axhline(1, color="0.5", linewidth=0.8, linestyle="--")
        axis.legend(fontsize=8)
        axis.set_title(f"{subject}: how much of a score is signal? (one box: all images)")


def _convergence(file: Path, subject: str, found: list[Scored], answers: dict[str, Rows]) -> None:
    by_metric: dict[str, Rows] = {}
    for row in answers["convergence"]:
        by_metric.setdefault(row["metric"], []).append(row)
    if not by_metric:
        return
    across = min(4, len(by_metric))
    down = -(-len(by_metric) // across)
    lowest = min(-0.23, *(row["low"] for row in answers["convergence"]))
    options: Any = {"sharex": True, "sharey": True}
    with figure(file, rows=down, columns=across, size=(0.6 + 2.1 * across, 0.8 + 1.5 * down), **options) as (
        made,
        axes,
    ):
        for axis, (metric, rows) in zip(axes.flat, by_metric.items(), strict=False):
            sizes = [row["images"] for row in rows]
            axis.fill_between(sizes, [r["low"] for r in rows], [r["high"] for r in rows], color=COLOURS[0], alpha=0.2)
            axis.plot(sizes, [r["spearman"] for r in rows], color=COLOURS[0], marker=MARKERS[0], markersize=2.5)
            axis.set_title(metric, fontsize=7)
            axis.set_ylim(lowest - 0.02, 1.02)
        for axis in axes.flat[len(by_metric) :]:
            axis.set_visible(False)
        for axis in axes.flat[len(by_metric) - across : len(by_metric)]:  # the last one of each column
            axis.tick_params(labelbottom=True)
        made.supxlabel("images", fontsize=9)
        made.supylabel("Spearman with the ranking by all", fontsize=9)
        made.suptitle(
            f"{subject}: how many images rank the methods as all do? (90 % of draws)", x=0.01, ha="left", fontsize=10
        )
