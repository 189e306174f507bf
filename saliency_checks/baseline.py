"""The regression gate: a committed file of results that later runs may not fall behind.

It holds one line per result, sorted, so that a diff shows what moved. Imports neither torch nor pytest.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from saliency_checks.compare import Difference, compare
from saliency_checks.report import BadReport, Report
from saliency_checks.report import json as json_report
from saliency_checks.result import FAIL, REPORTED, Result

SCHEMA = 1
KIND = "saliency_checks baseline"
LARGEST = 64 * 2**20  # bytes
DIGITS = 4  # of a score
KEPT = (
    "check", "method", "subject", "score", "low", "high", "n", "better", "seed", "groups", "scores",
    "fingerprint",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Results to compare with, by key, and where they were measured."""

    entries: Mapping[str, Result] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def read(path: Path) -> Baseline:
    """The baseline in a file.

    Raises:
        BadReport: no such file, too large, or not what :func:`write` writes.
    """
    values = json_report.read_json(path, LARGEST)
    try:
        return _baseline(values)
    except (ValueError, TypeError) as error:
        raise BadReport(f"{path}: {error}") from error


def _baseline(values: Any) -> Baseline:
    if not isinstance(values, dict) or (values.get("kind"), values.get("schema")) != (KIND, SCHEMA):
        raise ValueError(
            f"no baseline of schema {SCHEMA}; make one with: saliency-checks baseline FILE --from OUT.json"
        )
    environment, results = values.get("environment"), values.get("results")
    if set(values) != {"kind", "schema", "environment", "results"}:
        raise ValueError(f"expected kind, schema, environment and results, not {', '.join(sorted(values))}")
    if not isinstance(environment, dict) or not all(isinstance(v, str | int | float) for v in environment.values()):
        raise ValueError("environment: expected an object of texts and numbers")
    if not isinstance(results, list):
        raise ValueError("expected a list of results")
    entries: dict[str, Result] = {}
    for i, found in enumerate(results):
        if not isinstance(found, dict) or set(found) != set(KEPT):
            raise ValueError(f"result {i}: expected exactly {', '.join(KEPT)}")
        result = _result(i, found)
        if result.key in entries:
            raise ValueError(f"result {i}: {result.key} is there twice")
        entries[result.key] = result
    return Baseline(entries=entries, environment=environment)


def _result(i: int, found: Mapping[str, Any]) -> Result:
    rest: dict[str, Any] = {
        "verdict": REPORTED,
        "bound": None,
        "bound_origin": "default",
        "controls": {},
        "seconds": 0.0,
        "message": "",
    }
    try:
        result = Result.from_dict({**found, **rest})
    except ValueError as error:
        raise ValueError(f"result {i}: {error}") from error
    if result.score is None or result.better not in ("higher", "lower"):
        raise ValueError(f"result {i}: expected a score, and better to be higher or lower")
    return result


def write(baseline: Baseline, path: Path) -> None:
    """Sorted, one line per result."""
    lines = ",\n  ".join(json.dumps(_line(baseline.entries[key]), allow_nan=False) for key in sorted(baseline.entries))
    environment = json.dumps(dict(sorted(baseline.environment.items())), allow_nan=False)
    head = f'{{\n "kind": "{KIND}",\n "schema": {SCHEMA},\n "environment": {environment},\n "results": [\n  '
    json_report.write_whole(path, f"{head}{lines}\n ]\n}}\n")


def _line(result: Result) -> dict[str, Any]:
    values = {name: result.to_dict().get(name) for name in KEPT}
    values["groups"], values["fingerprint"] = list(result.groups), dict(result.fingerprint)
    values["scores"] = [[_short(score) for score in row] for row in result.scores]
    return {**values, **{name: _short(values[name]) for name in ("score", "low", "high")}}


