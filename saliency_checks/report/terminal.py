"""The summary at the end of a run: a matrix of verdicts, and everything that needs a word."""

from __future__ import annotations

import math
import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from typing import TYPE_CHECKING, Any

from saliency_checks.report import XFAIL, XPASS, Report, Row
from saliency_checks.report.status import NAMES, STATUS, badness, short
from saliency_checks.result import INCONCLUSIVE, SKIP, Result

if TYPE_CHECKING:
    from saliency_checks.baseline import Standing

Line = list[tuple[str, dict[str, Any]]]  # pieces of text with the markup that pytest's writer takes

NARROW, WIDE = 10, 14  # columns of a check: "xfail .12" and a gap; most of the long words
MORE = "the interval holds the bound; more images (--saliency-profile thorough) may decide it"
BEST = "best control"
MOST_KEYS = 12


def summary(
    report: Report, *, width: int, report_file: str = "", notes: Iterable[tuple[str, str]] = ()
) -> Iterator[Line]:
    """Lines of at most ``width`` columns, as far as names allow."""
    yield from _matrix(report, width)
    wrap = textwrap.TextWrapper(max(40, width - 15), break_on_hyphens=False, break_long_words=False).wrap
    for title, text in (*notes, *_notes(report, report_file)):
        for i, line in enumerate(wrap(text)):
            yield [(f"{title if i == 0 else '':13}", {"bold": True}), (f"  {line}", {})]


def _matrix(report: Report, width: int) -> Iterator[Line]:
    """Methods down, checks across, in as many blocks as the width asks for; a cell is the worst of its subjects."""
    rows = report.sorted_rows
    checks = sorted({row.result.check for row in rows}, key=lambda check: (check != "contract", check))
    methods = sorted({row.result.method for row in rows})
    margin = max(len(name) for name in (*methods, BEST)) + 1
    blocks = math.ceil(len(checks) / max(1, (width - margin) // NARROW))
    fit = math.ceil(len(checks) / blocks)
    column = max(NARROW, min(WIDE, (width - margin) // fit))
    for start in range(0, len(checks), fit):
        block = checks[start : start + fit]
        for head in zip_longest(*(_broken(check, column - 1) for check in block), fillvalue=""):
            yield [(" " * margin + "".join(f"{part:{column}}" for part in head).rstrip(), {"bold": True})]
        for method in methods:
            yield [(f"{method:{margin}}", {}), *(_cell(rows, check, method, column) for check in block)]
        best = [short(_best_control(rows, check)) for check in block]
        if any(best):
            cells = "".join(f"{score:>{NARROW - 1}}".ljust(column) for score in best)
            yield [(f"{BEST:{margin}}{cells.rstrip()}", {"light": True})]
        yield []


def _broken(check: str, width: int) -> list[str]:
    """The name in lines that fit: at underscores, and within a word that is too long."""
    lines = []
    for word in check.split("_"):
        while len(word) > width:
            cut = min(width - 1, max(1, len(word) - 4))  # no tail of one or two letters
            lines.append(word[:cut] + "-")
            word = word[cut:]
        lines.append(word)
    return lines


def _cell(rows: list[Row], check: str, method: str, column: int) -> tuple[str, dict[str, Any]]:
    here = [row for row in rows if row.result.check == check and row.result.method == method]
    if not here:
        return " " * column, {}
    worst = min(here, key=badness)
    word, markup = STATUS[worst.status]
    score = short(worst.result.score)
    return f"{word}{score:>{NARROW - 1 - len(word)}}".ljust(column), markup


def _best_control(rows: list[Row], check: str) -> float | None:
    judged = [row.result for row in rows if row.result.check == check and row.result.controls]
    scores = [score for result in judged for score in result.controls.values()]
    if not scores:
        return None
    return max(scores) if judged[0].better == "higher" else min(scores)


def _notes(report: Report, report_file: str) -> Iterator[tuple[str, str]]:
    for text in _grouped(report.having(XFAIL)):
        yield "known", text
    for text in _grouped(report.having(XPASS)):
        yield "unexpected", f"passed although it was expected to fail: {text}"
    for reason, count in sorted(Counter(row.result.message for row in report.having(SKIP)).items()):
        yield "skipped", f"{reason}{f' ({count} times)' if count > 1 else ''}"
    for row in report.having(INCONCLUSIVE):
        yield "open", f"{row.result.key}: {_advice(row.result)}"
    yield "verdicts", ", ".join(f"{count} {name}" for name, count in _counts(report).items())
    if report_file:
        yield "report", report_file


def standing(found: Standing, *, strict: bool) -> Iterator[tuple[str, str]]:
    """What the baseline lacks, and what it holds that is no longer measured."""
    red = " (this fails the run)" if strict else ""
    for title, what, keys in (("new", "not in the baseline", found.new), ("stale", "no longer measured", found.stale)):
        if keys:
            more = f" and {len(keys) - MOST_KEYS} more" if len(keys) > MOST_KEYS else ""
            yield title, f"{what}{red}: {', '.join(keys[:MOST_KEYS])}{more}"


def _grouped(rows: list[Row]) -> Iterator[str]:
    found = Counter((f"{row.result.method}/{row.result.check}", row.expected) for row in rows)
    for (cell, reason), count in sorted(found.items()):
        yield f"{cell}{f' on {count} subjects' if count > 1 else ''}: {reason}"


def _advice(result: Result) -> str:
    """How many images would decide it, from the text of the verdict."""
    lines = (line.split(maxsplit=1) for line in result.message.splitlines())
    return next((words[1] for words in lines if len(words) == 2 and words[0] == "open"), MORE)


def _counts(report: Report) -> dict[str, int]:
    found = Counter(row.status for row in report.sorted_rows)
    return {NAMES.get(status, status): found[status] for status in STATUS if found[status]}
