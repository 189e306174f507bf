"""Result: the frozen record of one verdict, to and from JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

PASS, FAIL, INCONCLUSIVE, ERROR, SKIP, REPORTED = "pass", "fail", "inconclusive", "error", "skip", "reported"
VERDICTS = (PASS, FAIL, INCONCLUSIVE, ERROR, SKIP, REPORTED)


class CheckFailed(AssertionError):
    """A verdict that is not a pass; its text says everything."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One verdict on one method and one subject.

    Attributes:
        verdict: ``pass``, ``fail``, ``inconclusive``, ``error``, ``skip``, or ``reported`` (a metric without bound).
        score: mean over the images of the worst group; None where nothing was measured.
        low, high: its interval, valid in spite of repeated looks.
        n: images judged.
        better: ``higher`` or ``lower``.
        bound: such as ``>= 0.75``; None for a reported metric.
        bound_origin: ``default``, ``ini`` or ``command line``.
        controls: score of each control on the same images.
        message: the whole text of a failure, or the reason of a skip.
        details: what the metric keeps for pictures; stays in the process, not in JSON.
    """

    check: str
    method: str
    subject: str
    verdict: str
    score: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    better: str = "higher"
    bound: str | None = None
    bound_origin: str = "default"
    controls: Mapping[str, float] = field(default_factory=dict)
    seed: int = 0
    seconds: float = 0.0
    message: str = ""
    details: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    @property
    def key(self) -> str:
        return f"{self.check}/{self.method}/{self.subject}"

    def require(self) -> Result:
        """Return self when the verdict is a pass (or there was nothing to judge).

        Raises:
            CheckFailed: on ``fail``, ``inconclusive`` and ``error``, with the full text.
        """
        if self.verdict in (FAIL, INCONCLUSIVE, ERROR):
            raise CheckFailed(self.message)
        return self

    def to_dict(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "details"}
        return {**values, "controls": {name: float(score) for name, score in self.controls.items()}}

    def to_json(self) -> str:
        """One line; plain Python numbers only, so that it crosses process borders."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Raises ValueError for a missing or unknown key or a verdict that does not exist."""
        known = {f.name for f in fields(cls)} - {"details"}
        if set(values) != known:
            odd = sorted(set(values) ^ known)
            raise ValueError(f"a result with missing or unknown keys {odd}; expected exactly {sorted(known)}")
        if values["verdict"] not in VERDICTS:
            raise ValueError(f"verdict {values['verdict']!r}: expected one of {', '.join(VERDICTS)}")
        return cls(**values)

    @classmethod
    def from_json(cls, text: str) -> Result:
        return cls.from_dict(json.loads(text))

    def __str__(self) -> str:
        if self.score is None:
            return f"Result({self.key}: {self.verdict}, {self.message.splitlines()[0] if self.message else ''})"
        bound = f" {self.bound}" if self.bound else ""
        return (
            f"Result({self.key}: {self.score:.2f} [{self.low:.2f}, {self.high:.2f}]{bound}, {self.verdict}, n={self.n})"
        )

    __repr__ = __str__
