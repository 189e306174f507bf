"""Tables and figures of the single-pixel study: the paper's columns by its own definitions, and corrected ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from saliency_checks.studies import published
from saliency_checks.studies.figures import COLOURS, MARKERS, figure
from saliency_checks.studies.store import Store
from saliency_checks.studies.table import NOTHING, Table, mean_with_limits

Values = NDArray[np.float64]
Row = dict[str, Any]
MODEL = ("dataset", "data_seed", "model_type", "train_pos_sd", "train_col_sd", "test_pos_sd", "test_col_sd")
ASKED = ("attribution_method", "use_y_true", "use_softmax")
EDITS = (
    "nopix", "withpix", "blackbg_withpix", "blackbg_withattrpix", "truebg_withblackpix", "truebg_withblackattrpix",
)  # fmt: skip
PRESERVED = ("truebg_withblackattrpix_preserved", "truebg_withblackpix_preserved")
LEAST_RIGHT, MOST_WITHOUT, LEAST_ALONE = 0.99, 0.05, 0.95  # gates: with the pixel, above chance without it, on black
CHANCE = 0.1
LEAST_MISSED = 30  # fewer say nothing of the importance of what was pointed at
SHORT = {
    "predict_importance_absgrad": "abs grad",
    "predict_importance_grad_inp": "grad x input",
    "predict_importance_absgrad_absinp": "abs grad x abs input",
    "predict_importance_integrated_gradient": "IG (black)",
    "predict_importance_integrated_gradient_white": "IG (white)",
}


def seed_columns(rows: Mapping[str, Values]) -> dict[str, float]:
    """``overall.*`` and ``attribution_incorrect.*`` as the paper's code defines them: 0 where nothing was missed."""
    missed = rows["hit"] == 0
    found = {
        "overall.withpix_model_accuracy": rows["withpix"].mean(),
        "overall.nopix_model_accuracy": rows["nopix"].mean(),
        "overall.attribution_correct_accuracy": rows["hit"].mean(),
        "overall.attribution_incorrect": float(missed.sum()),
        "overall.truebg_withblackpix_model_accuracy": rows["truebg_withblackpix"].mean(),
    }
    for name in EDITS:
        found[f"attribution_incorrect.{name}_model_accuracy"] = rows[name][missed].mean() if missed.any() else 0.0
    for name in PRESERVED:
        found[f"attribution_incorrect.{name}_accuracy"] = rows[name][missed].mean() if missed.any() else 0.0
    return {name: float(value) for name, value in found.items()}


def importances(rows: Mapping[str, Values]) -> tuple[Values, Values]:
    """Additive (BP - BA) and subtractive (TA - TP) importance of each missed image that needs its pixel."""
    counted = (rows["hit"] == 0) & (rows["needed"] == 1)
    additive = rows["blackbg_withpix"] - rows["blackbg_withattrpix"]
    subtractive = rows["truebg_withblackattrpix"] - rows["truebg_withblackpix"]
    return additive[counted], subtractive[counted]


def corrected_columns(rows: Mapping[str, Values], prefix: str) -> dict[str, float]:
    """Ties by share, the default class apart, NaN where nothing counts; with 95 % intervals.

    ``rows`` may be those of several seeds one after the other: every miss then counts alike.
    """
    found: dict[str, float] = {f"{prefix}.constant_maps": float(rows["constant"].mean())}
    found |= _limits(f"{prefix}.pointing", rows["share"])
    found |= _limits(f"{prefix}.pointing_where_needed", rows["share"][rows["needed"] == 1])
    additive, subtractive = importances(rows)
    missed = int((rows["hit"] == 0).sum())
    found[f"{prefix}.missed_default_class"] = float(missed - len(additive))
    found[f"{prefix}.missed_needed"] = float(len(additive))
    found |= _limits(f"{prefix}.additive_importance", additive)
    found |= _limits(f"{prefix}.subtractive_importance", subtractive)
    return found


def gates(rows: Mapping[str, Values]) -> dict[str, float]:
    """What the network must do before a map can be blamed."""
    right, without, alone = (float(rows[name].mean()) for name in ("withpix", "nopix", "blackbg_withpix"))
    holds = right >= LEAST_RIGHT and without <= CHANCE + MOST_WITHOUT and alone >= LEAST_ALONE
    return {"gate.withpix": right, "gate.nopix": without, "gate.blackbg_withpix": alone, "gate.holds": float(holds)}


