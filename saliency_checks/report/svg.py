"""Pictures of numbers as inline SVG. Places are percentages, so that text and dots keep their size on any screen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

ROW, AXIS = 30, 20  # pixels: height of an interval's row, and of the numbers below
PLOT = 150  # pixels: height of a chart of curves


@dataclass(frozen=True, kw_only=True)
class Scale:
    """From a value to a percentage of the width."""

    low: float
    high: float

    @classmethod
    def over(cls, values: Sequence[float]) -> Scale:
        """All values, with a little room on both sides."""
        low, high = (min(values), max(values)) if values else (0.0, 1.0)
        room = 0.06 * (high - low) or 0.5
        return cls(low=low - room, high=high + room)

    def at(self, value: float) -> str:
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(1.0, max(0.0, share)):.2f}%"

    def ticks(self) -> list[float]:
        """Three to six round numbers inside."""
        span = self.high - self.low
        step = next(
            base * 10**power
            for power in range(-9, 12)
            for base in (1, 2, 5)
            if span / (base * 10**power) <= 5
        )  # fmt: skip
        first = -int(-self.low // step)
        return [i * step for i in range(first, first + 8) if i * step <= self.high]


@dataclass(frozen=True, kw_only=True)
class Bar:
    """One row of a picture of intervals."""

    score: float
    low: float
    high: float
    kind: str  # a class of the style sheet
    controls: Mapping[str, float]
    before: tuple[float, float, float] | None = None  # score, low, high of an older run
    title: str = ""


def intervals(bars: Sequence[Bar], scale: Scale, bound: tuple[str, float] | None, label: str) -> str:
    """Rows of score and interval, ticks for the controls, a line for the bound; its good side is tinted."""
    height = ROW * len(bars)
    parts = [_good_side(scale, bound, height)] if bound else []
    for i, bar in enumerate(bars):
        y = ROW * i + ROW // 2
        parts += [
            f'<line class="control" x1="{scale.at(score)}" x2="{scale.at(score)}" y1="{y - 5}" y2="{y + 5}">'
            f"<title>{escape(name)} {score:.3g}</title></line>"
            for name, score in bar.controls.items()
        ]
        if bar.before:
            score, low, high = bar.before
            parts.append(
                f'<g class="before"><title>before: {score:.3g} [{low:.3g}, {high:.3g}]</title>'
                f'<line x1="{scale.at(low)}" x2="{scale.at(high)}" y1="{y + 8}" y2="{y + 8}"/>'
                f'<circle cx="{scale.at(score)}" cy="{y + 8}" r="3.5"/></g>'
            )
        parts.append(
            f'<g class="bar {bar.kind}"><title>{escape(bar.title)}</title>'
            f'<line x1="{scale.at(bar.low)}" x2="{scale.at(bar.high)}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{scale.at(bar.score)}" cy="{y}" r="5"/></g>'
        )
    parts += [
        f'<text x="{scale.at(tick)}" y="{height + 14}" class="tick">{tick:.4g}</text>'
        for tick in scale.ticks()
    ]  # fmt: skip
    return _svg("".join(parts), height + AXIS, label)


def _good_side(scale: Scale, bound: tuple[str, float], height: int) -> str:
    op, value = bound
    edge = float(scale.at(value)[:-1])
    start, width = (edge, 100 - edge) if op == ">=" else (0.0, edge)
    return (
        f'<rect class="good" x="{start:.2f}%" width="{width:.2f}%" y="0" height="{height}"/>'
        f'<line class="bound" x1="{edge:.2f}%" x2="{edge:.2f}%" y1="0" y2="{height}"/>'
    )


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: values over the common steps, with limits where there are any."""

    name: str
    values: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    kind: str = "a"


def curves(
    series: Sequence[Series], steps: Sequence[str], label: str, *, level: float | None = None, span: Scale | None = None
) -> str:
    """Curves over evenly spaced steps; a dashed line at ``level``."""
    everything = [v for one in series for v in (*one.values, *one.low, *one.high)]
    scale = span or Scale.over([*everything, *([level] if level is not None else [])])
    last = max(1, len(steps) - 1)

    def x(i: int) -> float:
        return 100 * i / last

    def y(value: float) -> float:
        return 100 - float(scale.at(value)[:-1])

    lines, dots = [], []
    for one in series:
        if one.low and one.high:
            edge = [*((x(i), y(v)) for i, v in enumerate(one.high)), *reversed([*_at(x, y, one.low)])]
            lines.append(f'<polygon class="band {one.kind}" points="{_points(edge)}"/>')
        lines.append(f'<polyline class="curve {one.kind}" points="{_points(_at(x, y, one.values))}"/>')
        if one.kind != "other":
            dots += [
                f'<circle class="dot {one.kind}" cx="{x(i):.2f}%" cy="{y(v):.2f}%" r="3.5">'
                f"<title>{escape(one.name)}, {escape(steps[i])}: {v:.3g}</title></circle>"
                for i, v in enumerate(one.values)
            ]
    if level is not None:
        lines.append(f'<polyline class="level" points="{_points([(0, y(level)), (100, y(level))])}"/>')
    ticks = "".join(f'<text class="tick" x="{x(i):.2f}%" y="100%" dy="16">{escape(s)}</text>' for i, s in _few(steps))
    marks = "".join(f'<text class="mark" x="0" dx="-6" y="{y(t):.2f}%" dy="4">{t:.3g}</text>' for t in scale.ticks())
    field = (
        '<rect class="field" width="100%" height="100%"/>'
        f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" width="100%" height="100%">{"".join(lines)}</svg>'
    )
    return _svg(f"{field}{''.join(dots)}{ticks}{marks}", PLOT, label, "chart")


def _at(x: object, y: object, values: Sequence[float]) -> list[tuple[float, float]]:
    return [(x(i), y(v)) for i, v in enumerate(values)]  # type: ignore[operator]


def _points(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{a:.2f},{b:.2f}" for a, b in points)


def _few(steps: Sequence[str]) -> list[tuple[int, str]]:
    """At most six of the steps, the ends among them."""
    stride = max(1, -(-(len(steps) - 1) // 5))
    return [(i, step) for i, step in enumerate(steps) if i % stride == 0 or len(steps) <= 6]


def _svg(body: str, height: int, label: str, kind: str = "row") -> str:
    return f'<svg class="{kind}" width="100%" height="{height}" role="img" aria-label="{escape(label)}">{body}</svg>'
