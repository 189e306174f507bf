"""The pytest plugin: options, transport of results to the controller, scheduling and the summary.

It is loaded in every pytest run of its environment, so it imports neither torch nor anything that does.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import date
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

if TYPE_CHECKING:
    from saliency_checks.baseline import Baseline, Standing
    from saliency_checks.report import Report

PROFILES = ("quick", "standard", "thorough")
RESULT = "saliency_result"  # user property: one Result as JSON
EXPECTED = "saliency_expected"  # user property: why this cell is known to fail
DEVICE = "saliency_device"  # user property: where it ran
EXAMPLES = pytest.StashKey[list[dict[str, Any]]]()  # images of the item's result; on the report as EXAMPLES_ATTRIBUTE
EXAMPLES_ATTRIBUTE = "saliency_examples"
IMAGES = 2  # worst and best ones each, where a page will show them
CHECKS_PACKAGE = "saliency_checks.checks"

_CELL = re.compile(r"test_(\w+)\.py::test_\1\[([a-z][a-z0-9_]*)-([a-z][a-z0-9_]*)\]$")
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
    baseline: Path | None
    baseline_strict: bool
    allow_inconclusive: bool


_SETTINGS = pytest.StashKey[Settings]()
_BASELINE: pytest.StashKey[Baseline] = pytest.StashKey()


def pytest_addoption(parser: pytest.Parser) -> None:
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
        "--saliency-dry-run", action="store_true", help="print the plan and an estimate; build, train and run nothing"
    )
    group.addoption(
        "--saliency-allow-inconclusive",
        action="store_true",
        help="what more images could decide is no failure",
    )
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


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "saliency: a check of saliency_checks on one method and one subject")
    config.stash[_SETTINGS] = settings = _read_settings(config)
    baseline(config)  # a file that cannot be read stops the run here
    if any(":" in name for name in (*settings.methods, *settings.subjects)):
        here = str(config.invocation_params.dir)  # plain `pytest` does not put it on sys.path, `python -m pytest` does
        if here not in sys.path:
            sys.path.insert(0, here)
    if not is_worker(config):
        config.pluginmanager.register(_Collector(config), "saliency_checks_collector")


def settings(config: pytest.Config) -> Settings:
    """What this run asks for."""
    return config.stash[_SETTINGS]


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


def _read_settings(config: pytest.Config) -> Settings:
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


def _baseline_path(config: pytest.Config, name: str) -> Path | None:
    """The file named on the command line or, below the folder of the ini file, in it."""
    if not name:
        return None
    given = config.getoption("saliency_baseline") is not None
    return (config.invocation_params.dir if given else config.rootpath) / name


def baseline(config: pytest.Config) -> Baseline | None:
    """What this run is compared with, read once per process."""
    path = settings(config).baseline
    if path is None:
        return None
    if _BASELINE not in config.stash:
        from saliency_checks import baseline as file
        from saliency_checks.report import BadReport

        try:
            config.stash[_BASELINE] = file.read(path)
        except BadReport as error:
            raise pytest.UsageError(f"--saliency-baseline: {error}") from error
    return config.stash[_BASELINE]


def _images(asked: int | None, reports: Iterable[str]) -> int:
    if asked is not None and asked < 0:
        raise pytest.UsageError(f"--saliency-images {asked}: expected a whole number from 0 on")
    return asked if asked is not None else IMAGES * any(name.lower().endswith(".html") for name in reports)


def pytest_report_header(config: pytest.Config) -> str | None:
    if not collects_checks(config):
        return None
    wanted = settings(config)
    lines = [f"saliency_checks: profile {wanted.profile}, device {wanted.device or 'auto'}, seed {wanted.seed}"]
    if known := baseline(config):
        lines.append(f"saliency_checks: baseline {wanted.baseline} ({len(known.entries)} results)")
        lines += [f"  WARNING: measured with another {other}" for other in _unlike(known, wanted)]
    return "\n".join(lines)


def _unlike(known: Baseline, wanted: Settings) -> list[str]:
    from saliency_checks import baseline as file
    from saliency_checks.report import Report
    from saliency_checks.report import json as json_report

    planned = Report(devices={(wanted.device or "").partition(":")[0]})
    return file.differences(known, json_report.environment(planned, profile=wanted.profile, seed=wanted.seed))


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    """Refuse misspelt names before anything runs; here, because the conftest files have been read by now."""
    config = session.config
    wanted = settings(config)
    by_flag = any(config.getoption(f"saliency_{name}") for name in ("method", "subject", "bound", "device"))
    by_ini = collects_checks(config) and any((wanted.methods, wanted.subjects, wanted.bounds, wanted.expected_failures))
    if (by_flag or by_ini) and not is_worker(config):
        from saliency_checks.selection import BadSelection, Selection

        try:
            Selection.of(wanted)
        except BadSelection as error:
            raise pytest.UsageError(str(error)) from error


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("saliency_dry_run"):  # the plan is made from what this process collects
        config.option.numprocesses, config.option.dist, config.option.tx = None, "no", []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not session.config.getoption("saliency_dry_run") or session.testsfailed:
        return None
    from saliency_checks import plan

    writer = session.config.get_terminal_writer()
    writer.line()
    for line in plan.lines(plan.cells_of(session.items), settings(session.config).profile):
        writer.line(line)
    return True


def collects_checks(config: pytest.Config) -> bool:
    """Whether the command line names the checks of this package, by module or by path."""
    spec = find_spec(CHECKS_PACKAGE)
    folder = Path(spec.origin).resolve().parent if spec and spec.origin else None
    for arg in config.args:
        name = str(arg).partition("::")[0]
        if name == CHECKS_PACKAGE or name.startswith(CHECKS_PACKAGE + "."):
            return True
        path = config.invocation_params.dir / name
        if folder and path.exists() and (path.resolve() == folder or folder in path.resolve().parents):
            return True
    return False


def cell_of(nodeid: str) -> tuple[str, str, str] | None:
    """(check, method, subject) of a test that is one of ours, read from its id."""
    match = _CELL.search(nodeid)
    return (match[1], match[2], match[3]) if match else None


def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> None:
    """Let the cases of ``parametrize_with_checks`` take this run's settings and leave their results."""
    case = sys.modules.get("saliency_checks.case")
    for name, value in pyfuncitem.funcargs.items() if case else ():
        if type(value) is case.Case:  # type: ignore[union-attr]
            from saliency_checks.judging import PytestCase

            pyfuncitem.funcargs[name] = PytestCase.of(cast(Any, value), pyfuncitem)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Send the images of a result along, as an attribute: those cross from worker to controller too."""
    report = yield
    if call.when == "call" and (examples := item.stash.get(EXAMPLES, None)):
        setattr(report, EXAMPLES_ATTRIBUTE, examples)
    return report


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Keep the checks of one method and subject on one worker, so that its maps are computed once."""
    if not collects_checks(config) or _dist_was_chosen(config):
        return None
    from saliency_checks.scheduling import CellScheduling

    return CellScheduling(config, log)