def _limits(name: str, values: Values) -> dict[str, float]:
    mean, low, high = mean_with_limits(values[None]) if len(values) else NOTHING
    return {name: mean, f"{name}_low": low, f"{name}_high": high}


def rows_of(table: Table) -> list[Row]:
    """One row per network, deviation, method and question; pooled columns are those of all its seeds."""
    columns = [name for name in table.rows.column_names if name not in (*MODEL, *ASKED, "model_seed", "image")]
    arrays = {name: table.rows[name].to_numpy() for name in columns}
    keys = [(*MODEL, *ASKED), ("model_seed",)]
    named = [list(zip(*(table.rows[c].to_pylist() for c in names), strict=True)) for names in keys]
    groups: dict[tuple[Any, ...], dict[Any, list[int]]] = {}
    for i, (key, (seed,)) in enumerate(zip(*named, strict=True)):
        groups.setdefault(key, {}).setdefault(seed, []).append(i)
    found = []
    for key, seeds in groups.items():
        every = {name: values[list(chain(*seeds.values()))] for name, values in arrays.items()}
        pooled = corrected_columns(every, "pooled")
        for seed, places in seeds.items():
            own = {name: values[places] for name, values in arrays.items()}
            meta = dict(zip((*MODEL, *ASKED), key, strict=True))
            model = f"{meta['model_type']}_data{meta['data_seed']}_seed{seed}"
            measured = {**seed_columns(own), **gates(own), **corrected_columns(own, "corrected"), **pooled}
            found.append({**meta, "model_seed": seed, "model": model, **measured})
    return found


def write(store: Store) -> None:
    whole = store.table()
    store.save("values.parquet", whole)
    rows = rows_of(Table(whole))
    store.save("all_results.csv", pa.Table.from_pylist(rows))
    networks = list(dict.fromkeys(row["model_type"] for row in rows))
    for network in networks:
        _pointing_figure(store, network, [r for r in rows if r["model_type"] == network])
    store.write("summary.md", "\n".join(_summary(rows, networks)) + "\n")


def _first_cell(rows: Sequence[Row]) -> list[Row]:
    """Those of the first data seed and deviations, for the predicted class: the paper's tables."""
    names = ("data_seed", "train_pos_sd", "train_col_sd", "test_pos_sd", "test_col_sd")
    first = min(tuple(row[n] for n in names) for row in rows)
    return [r for r in rows if tuple(r[n] for n in names) == first and not r["use_y_true"]]


def _summary(rows: Sequence[Row], networks: Sequence[str]) -> list[str]:
    lines = [
        "# One discriminative pixel",
        "",
        "`all_results.csv` has every cell of the grid; `values.parquet` every image.",
    ]
    for network in networks:
        own = _first_cell([r for r in rows if r["model_type"] == network])
        lines += ["", f"## {network}", "", f"![pointing](pointing_{network}.png)", "", *_gate_lines(own), ""]
        lines += [*_table(own, network, softmax=False), "", *_table(own, network, softmax=True)]
    lines += ["", "## Deviations of position and colour", "", *_grid_lines(rows)]
    return lines


def _gate_lines(own: Sequence[Row]) -> list[str]:
    lines = ["| seed | with pixel | without | pixel on black | gate |", "| --- | --- | --- | --- | --- |"]
    seen: dict[int, Row] = {r["model_seed"]: r for r in own}
    for seed, r in sorted(seen.items()):
        numbers = " | ".join(f"{r[f'gate.{n}']:.3f}" for n in ("withpix", "nopix", "blackbg_withpix"))
        lines.append(f"| {seed} | {numbers} | {'holds' if r['gate.holds'] else 'fails'} |")
    known = published.PIXEL_ACCURACY.get(own[0]["model_type"])
    return lines + ([f"| published | {known[0] / 100:.3f} | {known[1] / 100:.3f} | | |"] if known else [])


