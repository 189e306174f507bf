"""The JSON report, schema 1."""

from __future__ import annotations

import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from saliency_checks.report import Report

SCHEMA = 1
PACKAGES = ("captum", "numpy", "torch", "torchvision")


def document(report: Report, *, profile: str, seed: int) -> dict[str, Any]:
    """Schema, environment and the results sorted by key; nothing in it depends on order or worker count."""
    return {
        "schema": SCHEMA,
        "environment": {
            "saliency_checks": _version("saliency-checks"),
            "python": platform.python_version(),
            "platform": f"{platform.system()} {platform.machine()}",
            **{name: _version(name) for name in PACKAGES},
            "device": ", ".join(sorted(filter(None, report.devices))),
            "profile": profile,
            "seed": seed,
        },
        "results": [row.result.to_dict() for row in report.sorted_rows],
    }


def write(report: Report, path: Path, *, profile: str, seed: int) -> None:
    """Write whole or not at all: whoever reads it never sees half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    partial.write_text(
        json.dumps(document(report, profile=profile, seed=seed), indent=1, allow_nan=False) + "\n", "utf-8"
    )
    partial.replace(path)


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""
