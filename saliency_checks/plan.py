"""What a run would do: its cells, how many explanations and passes they take, and whether that is within the profile's
budget. No subject is built for it; a method runs once, on a small network of :mod:`saliency_checks.cost`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from saliency_checks import cost as counting
from saliency_checks import registry
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Metric
from saliency_checks.plugin import cell_of
from saliency_checks.profile import PROFILES, Profile
from saliency_checks.run import first_look

Cell = tuple[str, str, str]  # check, method, subject
# Of the embedded networks on one core, measured roughly; an estimate and no promise.
PASSES_PER_SECOND = 12_000
SECONDS_PER_CELL, SECONDS_PER_REPLICA = 0.8, 0.6  # controls included
ESTIMATED = ("quick", "standard")  # in the thorough one the controls on a residual network take most of the time
MOST_METHODS = 12  # whose passes are counted: more would take longer than one waits for a plan


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


def lines(cells: Iterable[Cell], profile: str, methods: Mapping[str, Method]) -> Iterator[str]:
    """A line for each method and subject, their sum, and a line for each method on the profile's budget."""
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for check, method, subject in cells:
        groups[method, subject].append(check)
    found = {key: cost(checks, PROFILES[profile]) for key, checks in groups.items()}
    rows = [("method", "subject", "explanations", "checks")]
    for key, checks in sorted(groups.items()):
        rows.append((*key, f"{found[key].least} to {found[key].most}", ", ".join(sorted(checks))))
    yield from _columns(rows)
    least, most = (sum(getattr(c, end) for c in found.values()) for end in ("least", "most"))
    count = sum(map(len, groups.values()))
    yield f"{count} cells, {least} to {most} explanations (at most: open verdicts, replicas of subjects)"
    yield "controls come on top, once per subject"
    yield ""
    yield from _budget(groups, found, PROFILES[profile], methods)


def _budget(
    groups: Mapping[tuple[str, str], list[str]], found: Mapping[tuple[str, str], Cost], profile: Profile,
    methods: Mapping[str, Method],
) -> Iterator[str]:  # fmt: skip
    yield (
        f"budget of the {profile.name} profile, for each method: {profile.passes} passes, and on the embedded subjects"
        f" {profile.seconds} s (one core)"
    )
    names = sorted({method for method, _ in groups})
    if len(names) > MOST_METHODS:
        yield f"more than {MOST_METHODS} methods: their passes are in saliency-checks list methods --verbose"
        return
    rows = [("method", "passes each", "passes", "embedded subjects", "")]
    for name in names:
        checks = {subject: len(cells) for (method, subject), cells in groups.items() if method == name}
        costs = {subject: cost for (method, subject), cost in found.items() if method == name}
        rows.append((name, *_standing(_passes(methods[name]), checks, costs, profile)))
    yield from _columns(rows)


def _standing(
    each: float | None, checks: Mapping[str, int], costs: Mapping[str, Cost], profile: Profile
) -> tuple[str, str, str, str]:
    """What one method takes, and whether that is within the budget; checks and costs are by subject."""
    if each is None:
        return "not counted", "", "", "it does not explain the small network that passes are counted on"
    least, most = (round(each * sum(getattr(cost, end) for cost in costs.values())) for end in ("least", "most"))
    embedded = {subject for subject in costs if registry.is_built_in("subjects", subject)}
    seconds = 0.0
    if profile.name in ESTIMATED:
        seconds = sum(checks[s] for s in embedded) * (SECONDS_PER_CELL + SECONDS_PER_REPLICA * profile.replicas)
        seconds += each * sum(costs[s].least for s in embedded) / PASSES_PER_SECOND
    over = max(least / profile.passes, seconds / profile.seconds)
    told = f"about {seconds:.0f} s" if seconds else "not estimated" if embedded else ""
    return f"{each:.4g}", f"{least} to {most}", told, f"OVER {over:.1f} times" if over > 1 else "within"


def _passes(method: Method) -> float | None:
    """Forward and backward, for one explanation of one image."""
    try:
        spent = counting.cost(method)
    except Exception:  # somebody's own method may not like the small network
        return None
    return spent.forward + spent.backward


def _columns(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    wide = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        yield "  ".join(f"{text:{width}}" for text, width in zip(row, wide, strict=True)).rstrip()


def methods_of(items: Iterable[Any], selected: Mapping[str, Method]) -> dict[str, Method]:
    """The methods behind :func:`cells_of`, by name."""
    cases: list[Any] = [getattr(getattr(item, "callspec", None), "params", {}).get("case") for item in items]
    return {**selected, **{case.method.name: case.method for case in cases if hasattr(case, "method")}}
