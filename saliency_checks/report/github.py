"""Annotations of a CI job: GitHub's workflow commands, which other servers print as plain lines."""

from __future__ import annotations

from collections.abc import Iterator

from saliency_checks.report import Report
from saliency_checks.report.status import RED, badness

MOST = 10  # that GitHub shows of one step


def lines(report: Report) -> Iterator[str]:
    """``::error title=KEY::TEXT`` for what is red, the worst first; names and texts cannot end the command."""
    rows = sorted(report.having(*RED), key=badness)
    for row in rows[:MOST]:
        title = _escaped(row.result.key).replace(":", "%3A").replace(",", "%2C")
        yield f"::error title={title}::{_escaped(row.result.message or row.status)}"
    if len(rows) > MOST:
        yield f"::error title=saliency checks::{len(rows) - MOST} more need attention, see the report"


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
