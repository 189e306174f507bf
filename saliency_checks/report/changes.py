"""Two runs side by side: what moved, which way, and whether by more than paired noise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from saliency_checks.compare import Difference, compare
from saliency_checks.report import Report, Row
from saliency_checks.report.status import STATUS
from saliency_checks.result import Result

NONE = "none"


@dataclass(frozen=True, kw_only=True)
class Change:
    """One cell in an older and a newer run.

    Attributes:
        before: score and interval of the older run; empty where it has none.
        kind: ``worse``, ``better`` or "".
        told: the change in words.
    """

    key: str
    anchor: str
    old: Result | None
    was: str
    now: str
    before: tuple[float, ...]
    kind: str
    told: str

    @property
    def differs(self) -> bool:
        return bool(self.kind) or self.was != self.now

    @property
    def is_gone(self) -> bool:
        return self.now == NONE

    @property
    def since(self) -> str:
        """What there was before, in a few letters."""
        return "new" if self.old is None else f"was {self.was}"

    @property
    def rank(self) -> tuple[int, str]:
        return {"worse": 0, "": 1, "better": 2}[self.kind], self.key


def changes(old: Report, new: Report) -> dict[str, Change]:
    """By key, for all cells of either run."""
    return {
        key: _change(key, old.rows.get(key), new.rows.get(key), new.checks) for key in sorted({*old.rows, *new.rows})
    }


def _change(key: str, old: Row | None, new: Row | None, checks: Mapping[str, Mapping[str, Any]]) -> Change:
    from saliency_checks.report.cards import anchor

    kind, told = _told(old, new, checks)
    any_row = new or old
    assert any_row is not None
    before = old.result if old else None
    limits = (before.score, before.low, before.high) if before else ()
    return Change(
        key=key, anchor=anchor(any_row.result.check, any_row.result.method), old=before, was=_short(old),
        now=_short(new), before=tuple(v for v in limits if v is not None), kind=kind, told=told,
    )  # fmt: skip


def _told(old: Row | None, new: Row | None, checks: Mapping[str, Mapping[str, Any]]) -> tuple[str, str]:
    if not old or not new:
        return "", "new" if new else "no longer there"
    quantile = checks.get(new.result.check, {}).get("quantile")
    found = compare(old.result, new.result, quantile=quantile if isinstance(quantile, float) else None)
    kind, text = _by_score(found)
    if old.status == new.status:
        return kind, text
    order = list(STATUS)
    step = order.index(new.result.verdict) - order.index(old.result.verdict)
    kind = "worse" if step < 0 else "better" if step > 0 else kind  # an excuse alone is no improvement
    return kind, f"{_word(old)} became {_word(new)}{f', {text}' if found else ''}"


def _by_score(found: Difference | None) -> tuple[str, str]:
    if found is None or abs(found.mean) < found.tolerance:
        return "", "the score as before" if found else "as before"
    if found.low <= 0 <= found.high:
        return "", f"{found}: within the noise"
    return ("better" if found.mean > 0 else "worse"), str(found)


def _word(row: Row) -> str:
    return STATUS[row.status][0] or row.status


def _short(row: Row | None) -> str:
    if row is None:
        return NONE
    return f"{_word(row)}" + ("" if row.result.score is None else f" {row.result.score:.2f}")
