"""A report as a file: what kind is told by how the name ends."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from saliency_checks.report import BadReport, Report
from saliency_checks.report import json as json_report

ROOMS = {".json": "json", ".html": "html", ".md": "markdown"}


def suffix(name: str) -> str:
    """``.json``, ``.html`` or ``.md``.

    Raises:
        BadReport: for another.
    """
    found = Path(name).suffix.lower()
    if found not in ROOMS:
        raise BadReport(f"{name}: expected a file that ends in .json, .html or .md")
    return found


def write(report: Report, path: Path, *, against: Report | None = None) -> None:
    """Write the report, beside an older one of the same cells where there is one (not in JSON).

    Raises:
        BadReport: the name ends otherwise, or the file cannot be written.
    """
    ending = suffix(path.name)
    try:
        if ending == ".json":
            json_report.write(report, path)
        else:
            page: Callable[..., str] = import_module(f"saliency_checks.report.{ROOMS[ending]}").page
            json_report.write_whole(path, page(report, against=against))
    except OSError as error:
        raise BadReport(f"{path}: {error.strerror or error}") from error
