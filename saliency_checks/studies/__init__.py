"""The published experiments as commands: ``saliency-checks study NAME --out DIR``.

A study is a module with three functions; a new one is a row in ``STUDIES``.

    arguments(parser)        adds its own flags
    measure(options, store)  makes the parts that the store does not hold yet, see :mod:`saliency_checks.studies.store`
    report(options, store)   writes tables, figures and ``summary.md`` from what the store holds, and nothing else
"""

from __future__ import annotations

import argparse
import errno
import importlib
import sys
import time
from collections.abc import Sequence
from pathlib import Path

STUDIES = {
    "recalibration": "saliency_checks.studies.recalibration",
    "single-pixel": "saliency_checks.studies.single_pixel",
    "sanity-checks": "saliency_checks.studies.sanity_checks",
    "benchmark": "saliency_checks.studies.benchmark",
}
EXTRA = "studies need further packages: pip install 'saliency-checks[studies]'"


def run(name: str, parser: argparse.ArgumentParser, arguments: Sequence[str]) -> int:
    """Parse the study's arguments, measure what is missing, report; returns the exit code."""
    try:
        from saliency_checks.loading import BadSubject
        from saliency_checks.registry import UnknownName
        from saliency_checks.studies.store import Mismatch, Store, Unfinished
        from saliency_checks.subject import Unqualified

        study = importlib.import_module(STUDIES[name])
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("saliency_checks"):
            raise
        print(f"saliency-checks: no package {error.name}; {EXTRA}", file=sys.stderr)
        return 1
    parser.description = (study.__doc__ or "").partition("\n")[0]
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="results; what is there is not redone")
    parser.add_argument("--seed", type=int, default=0, help="everything random derives from it; default 0")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, mps; default the best there is")
    parser.add_argument("--report-only", action="store_true", help="tables and figures of what DIR holds already")
    study.arguments(parser)
    options = parser.parse_args(arguments)
    started = time.monotonic()
    store = Store(options.out, name)
    try:
        if not options.report_only:
            study.measure(options, store)
        study.report(options, store)
    except (BadSubject, Mismatch, Unfinished, UnknownName, Unqualified) as error:
        print(f"saliency-checks: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        told = f"no space is left for {options.out}; what was measured until then is there and whole"
        print(f"saliency-checks: {told}: make room, and give the same command again", file=sys.stderr)
        return 1
    store.finish(seconds=time.monotonic() - started, seed=options.seed)
    print(f"wrote {options.out / 'summary.md'}")
    return 0
