"""Figures: no global state, colours that the colour-blind can tell apart, one file each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.figure import Figure

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes

# Okabe and Ito 2008; with a marker each, so that a line is also known in black and white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
MARKERS = "osD^vPX*"
SEQUENTIAL, DIVERGING = "cividis", "PuOr"  # for values in images
_STYLE: Any = {
    "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "axes.titlesize": 10,
    "axes.titlelocation": "left", "legend.frameon": False, "savefig.dpi": 150,
}  # fmt: skip


@contextmanager
def figure(
    file: Path, *, rows: int = 1, columns: int = 1, size: tuple[float, float] = (6.4, 4.0), **subplots: Any
) -> Iterator[tuple[Figure, np.ndarray[Any, Any]]]:
    """A figure of ``rows`` x ``columns`` axes (always a 2-d array), saved as PNG when the block ends well.

    Args:
        size: inches; of the single axes' surroundings, so that long labels never squeeze it, or of all panels.
        subplots: passed on to matplotlib (``sharey=True``).
    """
    with rc_context(_STYLE):
        made = Figure(figsize=size, layout="constrained" if rows * columns > 1 else None)
        yield made, made.subplots(rows, columns, squeeze=False, **subplots)
        file.parent.mkdir(parents=True, exist_ok=True)
        made.savefig(file, bbox_inches="tight", metadata={"Software": None})


def heatmap(
    axes: Axes, values: Any, rows: list[str], columns: list[str], *, low: float, high: float, form: str = ".2f",
    colours: str = SEQUENTIAL,
) -> None:  # fmt: skip
    """A table as coloured cells with their numbers in them; cells that are no number stay empty."""
    from matplotlib import colormaps

    image = axes.imshow(values, vmin=low, vmax=high, cmap=colours, aspect="auto")
    axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(rows)), rows)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    for i, row in enumerate(values):
        for j, value in enumerate(row):
            if value == value:
                red, green, blue, _ = colormaps[colours](image.norm(value))
                light = 0.299 * red + 0.587 * green + 0.114 * blue > 0.55
                axes.text(
                    j, i, format(value, form), ha="center", va="center", fontsize=6.5, color="k" if light else "w"
                )
