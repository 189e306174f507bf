"""Curves that a result's details hold, and the section that asks how small a cause each method finds."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from html import escape as e
from typing import Any

from saliency_checks.report import Report, Row, svg
from saliency_checks.report.status import STATUS
from saliency_checks.result import Result

Z = 1.959964  # of a 95 % interval
TARGET = 0.75  # share of the images in which acuity asks that the cause is found
MOST_STEPS = 400


def numbers(value: Any) -> list[float]:
    """The list of finite numbers that this is, or an empty one: details of a report are somebody else's data."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not 2 <= len(value) <= MOST_STEPS:
        return []
    fit = all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in value)
    return [float(v) for v in value] if fit else []


def charts(result: Result, before: Result | None = None) -> str:
    """All curves of a result, each as a figure; "" where there are none."""
    details, older = result.details, before.details if before else {}
    found = [*_deletion(details, older), *_layers(details, older), *_acuity(details, older, result.n)]
    return f'<div class="charts">{"".join(found)}</div>' if found else ""


def _deletion(details: Mapping[str, Any], older: Mapping[str, Any]) -> list[str]:
    steps, given = numbers(details.get("fractions")), details.get("curves")
    if not steps or not isinstance(given, Mapping):
        return []
    series = []
    for kind, (name, values) in zip("ab", given.items(), strict=False):
        if len(found := numbers(values)) == len(steps):
            series.append(svg.Series(name=str(name), values=found, kind=kind))
        was = numbers(older.get("curves", {}).get(name)) if isinstance(older.get("curves"), Mapping) else []
        if len(was) == len(steps):
            series.append(svg.Series(name=f"{name}, before", values=was, kind="was"))
    caption = "The class's evidence while pixels are deleted, from none to all"
    return [_figure(caption, series, [f"{step:.0%}" for step in steps])] if series else []


def _layers(details: Mapping[str, Any], older: Mapping[str, Any]) -> list[str]:
    values, layers = numbers(details.get("similarity")), details.get("layers")
    if not values or not isinstance(layers, Sequence) or len(layers) != len(values):
        return []
    series = [svg.Series(name="similarity", values=values, kind="a")]
    if len(was := numbers(older.get("similarity"))) == len(values):
        series.append(svg.Series(name="before", values=was, kind="was"))
    repeat = details.get("repeat")
    level = float(repeat) if isinstance(repeat, int | float) and not isinstance(repeat, bool) else None
    caption = "Similarity to the original map, by the layer that was drawn again"
    note = f"dashed: two calls with the same weights ({level:.2f})" if level is not None else ""
    return [_figure(caption, series, [str(layer) for layer in layers], level=level, note=note)]


def _acuity(details: Mapping[str, Any], older: Mapping[str, Any], n: int) -> list[str]:
    steps, values = recovery(details)
    if not steps:
        return []
    series = [_with_limits("worst detector", values, n)]
    if recovery(older)[0] == steps:
        series.append(svg.Series(name="before", values=recovery(older)[1], kind="was"))
    caption = "Share of the images whose cause is found, by its size"
    return [_figure(caption, series, _effects(steps), level=TARGET, span=svg.Scale(low=0, high=1.02))]


def recovery(details: Mapping[str, Any]) -> tuple[list[float], list[float]]:
    """(effects, share found by the worst detector at each); empty where the details hold no such curve."""
    steps, rows = numbers(details.get("effects")), details.get("recovery")
    if not steps or not isinstance(rows, Sequence) or isinstance(rows, str):
        return [], []
    found = [row for row in map(numbers, rows) if len(row) == len(steps) and all(0 <= v <= 1 for v in row)]
    return (steps, [min(column) for column in zip(*found, strict=True)]) if found else ([], [])


def _with_limits(name: str, shares: Sequence[float], n: int, kind: str = "a") -> svg.Series:
    limits = [wilson(share, n) for share in shares] if n else []
    return svg.Series(
        name=name, values=shares, low=[a for a, _ in limits], high=[b for _, b in limits], kind=kind
    )  # fmt: skip


