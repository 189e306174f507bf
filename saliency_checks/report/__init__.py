"""Report: Results by key ``check/method/subject``, as a table, as JSON and as JUnit properties."""

from __future__ import annotations

from dataclasses import dataclass, field

from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, Result

XFAIL, XPASS = "xfail", "xpass"


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
    """Everything that was measured in one run."""

    rows: dict[str, Row] = field(default_factory=dict)
    devices: set[str] = field(default_factory=set)

    def add(self, result: Result, *, expected: str = "") -> None:
        self.rows[result.key] = Row(result=result, expected=expected)

    def add_json(self, text: str, *, expected: str = "") -> None:
        self.add(Result.from_json(text), expected=expected)

    def add_error(self, check: str, method: str, subject: str, *, message: str) -> None:
        """A cell that died before it had a result."""
        self.add(Result(check=check, method=method, subject=subject, verdict=ERROR, message=message))

    @property
    def sorted_rows(self) -> list[Row]:
        return [self.rows[key] for key in sorted(self.rows)]

    def having(self, *statuses: str) -> list[Row]:
        return [row for row in self.sorted_rows if row.status in statuses]