def _dist_was_chosen(config: pytest.Config) -> bool:
    if config.getoption("dist") != "load":  # -n alone means load
        return True
    given = [
        *config.invocation_params.args,
        *config.getini("addopts"),
        *shlex.split(os.environ.get("PYTEST_ADDOPTS", "")),
    ]
    return any(str(arg) == "-d" or str(arg).startswith("--dist") for arg in given)


@contextmanager
def live(config: pytest.Config) -> Iterator[Callable[[str], None]]:
    """A callback for progress: a line on a terminal, behind what pytest has printed; a plain one elsewhere."""
    from saliency_checks.report.live import Line, Plain

    capture = config.pluginmanager.getplugin("capturemanager")
    reporter = config.pluginmanager.getplugin("terminalreporter")
    on_terminal = not is_worker(config) and reporter is not None and reporter.isatty

    def write(text: str) -> None:
        with capture.global_and_fixture_disabled() if capture else nullcontext():
            print(text, end="", file=sys.stdout if on_terminal else sys.stderr, flush=True)

    if on_terminal:
        writer = config.get_terminal_writer()
        line: Line | Plain = Line(write, room=lambda: writer.fullwidth - writer.width_of_current_line - 2)
    else:
        line = Plain(write, who=f"saliency_checks {os.environ.get('PYTEST_XDIST_WORKER', '')}".rstrip())
    try:
        yield line
    finally:
        line.erase()


