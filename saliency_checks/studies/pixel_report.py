"""Tables and figures of the single-pixel study: the paper's columns by its own definitions, and corrected ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from saliency_checks.decision import ABOVE_CHANCE, LEAST_ALONE, LEAST_RIGHT
from saliency_checks.fixtures import planted
from saliency_checks.metrics.pixel_importance import LEAST_MISSED
from saliency_checks.studies import pixel_data, published
from saliency_checks.studies.store import Store
from saliency_checks.studies.table import NOTHING, Table, mean_with_limits

Values = NDArray[np.float64]
Row = dict[str, Any]
# One design, as the paper's table names it, and one question.
MODEL = ("dataset", "data_seed", "model_type", "train_pos_sd", "train_col_sd", "test_pos_sd", "test_col_sd")
ASKED = ("attribution_method", "use_y_true", "use_softmax")
EDITS = (
    "nopix", "withpix", "blackbg_withpix", "blackbg_withattrpix", "truebg_withblackattrpix", "truebg_withblackpix",
)  # fmt: skip
SHOWN = ("blackbg_withpix", "blackbg_withattrpix", "truebg_withblackpix", "truebg_withblackattrpix")  # BP, BA, TP, TA
PRESERVED = ("truebg_withblackattrpix_preserved", "truebg_withblackpix_preserved")
# The columns of their attribution_results.csv, in their order: their notebook reads ours.
SEED = (
    *(f"overall.{name}" for name in (
        "withpix_model_accuracy", "attribution_correct_accuracy", "nopix_model_accuracy",
        "truebg_withblackpix_model_accuracy",
    )),
    *(f"attribution_incorrect.{name}_model_accuracy" for name in EDITS),
    *(f"attribution_incorrect.{name}_accuracy" for name in PRESERVED),
    "overall.attribution_incorrect", "dataset", "data_seed", "model_type", "model_seed", "train_pos_sd", "train_col_sd",
    "test_pos_sd", "test_col_sd", "attribution_method", "use_y_true", "use_softmax", "model",
)  # fmt: skip
CHANCE, CHANCE_AMONG_DECOYS = 1 / pixel_data.CLASSES, 1 / planted.CLASSES
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
    found |= _limits(f"{prefix}.recovery", rows["recovered"][~np.isnan(rows["recovered"])])
    additive, subtractive = importances(rows)
    missed = int((rows["hit"] == 0).sum())
    found[f"{prefix}.missed_default_class"] = float(missed - len(additive))
    found[f"{prefix}.missed_needed"] = float(len(additive))
    found |= _limits(f"{prefix}.additive_importance", additive)
    found |= _limits(f"{prefix}.subtractive_importance", subtractive)
    return found


def gates(rows: Mapping[str, Values], chance: float = CHANCE) -> dict[str, float]:
    """What the network must do before a map can be blamed."""
    right, without, alone = (float(rows[name].mean()) for name in ("withpix", "nopix", "blackbg_withpix"))
    holds = right >= LEAST_RIGHT and without <= chance + ABOVE_CHANCE and alone >= LEAST_ALONE
    return {"gate.withpix": right, "gate.nopix": without, "gate.blackbg_withpix": alone, "gate.holds": float(holds)}


def different(rows: Mapping[str, Values]) -> dict[str, float]:
    """With another class's pixel: right all the same (the paper's ``diff``), and right about the pixel."""
    return {
        "different.model_accuracy": float(rows["different"].mean()),
        "different.planted_class_accuracy": float(rows["different_followed"].mean()),
    }


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
            chance = CHANCE_AMONG_DECOYS if is_among_decoys(meta) else CHANCE
            row = {**meta, "model_seed": seed, "model": model, **seed_columns(own)}
            beside = {**gates(own, chance), **different(own), **corrected_columns(own, "corrected"), **pooled}
            found.append({**{name: row[name] for name in SEED}, **beside})
    return found


def is_among_decoys(row: Mapping[str, Any]) -> bool:
    return bool(row["dataset"] == "decoys")


def write(store: Store) -> list[Row]:
    """Values of every image, a table of every cell, and the summary; returns the table's rows."""
    whole = store.table()
    store.save("values.parquet", whole)
    rows = rows_of(Table(whole))
    store.save("all_results.csv", pa.Table.from_pylist(rows))
    store.write("summary.md", "\n".join(_summary(rows, store.manifest.get("setup", {}))) + "\n")
    return rows


def first_cell(rows: Sequence[Row]) -> list[Row]:
    """Those of the first data seed and deviations, for the predicted class: the paper's tables."""
    names = ("data_seed", "train_pos_sd", "train_col_sd", "test_pos_sd", "test_col_sd")
    first = min(tuple(row[n] for n in names) for row in rows)
    return [r for r in rows if tuple(r[n] for n in names) == first and not r["use_y_true"]]


