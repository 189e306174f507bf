"""A counterexample as Python code that can be pasted and shows the violation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from saliency_checks import registry
from saliency_checks.axioms.networks import code, names_in
from saliency_checks.method import Method

if TYPE_CHECKING:
    from saliency_checks.axioms.laws import Question


def snippet(axiom: str, q: Question, arguments: Mapping[str, Any]) -> str:
    """Imports, the network, the image, and an assertion that fails with the numbers."""
    asked = {"x": q.x, "target": q.target, "baseline": q.baseline, "references": q.references, "seed": q.seed}
    given = "".join(f", {name}={code(value)}" for name, value in asked.items() if value is not None)
    method = spelled(q.method)
    parts = {name: code(value) for name, value in arguments.items()}
    networks = {name: text for name, text in parts.items() if not _is_number(arguments[name])}
    numbers = "".join(f", {name}={text}" for name, text in parts.items() if name not in networks)
    used = names_in(" ".join(networks.values()))
    return "\n".join([
        "import torch",
        *(["from torch import nn"] if "nn." in "".join(networks.values()) else []),
        f"from saliency_checks.axioms import {', '.join(['Question', axiom, *used])}",
        *([] if method else ["method = ...  # your method, as you gave it to the check"]),
        *(f"{name} = {text}" for name, text in networks.items()),
        f"q = Question(method={repr(method) if method else 'method'}{given})",
        f"found = {axiom}(q, {', '.join(networks)}{numbers})",
        "assert found.holds, found",
    ])  # fmt: skip


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def spelled(method: Any) -> str:
    """The name by which a method is found again in another process, or "" where there is none."""
    if isinstance(method, str):
        return method
    if not isinstance(method, Method):
        return ""
    if registry.is_built_in("methods", method.name) and registry.get("methods", method.name) is method:
        return str(method.name)
    inner = getattr(method.source, "__wrapped__", method.source)
    path = f"{getattr(inner, '__module__', '')}:{getattr(inner, '__qualname__', '')}"
    try:
        return path if registry.load(path) is method.source else ""
    except (registry.UnknownName, ImportError, ValueError):
        return ""
