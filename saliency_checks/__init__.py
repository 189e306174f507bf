"""pytest for explanations: a verdict, not a number.

The public names load on first use: importing this package imports neither torch nor pytest.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saliency_checks.case import parametrize_with_checks as parametrize_with_checks
    from saliency_checks.graft import graft as graft
    from saliency_checks.method import Method as Method
    from saliency_checks.method import method as method
    from saliency_checks.metric import Metric as Metric
    from saliency_checks.metric import metric as metric
    from saliency_checks.registry import get as get
    from saliency_checks.registry import names as names
    from saliency_checks.result import CheckFailed as CheckFailed
    from saliency_checks.result import Result as Result
    from saliency_checks.run import measure as measure
    from saliency_checks.run import run as run
    from saliency_checks.stream import Files as Files
    from saliency_checks.stream import Tars as Tars
    from saliency_checks.stream import image_folder as image_folder
    from saliency_checks.stream import stream as stream
    from saliency_checks.subject import Contrast as Contrast
    from saliency_checks.subject import Subject as Subject
    from saliency_checks.subject import Twins as Twins
    from saliency_checks.subject import subject as subject
    from saliency_checks.verdict import Bound as Bound

_ROOMS = {
    "case": ("parametrize_with_checks",),
    "graft": ("graft",),
    "method": ("Method", "method"),
    "metric": ("Metric", "metric"),
    "registry": ("get", "names"),
    "result": ("CheckFailed", "Result"),
    "run": ("measure", "run"),
    "stream": ("Files", "Tars", "image_folder", "stream"),
    "subject": ("Contrast", "Subject", "Twins", "subject"),
    "verdict": ("Bound",),
}
_HOME = {name: room for room, names in _ROOMS.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)
    globals()[name] = value  # next time without this function, and over the room of the same name
    return value


def __dir__() -> list[str]:
    return __all__


class _Package(ModuleType):
    """Importing ``saliency_checks.method`` would put that module in the place of the public name ``method``."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOME and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
