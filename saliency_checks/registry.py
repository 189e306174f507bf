"""Names -> objects: the built-in entries, the user's own, entry points and ``package.module:attribute``."""

from __future__ import annotations

import difflib
import importlib
import re
import sys
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

KINDS = ("methods", "metrics", "checks", "subjects")
GRAFT = "graft:"  # before the name of a subject: the same one with a known cause grafted onto its model
NAME = re.compile(r"[a-z][a-z0-9_]*")

# What each kind's built-in entries are registered by. Imported on first use: they import torch.
_BUILT_IN = {
    "methods": "saliency_checks.methods",
    "metrics": "saliency_checks.metrics",
    "subjects": "saliency_checks.fixtures",
}
_entries: dict[str, dict[str, Any]] = {kind: {} for kind in _BUILT_IN}
_loaded: set[str] = set()


class UnknownName(LookupError):
    """A name that no registry entry, entry point or importable attribute answers to."""


class DuplicateName(ValueError):
    """Two different objects that want the same name."""


def slug(text: str) -> str:
    """A name that is safe in test ids: ``SmoothIG`` -> ``smooth_ig``."""
    snake = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", text).lower()
    clean = re.sub(r"[^a-z0-9_]+", "_", snake).strip("_")
    return clean if NAME.fullmatch(clean) else f"m_{clean}".rstrip("_")


def check_name(name: str) -> str:
    if not NAME.fullmatch(name):
        raise ValueError(f"name {name!r}: expected {NAME.pattern} (it becomes part of a test id); try {slug(name)!r}")
    return name


def register(kind: str, name: str, entry: Any, *, origin: str = "") -> Any:
    """Add ``entry``; the same definition again (a reloaded module) replaces itself, another one is refused."""
    _load_built_in(kind)
    known = _entries[kind].get(check_name(name))
    if known is not None and known[1] != origin:
        raise DuplicateName(f"{kind[:-1]} {name!r} is already registered by {known[1]}; give {origin} another name")
    _entries[kind][name] = (entry, origin)
    return entry


def names(kind: str) -> list[str]:
    """Sorted names of one kind: ``methods``, ``metrics``, ``checks`` (metrics that have a bound) or ``subjects``."""
    _check_kind(kind)
    if kind == "checks":
        return [name for name in names("metrics") if get("metrics", name).bound is not None]
    _load_built_in(kind)
    return sorted({*_entries[kind], *_entry_points(kind)})


def own(kind: str) -> list[str]:
    """Sorted names that the user registered, beside the built-in ones and those of other installed packages."""
    _load_built_in(kind)
    points = _entry_points(kind)
    installed = {point.module for point in points.values()}
    found = {name for name, (_, origin) in _entries[kind].items() if origin.partition(":")[0] not in installed}
    return sorted(name for name in found - points.keys() if not is_built_in(kind, name))


def is_built_in(kind: str, name: str) -> bool:
    """Whether this name is an entry of this package (or made from one), and not the user's own."""
    _load_built_in(kind)
    entry = _entries[kind].get(name)
    return name.startswith(GRAFT) or (entry is not None and entry[1].startswith("saliency_checks."))


def entries(kind: str) -> dict[str, Any]:
    """Everything that was registered so far, by name; entry points only once they are loaded."""
    _load_built_in(kind)
    return {name: entry for name, (entry, _) in _entries[kind].items()}


def get(kind: str, name: str) -> Any:
    """The entry behind a registered name or ``package.module:attribute``.

    ``metric@preset`` is a metric with the settings of a paper, ``metric@setting=value`` with others.

    Raises:
        UnknownName: says what was looked for, and the nearest names.
    """
    _check_kind(kind)
    if kind == "subjects" and name.startswith(GRAFT):
        from saliency_checks.graft import factory

        return factory(name.removeprefix(GRAFT))
    if kind in ("metrics", "checks") and "@" in name:
        base, _, variant = name.partition("@")
        return get(kind, base).variant(variant)
    if ":" in name:
        return load(name)
    store = "metrics" if kind == "checks" else kind
    _load_built_in(store)
    if name in _entries[store]:
        return _entries[store][name][0]
    points = _entry_points(store)
    if name in points:
        return _from_another_package(store, points[name])
    near = difflib.get_close_matches(name, names(kind), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(names(kind))}"
    raise UnknownName(f"unknown {kind[:-1]} {name!r}; {hint} (an own one is named package.module:attribute)")


