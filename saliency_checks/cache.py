"""Trained once: recipe -> hash -> one safetensors file, made under a file lock and written atomically.

Nothing is ever unpickled. A file is used only if it is whole and is the recipe's own; anything else is said in one
sentence and made again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from filelock import FileLock, Timeout
from torch import Tensor

FORMAT = 1  # of the file, and of how a recipe is hashed
VARIABLE = "SALIENCY_CHECKS_CACHE"

Tensors = dict[str, Tensor]
Facts = dict[str, Any]
Report = Callable[[str], None]
_log = logging.getLogger("saliency_checks")


@dataclass(frozen=True, kw_only=True)
class Stored:
    """What a recipe makes.

    Attributes:
        tensors: name -> tensor (a state dict).
        facts: what was measured on the way, as JSON holds it (accuracies, seconds).
        fresh: it was made by this call, not read.
    """

    tensors: Tensors
    facts: Facts
    fresh: bool


class _Unusable(Exception):
    """Why a file cannot be used, as the end of a sentence."""


def folder() -> Path:
    """``$SALIENCY_CHECKS_CACHE``, or the user's cache folder of this platform."""
    if chosen := os.environ.get(VARIABLE):
        return Path(chosen).expanduser()
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "saliency_checks"


def canonical(recipe: Any) -> str:
    """A frozen dataclass as JSON: equal recipes give equal text, different ones (also by type) different text."""
    return json.dumps(_plain(recipe), sort_keys=True, separators=(",", ":"), allow_nan=False)


def key(recipe: Any, data: str = "") -> str:
    """Hash of a recipe and of the data it is trained on, 16 hex digits."""
    return hashlib.sha256(f"{FORMAT}\n{canonical(recipe)}\n{data}".encode()).hexdigest()[:16]


def path(name: str, recipe: Any, data: str = "") -> Path:
    """Where the result of ``recipe`` lies, or will lie."""
    return folder() / f"{name}-{key(recipe, data)}.safetensors"


def load_or_make(
    name: str,
    recipe: Any,
    make: Callable[[], tuple[Tensors, Facts]],
    *,
    like: Mapping[str, Tensor],
    data: str = "",
    report: Report | None = None,
) -> Stored:
    """Read what ``recipe`` made before, or make it; of several processes one makes it and the others wait.

    Args:
        name: start of the file's name.
        recipe: a frozen dataclass of plain values.
        make: returns tensors and facts; called at most once.
        like: tensors with the names, shapes and types that are expected (on any device, also ``meta``).
        data: digest of the data that ``make`` reads.
        report: takes one-sentence messages; default the logger ``saliency_checks``, as warnings.
    """
    report = report or _log.warning
    target = path(name, recipe, data)
    identity = json.dumps({"recipe": canonical(recipe), "data": data})
    if found := _usable(target, identity, like):
        return found
    lock = _lock(target, report)
    if lock is None:
        tensors, facts = make()
        return Stored(tensors=tensors, facts=facts, fresh=True)
    with lock:
        # Look again: another process may have made it while this one waited.
        if found := _usable(target, identity, like, report):
            return found
        tensors, facts = make()
        try:
            _write(target, tensors, facts, identity)
        except OSError as error:
            report(f"{target} could not be written ({_why(error)}): the result is kept for this run only")
        return Stored(tensors=tensors, facts=facts, fresh=True)


def is_stored(name: str, recipe: Any, *, like: Mapping[str, Tensor], data: str = "") -> bool:
    """Whether a whole file of this recipe lies in the cache."""
    identity = json.dumps({"recipe": canonical(recipe), "data": data})
    return _usable(path(name, recipe, data), identity, like) is not None


def digest(tensors: Mapping[str, Tensor], text: str = "") -> str:
    """SHA-256 over named tensors (names, types, shapes, values) and a text."""
    sha = hashlib.sha256(f"{text}\n".encode())
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        sha.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        sha.update(tensor.flatten().numpy().tobytes())
    return sha.hexdigest()


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {"type": type(value).__name__, **{f.name: _plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, tuple | list):
        return [_plain(item) for item in value]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise TypeError(f"a recipe holds {value!r}: expected numbers, strings, tuples and dataclasses of those")


def _usable(target: Path, identity: str, like: Mapping[str, Tensor], report: Report | None = None) -> Stored | None:
    try:
        tensors, facts = _read(target, identity, like)
    except FileNotFoundError:
        return None
    except _Unusable as reason:
        if report:
            report(f"{target} {reason}: it is made again")
        return None
    return Stored(tensors=tensors, facts=facts, fresh=False)


def _read(target: Path, identity: str, like: Mapping[str, Tensor]) -> tuple[Tensors, Facts]:
    try:
        raw = target.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _Unusable(f"cannot be read ({_why(error)})") from error
    try:
        tensors = safetensors.torch.load(raw)
        header = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])
        metadata = dict(header.get("__metadata__") or {})
    except Exception as error:  # damage shows in many ways, and all mean the same
        raise _Unusable("is truncated or damaged") from error
    if metadata.get("identity") != identity:
        raise _Unusable("belongs to another recipe or program")
    if _form(tensors) != _form(like):
        raise _Unusable("holds other tensors than the recipe's model")
    facts = metadata.get("facts", "")
    if metadata.get("digest") != digest(tensors, identity + facts):
        raise _Unusable("is damaged (its content does not match its digest)")
    return tensors, json.loads(facts)


def _write(target: Path, tensors: Tensors, facts: Facts, identity: str) -> None:
    text = json.dumps(facts)
    metadata = {"identity": identity, "facts": text, "digest": digest(tensors, identity + text)}
    raw = safetensors.torch.save({name: tensor.contiguous() for name, tensor in tensors.items()}, metadata)
    temporary = target.with_suffix(".tmp")  # only the holder of the lock writes it, so one killed leaves one at most
    try:
        with temporary.open("wb") as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(target)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise


def _lock(target: Path, report: Report) -> FileLock | None:
    """The lock on one file, held; None where the folder does not allow it. The system frees it if its holder dies."""
    lock = FileLock(target.with_suffix(".lock"))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            report(f"waiting for another process that makes {target.name}")
            lock.acquire()
    except (OSError, NotImplementedError) as error:
        report(
            f"the cache folder {target.parent} cannot be written ({_why(error)}): {target.stem} is made for this run"
            f" only; set {VARIABLE} to a folder that can"
        )
        return None
    return lock


def _form(tensors: Mapping[str, Tensor]) -> dict[str, tuple[Any, ...]]:
    return {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in tensors.items()}


def _why(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
