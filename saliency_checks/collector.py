"""The controller's side of a run: gathers the results, compares them with the baseline, writes reports and summary."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

import pytest

from saliency_checks.plugin import (
    CHECKS_PACKAGE,
    DEVICE,
    EXAMPLES_ATTRIBUTE,
    EXPECTED,
    RESULT,
    baseline,
    cell_of,
    collects_checks,
    settings,
)

if TYPE_CHECKING:
    from saliency_checks.baseline import Standing
    from saliency_checks.options import Settings
    from saliency_checks.report import Report


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

    flags = ("keyword", "markexpr", "deselect", "lf", "saliency_shard")
    files = (str(arg) for arg in config.args)
    parted = any(getattr(config.option, flag, None) for flag in flags) or any(map(_is_part, files))
    selected = any(config.getoption(f"saliency_{name}") for name in ("method", "subject"))
    return file.standing(known, report, whole=not (parted or report.incomplete), selected=selected)


def _let_sigterm_kill() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _is_part(argument: str) -> bool:
    """Whether this names some of the checks and not all."""
    return "::" in argument or argument.endswith(".py") or argument.startswith(f"{CHECKS_PACKAGE}.")


class Collector:
    """Gathers the results on the controller, writes the report and the summary."""

    def __init__(self, config: pytest.Config) -> None:
        from saliency_checks.report import Report

        self.config = config
        self.report = Report()
        self.written: list[str] = []
        self.standing: Standing | None = None

    def pytest_sessionstart(self) -> None:
        """A CI server ends a job with SIGTERM: that is an interruption like Ctrl-C, and what there is gets written."""
        in_main_thread = threading.current_thread() is threading.main_thread()
        if settings(self.config).reports and in_main_thread and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            self.config.add_cleanup(_let_sigterm_kill)

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

    @pytest.hookimpl(tryfirst=True)  # another plugin that fails here, on a full disk perhaps, takes no results with it
    def pytest_sessionfinish(self, session: pytest.Session, exitstatus: int) -> None:
        wanted = settings(self.config)
        no_run = self.config.option.collectonly or self.config.option.saliency_dry_run
        if no_run or not (self.report.rows or collects_checks(self.config)):
            return
        from saliency_checks.report import json as json_report

        self.report.environment = json_report.environment(self.report, profile=wanted.profile, seed=wanted.seed)
        if shard := self.config.getoption("saliency_shard"):
            self.report.environment["shard"] = shard
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
