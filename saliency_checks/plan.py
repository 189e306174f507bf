"""What a run would do: its cells, and how many explanations they take; nothing is built for it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from saliency_checks import registry
from saliency_checks.metric import Draw, Metric
from saliency_checks.plugin import cell_of
from saliency_checks.profile import PROFILES, Profile
from saliency_checks.run import first_look

Cell = tuple[str, str, str]  # check, method, subject


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Explanations: at the first look on one subject, and at most, with every look and every replica."""

    least: int
    most: int


def cells_of(items: Iterable[Any]) -> list[Cell]:
    """The cells among the tests that were collected; of ``parametrize_with_checks`` too."""
    found = []
    for item in items:
        case: Any = getattr(getattr(item, "callspec", None), "params", {}).get("case")
        if cell := cell_of(item.nodeid):
            found.append(cell)
        elif hasattr(case, "check") and hasattr(case, "method"):
            found.append((case.check, case.method.name, case.id.rpartition("-")[2]))
    return found


def cost(checks: Iterable[str], profile: Profile) -> Cost:
    """Of one method on one subject: the maps of the images themselves are shared by all checks."""
    metrics: list[Metric] = [registry.get("metrics", check) for check in checks]
    ends = []
    for looks, members in ((1, 1), (profile.looks, 1 + profile.replicas)):
        draws = [
            Draw(n=first_look(m, profile) * 2 ** (looks - 1), redraws=profile.redraws, replicas=members - 1)
            for m in metrics
        ]
        own = max(draw.n for draw in draws)
        ends.append(members * (own + sum(draw.n * m.extra(draw) for m, draw in zip(metrics, draws, strict=True))))
    return Cost(least=ends[0], most=ends[1])


def lines(cells: Iterable[Cell], profile: str) -> Iterator[str]:
    """A line for each method and subject, and their sum."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for check, method, subject in cells:
        groups[method, subject].append(check)
    costs = {key: cost(checks, PROFILES[profile]) for key, checks in groups.items()}
    wide = [max(map(len, column)) for column in zip(*groups, ("method", "subject"), strict=True)]
    yield f"{'method':{wide[0]}}  {'subject':{wide[1]}}  explanations     checks"
    for (method, subject), checks in sorted(groups.items()):
        found = costs[method, subject]
        span = f"{found.least} to {found.most}"
        yield f"{method:{wide[0]}}  {subject:{wide[1]}}  {span:15}  {', '.join(sorted(checks))}"
    least, most = (sum(getattr(c, end) for c in costs.values()) for end in ("least", "most"))
    count = sum(map(len, groups.values()))
    yield f"{count} cells, {least} to {most} explanations (at most: open verdicts, replicas of subjects)"
    yield "controls come on top, once per subject; passes per explanation: saliency-checks list methods --verbose"