def load(path: str) -> Any:
    """Import ``package.module:attribute``."""
    module_name, _, attribute = path.partition(":")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise UnknownName(
                f"{path!r}: no module named {error.name!r}; is its folder the current one, or on PYTHONPATH?"
            ) from error
        raise
    for part in attribute.split("."):
        if not hasattr(found, part):
            near = difflib.get_close_matches(part, dir(found), n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise UnknownName(f"{path!r}: {module_name} has no attribute {part!r}{hint}")
        found = getattr(found, part)
    return found


def imported_from(kind: str, spec: str) -> str:
    """Where code came from that is neither in this package nor in a conftest.py, once loaded; "" for other names."""
    spec = spec.removeprefix(GRAFT)
    if ":" in spec:
        return _file(spec.partition(":")[0])
    point = None if is_built_in(kind, spec) else _entry_points(kind).get(spec)
    return f"{point.value} of {_package(point)}, {_file(point.module)}" if point else ""


def _file(module: str) -> str:
    """The file of a module, seen from the current folder where it lies below."""
    path = Path(getattr(sys.modules.get(module), "__file__", None) or "no file")
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)


def _check_kind(kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")


def _load_built_in(kind: str) -> None:
    """Import what registers the built-in entries, once; they arrive here through ``register``."""
    if kind in _loaded:
        return
    _loaded.add(kind)  # first: the imports below call register()
    try:
        importlib.import_module(_BUILT_IN[kind])
    except BaseException:
        _loaded.discard(kind)  # otherwise the next call would find an empty registry and no error
        raise


def _from_another_package(kind: str, point: metadata.EntryPoint) -> Any:
    """What an entry point leads to, as an entry of its kind; importing it may register it by its decorator."""
    try:
        found = point.load()
    except Exception as error:
        raise UnknownName(
            f"{kind[:-1]} {point.name!r} of {_package(point)}: {point.value} cannot be imported"
            f" ({type(error).__name__}: {error}); mend or uninstall that package"
        ) from error
    if point.name not in _entries[kind]:
        register(kind, point.name, _entry(kind, point.name, found), origin=point.value)
    return _entries[kind][point.name][0]


def _entry(kind: str, name: str, found: Any) -> Any:
    """A plain function is a method, or builds a subject; what has another name of its own gets the entry point's."""
    if kind == "methods":
        from saliency_checks.method import as_method

        return as_method(found, name=name)
    if kind == "subjects":
        from saliency_checks.subject import SubjectFactory

        is_made = isinstance(found, SubjectFactory)
        return replace(found, name=name) if is_made else SubjectFactory(name=name, build=found, offers=frozenset())
    from saliency_checks.metric import Metric

    if not isinstance(found, Metric):
        raise TypeError(f"metric {name!r} of an entry point is {type(found).__name__}, expected what @sc.metric makes")
    return replace(found, name=name)


def _entry_points(kind: str) -> dict[str, metadata.EntryPoint]:
    """By name, of all installed packages.

    Raises:
        DuplicateName: two packages, or a package and this one, want the same name; nobody would know which is judged.
    """
    found: dict[str, metadata.EntryPoint] = {}
    for point in metadata.entry_points(group=f"saliency_checks.{kind}"):
        other = found.get(check_name(point.name))
        if other is not None and other.value != point.value:
            raise DuplicateName(
                f"{kind[:-1]} {point.name!r} is registered by {_package(other)} and by {_package(point)}; uninstall one"
            )
        if is_built_in(kind, point.name):
            raise DuplicateName(f"{kind[:-1]} {point.name!r} of {_package(point)} is a built-in name; it needs another")
        found[point.name] = point
    return found


def _package(point: metadata.EntryPoint) -> str:
    return f"the package {point.dist.name}" if point.dist else point.value