def _why_incomplete(session: pytest.Session, exitstatus: int) -> str:
    if exitstatus == pytest.ExitCode.INTERRUPTED:
        return "the run was interrupted"
    if exitstatus == pytest.ExitCode.INTERNAL_ERROR:
        return "the run ended with an internal error"
    return str(session.shouldfail or session.shouldstop or "")


def _standing(config: pytest.Config, report: Report) -> Standing | None:
    """How this run stands to its baseline; a part of the checks says nothing about stale entries."""
    if not (known := baseline(config)):
        return None
    from saliency_checks import baseline as file

    option = config.option
    parted = option.keyword or option.markexpr or getattr(option, "lf", False) or any("::" in a for a in config.args)
    selected = any(config.getoption(f"saliency_{name}") for name in ("method", "subject"))
    return file.standing(known, report, whole=not (parted or report.incomplete), selected=selected)


class _Collector:
    """Gathers the results on the controller, writes the report and the summary."""

    def __init__(self, config: pytest.Config) -> None:
        from saliency_checks.report import Report

        self.config = config
        self.report = Report()
        self.written: list[str] = []
        self.standing: Standing | None = None

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        properties = {str(name): value for name, value in report.user_properties}
        if report.when == "call" and RESULT in properties:
            self.report.add_json(
                str(properties[RESULT]),
                expected=str(properties.get(EXPECTED, "")),
                examples=getattr(report, EXAMPLES_ATTRIBUTE, ()),
            )
            self.report.devices.add(str(properties.get(DEVICE, "")))
        elif report.failed and report.when != "teardown" and (cell := cell_of(report.nodeid)):
            # A worker that died, or a set-up that failed, measured nothing: that is an error, never a gap.
            self.report.add_error(*cell, message=report.longreprtext)

    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        wanted = settings(self.config)
        no_run = self.config.option.collectonly or self.config.option.saliency_dry_run
        if no_run or not (self.report.rows or collects_checks(self.config)):
            return
        from saliency_checks.report import json as json_report

        self.report.environment = json_report.environment(self.report, profile=wanted.profile, seed=wanted.seed)
        self.report.incomplete = _why_incomplete(session, exitstatus)
        self.standing = _standing(self.config, self.report)
        off = self.standing and (self.standing.new or self.standing.stale)
        if off and wanted.baseline_strict and exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED
        if wanted.reports:
            self._write(wanted, session)

    def _write(self, wanted: Settings, session: pytest.Session) -> None:
        from saliency_checks.report import BadReport, about, files

        about.describe(self.report)
        for path in wanted.reports:
            try:
                files.write(self.report, path)
                self.written.append(str(path))
            except BadReport as error:
                self.written.append(f"NOT WRITTEN: {error}")
                session.exitstatus = pytest.ExitCode.INTERNAL_ERROR

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        if not self.report.rows:
            return
        from saliency_checks.report import terminal

        writer = self.config.get_terminal_writer()
        terminalreporter.section("saliency checks", sep="=")
        notes = terminal.standing(self.standing, strict=settings(self.config).baseline_strict) if self.standing else ()
        files = ", ".join(self.written)
        for line in terminal.summary(self.report, width=writer.fullwidth, report_file=files, notes=notes):
            for text, markup in line:
                writer.write(text, **markup)
            writer.line()