def wilson(share: float, n: int) -> tuple[float, float]:
    """95 % limits of a proportion (Wilson 1927)."""
    middle, room = share + Z**2 / (2 * n), Z * math.sqrt(share * (1 - share) / n + (Z / (2 * n)) ** 2)
    return max(0.0, (middle - room) / (1 + Z**2 / n)), min(1.0, (middle + room) / (1 + Z**2 / n))


def acuity_section(report: Report) -> str:
    """One panel per method, each over all the others in grey; one group per subject."""
    groups: dict[str, list[tuple[Row, list[float], list[float]]]] = defaultdict(list)
    for row in report.sorted_rows:
        steps, values = recovery(row.result.details)
        if steps:
            groups[row.result.subject].append((row, steps, values))
    if not groups:
        return ""
    body = "".join(_panels(subject, found) for subject, found in sorted(groups.items()))
    return (
        '<section id="acuity"><h2>How small a cause can the method find?</h2><p class="soft">A known cause of growing '
        "size, in spreads of the model's own logits, is grafted onto the model. Each panel shows the share of images "
        "in which the map ranks it above all look-alikes: one method in colour with its 95 % interval (the worst "
        f"detector), the others in grey. The dashed line is {TARGET:.0%}. Further up and to the left is better.</p>"
        f"{body}</section>"
    )


def _panels(subject: str, found: list[tuple[Row, list[float], list[float]]]) -> str:
    best_first = sorted(found, key=lambda item: (item[0].result.score or 0.0, -sum(item[2])))
    panels = []
    for row, steps, values in best_first:
        others = [
            svg.Series(name=other.result.method, values=theirs, kind="other")
            for other, same, theirs in found
            if other is not row and same == steps
        ]
        own = _with_limits(row.result.method, values, row.result.n)
        label = f"{row.result.method} on {subject}: {_told(steps, values)}"
        picture = svg.curves([*others, own], _effects(steps), label, level=TARGET, span=svg.Scale(low=0, high=1.02))
        word = STATUS[row.status][0] or row.status
        score = "" if row.result.score is None else f"three of four from {row.result.score:g} on"
        panels.append(
            f'<figure data-status="{e(row.status)}" data-method="{e(row.result.method)}"'
            f' data-check="{e(row.result.check)}" data-subject="{e(subject)}">'
            f"<figcaption><b>{e(row.result.method)}</b> "
            f'<span class="badge {e(row.status)}">{e(word)}</span> <span class="soft">{score}</span></figcaption>'
            f"{picture}</figure>"
        )
    heads = "".join(f'<th scope="col">{e(step)}</th>' for step in _effects(best_first[0][1]))
    lines = "".join(
        f'<tr><th scope="row">{e(row.result.method)}</th>{"".join(f"<td>{v:.2f}</td>" for v in values)}</tr>'
        for row, _, values in best_first
    )
    table = f'<table class="numbers-table"><tr><th>effect</th>{heads}</tr>{lines}</table>'
    return (
        f'<h3>on {e(subject)}</h3><div class="grid">{"".join(panels)}</div>'
        f"<details><summary>the same in numbers</summary>{table}</details>"
    )


def _effects(steps: Sequence[float]) -> list[str]:
    return [f"{step:g}" for step in steps]


def _told(steps: Sequence[float], values: Sequence[float]) -> str:
    return ", ".join(f"{step:g}: {value:.2f}" for step, value in zip(steps, values, strict=True))


def _figure(
    caption: str, series: Sequence[svg.Series], steps: Sequence[str], *, level: float | None = None,
    span: svg.Scale | None = None, note: str = "",
) -> str:  # fmt: skip
    key = "".join(f'<span class="key {one.kind}">{e(one.name)}</span>' for one in series)
    told = "; ".join(f"{one.name} {_told_ends(one.values)}" for one in series)
    picture = svg.curves(series, steps, f"{caption}: {told}", level=level, span=span)
    small = f'<span class="soft">{e(note)}</span>' if note else ""
    return f"<figure><figcaption>{e(caption)}</figcaption>{picture}<div>{key}{small}</div></figure>"


def _told_ends(values: Sequence[float]) -> str:
    return f"from {values[0]:.2f} to {values[-1]:.2f}"
