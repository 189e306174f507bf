"""What a study was measured with: versions of packages, and hashes of source text, its own and the user's."""

from __future__ import annotations

import functools
import hashlib
import inspect
import platform
import sys
from collections.abc import Iterable
from contextlib import suppress
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any

import saliency_checks
from saliency_checks import cache, fixtures
from saliency_checks.subject import Subject

PACKAGES = ("saliency-checks", "captum", "numpy", "pyarrow", "scipy", "torch", "torchvision")
# Folders and files of this program that no measured value depends on: they judge, or write of what was measured. (The
# fixtures have a place of their own; in a wheel they lie inside.)
WRITING = (
    "checks/*", "fixtures/*", "report/*", "cli.py", "plugin.py", "studies/bar.py", "studies/*figures.py",
    "studies/published.py", "studies/*report.py", "studies/table.py",
)  # fmt: skip


def versions() -> dict[str, str]:
    """Of this program, of what it measures with, and of the machine's kind."""
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


@functools.cache
def program() -> str:
    """Hash of this program's source: what is measured by another one may differ, whatever its version says."""
    return source_digest(folders())


def folders() -> list[Path]:
    """Where this program's source lies."""
    return [Path(module.__path__[0]) for module in (saliency_checks, fixtures)]


def only_writes(name: str) -> bool:
    """Whether no measured value depends on the file of this name."""
    return any(fnmatchcase(name, pattern) for pattern in WRITING)


def source_digest(roots: Iterable[Path]) -> str:
    """Hash of the Python files below some folders, by their names there, without those that only write."""
    sha = hashlib.sha256()
    for root in roots:
        for file in sorted(root.rglob("*.py")):
            name = file.relative_to(root).as_posix()
            if not only_writes(name):
                sha.update(f"{name} {sha_of(file)}\n".encode())
    return sha.hexdigest()[:16]


def code(function: Any) -> str:
    """What tells whether a callable of the user's is still the same: a hash of the file it is in.

    Nothing for this program's own, which every part names by :func:`program`.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = inspect.unwrap(function) if callable(function) else function
    module = sys.modules.get(getattr(function, "__module__", None) or type(function).__module__)
    if module is None or module.__name__.startswith("saliency_checks."):
        return ""
    file = getattr(module, "__file__", None)
    return sha_of(Path(file)) if file else module.__name__


@functools.cache
def digest_of(subject: Subject) -> str:
    """Hash of the model's weights and kind, the images and the classes."""
    held = {f"model.{name}": value for name, value in subject.model.state_dict().items()}
    held |= {"inputs": subject.inputs, "targets": subject.targets}
    rest = "" if subject.source is None else f" {subject.source.digest}"
    return cache.digest(held, f"{type(subject.model).__name__} {subject.absent}{rest}")[:16]


def sha_of(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()
