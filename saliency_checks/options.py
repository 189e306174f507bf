"""What a run may be asked for: options of the command line, keys of the ini file, and how they are read.

Read in every pytest run of its environment, so nothing here imports torch.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import pytest

PROFILES = ("quick", "standard", "thorough")
IMAGES = 2  # worst and best ones each, where a page will show them

_BOUND = re.compile(r"\s*([a-z]\w*)\s*((?:>=|<=)\s*[-+.\de]+)\s*")
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}")
_EXPECTED = re.compile(r"([^\s/]+)/(\w+)(?:/(\w+))?\s*:(?:\s+(.*))?")


@dataclass(frozen=True)
class KnownFailure:
    """Why a cell may fail, and until when."""

    reason: str
    until: date | None = None

    @property
    def is_over(self) -> bool:
        return self.until is not None and date.today() > self.until


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What the command line and the ini file ask for.

    Attributes:
        methods, subjects: names or ``package.module:attribute``; empty means the default choice.
        bounds: check -> (bound, where it comes from).
        reports: files to write; images: how many worst and best images they show.
        bundle: folder for the images, maps and curves behind each red result.
        baseline: file whose results this run may not fall behind; strict: it must hold exactly this run's cells.
        expected_failures: (method, check, subject or "") -> reason and last day.
    """

    methods: tuple[str, ...]
    subjects: tuple[str, ...]
    profile: str
    bounds: Mapping[str, tuple[str, str]]
    expected_failures: Mapping[tuple[str, str, str], KnownFailure]
    device: str | None
    seed: int
    reports: tuple[Path, ...]
    images: int
    bundle: Path | None
    baseline: Path | None
    baseline_strict: bool
    allow_inconclusive: bool


def add(parser: pytest.Parser) -> None:
    """All options and ini keys, under one prefix."""
    group = parser.getgroup("saliency", "sanity checks for attribution methods (saliency_checks)")
    named = "a registered name or package.module:attribute; repeatable"
    group.addoption("--saliency-method", action="append", metavar="NAME", help=f"method to check: {named}")
    group.addoption("--saliency-subject", action="append", metavar="NAME", help=f"subject to check it on: {named}")
    group.addoption("--saliency-profile", choices=PROFILES, help="how much evidence is gathered; default standard")
    group.addoption(
        "--saliency-bound", action="append", metavar="CHECK>=X", help="another bound, such as 'deletion_insertion>=0.1'"
    )
    group.addoption("--saliency-device", metavar="DEVICE", help="cpu, cuda, cuda:1, mps; default the best there is")
    group.addoption("--saliency-seed", type=int, metavar="N", help="seed of everything random; default 0")
    group.addoption(
        "--saliency-report", action="append", metavar="FILE", help="write all results to FILE.json, .html or .md"
    )
    group.addoption(
        "--saliency-images", type=int, metavar="N", help="keep N best and N worst images; default 2 for a .html report"
    )
    group.addoption(
        "--saliency-bundle",
        metavar="DIR",
        help="write the worst images of each red result, their maps and curves below DIR (npz and PNG)",
    )
    group.addoption(
        "--saliency-baseline",
        metavar="FILE.json",
        help="fail what is worse than in this file (saliency-checks baseline)",
    )
    group.addoption(
        "--saliency-baseline-strict",
        action="store_true",
        default=None,
        help="also fail when the baseline lacks results of this run, or holds some that are no longer measured",
    )
    group.addoption(
        "--saliency-dry-run",
        action="store_true",
        help="print the plan, its passes and whether it is within the profile's budget; build and train nothing",
    )
    group.addoption(
        "--saliency-allow-inconclusive",
        action="store_true",
        help="what more images could decide is no failure",
    )
    group.addoption("--saliency-shard", metavar="I/N", help="run part I of N; their reports can be joined")
    parser.addini("saliency_methods", "methods to check, one a line", type="linelist")
    parser.addini("saliency_subjects", "subjects to check them on, one a line", type="linelist")
    parser.addini("saliency_profile", "quick, standard or thorough", default="standard")
    parser.addini("saliency_bounds", "bounds, one a line: deletion_insertion >= 0.1", type="linelist")
    parser.addini("saliency_expected_failures", "one a line: method/check: reason [until 2027-06-30]", type="linelist")
    parser.addini("saliency_baseline", "file of results that a run may not fall behind", default="")
    parser.addini("saliency_baseline_strict", "new and stale entries of it fail", type="bool", default=False)
    parser.addini("saliency_device", "device to run on", default="")
    parser.addini("saliency_seed", "seed of everything random", default="0")
    parser.addini("saliency_report", "files to write all results to, one a line", type="linelist")


