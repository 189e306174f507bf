"""Expected failures of the ini file: a reason, perhaps a last day; what they excuse and what not. The dry run."""

from __future__ import annotations

import re
from datetime import date
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from saliency_checks import options
from saliency_checks.method import as_method
from saliency_checks.plan import cost, lines
from saliency_checks.profile import PROFILES

import project

INI = """[pytest]
saliency_expected_failures =
    mine:late/complexity: flat until 2020-01-01
    mine:early/complexity: flat too until 2999-01-01
"""


@pytest.mark.parametrize(
    ("line", "reason", "until"),
    [
        ("ig/sign: it is unsigned", "it is unsigned", None),
        ("ig/sign/tiny: it is unsigned until 2027-06-30", "it is unsigned", date(2027, 6, 30)),
        ("mine:ig/sign: fixed soon, until 2027-06-30", "fixed soon", date(2027, 6, 30)),
        ("ig/sign: wrong until we know until 2027-06-30", "wrong until we know", date(2027, 6, 30)),
        ("ig/sign: not mended until later", "not mended until later", None),
    ],
)
def test_an_entry_has_a_reason_and_perhaps_a_last_day(line: str, reason: str, until: date | None) -> None:
    (known,) = options._expected_failures([line]).values()
    assert (known.reason, known.until) == (reason, until)
    assert not known.is_over


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("ig/sign", "cannot be read"),
        ("ig: why", "cannot be read"),
        ("ig/sign:", "no reason"),
        ("ig/sign: until 2027-06-30", "no reason"),
        ("ig/sign: why until 2027-02-30", "2027-02-30, which is no day"),
    ],
)
def test_an_entry_without_reason_or_day_is_refused(line: str, words: str) -> None:
    with pytest.raises(pytest.UsageError, match=words):
        options._expected_failures([line])


def test_two_entries_of_one_cell_are_refused() -> None:
    with pytest.raises(pytest.UsageError, match="second entry"):
        options._expected_failures(["ig/sign: one", "ig/sign: two"])


def test_the_last_day_itself_still_counts() -> None:
    assert not options.KnownFailure("x", date.today()).is_over
    assert options.KnownFailure("x", date(2020, 1, 1)).is_over


FAILS = """
def late(model, inputs, targets):
    import torch
    return torch.ones_like(inputs)

early = lambda model, inputs, targets: late(model, inputs, targets)
"""


def test_past_its_day_an_expected_failure_is_red(tmp_path: Path) -> None:
    project.write(tmp_path, {"mine.py": FAILS, "pytest.ini": INI})
    run = project.check_in(tmp_path, "late", "early", checks="complexity")
    assert (run.count("failed"), run.count("xfailed")) == (1, 1), run.output
    assert "until 2020-01-01, which is over: flat" in run.results["complexity/late/tiny"]["message"]
    assert run.results["complexity/early/tiny"]["expected"] == "flat too"


def test_a_dry_run_prints_the_plan_and_neither_builds_nor_writes(tmp_path: Path) -> None:
    broken = project.CONFTEST.replace("torch.manual_seed(0)", "raise RuntimeError('was built')")
    project.write(tmp_path, {"conftest.py": broken})
    run = project.check_in(tmp_path, "good", "crash", also=("-n2", "--saliency-dry-run"))
    assert run.code == pytest.ExitCode.OK, run.output
    assert "was built" not in run.output
    lines = [line.split() for line in run.output.splitlines() if " tiny " in line]
    assert [line[0] for line in lines] == ["crash", "good"]
    assert all(line[-2:] == ["complexity,", "contract"] for line in lines)
    assert "4 cells" in run.output
    assert re.search(r"\ngood +2 +\d+ to \d+ +within", run.output)
    assert re.search(r"\ncrash +not counted", run.output)
    assert not (tmp_path / "out.json").exists()


def test_a_plan_counts_shared_maps_once_and_grows_with_the_profile() -> None:
    quick, thorough = PROFILES["quick"], PROFILES["thorough"]
    one, two = cost(["complexity"], quick), cost(["complexity", "pixel_recovery"], quick)
    assert one == two
    assert cost(["complexity", "cascading_randomization"], quick).least > 10 * one.least
    assert cost(["complexity"], thorough).most > one.most > one.least


@pytest.mark.parametrize(("passes", "told"), [(1, "within"), (800, "OVER")])
def test_a_plan_says_whether_a_method_is_within_the_profiles_budget(passes: int, told: str) -> None:
    """Forward passes alone: as many as are told; the images of the quick profile's plan are known."""

    def many(model: Any, inputs: Any, targets: Any) -> Any:
        return sum(model(inputs)[:, :1, None] for _ in range(passes)) + inputs.mean(1) * 0

    explained = as_method(many)
    cells = [(check, "many", "own") for check in ("complexity", "cascading_randomization")]
    *_, head, last = lines(cells, "quick", {"many": explained})
    least = cost(["complexity", "cascading_randomization"], PROFILES["quick"]).least
    assert last.split()[:3] == ["many", str(passes), str(passes * least)]
    assert told in last
    assert (passes * least > PROFILES["quick"].passes) == (told == "OVER")
    assert "passes each" in head


def test_every_profile_gives_more_and_may_cost_more() -> None:
    tiers = [PROFILES[name] for name in ("quick", "standard", "thorough")]
    for cheap, dear in pairwise(tiers):
        assert (cheap.seconds, cheap.passes) < (dear.seconds, dear.passes)
        assert cheap.seconds < dear.seconds
        assert cheap.scale < dear.scale
