"""The command ``saliency-checks``: pytest with flags, lists of names, training of the embedded subjects, studies."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from saliency_checks.plugin import CHECKS_PACKAGE, PROFILES
from saliency_checks.studies import STUDIES

USAGE_ERROR = 4  # as pytest's own


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> None:  # type: ignore[override]
        self.exit(USAGE_ERROR, f"saliency-checks: {message}; see {self.prog} --help\n")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options, rest = _parser().parse_known_args(argv)
    if options.command == "run":
        return _run(options, rest)
    if rest:
        _parser().error(f"{options.command} knows no {' '.join(rest)}")
    if options.command == "study":
        return _study(options.name, options.arguments)
    if options.command == "list":
        return _listed(options.what, options.verbose)
    if options.command == "report":
        return _report(options)
    if options.command == "baseline":
        return _baseline(options)
    return _warm(options.profile, options.workers)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="saliency-checks", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    run = commands.add_parser(
        "run", allow_abbrev=False, help="check methods", description="Check methods. Anything else goes to pytest."
    )
    run.add_argument("methods", nargs="+", metavar="METHOD", help="a registered name or package.module:attribute")
    run.add_argument("--subject", action="append", default=[], metavar="NAME", help="explain this one; repeatable")
    run.add_argument("--profile", choices=PROFILES, help="how much evidence is gathered; default standard")
    run.add_argument("--report", action="append", default=[], metavar="FILE", help="write FILE.json, .html or .md")
    run.add_argument("-k", metavar="EXPR", dest="keyword", help="only these checks, as in pytest")
    run.add_argument("-n", metavar="N", dest="workers", help="so many processes, or auto")
    run.add_argument("--shard", metavar="I/N", help="part I of N; `report` joins what they wrote")
    listing = commands.add_parser("list", help="list names, and which check applies to which subject")
    listing.add_argument("what", nargs="?", choices=("methods", "checks", "metrics", "subjects"))
    listing.add_argument(
        "--verbose", action="store_true", help="measure passes per image and memory of each method (half a minute)"
    )
    _add_report(commands)
    _add_baseline(commands)
    warm = commands.add_parser("warm", help="train what the embedded subjects need, once")
    warm.add_argument("--profile", choices=PROFILES, default="standard", help="which subjects; default standard")
    warm.add_argument("--workers", type=int, metavar="N", help="so many processes; default as many as there are cores")
    study = commands.add_parser("study", help="repeat a published experiment: tables and figures")
    study.add_argument("name", choices=tuple(STUDIES), metavar="NAME", help=", ".join(STUDIES))
    study.add_argument("arguments", nargs=argparse.REMAINDER, help="--out DIR and more, see study NAME --help")
    return parser


def _add_report(commands: Any) -> None:
    report = commands.add_parser("report", help="make a page of JSON reports; several are merged")
    report.add_argument("results", nargs="+", metavar="FILE.json", help="what --report FILE.json wrote")
    report.add_argument(
        "-o", "--output", action="append", default=[], metavar="FILE", help="FILE.html, .md or .json; repeatable"
    )
    report.add_argument("--annotate", action="store_true", help="print what is red as annotations of a GitHub job")
    report.add_argument("--against", metavar="OLD.json", help="an older run, to be shown beside it")


def _report(options: argparse.Namespace) -> int:
    from saliency_checks.report import BadReport, complete, files, github, merged
    from saliency_checks.report import json as json_report

    if not options.output and not options.annotate:
        _parser().error("report has nothing to do: give -o FILE, or --annotate")
    try:
        whole = complete(merged(json_report.read(Path(name)) for name in options.results))
        older = json_report.read(Path(options.against)) if options.against else None
        for name in options.output:
            files.write(whole, Path(name), against=older)
    except BadReport as error:
        print(f"saliency-checks: {error}", file=sys.stderr)
        return USAGE_ERROR
    if options.annotate:
        print("\n".join(github.lines(whole)))
    else:
        lacks = f", incomplete: {whole.incomplete}" if whole.incomplete else ""
        print(f"{len(whole.rows)} results: {', '.join(options.output)}{lacks}")
    return 0


def _add_baseline(commands: Any) -> None:
    made = commands.add_parser("baseline", help="say what a run changed, and accept it into a committed file")
    made.add_argument("file", metavar="FILE.json", help="the baseline; made when something is accepted")
    made.add_argument("--from", dest="results", nargs="+", required=True, metavar="RESULTS.json", help="JSON reports")
    made.add_argument(
        "--accept", nargs="+", default=[], metavar="KEY", help="check/method/subject; '*' for any letters"
    )
    made.add_argument("--prune", action="store_true", help="remove what these results do not hold")


def _baseline(options: argparse.Namespace) -> int:
    from saliency_checks import baseline
    from saliency_checks.report import BadReport, merged
    from saliency_checks.report import json as json_report

    path = Path(options.file)
    try:
        report = merged(json_report.read(Path(name)) for name in options.results)
        known = baseline.read(path) if path.exists() else baseline.Baseline()
        print("\n".join([*baseline.told(known, report)] or ["nothing moved"]))
        if not options.accept and not options.prune:
            return 0
        if options.accept and report.incomplete:
            raise BadReport(f"these results are incomplete ({report.incomplete}): run again before accepting them")
        made, moved = baseline.accepted(known, report, options.accept, prune=options.prune)
        baseline.write(made, path)
    except (BadReport, OSError) as error:
        told = f"{path}: {error.strerror or error}" if isinstance(error, OSError) else str(error)
        print(f"saliency-checks: {told}", file=sys.stderr)
        return USAGE_ERROR
    print(f"{path}: {len(made.entries)} results, {len(moved)} changed")
    return 0


def _study(name: str, arguments: list[str]) -> int:
    from saliency_checks import studies

    return studies.run(name, _Parser(prog=f"saliency-checks study {name}", allow_abbrev=False), arguments)


def _run(options: argparse.Namespace, rest: list[str]) -> int:
    import pytest

    arguments = ["--pyargs", CHECKS_PACKAGE]
    for method in options.methods:
        arguments.append(f"--saliency-method={method}")
    for subject in options.subject:
        arguments.append(f"--saliency-subject={subject}")
    arguments += [f"--saliency-profile={options.profile}"] if options.profile else []
    arguments += [f"--saliency-report={name}" for name in options.report]
    arguments += [f"--saliency-shard={options.shard}"] if options.shard else []
    arguments += ["-k", options.keyword] if options.keyword else []
    arguments += ["-n", options.workers] if options.workers else []
    return int(pytest.main([*arguments, *(arg for arg in rest if arg != "--")]))


def _listed(what: str | None, verbose: bool) -> int:
    from saliency_checks.registry import DuplicateName, UnknownName

    try:
        return _list(what, verbose)
    except (DuplicateName, UnknownName) as error:  # another installed package cannot be used
        print(f"saliency-checks: {error}", file=sys.stderr)
        return USAGE_ERROR


def _list(what: str | None, verbose: bool) -> int:
    from saliency_checks import registry
    from saliency_checks.presets import PRESETS

    if what in (None, "methods"):
        _list_methods(verbose)
    if what in (None, "checks"):
        print("checks")
        for name in registry.names("checks"):
            metric = registry.get("metrics", name)
            print(f"  {name:26}{metric.bound!s:9}{metric.summary}")
    if what == "metrics":
        print("metrics (a preset is written METRIC@PRESET, another setting METRIC@SETTING=VALUE)")
        for name in registry.names("metrics"):
            metric = registry.get("metrics", name)
            print(f"  {name:34}{metric.summary}")
            if presets := PRESETS.get(name):
                print(f"  {'':34}presets: {', '.join(presets)}")
    if what in (None, "subjects"):
        print("subjects")
        for name in registry.names("subjects"):
            subject = registry.get("subjects", name)
            print(f"  {name:26}offers {', '.join(sorted(subject.offers)) or 'what its model has'}")
    if what is None:
        print("\nwhich check applies to which subject\n" + "\n".join(_applicability()))
    return 0


def _list_methods(verbose: bool) -> None:
    from saliency_checks import registry
    from saliency_checks.method import as_method

    wide = 2 + max(map(len, registry.names("methods")))
    head = "forward  backward  memory" if verbose else ""
    print(f"{'methods':{wide + 2}}{head}".rstrip())
    for name in registry.names("methods"):
        method = as_method(name)
        traits = ["control"] * method.control + [f"needs {need}" for need in sorted(method.needs)]
        traits += [f"known to fail {check}" for check in sorted(method.expected_failures)]
        print(f"  {name:{wide}}{_cost_of(method) if verbose else ''}{', '.join(traits)}".rstrip(), flush=True)
    if verbose:
        print("  forward, backward: passes per image; memory: peak, in those of one gradient of as many images")


def _cost_of(method: Any) -> str:
    from saliency_checks.cost import cost

    try:
        spent = cost(method)
    except Exception as error:  # somebody's own method may not like the small network
        return f"not measured ({type(error).__name__})  "
    return f"{spent.forward:7.1f}{spent.backward:10.1f}{spent.memory:8.1f}  "


def _applicability() -> list[str]:
    """Checks down, subjects across, from what the subjects declare: nothing is built or trained."""
    from saliency_checks import registry

    subjects = [registry.get("subjects", name) for name in registry.names("subjects")]
    lines = []
    for i, subject in enumerate(subjects):
        lines.append(" " * 28 + "|  " * i + subject.name)
    for check in registry.names("checks"):
        needs = registry.get("metrics", check).needs
        marks = ("x" if needs <= s.offers else "." if s.exact else "?" for s in subjects)
        lines.append(f"  {check:26}" + "  ".join(marks))
    return [*lines, "  x applies   . does not   ? known when it is built"]


def _warm(profile: str, workers: int | None) -> int:
    from saliency_checks import fixtures

    started = time.monotonic()
    try:
        networks = fixtures.warm(profile=profile, workers=workers)
    except fixtures.TrainingFailed as error:
        print(f"saliency-checks: {error}", file=sys.stderr)
        return 1
    seconds = time.monotonic() - started
    print(f"what the {profile} profile needs is trained and cached: {len(networks)} networks ({seconds:.0f} s)")
    return 0
