"""A hook of mkdocs: pages of the checks, metrics and methods, made from the registry when the site is built.

Nothing is measured here: scores come from README.md ("Measured") and passes from docs/data/cost.json, which
``python scripts/site_data.py`` writes, as it draws the pictures.
"""

from __future__ import annotations

import inspect
import json
import re
from dataclasses import fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from site_measured import COLUMNS, README, VERDICTS, chart, measured, methods, readme, table

from saliency_checks import registry
from saliency_checks.method import AXIOMS, CLAIMS, NEEDS, Method
from saliency_checks.metric import Metric
from saliency_checks.metrics.contract import CLAUSES
from saliency_checks.presets import PRESETS
from saliency_checks.profile import PROFILES
from saliency_checks.subject import OFFERS

ROOT = Path(__file__).parents[1]
COST = ROOT / "docs" / "data" / "cost.json"
PICTURES = ROOT / "docs" / "images" / "checks"


def on_config(config: MkDocsConfig) -> None:
    """Put the generated pages into the navigation."""
    made = {
        "Checks": ["checks/index.md", *(f"checks/{name}.md" for name in registry.names("checks"))],
        "Methods": [
            "methods/index.md",
            *(f"methods/{name}.md" for name in methods(control=False)),
            {"Controls": [f"methods/{name}.md" for name in methods(control=True)]},
        ],
    }
    for entry in config.nav or []:
        for title in made.keys() & entry.keys():
            entry[title] = made[title]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages."""
    pages = {"checks/index.md": checks_page(), "methods/index.md": methods_page(), "metrics.md": metrics_page()}
    pages |= {f"checks/{name}.md": check_page(registry.get("metrics", name)) for name in registry.names("checks")}
    pages |= {f"methods/{name}.md": method_page(registry.get("methods", name)) for name in registry.names("methods")}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """``<!-- readme: TITLE -->`` becomes that section of README.md, so that it is written once."""
    markdown = markdown.replace("<!-- profiles -->", profiles())
    return re.sub(r"<!-- readme: (.+) -->", lambda match: readme(match[1]), markdown)


def profiles() -> str:
    rows = [
        f"| {one.name} | {one.scale:g} | {one.looks} | {one.redraws} | {1 + one.replicas} | {one.seconds} s |"
        f" {one.passes:,} |"
        for one in PROFILES.values()
    ]
    head = "| profile | images | looks | redraws of weights | networks | time budget | pass budget |"
    note = (
        "Images: at the first look, relative to the check's own number; each further look doubles them, while the"
        " verdict is open. Both budgets are for one method: the time on all embedded subjects (one core, networks"
        " trained before), the passes forward and backward through whatever model, at the first look. The gradient took"
        " 25 s in the quick profile and 42 s in the standard one, integrated gradients 47 s and 97 s."
    )
    return "\n".join([head, "|---" * 7 + "|", *rows, "", note])


# Checks and metrics


def checks_page() -> str:
    rows = [
        f"| [{name}]({name}.md) | {registry.get('metrics', name).summary} | `{registry.get('metrics', name).bound}` |"
        for name in registry.names("checks")
    ]
    return "\n".join(["# Checks", "", "| check | what is measured | bound |", "|---|---|---|", *rows, ""])


def check_page(check: Metric) -> str:
    parts = [
        f"# {check.name}",
        documentation(inspect.getmodule(function_of(check))),
        facts(
            ("bound", f"`{check.bound}`, {check.better} is better"),
            ("judged", judged(check)),
            ("needs of a subject", listed(check.needs, OFFERS)),
            ("images at the first look", str(check.n)),
            ("source", check.reference),
        ),
        "## What is measured",
        documentation(function_of(check)),
        clauses(check.name),
        *(["## What it looks like", picture(check.name)] if check.name in captions() else []),
        "## If it fails",
        f"It means: {check.meaning}." if check.meaning else "",
        "\n".join(f"{i}. {question}" for i, question in enumerate(check.if_fails, 1)),
        *scores(check),
        "## Run just this",
        f"```sh\nsaliency-checks run METHOD -k {check.name}\n```",
    ]
    return joined(parts)


def judged(check: Metric) -> str:
    if check.exact:
        return "the score itself: a list of clauses that hold or not"
    if check.quantile is not None:
        return f"the {check.quantile:.0%} quantile of the scores per image, with its exact interval"
    return "the mean of 0/1 scores, with its exact interval" if check.binary else "the mean, with its interval"


def clauses(check: str) -> str:
    """What a list of clauses holds, where the score is one."""
    if check == "contract":
        return "\n".join(f"- `{clause.__name__}`: {documentation(clause)}" for clause in CLAUSES)
    if check == "axioms":
        lines = (f"- `{name}`: {plain(meaning)}" for name, meaning in CLAIMS.items() if name in AXIOMS)
        return "\n".join([*lines, "", "[Which method fulfils which](../axioms.md)."])
    return ""


def picture(check: str) -> str:
    file, marks = ("acuity.png", "") if check == "acuity" else (f"checks/{check}.png", "{ .maps }")
    return f"![{check}](../images/{file}){marks}\n\n*{captions()[check]}*"


@cache
def captions() -> dict[str, str]:
    """By check; that of acuity stands in README.md."""
    found: dict[str, str] = json.loads((PICTURES / "captions.json").read_text("utf-8"))
    below = re.search(r"images/acuity\.png\)\n\n\*(.+?)\*\n\n", README, re.DOTALL)
    return found | ({"acuity": below[1]} if below else {})


def scores(check: Metric) -> list[str]:
    """A chart and a table for each column of the measured table that is about this check."""
    parts = []
    for column, where in COLUMNS.get(check.name, {}).items():
        rows = measured()[column]
        numbers = "\n".join(f"    {line}" for line in table(rows).splitlines())
        parts += [f"### {where}", chart(rows, check), f'??? note "In numbers"\n\n{numbers}']
    if not parts:
        return []
    note = (
        "Score and half-width of the interval, on networks and images that played no part in choosing bound and"
        " settings ([how](../measured.md)). Controls never look at the model."
    )
    return ["## Methods and controls, measured", note, *parts]


def metrics_page() -> str:
    """All metrics, judged or not, with what can be varied."""
    parts = [
        "# Metrics",
        "What is measured. With a bound it is a [check](checks/index.md); the others are for"
        ' `sc.measure("NAME", method, subject)`. A preset is written `NAME@PRESET`, another setting'
        " `NAME@SETTING=VALUE`.",
    ]
    for name in registry.names("metrics"):
        metric = registry.get("metrics", name)
        parts += [
            f"## {name}",
            documentation(function_of(metric)),
            facts(
                ("better", metric.better),
                ("bound", f"`{metric.bound}`, see [the check](checks/{name}.md)" if metric.bound else ""),
                ("needs of a subject", listed(metric.needs, OFFERS)),
                ("settings", settings(metric.settings)),
                ("presets", ", ".join(f"`{preset}`" for preset in PRESETS.get(name, {}))),
                ("source", metric.reference),
            ),
        ]
    return joined(parts)


def settings(held: Any) -> str:
    if not is_dataclass(held):
        return ""
    return ", ".join(f"`{field.name}={shown(getattr(held, field.name))}`" for field in fields(held))


def function_of(metric: Metric) -> Any:
    return inspect.unwrap(getattr(metric.measure, "func", metric.measure))


# Methods


def methods_page() -> str:
    parts = [
        "# Methods",
        "![Every method on one photograph](../images/methods.jpg)",
        "*For the class that EfficientNet-Lite0 sees; red speaks for it, blue against.*",
        *(
            "\n".join(["## " + title, "", *summary(control)])
            for title, control in (("Methods", False), ("Controls", True))
        ),
    ]
    return joined(parts)


def summary(control: bool) -> list[str]:
    rows = ["| method | what it is | needs | signed | passes |", "|---|---|---|---|---|"]
    for name in methods(control=control):
        method = registry.get("methods", name)
        spent = cost().get(name)
        passes = f"{spent['forward']:.0f} + {spent['backward']:.0f}" if spent else ""
        line = cell((inspect.getdoc(method.source) or "").partition("\n")[0])
        signed = {True: "yes", False: "no", None: "not said"}[method.signed]
        entry = f"[{name.replace('_', '_<wbr>')}]({name}.md)"
        rows.append(f"| {entry} | {line} | {', '.join(sorted(method.needs))} | {signed} | {passes} |")
    return rows


def method_page(method: Method) -> str:
    spent = cost().get(method.name)
    passes = (
        f"{spent['forward']:g} forward and {spent['backward']:g} backward for each image; memory {spent['memory']:g}"
        " times that of one gradient"
        if spent
        else ""
    )
    failures = [f"- {check_link(check)}: {reason}" for check, reason in sorted(method.expected_failures.items())]
    parts = [
        f"# {method.name}",
        "*A control: it never looks at the model; its scores stand beside all others.*" if method.control else "",
        documentation(method.source),
        facts(
            ("source", method.reference),
            ("map", {True: "signed: contributions for and against the class", False: "a magnitude or sensitivity",
                     None: "does not say whether it is signed; both readings are measured"}[method.signed]),
            ("needs", listed(method.needs, NEEDS)),
            ("passes", passes),
            ("draws at random", "yes" if method.stochastic else ""),
            ("judged by default in", ", ".join(sorted(method.profiles)) if not method.control else ""),
            ("code", where(method.source)),
        ),
        *parameters(method.source),
        *(["## Claims", "Axioms that it is held to ([measured](../axioms.md)).",
           "\n".join(f"- {claim}: {CLAIMS[claim]}" for claim in sorted(method.claims))] if method.claims else []),
        *(["## Known failures", "Expected, with their reasons; an unexpected pass is red.", "\n".join(failures)]
          if failures else []),
        *standing(method.name),
    ]  # fmt: skip
    return joined(parts)


def standing(name: str) -> list[str]:
    """What the measured table says of one method."""
    rows = [
        f"| [{check}](../checks/{check}.md) | {where} | {score:.2f} ± {half:.2f} | {VERDICTS[letter]} |"
        for check, columns in COLUMNS.items()
        for column, where in columns.items()
        for row, letter, score, half in measured()[column]
        if row == name
    ]
    return ["## Measured", "\n".join(["| check | on | score | verdict |", "|---|---|---|---|", *rows])] if rows else []


@cache
def cost() -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = json.loads(COST.read_text("utf-8"))
    return found


def parameters(source: Any) -> list[str]:
    """What a method can be told beside model, images and classes, with the words of its docstring."""
    told = dict(re.findall(r"^    (\w+): (.+(?:\n {8,}.+)*)", inspect.getdoc(source) or "", re.MULTILINE))
    given = [one for one in inspect.signature(source).parameters.values() if one.default is not one.empty]
    rows = [
        f"| `{one.name}` | `{shown(one.default)}` | {cell(' '.join(told.get(one.name, '').split()))} |" for one in given
    ]
    return ["## Settings", "\n".join(["| name | default | |", "|---|---|---|", *rows])] if rows else []


def where(source: Any) -> str:
    """The file that defines it, seen from the root of the repository."""
    try:
        file = Path(inspect.getsourcefile(inspect.unwrap(source)) or "")
    except TypeError:
        return ""
    return f"`{file.relative_to(ROOT)}`" if file.is_relative_to(ROOT) else ""


# Pieces of a page


def check_link(key: str) -> str:
    check, _, subject = key.partition("/")
    return f"[{check}](../checks/{check}.md)" + (f" on {subject}" if subject else "")


def documentation(source: Any) -> str:
    """A docstring as Markdown, without the arguments: those are for readers of the code, or in a table."""
    return plain(re.split(r"\n(?:Args|Raises|Returns):", inspect.getdoc(source) or "")[0].strip())


def plain(text: str) -> str:
    """Text with formulas: only what stands in backticks is markup."""
    text = re.sub(r":\w+:`", "`", text.replace("``", "`"))
    parts = text.split("`")
    return "`".join(re.sub(r"([*_<\[\]])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))


def cell(text: str) -> str:
    return plain(text).replace("|", "\\|")


def facts(*pairs: tuple[str, str]) -> str:
    lines = [f"| {name} | {value.replace('|', chr(92) + '|')} |" for name, value in pairs if value]
    return "\n".join(["| | |", "|---|---|", *lines]) if lines else ""


def listed(names: Any, meanings: dict[str, str]) -> str:
    return "; ".join(f"{name}: {meanings[name].replace('``', '`')}" for name in sorted(names))


def shown(value: Any) -> str:
    return getattr(value, "__name__", None) or str(value)


def joined(parts: list[str]) -> str:
    return "\n\n".join(filter(None, parts)) + "\n"