def networks_of(rows: Sequence[Row]) -> list[str]:
    """In their order."""
    return list(dict.fromkeys(row["model_type"] for row in rows))


def methods_of(rows: Sequence[Row]) -> list[str]:
    """In their order."""
    return list(dict.fromkeys(row["attribution_method"] for row in rows))


def published_like(network: str, rows: Sequence[Row]) -> str:
    """Whose published numbers stand beside a network's: its own, else those of resnet18_3x3; "" for another design."""
    if any(row["dataset"] != "SinglePixelDataset" for row in rows):
        return ""
    return network if network in published.POINTING else "resnet18_3x3"


def _summary(rows: Sequence[Row], setup: Mapping[str, Any]) -> list[str]:
    made = ", ".join(f"{name} {value}" for name, value in setup.items() if value not in (None, 0))
    lines = ["# One discriminative pixel", "", f"Setup: {made}." if made else "", ""]
    lines += ["`all_results.csv` has every cell of the grid; `values.parquet` every image."]
    for network in networks_of(rows):
        every = [r for r in rows if r["model_type"] == network]
        own = first_cell(every)
        lines += ["", f"## {network}", "", f"![pointing](pointing_{network}.png)", "", *_gate_lines(own), ""]
        lines += [*_table(own, network, softmax=False), "", *_table(own, network, softmax=True)]
    return [*lines, "", "## Deviations of position and colour", "", *_grid_lines(rows)]


def _gate_lines(own: Sequence[Row]) -> list[str]:
    lines = [
        "| seed | with pixel | without | pixel on black | gate | another class's pixel: own class | that class |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    seen: dict[int, Row] = {r["model_seed"]: r for r in own}
    for seed, r in sorted(seen.items()):
        numbers = " | ".join(f"{r[f'gate.{n}']:.3f}" for n in ("withpix", "nopix", "blackbg_withpix"))
        moved = " | ".join(f"{r[f'different.{n}_accuracy']:.3f}" for n in ("model", "planted_class"))
        lines.append(f"| {seed} | {numbers} | {'holds' if r['gate.holds'] else 'fails'} | {moved} |")
    like = own[0]["model_type"]
    known = published.PIXEL_ACCURACY.get(like) if published_like(like, own) else None
    return lines + ([f"| published | {known[0] / 100:.3f} | {known[1] / 100:.3f} | | | | |"] if known else [])


def _table(own: Sequence[Row], network: str, *, softmax: bool) -> list[str]:
    like = published_like(network, own)
    beside = f" / published ({like})" if like else ""
    among_decoys = is_among_decoys(own[0])
    columns = [
        "map",
        "pointing %",
        "BP",
        "BA",
        "TP",
        "TA",
        "ties by share %",
        "missed, needed",
        "additive",
        "subtractive",
    ]
    columns += ["beats the decoys %"] if among_decoys else []
    lines = [
        f"Predicted class, {'softmax' if softmax else 'logit'}. The paper's definitions, mean over seeds{beside}; then"
        " pooled misses outside the default class.",
        "",
        "| " + " | ".join(columns) + " |",
        "| --- " * len(columns) + "|",
    ]
    for method in methods_of(own):
        group = [r for r in own if r["attribution_method"] == method and r["use_softmax"] == softmax]
        known = published.POINTING.get(like, {}).get(method)
        theirs = published.IMPORTANCE.get(like, {}).get(method) if softmax else None
        cells = [_beside([r["overall.attribution_correct_accuracy"] for r in group], known[softmax] if known else None)]
        for i, name in enumerate(SHOWN):
            values = [r[f"attribution_incorrect.{name}_model_accuracy"] for r in group]
            cells.append(_beside(values, theirs[i] if theirs else None))
        one = group[0]
        cells += [f"{100 * one['pooled.pointing']:.1f}", f"{one['pooled.missed_needed']:.0f}"]
        cells += [_importance(one, name) for name in ("additive", "subtractive")]
        cells += [f"{100 * one['pooled.recovery']:.1f}"] if among_decoys else []
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
    methods = methods_of(rows)
    columns = [*names, "with pixel", "gates hold", *(SHORT.get(m, m) for m in methods)]
    lines = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for r in rows:
        if not r["use_y_true"] and not r["use_softmax"]:
            cells.setdefault(tuple(r[n] for n in names), []).append(r)
    for key, found in cells.items():
        by_method = {r["attribution_method"]: r for r in found}
        networks = {r["model_seed"]: r for r in found}.values()
        right = float(np.mean([r["gate.withpix"] for r in networks]))
        held = f"{sum(r['gate.holds'] for r in networks):.0f} of {len(networks)}"
        shown = [f"{100 * by_method[m]['pooled.pointing']:.1f}" for m in methods]
        lines.append("| " + " | ".join([*map(str, key), f"{right:.3f}", held, *shown]) + " |")
    return lines