def _short(score: float | None) -> float | int | None:
    """A score in as few letters as ``DIGITS`` digits need: most per-image scores are 0 or 1."""
    if score is None:
        return None
    rounded = float(f"{score:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e6 else rounded


def differences(baseline: Baseline, environment: Mapping[str, Any]) -> list[str]:
    """What this run does not share with the baseline's, in words; settings that are not known yet are left out."""
    names = [name for name in baseline.environment if environment.get(name) not in (None, "")]
    pairs = ((name, baseline.environment[name], environment[name]) for name in sorted(names))
    return [f"{name} {new} (baseline {old})" for name, old, new in pairs if str(old) != str(new)]


def gated(baseline: Baseline, result: Result, *, quantile: float | None, source: str) -> Result:
    """The result, a failure where it is worse than its baseline by more than paired noise, and by how much."""
    old = baseline.entries.get(result.key)
    found = old and compare(old, result, quantile=quantile)
    if not old or not found or not found.is_regression:
        return result
    return replace(result, verdict=FAIL, message=_regression(old, result, found, source))


def _regression(old: Result, new: Result, found: Difference, source: str) -> str:
    weights = [part.fingerprint.get("model") for part in (old, new)]
    lines = [
        f"{new.score:.2f} was {old.score:.2f}: {found}  {new.check}: {new.method} on {new.subject} regressed",
        f"  baseline {source}; the interval excludes 0 and the move is more than {found.tolerance:g}",
        *(["  note     the model has other weights than in the baseline"] if weights[0] != weights[1] else []),
        f"  accept   saliency-checks baseline {source} --from RESULTS.json --accept {new.key}",
    ]
    return "\n".join([*lines, *(f"  {line}" for line in new.message.splitlines())])


@dataclass(frozen=True, kw_only=True)
class Standing:
    """How a whole run stands to its baseline.

    Attributes:
        new: measured, but not in the baseline.
        stale: in the baseline, but no longer measured.
    """

    new: tuple[str, ...]
    stale: tuple[str, ...]


def standing(baseline: Baseline, report: Report, *, whole: bool, selected: bool) -> Standing:
    """New and stale entries of a run.

    Args:
        whole: every check was run; otherwise nothing can be called stale.
        selected: the run was asked for some methods or subjects; only theirs can be stale.
    """
    results = [row.result for row in report.rows.values()]
    measured = {result.key for result in results if result.score is not None}
    methods, subjects = {result.method for result in results}, {result.subject for result in results}
    gone = [
        key
        for key, old in baseline.entries.items()
        if key not in measured and (not selected or (old.method in methods and old.subject in subjects))
    ]
    return Standing(
        new=tuple(sorted(measured - set(baseline.entries))), stale=tuple(sorted(gone)) if whole else ()
    )  # fmt: skip


def accepted(
    baseline: Baseline, report: Report, patterns: Collection[str], *, prune: bool = False
) -> tuple[Baseline, list[str]]:
    """The baseline with the matching results of a run in it, and the keys that were added, replaced or removed.

    Args:
        patterns: keys ``check/method/subject``; ``*`` and ``?`` stand for any letters.
        prune: also remove the entries that the run did not measure.

    Raises:
        BadReport: a pattern that matches no result with a score.
    """
    fresh = {row.result.key: row.result for row in report.rows.values() if row.result.score is not None}
    chosen: set[str] = set()
    for pattern in patterns:
        if not (found := {key for key in fresh if fnmatchcase(key, pattern)}):
            raise BadReport(f"--accept {pattern}: no result with a score has this key; expected check/method/subject")
        chosen |= found
    kept = {key: old for key, old in baseline.entries.items() if key not in chosen and (key in fresh or not prune)}
    gone = set(baseline.entries) - set(kept) - chosen
    environment = _joined(baseline.environment if kept else {}, report.environment if chosen else {})
    made = Baseline(entries={**kept, **{key: fresh[key] for key in chosen}}, environment=environment)
    moved = [key for key in sorted(chosen) if key not in baseline.entries or _moved(baseline.entries[key], fresh[key])]
    return made, [*moved, *sorted(gone)]


def _moved(old: Result, new: Result) -> bool:
    return _line(old) != _line(new)


def _joined(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Any]:
    both = {**old, **new}
    for name in set(old) & set(new):
        known = str(old[name]).split(" | ")
        both[name] = old[name] if str(new[name]) in known else f"{old[name]} | {new[name]}"
    return both


def told(baseline: Baseline, report: Report) -> Iterable[str]:
    """One line for each entry that a run would change: new, regressed, better or worse, stale."""
    for key in sorted({*baseline.entries, *report.rows}):
        old, row = baseline.entries.get(key), report.rows.get(key)
        if row is None or row.result.score is None:
            if old:
                yield f"stale      {key}: not measured"
        elif old is None:
            yield f"new        {key}: {row.result.score:.3f}"
        elif _moved(old, row.result):
            quantile = report.checks.get(row.result.check, {}).get("quantile")
            found = compare(old, row.result, quantile=quantile if isinstance(quantile, float) else None)
            assert found is not None
            word = "REGRESSED " if found.is_regression else "moved     "
            yield f"{word} {key}: {old.score:.3f} became {row.result.score:.3f}, {found}"
