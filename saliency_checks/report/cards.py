"""One cell of the matrix in full: intervals, controls, curves, images, what it means and how to repeat it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape as e
from typing import Any

from saliency_checks.report import Report, Row, svg
from saliency_checks.report.changes import Change
from saliency_checks.report.charts import charts, numbers
from saliency_checks.report.status import STATUS, badness, short
from saliency_checks.result import Result

PNG = re.compile(r"[A-Za-z0-9+/]+={0,2}")
BOUND = re.compile(r"(>=|<=) ?(-?[\d.]+(?:e-?\d+)?)")
CONTROLS_SHOWN = 5
Data = Callable[[Row, Change | None], str]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """All subjects of a check and a method, the worst first."""

    check: str
    method: str
    anchor: str
    rows: Sequence[Row]
    changes: Sequence[Change | None]
    scale: svg.Scale


def cells(report: Report, changes: Mapping[str, Change]) -> list[Cell]:
    """Sorted by check and method; the pictures of one check share a scale."""
    rows = report.sorted_rows
    made = []
    for check, method in sorted({(row.result.check, row.result.method) for row in rows}):
        here = sorted((r for r in rows if (r.result.check, r.result.method) == (check, method)), key=badness)
        alike = [row.result for row in rows if row.result.check == check]
        made.append(
            Cell(
                check=check,
                method=method,
                anchor=anchor(check, method),
                rows=here,
                changes=[changes.get(row.result.key) for row in here],
                scale=_scale(alike, changes),
            )
        )
    return made


def anchor(check: str, method: str) -> str:
    """A fragment that can be shared; names with other letters are told apart by their numbers."""
    return "c-" + re.sub(r"[^A-Za-z0-9_.-]", lambda match: f"-{ord(match[0])}-", f"{check}.{method}")


def badge(row: Row) -> str:
    return f'<span class="badge {e(row.status)}">{e(STATUS[row.status][0] or row.status)}</span>'


def card(cell: Cell, about: Mapping[str, Any], data: Data) -> str:
    """A native details element; its body is what the dialog shows too."""
    worst = cell.rows[0]
    title = f"{cell.method}: {cell.check}"
    sections = "".join(_section(row, change, data) for row, change in zip(cell.rows, cell.changes, strict=True))
    score = "" if worst.result.score is None else f"{short(worst.result.score)} on {worst.result.subject}"
    return (
        f'<details class="card" data-title="{e(title)}"><summary>{badge(worst)} <b>{e(cell.method)}</b> '
        f'<span class="soft">{e(score)}</span></summary><div class="body"><div id="{cell.anchor}">'
        f'<p class="soft">{e(str(about.get("summary", "")))}</p></div>{_intervals(cell)}{_meaning(about)}{sections}'
        "</div></details>"
    )


def _scale(results: Sequence[Result], changes: Mapping[str, Change]) -> svg.Scale:
    values = [v for r in results for v in (r.score, r.low, r.high, *r.controls.values()) if v is not None]
    values += [v for r in results if r.key in changes for v in changes[r.key].before]
    values += [float(match[2]) for r in results if r.bound and (match := BOUND.fullmatch(r.bound))]
    return svg.Scale.over(values)


def _intervals(cell: Cell) -> str:
    """Subjects down: name, picture, numbers."""
    measured = [(row, c) for row, c in zip(cell.rows, cell.changes, strict=True) if row.result.score is not None]
    if not measured:
        return ""
    bars, numbers = [], []
    for row, change in measured:
        result = row.result
        score = result.score or 0.0
        low, high = (score if edge is None else edge for edge in (result.low, result.high))
        title = f"{result.subject}: {score:.3g} [{low:.3g}, {high:.3g}]"
        before = change.before if change and len(change.before) == 3 else None
        bars.append(
            svg.Bar(
                score=score,
                low=low,
                high=high,
                kind=row.status,
                controls=result.controls,
                before=before,
                title=title,
            )
        )
        numbers.append(f'<li>{score:.2f} <span class="interval soft">[{low:.2f}, {high:.2f}]</span></li>')
    first = measured[0][0].result
    match = BOUND.fullmatch(first.bound or "")
    bound = (match[1], float(match[2])) if match else None
    names = "".join(f'<li title="{e(row.result.subject)}">{e(row.result.subject)}</li>' for row, _ in measured)
    picture = svg.intervals(bars, cell.scale, bound, "; ".join(bar.title for bar in bars))
    told = f"the tinted side holds the bound {first.bound}" if bound else "no bound: reported, never failed"
    return (
        f'<div class="rows"><ul class="names">{names}</ul>{picture}<ul class="numbers">{"".join(numbers)}</ul></div>'
        f'<p class="soft"><small>Dot and bar: score and interval; {e(told)}; grey ticks: controls.</small></p>'
    )


def _meaning(about: Mapping[str, Any]) -> str:
    checks = about.get("if_fails", ())
    items = "".join(f"<li>{e(str(text))}</li>" for text in checks) if isinstance(checks, list | tuple) else ""
    meaning, reference = str(about.get("meaning", "")), str(about.get("reference", ""))
    if not (meaning or items or reference):
        return ""
    return (
        "<details><summary>What a bad score means, and what to check then</summary>"
        f"<p>{e(meaning)}</p><ol>{items}</ol>" + (f'<p class="soft">{e(reference)}</p>' if reference else "")
    ) + "</details>"


def _section(row: Row, change: Change | None, data: Data) -> str:
    """One subject."""
    result = row.result
    command = result.command or f"saliency-checks run {result.method} --subject {result.subject} -k {result.check}"
    known = f'<p class="soft">Expected to fail: {e(row.expected)}</p>' if row.expected else ""
    before = f" ({change.since})" if change and change.old else ""
    told = f'<p class="{change.kind}">{e(change.told)}{e(before)}</p>' if change else ""
    return (
        f"<section {data(row, change)}><h4>{e(result.subject)} {badge(row)}</h4>{known}{told}{_facts(result)}"
        f"{charts(result, change.old if change else None)}{_images(result)}{_text(row)}"
        f"<pre>{e(command)}</pre></section>"
    )


def _facts(result: Result) -> str:
    facts = []
    if result.score is not None:
        low, high = result.low, result.high
        interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
        facts.append(("score", f"{result.score:.3f}{interval}, {result.better} is better, {result.n} images"))
    facts.append(("bound", f"{result.bound or 'none'} ({result.bound_origin}), seed {result.seed}"))
    if result.controls:
        best = sorted(result.controls.items(), key=lambda item: item[1], reverse=result.better == "higher")
        facts.append(("best controls", ", ".join(f"{name} {score:.2f}" for name, score in best[:CONTROLS_SHOWN])))
    facts.append(("took", f"{result.seconds:.1f} s"))
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{e(text)}</dd>' for name, text in facts)}</dl>"


def _text(row: Row) -> str:
    if not row.result.message:
        return ""
    is_open = " open" if row.status in ("fail", "error", "xpass", "inconclusive", "skip") else ""
    return f"<details{is_open}><summary>the whole text</summary><pre>{e(row.result.message)}</pre></details>"


def _images(result: Result) -> str:
    made = "".join(_pair(example) for example in result.examples if isinstance(example, Mapping))
    legend = "Red speaks for the class, blue against it, white is zero; a frame is the known cause."
    head = f'<h4>worst and best images</h4><p class="soft"><small>{legend}</small></p>'
    return f'{head}<div class="images">{made}</div>' if made else ""


def _pair(example: Mapping[str, Any]) -> str:
    """An input beside its map; the known cause framed on both."""
    pictures = [example.get(kind) for kind in ("input", "map")]
    if not all(isinstance(text, str) and PNG.fullmatch(text) for text in pictures):
        return ""
    score = example.get("score")
    told = f"{example.get('rank')}: image {example.get('index')}"
    told += f", {score:.2f}" if isinstance(score, int | float) else ""
    frame, box = "", numbers(example.get("cause"))
    if len(box) == 4:
        place = f'x="{box[0]:.1%}" y="{box[1]:.1%}" width="{box[2] - box[0]:.1%}" height="{box[3] - box[1]:.1%}"'
        frame = f'<svg aria-hidden="true"><rect class="cause" {place}/><rect class="cause" {place}/></svg>'
    halves = "".join(
        f'<div class="picture"><img alt="{e(kind)} of image {e(str(example.get("index")))}"'
        f' src="data:image/png;base64,{text}">{frame}</div>'
        for kind, text in zip(("input", "map"), pictures, strict=True)
    )
    return f'<figure class="pair">{halves}<figcaption>{e(told)}</figcaption></figure>'
