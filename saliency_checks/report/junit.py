"""Properties of a JUnit test case: what a CI server can plot."""

from __future__ import annotations

from saliency_checks.result import Result


def properties(result: Result) -> list[tuple[str, str]]:
    """Names and values, strings only: numbers of numpy would not cross to the controller of pytest-xdist."""
    values = {"verdict": result.verdict, "score": result.score, "low": result.low, "high": result.high, "n": result.n}
    return [(f"saliency_{name}", f"{value}") for name, value in values.items() if value is not None]
