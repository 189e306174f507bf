"""What a status is called, wherever it is shown; the worst first."""

from __future__ import annotations

from typing import Any

from saliency_checks.report import XFAIL, XPASS, Row
from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, REPORTED, SKIP

# The word in a cell, and how pytest's terminal writer marks it.
STATUS: dict[str, tuple[str, dict[str, Any]]] = {
    ERROR: ("ERROR", {"red": True, "bold": True}),
    FAIL: ("FAIL", {"red": True}),
    XPASS: ("XPASS", {"red": True}),
    INCONCLUSIVE: ("open", {"yellow": True}),
    XFAIL: ("xfail", {"yellow": True}),
    PASS: ("pass", {"green": True}),
    REPORTED: ("", {}),
    SKIP: ("skip", {"light": True}),
}
NAMES = {XFAIL: "expected failures", XPASS: "unexpected passes", SKIP: "skipped", INCONCLUSIVE: "open"}
RED = (ERROR, FAIL, XPASS, INCONCLUSIVE)


def badness(row: Row) -> tuple[int, float]:
    """Sorts the worst verdict first, and among equals the worst score."""
    score = row.result.score or 0.0
    return list(STATUS).index(row.status), score if row.result.better == "higher" else -score


def short(score: float | None) -> str:
    """A number in four columns: .93, -.12, 1.00, 12.3."""
    if score is None:
        return ""
    if abs(score) < 9.995:
        return f"{score:.2f}".replace("0.", ".", 1) if abs(score) < 0.995 else f"{score:.2f}"
    return f"{score:.4g}" if abs(score) < 1000 else f"{score:.0e}"
