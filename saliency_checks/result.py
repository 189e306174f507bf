"""Result: the frozen record of one verdict, to and from JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

PASS, FAIL, INCONCLUSIVE, ERROR, SKIP, REPORTED = "pass", "fail", "inconclusive", "error", "skip", "reported"
VERDICTS = (PASS, FAIL, INCONCLUSIVE, ERROR, SKIP, REPORTED)
DIGITS = 5  # of numbers that are kept for pictures and comparisons, not for verdicts
LONGEST_DETAIL = 4096  # numbers or names of one list
_TYPES = {
    "str": str, "str | None": str | None, "float": float | int, "float | None": float | int | None, "int": int,
}  # fmt: skip


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
        command: repeats just this on the command line; "" where it was not run from there.
        groups, scores: each group's name and its scores, one per image: what a paired comparison needs.
        fingerprint: short hashes of the subject's ``data`` and ``model``.
        details: what the metric keeps for pictures: curves, similarities by layer; plain values only in JSON.
        examples: best and worst images with their maps, see :mod:`saliency_checks.pictures`.
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
    command: str = field(default="", repr=False, compare=False)
    groups: Sequence[str] = field(default=(), repr=False, compare=False)
    scores: Sequence[Sequence[float]] = field(default=(), repr=False, compare=False)
    fingerprint: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    details: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    examples: Sequence[Mapping[str, Any]] = field(default=(), repr=False, compare=False)

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
        """Plain values; what only pictures and comparisons need is left out where there is none."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["controls"] = {name: float(score) for name, score in self.controls.items()}
        values["examples"] = [{k: v for k, v in example.items() if k != "arrays"} for example in self.examples]
        more = {name: plain(values.pop(name)) for name in _MORE}
        return {**values, **{name: value for name, value in more.items() if value}}

    def to_json(self) -> str:
        """One line; plain Python numbers only, so that it crosses process borders."""
        return json.dumps(self.to_dict(), allow_nan=False)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Result:
        """Raises ValueError for a missing or unknown key, a value of another type, a verdict that does not exist."""
        if odd := sorted((set(values) ^ _BASE) - set(_MORE)):
            raise ValueError(f"a result with missing or unknown keys {odd}; expected {sorted(_BASE)}")
        for f in fields(cls):
            expected = _TYPES.get(str(f.type))
            value = values.get(f.name)
            if f.name in values and expected and (not isinstance(value, expected) or isinstance(value, bool)):
                raise ValueError(f"{f.name} of a result is {str(value)[:80]!r}, expected {f.type}")
        if values["verdict"] not in VERDICTS:
            raise ValueError(f"verdict {values['verdict']!r}: expected one of {', '.join(VERDICTS)}")
        if not isinstance(values["controls"], dict) or not all(map(_is_number, values["controls"].values())):
            raise ValueError(f"controls {str(values['controls'])[:80]!r}: expected numbers by name")
        _check_more(values)
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


_MORE = ("command", "groups", "scores", "fingerprint", "details", "examples")
_BASE = frozenset(f.name for f in fields(Result)) - {*_MORE}


def plain(value: Any) -> Any:
    """What JSON can hold of ``value``, numbers rounded; None for what it cannot (tensors, objects, no number)."""
    if value is None or isinstance(value, bool | str | int):
        return value
    if hasattr(value, "tolist"):  # numpy's and torch's
        return plain(value.tolist()) if math.prod(value.shape) <= LONGEST_DETAIL else None
    if isinstance(value, float):
        rounded = float(f"{value:.{DIGITS}g}")  # the largest numbers round to infinity
        return rounded if math.isfinite(rounded) else None
    if isinstance(value, Mapping):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, Sequence | set | frozenset) and len(value) <= LONGEST_DETAIL:
        return [plain(part) for part in value]
    return None


def _check_more(values: Mapping[str, Any]) -> None:
    """Raises ValueError where what is kept for pictures and comparisons has another shape."""
    scores, groups = values.get("scores", []), values.get("groups", [])
    fits = {
        "scores": isinstance(scores, list)
        and all(isinstance(row, list) and row and all(map(_is_number, row)) for row in scores),
        "groups": isinstance(groups, list) and all(isinstance(name, str) for name in groups),
        "fingerprint": _is_table(values.get("fingerprint", {}), str),
        "details": _is_table(values.get("details", {}), object),
        "examples": isinstance(values.get("examples", []), list),
    }
    if odd := [name for name, is_fit in fits.items() if not is_fit]:
        raise ValueError(f"{', '.join(odd)} of a result: not of the shape that this package writes")


def _is_table(value: Any, kind: type) -> bool:
    return isinstance(value, dict) and all(isinstance(part, kind) for part in value.values())


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
