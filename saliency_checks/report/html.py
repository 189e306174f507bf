"""The HTML report: one file that works offline from disk, reads without a script and escapes what came from outside."""

from __future__ import annotations

import base64
import hashlib
import re
from collections import Counter
from html import escape as e

from saliency_checks.report import Report, Row
from saliency_checks.report.assets import SCRIPT, STYLE
from saliency_checks.report.cards import Cell, card, cells
from saliency_checks.report.changes import Change, changes
from saliency_checks.report.charts import acuity_section
from saliency_checks.report.status import NAMES, RED, STATUS, short


def page(report: Report, *, against: Report | None = None) -> str:
    """The whole document; ``against`` puts an older run of the same cells beside it."""
    rows = report.sorted_rows
    found = changes(against, report) if against else {}
    shown = cells(report, found)
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>saliency checks: {_title(rows)}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{_policy()}"><style>{STYLE}</style></head>'
        f"<body>{_header(report, against)}<main>{_filters(rows, bool(against))}{_matrix(report, shown)}"
        f"{_changed(found)}{acuity_section(report)}{_cards(report, shown)}</main>"
        '<dialog id="panel" aria-labelledby="panel-title"><form method="dialog"><h2 id="panel-title"></h2>'
        '<button type="button" id="previous" title="left arrow key">Previous</button>'
        '<button type="button" id="next" title="right arrow key">Next</button><button>Close</button></form>'
        '<div id="content"></div></dialog>'
        "<footer>A pass is necessary, not sufficient: it says that this property was not seen to be violated.</footer>"
        f"<script>{SCRIPT}</script></body></html>\n"
    )


