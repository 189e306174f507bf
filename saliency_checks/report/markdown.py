"""The report as Markdown: a comment on a pull request, or a CI job's summary."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator

from saliency_checks.report import Report, Row
from saliency_checks.report.changes import changes
from saliency_checks.report.status import NAMES, RED, STATUS, badness, short

MOST_TEXTS = 20  # of whole failure texts; GitHub cuts a comment at 65536 letters


def page(report: Report, *, against: Report | None = None) -> str:
    """A line of counts, the matrix, what changed, and the whole text of what is red."""
    return "\n".join([*_head(report), "", *_matrix(report), *_changed(report, against), *_red(report), ""])


def _head(report: Report) -> Iterator[str]:
    counted = Counter(row.status for row in report.rows.values())
    yield "## saliency checks: " + ", ".join(f"{counted[s]} {NAMES.get(s, s)}" for s in STATUS if counted[s])
    if report.incomplete:
        yield f"\n**Incomplete: {_safe(report.incomplete)}.**"
    facts = ", ".join(f"{name} {value}" for name, value in report.environment.items() if value != "")
    yield f"\n<sub>{_safe(facts)}</sub>"


def _matrix(report: Report) -> Iterator[str]:
    rows = report.sorted_rows
    checks = sorted({row.result.check for row in rows}, key=lambda name: (name != "contract", name))
    yield "| method | " + " | ".join(map(_safe, checks)) + " |"
    yield "|---|" + "---|" * len(checks)
    for method in sorted({row.result.method for row in rows}):
        places = [[r for r in rows if (r.result.method, r.result.check) == (method, check)] for check in checks]
        yield f"| {_safe(method)} | " + " | ".join(_cell(place) for place in places) + " |"


def _cell(rows: list[Row]) -> str:
    if not rows:
        return ""
    worst = min(rows, key=badness)
    text = f"{STATUS[worst.status][0]} {short(worst.result.score)}".strip()
    return f"**{text}**" if worst.status in RED else text


def _changed(report: Report, against: Report | None) -> Iterator[str]:
    if against is None:
        return
    moved = sorted((c for c in changes(against, report).values() if c.differs), key=lambda change: change.rank)
    yield from ("", "### What changed", "")
    if not moved:
        yield "Nothing."
        return
    yield from ("| verdict | before | now | change |", "|---|---|---|---|")
    yield from (f"| {_safe(c.key)} | {_safe(c.was)} | {_safe(c.now)} | {_safe(c.told)} |" for c in moved)


def _red(report: Report) -> Iterator[str]:
    rows = sorted(report.having(*RED), key=badness)
    for row in rows[:MOST_TEXTS]:
        head = row.result.message.splitlines()[0] if row.result.message else row.status
        yield from ("", f"<details><summary>{_safe(row.result.key)}: {_safe(head)}</summary>", "")
        fence = "`" * (3 + max((len(run) for run in re.findall("`+", row.result.message)), default=0))
        yield from (f"{fence}text", row.result.message, fence, "", "</details>")
    if len(rows) > MOST_TEXTS:
        yield f"\n{len(rows) - MOST_TEXTS} more are in the JSON and HTML reports."


def _safe(text: str) -> str:
    """Text that is no markup: neither HTML nor Markdown, on one line."""
    flat = " ".join(str(text).split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*\[\]|@#])", r"\\\1", flat)
