"""Report: Results by key ``check/method/subject``, as a table, as JSON, HTML, Markdown and JUnit properties."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, Result

XFAIL, XPASS = "xfail", "xpass"
SHARD = "shard"  # in the environment: which part of the run it is, such as 2/4
MOST_NAMED = 10
_PARTS = re.compile(r"(?<!\S)(\d{1,6})/(\d{1,6})(?!\S)")


class BadReport(ValueError):
    """A report that cannot be read or merged; one sentence says which and why."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A result, and why it was known beforehand that it would fail ("" where it was not)."""

    result: Result
    expected: str = ""

    @property
    def status(self) -> str:
        """The verdict, seen with what was expected; an error is never excused."""
        if self.expected and self.result.verdict in (FAIL, INCONCLUSIVE):
            return XFAIL
        if self.expected and self.result.verdict == PASS:
            return XPASS
        return self.result.verdict


@dataclass
class Report:
    """Everything that was measured in one run.

    Attributes:
        rows: by key ``check/method/subject``.
        devices: where it was measured.
        environment: versions, profile and seed, as in JSON; filled when the run ends.
        checks: what each check measures and means: ``summary``, ``meaning``, ``if_fails``, ``reference``, ``better``.
        incomplete: why there are fewer results than were asked for; "" where all are there.
    """

    rows: dict[str, Row] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)
    environment: dict[str, Any] = field(default_factory=dict)
    checks: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    incomplete: str = ""

    def add(self, result: Result, *, expected: str = "") -> None:
        self.rows[result.key] = Row(result=result, expected=expected)

    def add_json(self, text: str, *, expected: str = "", examples: Sequence[Mapping[str, Any]] = ()) -> None:
        self.add(replace(Result.from_json(text), examples=examples), expected=expected)

    def add_error(self, check: str, method: str, subject: str, *, message: str) -> None:
        """A cell that died before it had a result."""
        self.add(Result(check=check, method=method, subject=subject, verdict=ERROR, message=message))

    @property
    def sorted_rows(self) -> list[Row]:
        return [self.rows[key] for key in sorted(self.rows)]

    def having(self, *statuses: str) -> list[Row]:
        return [row for row in self.sorted_rows if row.status in statuses]


def merged(reports: Iterable[Report]) -> Report:
    """One report of several: the shards of a matrix.

    Raises:
        BadReport: two of them hold different results for one cell.
    """
    whole = Report()
    for report in reports:
        for key, row in report.rows.items():
            if key in whole.rows and whole.rows[key] != row and _unlike(whole.rows[key].result, row.result):
                raise BadReport(f"two different results for {key}: merge reports of different cells, or of one run")
            whole.rows[key] = row
        whole.devices |= report.devices
        whole.checks.update(report.checks)
        whole.incomplete = whole.incomplete or report.incomplete
        for name, value in report.environment.items():
            known = whole.environment.setdefault(name, value)
            if known != value and str(value) not in str(known).split(" | "):
                whole.environment[name] = f"{known} | {value}"
    return whole


def complete(report: Report) -> Report:
    """The same; where it is of a run in parts (``--saliency-shard``), and some are not in it, it says so."""
    given = _PARTS.findall(str(report.environment.get(SHARD, "")))
    numbers, counts = {int(number) for number, _ in given}, {int(count) for _, count in given}
    if not counts:
        return report
    count = max(counts)
    missing = [str(number) for number in islice((n for n in range(1, count + 1) if n not in numbers), MOST_NAMED)]
    told = f"it holds parts of runs in {' and in '.join(map(str, sorted(counts)))} parts" if len(counts) > 1 else ""
    told = told or (f"of {count} parts it lacks {', '.join(missing)}" if missing else "")
    environment = {name: value for name, value in report.environment.items() if told or name != SHARD}
    return replace(report, environment=environment, incomplete=report.incomplete or told)


def _unlike(first: Result, second: Result) -> bool:
    return (first.verdict, first.score, first.n, first.seed) != (second.verdict, second.score, second.n, second.seed)
