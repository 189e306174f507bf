"""The JSON report, schema 1: written whole, read strictly."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

from saliency_checks.report import BadReport, Report
from saliency_checks.result import Result

SCHEMA = 1
PACKAGES = ("captum", "numpy", "torch", "torchvision")
LARGEST = 256 * 2**20  # bytes of a file that is read


def environment(report: Report, *, profile: str, seed: int) -> dict[str, Any]:
    """Versions and settings that scores may depend on."""
    return {
        "saliency_checks": _version("saliency-checks"),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        **{name: _version(name) for name in PACKAGES},
        "device": ", ".join(sorted(filter(None, report.devices))),
        "profile": profile,
        "seed": seed,
    }


def document(report: Report, *, profile: str = "", seed: int = 0) -> dict[str, Any]:
    """Schema, environment and the results sorted by key; nothing in it depends on order or worker count."""
    rows = report.sorted_rows
    return {
        "schema": SCHEMA,
        "environment": report.environment or environment(report, profile=profile, seed=seed),
        "results": [{**row.result.to_dict(), **({"expected": row.expected} if row.expected else {})} for row in rows],
        **({"checks": {name: dict(about) for name, about in sorted(report.checks.items())}} if report.checks else {}),
        **({"incomplete": report.incomplete} if report.incomplete else {}),
    }


def write(report: Report, path: Path, *, profile: str = "", seed: int = 0) -> None:
    """Write the JSON file, a line for each result."""
    found = document(report, profile=profile, seed=seed)
    results = ",\n  ".join(_dumps(result) for result in found["results"])
    parts = [
        f' "{name}": ' + (f"[\n  {results}\n ]" if name == "results" else _dumps(value))
        for name, value in found.items()
    ]
    write_whole(path, "{\n" + ",\n".join(parts) + "\n}\n")


def _dumps(value: Any) -> str:
    return json.dumps(value, allow_nan=False)


def write_whole(path: Path, text: str) -> None:
    """Write whole or not at all: whoever reads it never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        partial.write_text(text, "utf-8")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def read(path: Path) -> Report:
    """The report that :func:`write` wrote; somebody else's is data like any other.

    Raises:
        BadReport: no such file, too large, no JSON, another schema, or values of another kind.
    """
    values = read_json(path)
    try:
        return _report(values)
    except (ValueError, TypeError) as error:
        raise BadReport(f"{path}: {error}") from error


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """Parsed text of a file of limited size; numbers that JSON lacks (NaN) are refused.

    Raises:
        BadReport: for what cannot be read, with the reason.
    """
    try:
        with path.open("rb") as file:
            text = file.read(largest + 1)
        if len(text) > largest:
            raise BadReport(f"{path}: larger than {largest // 2**20} MiB, which no report of this package is")
        return json.loads(text, parse_constant=_no_number)
    except OSError as error:
        raise BadReport(f"{path}: {error.strerror or error}") from error
    except RecursionError as error:
        raise BadReport(f"{path}: nested too deeply for a report") from error
    except BadReport:
        raise
    except ValueError as error:
        raise BadReport(f"{path}: no JSON ({error})") from error


def _report(values: Any) -> Report:
    if not isinstance(values, dict) or values.get("schema") != SCHEMA:
        raise ValueError(f"expected an object with schema {SCHEMA}, as --saliency-report FILE.json writes it")
    environment, results, checks = values.get("environment"), values.get("results"), values.get("checks", {})
    if not isinstance(environment, dict) or not all(isinstance(v, str | int | float) for v in environment.values()):
        raise ValueError("environment: expected an object of texts and numbers")
    if not isinstance(results, list) or not isinstance(checks, dict):
        raise ValueError("expected a list of results, and an object of checks")
    report = Report(environment=environment, incomplete=str(values.get("incomplete", "")))
    report.checks.update({name: about for name, about in checks.items() if isinstance(about, Mapping)})
    for i, found in enumerate(results):
        if not isinstance(found, dict):
            raise ValueError(f"result {i}: expected an object")
        try:
            result = Result.from_dict({name: value for name, value in found.items() if name != "expected"})
        except ValueError as error:
            raise ValueError(f"result {i}: {error}") from error
        if result.key in report.rows:
            raise ValueError(f"result {i}: {result.key} is there twice")
        report.add(result, expected=str(found.get("expected", "")))
    return report


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
