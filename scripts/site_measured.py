"""The table of README.md ("Measured") as charts and tables of the documentation."""

from __future__ import annotations

import html
import re
from functools import cache
from pathlib import Path

from mkdocs.exceptions import PluginError

from saliency_checks import registry
from saliency_checks.metric import Metric

README = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
# Columns of the table in README.md ("Measured"), by check: their names, and what they were measured on.
COLUMNS = {
    "pixel_recovery": {
        "recovery": "planted pixel, both hue roles",
        "mlp": "planted pixel, MLP",
        "graft": "graft onto the CNN, effect 4",
    },
    "additive_importance": {"add": "planted pixel, both hue roles"},
    "subtractive_importance": {"sub": "planted pixel, both hue roles"},
    "planted_deletion": {"deletion": "planted pixel, both hue roles"},
    "class_contrast": {"contrast": "planted pixels of two classes, both hue roles"},
    "sign": {"sign": "planted pixel, both hue roles"},
    "cascading_randomization": {"cascade": "clothes, CNN"},
    "independent_randomization": {"layers": "clothes, CNN"},
    "label_permutation": {"labels": "clothes, CNN", "labels_mlp": "clothes, MLP"},
    "deletion_insertion": {"natural": "clothes, CNN trained with masking"},
    "complexity": {"complexity": "clothes, CNN"},
    "acuity": {"acuity": "graft onto the CNN"},
}  # fmt: skip
VERDICTS = {"P": "pass", "F": "fail", "I": "undecided"}


Row = tuple[str, str, float, float]  # method, verdict's letter, score, half-width


def readme(title: str) -> str:
    """The text of a section of README.md, its paths seen from docs/."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", README, re.DOTALL | re.MULTILINE)
    if not found:
        raise PluginError(f"README.md has no section {title!r}")
    return found[1].replace("](docs/", "](").strip()


@cache
def measured() -> dict[str, list[Row]]:
    """Columns of the table in README.md; a cell's right edge is that of its column's head."""
    block = readme("Measured").partition("```\n")[2].partition("```")[0]
    head, *lines = block.rstrip().splitlines()
    ends = [match.end() for match in re.finditer(r"\S+", head)]
    found: dict[str, list[Row]] = {name: [] for name in head.split()}
    for line in lines:
        name = line.split()[0]
        for column, start, end in zip(found, [len(name), *ends[:-1]], ends, strict=True):
            if match := re.fullmatch(r"([PFI]) +(-?[\d.]+)±([\d.]+)", line[start:end].strip()):
                found[column].append((name, match[1], float(match[2]), float(match[3])))
    return found


def table(rows: list[Row]) -> str:
    lines = [
        f"| {link(name)} | {'control' if is_control(name) else ''} | {score:.2f} ± {half:.2f} | {VERDICTS[letter]} |"
        for name, letter, score, half in rows
    ]
    return "\n".join(["| method | | score | verdict |", "|---|---|---|---|", *lines])


def chart(rows: list[Row], check: Metric) -> str:
    """A dot with its interval for each method, filled where it is no control, and a line at the bound."""
    limit = check.bound.value if check.bound else 0.0
    low = min(0.0, limit, *(score - half for _, _, score, half in rows))
    high = max(limit, *(score + half for _, _, score, half in rows))

    def x(value: float) -> float:
        return 190 + 400 * (value - low) / (high - low)

    drawn = []
    for i, (name, letter, score, half) in enumerate(rows):
        y = 14 + 18 * i
        kind = f"{VERDICTS[letter]}{' control' if is_control(name) else ''}"
        drawn.append(
            f'<g class="{kind}"><title>{name}: {score:.2f} ± {half:.2f}, {VERDICTS[letter]}</title>'
            f'<text x="180" y="{y + 4}" text-anchor="end">{name}</text>'
            f'<line x1="{x(score - half):.1f}" x2="{x(score + half):.1f}" y1="{y}" y2="{y}"/>'
            f'<circle cx="{x(score):.1f}" cy="{y}" r="4.5"/></g>'
        )
    bottom = 14 + 18 * len(rows)
    told = f"{check.name}: score and interval of {len(rows)} methods and controls, and the bound {check.bound}"
    return (
        f'<svg class="scores" viewBox="0 0 620 {bottom + 16}" role="img" aria-label="{html.escape(told)}">'
        f'<line class="bound" x1="{x(limit):.1f}" x2="{x(limit):.1f}" y1="4" y2="{bottom}"/>'
        f'<text x="{x(limit):.1f}" y="{bottom + 12}" text-anchor="middle">{html.escape(str(check.bound))}</text>'
        f"{''.join(drawn)}</svg>"
    )


def methods(*, control: bool) -> list[str]:
    return [name for name in registry.names("methods") if registry.get("methods", name).control == control]


def is_control(name: str) -> bool:
    return name in methods(control=True)


def link(name: str) -> str:
    return f"[{name}](../methods/{name}.md)" if name in registry.names("methods") else name
