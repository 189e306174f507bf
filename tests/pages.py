"""Reports with everything in them, for tests of the pages made of them; and a reader of HTML that trusts nothing."""

from __future__ import annotations

from html.parser import HTMLParser
from typing import Any

from saliency_checks.report import Report
from saliency_checks.result import Result

HOSTILE = "\"'></script><script>alert(1)</script><img src=x onerror=alert(1)>&"
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)  # fmt: skip
CURVES = {"fractions": [0, 0.5, 1], "curves": {"most relevant first": [1, 0.25, 0], "least relevant first": [1, 1, 0]}}
LAYERS = {"layers": ["head", "conv"], "similarity": [0.5, 0.25], "repeat": 0.99}
RECOVERY = {"effects": [0.5, 1.0, 2.0, 4.0], "recovery": [[0.125, 0.25, 0.75, 1.0], [0.25, 0.5, 0.5, 1.0]]}


def result(check: str = "sign", method: str = "gradient", subject: str = "tiny", **fields: Any) -> Result:
    given = {"verdict": "pass", "score": 0.5, "low": 0.25, "high": 0.75, "n": 8, "bound": ">= 0.1", **fields}
    return Result(check=check, method=method, subject=subject, **given)


def example(rank: str = "worst", **fields: Any) -> dict[str, Any]:
    return {
        "rank": rank, "index": 3, "score": 0.125, "input": PIXEL, "map": PIXEL,
        "cause": [0.25, 0.25, 0.5, 0.5], **fields,
    }  # fmt: skip


def report(*results: Result, expected: str = "", **fields: Any) -> Report:
    made = Report(environment={"python": "3.11", "profile": "quick", "seed": 0}, **fields)
    for one in results:
        made.add(one, expected=expected)
    return made


def full() -> Report:
    """Two methods, five checks, two subjects; every verdict, curves and images."""
    controls = {"random": 0.125, "edges": 0.375}
    return report(
        result("deletion_insertion", details=CURVES, controls=controls, examples=[example(), example("best")]),
        result("deletion_insertion", subject="other", verdict="fail", score=0.0, low=-0.25, high=0.05,
               message="0.00 breaks"),
        result("deletion_insertion", "ig", details=CURVES, controls=controls),
        result("cascading_randomization", details=LAYERS, verdict="inconclusive", message="open"),
        result("acuity", details=RECOVERY, better="lower", bound="<= 2", score=2.0, low=1.0, high=4.0, n=32),
        result("acuity", "ig", details=RECOVERY, better="lower", bound="<= 2", score=1.0, low=0.5, high=2.0, n=32),
        result("sign", verdict="skip", score=None, low=None, high=None, message="tiny offers none"),
        result("sign", "ig", verdict="error", score=None, low=None, high=None, message="boom"),
        result("deletion", "ig", verdict="reported", bound=None),
        checks={"acuity": {"summary": "least effect", "meaning": "only large causes", "if_fails": ["noisy?"]}},
    )  # fmt: skip


def hostile() -> Report:
    """The same with markup in every text that comes from outside."""
    made = report(
        result(
            f"sign{HOSTILE}", f"ig{HOSTILE}", f"tiny{HOSTILE}", controls={HOSTILE: 0.5}, message=HOSTILE,
            bound_origin=HOSTILE, command=HOSTILE, bound=f">= 0.5{HOSTILE}", better=HOSTILE,
            details={"fractions": [0, 1], "curves": {HOSTILE: [1, 0]}, "layers": [HOSTILE, "b"], "similarity": [1, 0],
                     "effects": [1, 2], "recovery": [[0, 1]]},
            examples=[example(HOSTILE, index=HOSTILE), example(input=HOSTILE), example(map=f"{PIXEL}{HOSTILE}")],
        ),
        expected=HOSTILE,
        checks={
            f"sign{HOSTILE}": {"summary": HOSTILE, "meaning": HOSTILE, "if_fails": [HOSTILE], "reference": HOSTILE}
        },
        incomplete=HOSTILE,
    )  # fmt: skip
    made.environment[HOSTILE] = HOSTILE
    return made


class Page(HTMLParser):
    """Elements with their attributes, text by element, and whether every element that must be closed was."""

    VOID = frozenset({"meta", "input", "img", "br", "wbr", "link", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.stack: list[str] = []
        self.broken: list[str] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        self.broken += self.stack

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.stack.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.stack or self.stack.pop() != tag:
            self.broken.append(f"/{tag}")

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def all(self, tag: str, kind: str = "") -> list[dict[str, str]]:
        return [
            attributes
            for name, attributes in self.elements
            if name == tag and (not kind or kind in attributes.get("class", "").split())
        ]
