"""What is behind a red result, as files to look into: the worst images, their maps, curves, and the text."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from saliency_checks.pictures import ARRAYS, png
from saliency_checks.report import BadReport, Report, about, html
from saliency_checks.report.charts import numbers, recovery
from saliency_checks.result import Result

if TYPE_CHECKING:
    from jaxtyping import UInt8
    from numpy.typing import NDArray

IMAGES = 8  # worst ones that a bundle holds
LONGEST_NAME = 120
SIZE = (200, 320)  # pixels of a picture of curves
COLOURS = ((33, 102, 172), (178, 24, 43), (27, 127, 77), (168, 106, 0), (106, 61, 154), (90, 90, 90))


def write(result: Result, folder: Path) -> Path:
    """Write ``folder/CHECK.METHOD.SUBJECT/`` and return it.

    ``result.txt``, ``result.json`` and ``result.html``; ``images.npz`` (inputs (n, c, h, w), maps (n, h, w), truths
    (n, h, w) where it is known, index and score (n,), the worst first) and a PNG of each; ``curves.npz`` (axis, names,
    values (lines, points)) and ``curves.png``. What the result does not hold is left out: only ``run(..., images=N)``
    keeps images.

    Raises:
        BadReport: the files cannot be written.
    """
    place = folder / name_of(result)
    try:
        place.mkdir(parents=True, exist_ok=True)
        for name, content in _files(result):
            (place / name).write_bytes(content)
        _images(result, place)
        _curves(result, place)
    except OSError as error:
        shutil.rmtree(place, ignore_errors=True)  # whole or not there
        raise BadReport(f"{place}: {error.strerror or error}") from error
    return place


def name_of(result: Result) -> str:
    """A folder's name that no key can break out of: other letters than these are told apart by their numbers."""
    key = ".".join((result.check, result.method, result.subject))
    name = re.sub(r"[^A-Za-z0-9_.-]|^\.|\.(?=\.)", lambda match: f"-{ord(match[0])}-", key)
    if len(name) <= LONGEST_NAME:
        return name
    return f"{name[: LONGEST_NAME - 9]}-{hashlib.sha256(key.encode()).hexdigest()[:8]}"


def _files(result: Result) -> Iterator[tuple[str, bytes]]:
    yield "result.txt", f"{result}\n\n{result.message}\n".encode()
    report = Report()
    report.add(result)
    about.describe(report)
    yield "result.html", html.page(report).encode()
    yield "result.json", (json.dumps(result.to_dict(), indent=1, allow_nan=False) + "\n").encode()
    for i, example in enumerate(_worst(result)):
        for kind in ("input", "map"):
            yield f"worst{i:02}_image{int(example['index']):05}_{kind}.png", base64.b64decode(example[kind])


def _worst(result: Result) -> list[Mapping[str, Any]]:
    return [example for example in result.examples if example.get("rank") == "worst"]


def _images(result: Result, place: Path) -> None:
    shown = [example for example in _worst(result) if ARRAYS in example]
    if not shown:
        return
    found: dict[str, Any] = {f"{name}s": np.stack([one[ARRAYS][name] for one in shown]) for name in shown[0][ARRAYS]}
    found |= {name: np.array([one[name] for one in shown]) for name in ("index", "score")}
    np.savez_compressed(place / "images.npz", **found)


def _curves(result: Result, place: Path) -> None:
    axis, lines = curves(result)
    if not lines:
        return
    np.savez_compressed(
        place / "curves.npz", axis=np.array(axis), names=np.array([*lines]), values=np.array([*lines.values()])
    )
    (place / "curves.png").write_bytes(png(_plot([np.array(values) for values in lines.values()])))


def curves(result: Result) -> tuple[list[float], dict[str, list[float]]]:
    """What a page draws of a result's details: the axis, and the lines over it by name."""
    details = result.details
    steps, given = numbers(details.get("fractions")), details.get("curves")
    if steps and isinstance(given, Mapping):
        return steps, {str(name): line for name in given if len(line := numbers(given[name])) == len(steps)}
    if layers := numbers(details.get("similarity")):
        return [float(i) for i in range(1, len(layers) + 1)], {"similarity": layers}
    effects, shares = recovery(details)
    return effects, {"share found": shares} if shares else {}


def _plot(lines: list[NDArray[Any]]) -> UInt8[NDArray[Any], "h w 3"]:
    """The lines over their common axis, between the least and the greatest value, in the order of ``COLOURS``."""
    height, width = SIZE
    page = np.full((height, width, 3), 255, np.uint8)
    low, high = min(float(np.nanmin(line)) for line in lines), max(float(np.nanmax(line)) for line in lines)
    for line, colour in zip(lines, COLOURS, strict=False):
        across = np.interp(np.linspace(0, len(line) - 1, width), np.arange(len(line)), np.nan_to_num(line))
        rows = (height - 1 - (across - low) / ((high - low) or 1.0) * (height - 1)).round().astype(int)
        for x in range(width):  # from the last point to this one, so that a steep line has no gaps
            top, bottom = sorted((rows[max(0, x - 1)], rows[x]))
            page[max(0, top - 1) : bottom + 1, x] = colour
    return page
