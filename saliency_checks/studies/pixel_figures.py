"""Figures of the single-pixel study."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from saliency_checks.metrics.pixel_importance import LEAST_MISSED
from saliency_checks.studies import published
from saliency_checks.studies.figures import COLOURS, MARKERS, figure
from saliency_checks.studies.pixel_report import (
    SHORT,
    Row,
    first_cell,
    is_among_decoys,
    methods_of,
    networks_of,
    published_like,
)  # fmt: skip
from saliency_checks.studies.store import Store

DEVIATIONS = ("data_seed", "test_pos_sd", "test_col_sd")


def write(store: Store, rows: Sequence[Row]) -> None:
    """One figure of each network's maps, and where there are several deviations one of these."""
    for network in networks_of(rows):
        own = [row for row in rows if row["model_type"] == network]
        _pointing(store, network, first_cell(own))
        if len({tuple(row[name] for name in DEVIATIONS) for row in own}) > 1:
            _deviations(store, network, [row for row in own if not row["use_y_true"]])


def _pointing(store: Store, network: str, own: Sequence[Row]) -> None:
    """Left: each seed's pointing. Right: what the misses cost, where there are enough of them."""
    methods, like = methods_of(own), published_like(network, own)
    with figure(store.out / f"pointing_{network}.png", columns=2, size=(12, 4.2)) as (whole, ((left, right),)):
        for k, softmax in enumerate((False, True)):
            name = "softmax" if softmax else "logit"
            for i, method in enumerate(methods):
                group = [r for r in own if r["attribution_method"] == method and r["use_softmax"] == softmax]
                place = i + (k - 0.5) * 0.3
                _seeds(left, group, "corrected.pointing", place, k, f"ours, {name}" if not i else None)
                if is_among_decoys(group[0]):
                    told = f"beats the decoys, {name}" if not i else None
                    _seeds(left, group, "corrected.recovery", place + 0.12, k, told, markerfacecolor="w")
                if known := published.POINTING.get(like, {}).get(method):
                    told = None if i or k else "published"
                    left.plot(place, known[softmax], "_", color="k", markersize=14, label=told)
                _cost(right, group[0], i, k)
        for ax in (left, right):
            ax.set_xticks(range(len(methods)), [SHORT.get(m, m) for m in methods], rotation=30, ha="right")
        left.set_ylim(-3, 103)
        left.set_ylabel("% of images, ties by share")
        left.set_title("maximum at the planted pixel (one mark per seed)")
        right.axhline(0, color="k", linewidth=0.6)
        right.set_ylim(-1.05, 1.05)
        right.set_title("importance on misses, planted minus pointed at")
        told = f"filled: additive; open: subtractive; blank: fewer than {LEAST_MISSED} misses that need their pixel"
        right.text(0.01, 0.02, told, transform=right.transAxes, color="0.4", fontsize=8)
        right.set_xlim(left.get_xlim())
        handles, labels = left.get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=5)
        whole.suptitle(f"{network} (published: {like} on CIFAR-10)" if like else network)


def _seeds(ax: Any, group: Sequence[Row], column: str, place: float, k: int, label: str | None, **style: Any) -> None:
    y = [100 * row[column] for row in group]
    ax.plot([place] * len(y), y, MARKERS[k], color=COLOURS[k], markersize=5, alpha=0.8, label=label, **style)


def _cost(ax: Any, row: Row, i: int, k: int) -> None:
    if row["pooled.missed_needed"] < LEAST_MISSED:
        return
    for j, name in enumerate(("additive", "subtractive")):
        mean, low, high = (row[f"pooled.{name}_importance{end}"] for end in ("", "_low", "_high"))
        place = i + (k - 0.5) * 0.3 + (j - 0.5) * 0.12
        ax.errorbar(
            place, mean, yerr=[[mean - low], [high - mean]], fmt=MARKERS[k], color=COLOURS[k], markersize=5,
            markerfacecolor="w" if j else COLOURS[k],
        )  # fmt: skip


def _deviations(store: Store, network: str, own: Sequence[Row]) -> None:
    """Pointing, pooled over seeds, by the design and the deviations of position and colour that are tested."""
    methods = [m for m in methods_of(own) if m in SHORT]
    places = list(dict.fromkeys(tuple(row[name] for name in DEVIATIONS) for row in own))
    with figure(store.out / f"deviations_{network}.png", columns=2, size=(12, 4.2), sharey=True) as (whole, (panels,)):
        for ax, softmax in zip(panels, (False, True), strict=True):
            for i, method in enumerate(methods):
                by_place = {
                    tuple(r[name] for name in DEVIATIONS): r for r in own
                    if r["attribution_method"] == method and r["use_softmax"] == softmax
                }  # fmt: skip
                mean, low, high = (
                    [100 * by_place[place][f"pooled.pointing{end}"] for place in places]
                    for end in ("", "_low", "_high")
                )
                ax.plot(mean, marker=MARKERS[i], color=COLOURS[i], label=SHORT[method] if not softmax else None)
                ax.fill_between(range(len(places)), low, high, color=COLOURS[i], alpha=0.15, linewidth=0)
            right = [100 * by_place[place]["gate.withpix"] for place in places]
            ax.plot(right, "k:", label=None if softmax else "network right, first seed")
            told = [
                f"position {p:g}\ncolour {c:g}" + (f"\ndata seed {seed}" if seed > 1 else "") for seed, p, c in places
            ]
            ax.set_xticks(range(len(places)), told)
            ax.set_ylim(-3, 103)
            ax.set_title(f"maximum at the planted pixel, {'softmax' if softmax else 'logit'}")
        panels[0].set_ylabel("% of images, ties by share")
        whole.legend(loc="outside lower center", ncols=6)
        whole.suptitle(f"{network}: tested with deviations of position (pixels) and colour (levels of 255)")
