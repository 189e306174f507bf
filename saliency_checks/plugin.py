"""The pytest plugin: options, transport of results to the controller, scheduling and the summary.

It is loaded in every pytest run of its environment, so it imports neither torch nor anything that does.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import pytest

from saliency_checks import options
from saliency_checks.options import PROFILES as PROFILES
from saliency_checks.options import Settings

if TYPE_CHECKING:
    from saliency_checks.baseline import Baseline

RESULT = "saliency_result"  # user property: one Result as JSON
EXPECTED = "saliency_expected"  # user property: why this cell is known to fail
DEVICE = "saliency_device"  # user property: where it ran
EXAMPLES = pytest.StashKey[list[dict[str, Any]]]()  # images of the item's result; on the report as EXAMPLES_ATTRIBUTE
EXAMPLES_ATTRIBUTE = "saliency_examples"
CHECKS_PACKAGE = "saliency_checks.checks"

FURTHER = "further"  # the test that stands for all checks that are not built in

_CELL = re.compile(r"test_(\w+)\.py::test_\1\[(?:([a-z][a-z0-9_]*)-)?([a-z][a-z0-9_]*)-([a-z][a-z0-9_]*)\]$")

_SETTINGS = pytest.StashKey[Settings]()
_BASELINE: pytest.StashKey[Baseline] = pytest.StashKey()
_SPLIT = pytest.StashKey[bool]()  # whether there was something to split into parts


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add(parser)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "saliency: a check of saliency_checks on one method and one subject")
    config.stash[_SETTINGS] = settings = options.read(config)
    baseline(config)  # a file that cannot be read stops the run here
    if shard := config.getoption("saliency_shard"):
        from saliency_checks import sharding

        sharding.part_of(shard)
    if any(":" in name for name in (*settings.methods, *settings.subjects)):
        here = str(config.invocation_params.dir)  # plain `pytest` does not put it on sys.path, `python -m pytest` does
        if here not in sys.path:
            sys.path.insert(0, here)
    if not is_worker(config):
        from saliency_checks.collector import Collector

        config.pluginmanager.register(Collector(config), "saliency_checks_collector")


def settings(config: pytest.Config) -> Settings:
    """What this run asks for."""
    return config.stash[_SETTINGS]


def is_worker(config: pytest.Config) -> bool:
    """Whether this process is a worker of pytest-xdist."""
    return hasattr(config, "workerinput")


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
            chosen = Selection.of(wanted)
        except BadSelection as error:
            raise pytest.UsageError(str(error)) from error
        reporter = config.pluginmanager.getplugin("terminalreporter")
        if reporter is not None and config.get_verbosity() >= 0:
            for line in chosen.imported():
                reporter.write_line(f"saliency_checks: {line}")


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Behind every other choice (-k, -m): what these leave is split."""
    if shard := config.getoption("saliency_shard"):
        from saliency_checks import sharding

        config.stash[_SPLIT] = bool(items)
        sharding.keep(config, items, shard)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """More parts than there are groups of tests: an empty one is no error."""
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and session.config.stash.get(_SPLIT, False):
        session.exitstatus = pytest.ExitCode.OK


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> None:
    if config.getoption("saliency_dry_run"):  # the plan is made from what this process collects
        config.option.numprocesses, config.option.dist, config.option.tx = None, "no", []


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> bool | None:
    if not session.config.getoption("saliency_dry_run") or session.testsfailed:
        return None
    from saliency_checks import judging, plan

    methods = plan.methods_of(session.items, judging.selection(session.config).methods)
    writer = session.config.get_terminal_writer()
    writer.line()
    for line in plan.lines(plan.cells_of(session.items), settings(session.config).profile, methods):
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
    if not match or (match[1] == FURTHER) != bool(match[2]):
        return None
    return match[2] or match[1], match[3], match[4]


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
