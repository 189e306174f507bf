"""The rows of a study, asked for by their columns; means with intervals; tables in Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from saliency_checks import comparison, verdict

if TYPE_CHECKING:
    from jaxtyping import Float

Values = NDArray[np.float64]
Limited = tuple[float, float, float]  # mean, lower and upper limit
NOTHING: Limited = (math.nan, math.nan, math.nan)
RANGES = dict.fromkeys(comparison.MEASURES, (-1.0, 1.0))  # where the values of a column can lie


@dataclass(frozen=True)
class Table:
    """The rows of a study, to be asked for."""

    rows: pa.Table

    def where(self, **equal: Any) -> Table:
        keep = None
        for name, value in equal.items():
            test = pc.equal(self.rows[name], value)
            keep = test if keep is None else pc.and_(keep, test)
        return Table(self.rows.filter(keep) if keep is not None else self.rows)

    def distinct(self, column: str) -> list[Any]:
        """In the order of their first row."""
        return list(dict.fromkeys(self.rows[column].drop_null().to_pylist()))

    def states(self) -> list[str]:
        """Names of the states in the order of their steps."""
        pairs = zip(self.rows["step"].to_pylist(), self.rows["state"].to_pylist(), strict=True)
        return [state for _, state in sorted(set(pairs))]

    def block(self, measure: str) -> Float[Values, "redraws images"]:
        redraws = self.distinct("redraw")
        return np.array([self.where(redraw=r).rows.sort_by("image")[measure].to_numpy() for r in redraws])

    def mean(self, measure: str, within: tuple[float, float] | None = None) -> Limited:
        """Mean, lower and upper limit over images and redraws; NaN where there are no rows."""
        if not len(self.rows):
            return NOTHING
        return mean_with_limits(self.block(measure), within=within or RANGES.get(measure))


def mean_with_limits(
    values: Float[Values, "redraws images"], *, binary: bool = False, within: tuple[float, float] | None = None
) -> Limited:
    """Mean and its 95 % interval, the one that verdicts rest on (:func:`saliency_checks.verdict.interval`).

    Images of one redraw share its weights: Student's t over the means of the redraws, which is wide where there are
    three, and the bootstrap over images beside it. With one redraw the interval is that of its images alone. A part of
    the images may be odd and not among those seen: the half-width is 1.5 / images at least.

    Args:
        binary: values are 0 or 1: exact limits.
        within: where values can lie at all: limits beyond are cut off.
    """
    level = verdict.ERROR / 2
    rng = np.random.default_rng(values.size)
    low, high = verdict.interval(values, binary=binary, low_level=level, high_level=level, rng=rng)
    least, most = within or (-math.inf, math.inf)
    return float(values.mean()), max(low, least), min(high, most)


def with_limits(found: Limited, form: str = ".2f") -> str:
    """``.61 (.52 to .70)``; nothing where nothing was measured."""
    mean, low, high = (format(value, form) for value in found)
    return f"{mean} ({low} to {high})" if mean != "nan" else ""


def head(names: Iterable[str]) -> list[str]:
    """The first two lines of a table."""
    cells = list(names)
    return [row(cells), row(["---"] * len(cells))]


def row(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
