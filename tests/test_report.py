"""The report: schema, sorting, the matrix at narrow and wide terminals, the live line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from saliency_checks.report import Report, junit, terminal
from saliency_checks.report import json as json_report
from saliency_checks.report.live import Line, Plain
from saliency_checks.report.status import short
from saliency_checks.result import Result

CHECKS = (
    "contract", "pixel_recovery", "planted_deletion", "class_contrast", "sign", "cascading_randomization",
    "independent_randomization", "label_permutation", "deletion_insertion", "complexity",
)  # fmt: skip
METHODS = ("gradient", "integrated_gradients", "guided_backprop")


def result(check: str = "sign", method: str = "gradient", subject: str = "tiny", **fields: Any) -> Result:
    given = {"verdict": "pass", "score": 0.5, "low": 0.25, "high": 0.75, "n": 8, "bound": ">= 0.1", **fields}
    return Result(check=check, method=method, subject=subject, **given)


def report(*results: Result, expected: str = "") -> Report:
    made = Report()
    for one in results:
        made.add(one, expected=expected)
    return made


def text(made: Report, width: int = 100) -> str:
    return "\n".join("".join(piece for piece, _ in line).rstrip() for line in terminal.summary(made, width=width))


def test_the_json_report_has_exactly_the_schema(tmp_path: Path) -> None:
    made = report(result("sign", controls={"random": 0.125}), result("complexity", verdict="skip", score=None))
    json_report.write(made, tmp_path / "new" / "out.json", profile="quick", seed=3)
    found = json.loads((tmp_path / "new" / "out.json").read_text())
    assert list(found) == ["schema", "environment", "results"]
    assert found["schema"] == 1
    assert list(found["results"][0]) == [
        "check", "method", "subject", "verdict", "score", "low", "high", "n", "better", "bound", "bound_origin",
        "controls", "seed", "seconds", "message",
    ]  # fmt: skip
    assert [r["check"] for r in found["results"]] == ["complexity", "sign"]
    assert found["results"][1]["controls"] == {"random": 0.125}
    assert found["environment"]["profile"] == "quick"
    assert found["environment"]["seed"] == 3
    assert found["environment"]["torch"]
    assert list((tmp_path / "new").iterdir()) == [tmp_path / "new" / "out.json"]


def test_the_json_report_does_not_depend_on_the_order_of_arrival() -> None:
    one, two = result("sign"), result("complexity")
    documents = [json_report.document(report(*order), profile="quick", seed=0) for order in ((one, two), (two, one))]
    assert documents[0] == documents[1]


def test_a_number_that_json_lacks_never_gets_in() -> None:
    with pytest.raises(ValueError, match="Out of range float"):
        result(score=float("nan")).to_json()


def test_junit_properties_are_strings_and_leave_out_what_was_not_measured() -> None:
    found = dict(junit.properties(result(verdict="skip", score=None, low=None, high=None)))
    assert set(found) == {"saliency_verdict", "saliency_n"}
    assert all(type(value) is str for value in dict(junit.properties(result())).values())


@pytest.mark.parametrize(
    ("verdict", "expected", "status"),
    [
        ("fail", "", "fail"),
        ("fail", "known", "xfail"),
        ("inconclusive", "known", "xfail"),
        ("pass", "known", "xpass"),
        ("error", "known", "error"),
        ("skip", "known", "skip"),
    ],
)
def test_an_expected_failure_excuses_a_failure_only(verdict: str, expected: str, status: str) -> None:
    made = report(result(verdict=verdict), expected=expected)
    assert made.sorted_rows[0].status == status


@pytest.mark.parametrize("width", [80, 100, 120, 160])
def test_the_matrix_fits_the_terminal_and_names_every_check_and_method(width: int) -> None:
    made = report(*(result(check, method) for check in CHECKS for method in METHODS))
    shown = text(made, width)
    assert max(map(len, shown.splitlines())) <= width
    heads = shown.replace("-", "")
    for check in CHECKS:
        assert all(word[:6] in heads for word in check.split("_"))
    assert shown.count("pass  .50") == len(CHECKS) * len(METHODS)


def test_ten_checks_stand_in_one_block_at_120_columns() -> None:
    made = report(*(result(check, method) for check in CHECKS for method in METHODS))
    assert text(made, 125).count("integrated_gradients") == 1
    assert text(made, 80).count("integrated_gradients") == 2


def test_a_cell_is_the_worst_of_its_subjects() -> None:
    made = report(
        result(subject="a", score=0.9), result(subject="b", verdict="fail", score=0.3),
        result(subject="c", verdict="fail", score=0.2), result(subject="d", verdict="skip", score=None),
    )  # fmt: skip
    assert "FAIL  .20" in text(made)
    assert ".30" not in text(made)


def test_the_worst_score_is_the_highest_where_lower_is_better() -> None:
    made = report(*(result(subject=s, score=x, better="lower") for s, x in (("a", 0.2), ("b", 0.8))))
    assert "pass  .80" in text(made)


def test_the_best_control_of_each_check_is_shown() -> None:
    made = report(
        result("sign", controls={"random": 0.125, "edges": 0.25}),
        result("complexity", controls={"random": 0.9, "constant": 1.0}, better="lower"),
    )
    line = next(line for line in text(made).splitlines() if line.startswith("best control"))
    assert line.split()[2:] == [".90", ".25"]


@pytest.mark.parametrize(
    ("score", "shown"),
    [(None, ""), (0.934, ".93"), (-0.125, "-.12"), (0.999, "1.00"), (1.0, "1.00"), (12.34, "12.34"), (-3.0, "-3.00")],
)
def test_scores_are_short(score: float | None, shown: str) -> None:
    assert short(score) == shown


def test_reasons_are_told_once_with_their_number() -> None:
    made = report(*(result(subject=s, verdict="skip", score=None, message="sign needs truth") for s in "abc"))
    made.add(result(verdict="fail", subject="d"), expected="known since 2018")
    made.add(result(verdict="fail", subject="e"), expected="known since 2018")
    shown = text(made)
    assert shown.count("sign needs truth (3 times)") == 1
    assert shown.count("gradient/sign on 2 subjects: known since 2018") == 1
    assert "2 expected failures, 3 skipped" in shown


def test_what_stays_open_says_what_would_decide_it() -> None:
    message = (
        "0.50 is undecided against >= 0.1\n  score  0.5\n  open     about 300 images would decide it\n  meaning  x"
    )
    shown = text(report(result(verdict="inconclusive", message=message)))
    assert "sign/gradient/tiny: about 300 images would decide it" in shown
    assert "--saliency-profile thorough" in text(report(result(verdict="inconclusive")), 160)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_live_line_waits_two_seconds_keeps_to_its_room_and_leaves_the_cursor() -> None:
    clock, written = Clock(), []
    line = Line(written.append, room=lambda: 20, clock=clock)
    line("training")
    assert written == []
    clock.now = 2.5
    line("training a network with a long name")
    assert written == ["\x1b7  training a network\x1b[K\x1b8"]
    line.erase()
    assert written[-1] == "\x1b[K"


def test_a_live_line_that_never_showed_has_nothing_to_erase() -> None:
    written: list[str] = []
    line = Line(written.append, room=lambda: 80, clock=Clock())
    line("quick")
    line.erase()
    assert written == []


def test_a_plain_line_comes_now_and_then() -> None:
    clock, written = Clock(), []
    plain = Plain(written.append, who="gw0", clock=clock)
    for clock.now in range(40):
        plain("training")
    assert written == ["\ngw0: training (15 s)\n", "\ngw0: training (30 s)\n"]