def _table(own: Sequence[Row], network: str, *, softmax: bool) -> list[str]:
    what = "softmax" if softmax else "logit"
    lines = [
        f"Predicted class, {what}. The paper's definitions, mean over seeds / published (resnet18_3x3 where the"
        " network has no row); then pooled misses outside the default class.",
        "",
        "| map | pointing % | BP | BA | TP | TA | ties by share % | missed, needed | additive | subtractive |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    like = network if network in published.POINTING else "resnet18_3x3"
    for method in dict.fromkeys(r["attribution_method"] for r in own):
        group = [r for r in own if r["attribution_method"] == method and r["use_softmax"] == softmax]
        known = published.POINTING[like].get(method)
        theirs = published.IMPORTANCE[like].get(method) if softmax else None
        cells = [_beside([r["overall.attribution_correct_accuracy"] for r in group], known[softmax] if known else None)]
        for i, name in enumerate(EDITS[2:]):
            values = [r[f"attribution_incorrect.{name}_model_accuracy"] for r in group]
            cells.append(_beside(values, theirs[i] if theirs else None))
        one = group[0]
        cells += [f"{100 * one['pooled.pointing']:.1f}", f"{one['pooled.missed_needed']:.0f}"]
        cells += [_importance(one, name) for name in ("additive", "subtractive")]
        lines.append("| " + " | ".join([SHORT.get(method, method), *cells]) + " |")
    return lines


def _beside(values: Sequence[float], known: float | None) -> str:
    mean = f"{100 * float(np.mean(values)):.1f}"
    return mean if known is None else f"{mean} / {known:.1f}"


def _importance(row: Row, name: str) -> str:
    if row["pooled.missed_needed"] < LEAST_MISSED:
        return "too few"
    mean, low, high = (row[f"pooled.{name}_importance{end}"] for end in ("", "_low", "_high"))
    return f"{mean:+.2f} ({low:+.2f} to {high:+.2f})"


def _grid_lines(rows: Sequence[Row]) -> list[str]:
    """Pointing of logit maps for the predicted class, over data seeds and deviations."""
    names = ("model_type", "data_seed", "train_pos_sd", "train_col_sd", "test_pos_sd", "test_col_sd")
    methods = list(dict.fromkeys(r["attribution_method"] for r in rows))
    lines = ["| " + " | ".join([*names, "with pixel", *(SHORT.get(m, m) for m in methods)]) + " |"]
    lines.append("| " + " | ".join(["---"] * (len(names) + 1 + len(methods))) + " |")
    cells: dict[tuple[Any, ...], dict[str, Row]] = {}
    for r in rows:
        if not r["use_y_true"] and not r["use_softmax"]:
            cells.setdefault(tuple(r[n] for n in names), {})[r["attribution_method"]] = r
    for key, found in cells.items():
        right = next(iter(found.values()))["gate.withpix"]
        shown = [f"{100 * found[m]['pooled.pointing']:.1f}" for m in methods]
        lines.append("| " + " | ".join([*map(str, key), f"{right:.3f}", *shown]) + " |")
    return lines


def _pointing_figure(store: Store, network: str, rows: Sequence[Row]) -> None:
    """Left: each seed's pointing. Right: what the misses cost, where there are enough of them."""
    own = _first_cell(rows)
    methods = list(dict.fromkeys(r["attribution_method"] for r in own))
    like = network if network in published.POINTING else "resnet18_3x3"
    with figure(store.out / f"pointing_{network}.png", columns=2, size=(12, 4.2)) as (whole, ((left, right),)):
        for k, softmax in enumerate((False, True)):
            name = "softmax" if softmax else "logit"
            for i, method in enumerate(methods):
                group = [r for r in own if r["attribution_method"] == method and r["use_softmax"] == softmax]
                y = [100 * r["corrected.pointing"] for r in group]
                place = i + (k - 0.5) * 0.3
                left.plot(
                    [place] * len(y), y, MARKERS[k], color=COLOURS[k], markersize=5, alpha=0.8,
                    label=f"ours, {name}" if not i else None,
                )  # fmt: skip
                if known := published.POINTING[like].get(method):
                    left.plot(
                        place, known[softmax], "_", color="k", markersize=14, label=None if i or k else "published"
                    )
                _cost(right, group[0], i, k)
        for ax in (left, right):
            ax.set_xticks(range(len(methods)), [SHORT.get(m, m) for m in methods], rotation=30, ha="right")
        left.set_ylim(-3, 103)
        left.set_ylabel("% of images, ties by share")
        left.set_title("maximum at the planted pixel (one mark per seed)")
        right.axhline(0, color="k", linewidth=0.6)
        right.set_ylim(-1.05, 1.05)
        right.set_title("importance, planted minus pointed at, on misses (open: subtractive)")
        right.set_xlim(left.get_xlim())
        handles, labels = left.get_legend_handles_labels()
        whole.legend(handles, labels, loc="outside lower center", ncols=3)
        whole.suptitle(f"{network} (published: {like} on CIFAR-10)")


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