def read(config: pytest.Config) -> Settings:
    """Raises UsageError for what cannot be meant."""

    def chosen(name: str, ini: str = "") -> Any:
        value = config.getoption(f"saliency_{name}")
        return config.getini(f"saliency_{ini or name}") if value is None else value

    if (profile := chosen("profile")) not in PROFILES:
        raise pytest.UsageError(f"saliency_profile = {profile!r}: expected one of {', '.join(PROFILES)}")
    if not str(seed := chosen("seed")).isdecimal():
        raise pytest.UsageError(f"saliency_seed = {seed!r}: expected a whole number from 0 on")
    return Settings(
        methods=tuple(chosen("method", "methods")),
        subjects=tuple(chosen("subject", "subjects")),
        profile=profile,
        bounds={
            **_bounds(config.getini("saliency_bounds"), "saliency_bounds", "ini"),
            **_bounds(config.getoption("saliency_bound") or [], "--saliency-bound", "command line"),
        },
        expected_failures=_expected_failures(config.getini("saliency_expected_failures")),
        device=chosen("device") or None,
        seed=int(seed),
        reports=tuple(_report_path(config, name) for name in chosen("report")),
        baseline=_baseline_path(config, chosen("baseline")),
        baseline_strict=bool(chosen("baseline_strict")),
        bundle=_below(config, config.getoption("saliency_bundle")),
        images=_images(config.getoption("saliency_images"), chosen("report")),
        allow_inconclusive=config.getoption("saliency_allow_inconclusive"),
    )


def _bounds(lines: list[str], source: str, origin: str) -> dict[str, tuple[str, str]]:
    parsed = {}
    for line in lines:
        if not (match := _BOUND.fullmatch(line)):
            raise pytest.UsageError(f"{source}: {line!r} is no bound; expected such as 'deletion_insertion >= 0.1'")
        parsed[match[1]] = (match[2], origin)
    return parsed


def _expected_failures(lines: Iterable[str]) -> dict[tuple[str, str, str], KnownFailure]:
    found: dict[tuple[str, str, str], KnownFailure] = {}
    for line in lines:
        key, known = _expected_failure(line)
        if key in found:
            raise pytest.UsageError(f"saliency_expected_failures: {line!r} is the second entry of the same cell")
        found[key] = known
    return found


def _expected_failure(line: str) -> tuple[tuple[str, str, str], KnownFailure]:
    match = _EXPECTED.fullmatch(line.strip())
    reason, _, until = (match[4] or "").strip().rpartition("until ") if match else ("", "", "")
    if not _DAY.fullmatch(until):
        reason, until = ((match[4] or "").strip() if match else ""), ""
    what = "cannot be read" if not match else "has no reason" if not reason.strip(" ,;") else ""
    try:
        last = date.fromisoformat(until) if until else None
    except ValueError:
        what = f"ends on {until}, which is no day"
    if what or not match:
        form = "expected 'method/check: reason', or 'method/check: reason until 2027-06-30'"
        raise pytest.UsageError(f"saliency_expected_failures: {line!r} {what}; {form}")
    return (match[1], match[2], match[3] or ""), KnownFailure(reason.strip(" ,;"), last)


def _report_path(config: pytest.Config, name: str) -> Path:
    from saliency_checks.report import BadReport, files

    try:
        files.suffix(name)
    except BadReport as error:
        raise pytest.UsageError(f"--saliency-report {error}") from error
    return config.invocation_params.dir / name


def _below(config: pytest.Config, name: str | None) -> Path | None:
    return config.invocation_params.dir / name if name else None


def _baseline_path(config: pytest.Config, name: str) -> Path | None:
    """The file named on the command line or, below the folder of the ini file, in it."""
    if not name:
        return None
    given = config.getoption("saliency_baseline") is not None
    return (config.invocation_params.dir if given else config.rootpath) / name


def _images(asked: int | None, reports: Iterable[str]) -> int:
    if asked is not None and asked < 0:
        raise pytest.UsageError(f"--saliency-images {asked}: expected a whole number from 0 on")
    return asked if asked is not None else IMAGES * any(name.lower().endswith(".html") for name in reports)