def _policy() -> str:
    """Nothing is loaded; only this page's own style and script apply, whatever a report may smuggle in."""

    def digest(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    return f"default-src 'none'; img-src data:; style-src {digest(STYLE)}; script-src {digest(SCRIPT)}"


def _title(rows: list[Row]) -> str:
    red = sum(row.status in RED for row in rows)
    return f"{red} of {len(rows)} need attention" if red else f"{len(rows)} verdicts, none red"


def _header(report: Report, against: Report | None) -> str:
    rows = report.sorted_rows
    counted = Counter(row.status for row in rows)
    buttons = "".join(
        f'<li><button type="button" value="{e(status)}" class="{e(status)}" aria-pressed="false">'
        f"<b>{counted[status]}</b> {e(NAMES.get(status, status))}</button></li>"
        for status in STATUS
        if counted[status]
    )
    facts = ", ".join(f"{name} {value}" for name, value in report.environment.items() if value != "")
    warning = f'<p class="warning">This report is incomplete: {e(report.incomplete)}.</p>' if report.incomplete else ""
    return (
        f'<header><h1>saliency checks: {_title(rows)}</h1><p class="soft"><small>{e(facts)}</small></p>'
        f"{_compared(report, against)}{warning}"
        f'<ul class="counts" aria-label="verdicts">{buttons}</ul></header>'
    )


def _compared(report: Report, against: Report | None) -> str:
    if not against:
        return ""
    names = sorted(set(report.environment) | set(against.environment))
    pairs = [(name, against.environment.get(name, "none"), report.environment.get(name, "none")) for name in names]
    told = "; ".join(f"{name} {old} before, {new} now" for name, old, new in pairs if old != new)
    warning = f'<p class="warning">The two runs differ: {e(told)}.</p>' if told else ""
    return f"<p>Compared with an older run of {len(against.rows)} verdicts, shown hollow and in grey.</p>{warning}"


def _filters(rows: list[Row], compared: bool) -> str:
    def select(name: str, label: str, options: list[tuple[str, str]]) -> str:
        made = "".join(f'<option value="{e(value)}">{e(text)}</option>' for value, text in options)
        return f'<label>{label}<select name="{name}"><option value="">all</option>{made}</select></label>'

    checks = [(name, name) for name in sorted({row.result.check for row in rows})]
    subjects = [(name, name) for name in sorted({row.result.subject for row in rows})]
    statuses = [("red", "needs attention"), *([("changed", "changed")] if compared else [])]
    present = {row.status for row in rows}
    statuses += [(status, NAMES.get(status, status)) for status in STATUS if status in present]
    return (
        '<form id="filters" aria-label="filter"><label>method<input type="search" name="method" '
        'placeholder="part of a name" autocomplete="off"></label>'
        f"{select('check', 'check', checks)}{select('subject', 'subject', subjects)}"
        f'{select("status", "verdict", statuses)}<button type="reset">Show all</button>'
        f'<span id="shown" class="soft" role="status">{len(rows)} verdicts</span></form>'
    )


def _matrix(report: Report, shown: list[Cell]) -> str:
    """Methods down, checks across; a cell holds a chip per subject, the worst first and in words."""
    by_place = {(cell.method, cell.check): cell for cell in shown}
    checks = sorted({cell.check for cell in shown}, key=lambda name: (name != "contract", name))
    heads = "".join(
        f'<th scope="col" data-column="{i}" title="{e(str(report.checks.get(name, {}).get("summary", "")))}">'
        f"{_breakable(name)}</th>"
        for i, name in enumerate(checks)
    )
    lines = []
    for method in sorted({cell.method for cell in shown}):
        places = "".join(
            f'<td data-column="{i}">{_chips(by_place[method, check]) if (method, check) in by_place else ""}</td>'
            for i, check in enumerate(checks)
        )
        lines.append(f'<tr><th scope="row">{_breakable(method)}</th>{places}</tr>')
    best = "".join(f'<td data-column="{i}">{short(_best_control(shown, check))}</td>' for i, check in enumerate(checks))
    return (
        '<div class="wide" tabindex="0" role="region" aria-label="matrix of verdicts"><table class="matrix"><thead><tr>'
        f'<th scope="col">method</th>{heads}</tr></thead><tbody>{"".join(lines)}</tbody>'
        f'<tfoot><tr><th scope="row">best control</th>{best}</tr></tfoot></table></div>'
        '<p class="soft"><small>A cell is the worst of its subjects, the squares below it are the others. Open one for '
        "its interval, controls, curves and images. Controls never look at the model.</small></p>"
    )


def _chips(cell: Cell) -> str:
    made = []
    for i, (row, change) in enumerate(zip(cell.rows, cell.changes, strict=True)):
        result = row.result
        word = STATUS[row.status][0] or row.status
        was = f'<span class="was">{e(change.since)}</span>' if change and change.differs else ""
        name = f"{result.method}, {result.check}, {result.subject}: {word} {short(result.score)}"
        made.append(
            f'<a class="chip {e(row.status)}{" lead" if i == 0 else ""}" href="#{cell.anchor}" title="{e(name)}"'
            f' aria-label="{e(name)}" {data(row, change)}><span>{e(word)}</span>'
            f"<span>{short(result.score)}</span>{was}</a>"
        )
    return f'<div class="chips">{"".join(made)}</div>'


def data(row: Row, change: Change | None) -> str:
    """Attributes that the filters read."""
    result = row.result
    changed = ' data-changed="1"' if change and change.differs else ""
    return (
        f'data-method="{e(result.method)}" data-check="{e(result.check)}" data-subject="{e(result.subject)}"'
        f' data-status="{e(row.status)}"{changed}'
    )


def _best_control(shown: list[Cell], check: str) -> float | None:
    judged = [row.result for cell in shown if cell.check == check for row in cell.rows if row.result.controls]
    scores = [score for result in judged for score in result.controls.values()]
    if not scores:
        return None
    return max(scores) if judged[0].better == "higher" else min(scores)


def _breakable(name: str) -> str:
    return re.sub("_", "_<wbr>", e(name))


def _changed(found: dict[str, Change]) -> str:
    """What moved between the two runs, the worst first."""
    moved = sorted((c for c in found.values() if c.differs), key=lambda c: c.rank)
    if not found:
        return ""
    lines = "".join(
        f"<tr><td>{_link(change)}</td><td>{e(change.was)}</td>"
        f'<td>{e(change.now)}</td><td class="{change.kind}">{e(change.told)}</td></tr>'
        for change in moved
    )
    table = (
        '<div class="wide"><table class="changes"><thead><tr><th>verdict</th><th>before</th><th>now</th>'
        f"<th>change</th></tr></thead><tbody>{lines}</tbody></table></div>"
    )
    same = sum(not change.differs for change in found.values())
    return f"<section><h2>What changed</h2>{table if moved else ''}<p>{same} verdicts are as before.</p></section>"


def _link(change: Change) -> str:
    """To the cell, where this run has it."""
    key = e(change.key).replace("/", "/<wbr>")
    return key if change.is_gone else f'<a href="#{e(change.anchor)}">{key}</a>'


def _cards(report: Report, shown: list[Cell]) -> str:
    groups = []
    for check in sorted({cell.check for cell in shown}, key=lambda name: (name != "contract", name)):
        about = report.checks.get(check, {})
        made = "".join(card(cell, about, data) for cell in shown if cell.check == check)
        summary = f'<p class="soft">{e(str(about.get("summary", "")))}</p>' if about else ""
        groups.append(f"<div data-group><h3>{e(check)}</h3>{summary}{made}</div>")
    return f"<section><h2>Every verdict</h2>{''.join(groups)}</section>"
