"""The HTML report: whole, escaped, self-contained; what is drawn is where the numbers say."""

from __future__ import annotations

import math
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import CURVES, HOSTILE, PIXEL, RECOVERY, Page, example, full, hostile, report, result
from scipy.stats import binomtest

from saliency_checks import cli
from saliency_checks.report import html, svg
from saliency_checks.report import json as json_report
from saliency_checks.report.charts import wilson


def test_every_verdict_stands_in_the_matrix_and_leads_to_its_card() -> None:
    made = full()
    page = Page(html.page(made))
    chips = page.all("a", "chip")
    assert sorted((c["data-check"], c["data-method"], c["data-subject"], c["data-status"]) for c in chips) == sorted(
        (r.result.check, r.result.method, r.result.subject, r.status) for r in made.sorted_rows
    )
    anchors = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(anchors) == len(set(anchors))
    assert all(a["href"][1:] in anchors for a in page.all("a"))
    assert page.broken == []


def test_a_cell_leads_with_the_worst_of_its_subjects() -> None:
    leads = [c for c in Page(html.page(full())).all("a", "chip") if "lead" in c["class"].split()]
    assert [
        c["data-status"] for c in leads if (c["data-check"], c["data-method"]) == ("deletion_insertion", "gradient")
    ] == ["fail"]
    assert len(leads) == 8


@pytest.mark.parametrize("made", [full(), hostile()])
def test_nothing_is_loaded_from_anywhere(made: html.Report) -> None:
    text = html.page(made)
    page = Page(text)
    assert not re.findall(r"https?://|url\(|@import|<link|<iframe", re.sub(re.escape(html.e(HOSTILE)), "", text))
    for _, attributes in page.elements:
        for name in ("src", "href"):
            assert re.match(r"data:image/png;base64,[A-Za-z0-9+/=]+$|#", attributes.get(name, "#"))
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    policy = next(a["content"] for a in page.all("meta") if "http-equiv" in a)
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'sha256-")


def test_what_came_from_outside_is_text_wherever_it_stands() -> None:
    made = hostile()
    page, clean = Page(html.page(made)), Page(html.page(full()))
    assert len(page.all("script")) == len(clean.all("script")) == 1
    assert page.broken == []
    assert len(page.all("img")) == 2  # of the three examples, the one whose two pictures are pictures
    seen = "".join(page.texts)
    assert seen.count(HOSTILE) >= 8
    assert all(HOSTILE in attributes["data-method"] for attributes in page.all("a", "chip"))


@given(st.text(max_size=30))
def test_no_name_adds_an_element(name: str) -> None:
    def tags(text: str) -> list[str]:
        return [
            tag for tag, _ in Page(html.page(report(result(method=text, subject=text, message=text or "x")))).elements
        ]

    assert [t for t in tags(name) if t != "wbr"] == tags("x")


def test_details_that_are_no_numbers_draw_nothing() -> None:
    for odd in ("x", None, [], [1], [[1]], {"a": 1}, [1, "2"], [True, False], [1, float("inf")]):
        details = dict.fromkeys(("fractions", "curves", "layers", "similarity", "effects", "recovery", "repeat"), odd)
        page = html.page(report(result(details=details)))
        assert "<polyline" not in page
        assert 'id="acuity"' not in page
    assert html.page(report(result(details=CURVES))).count("<polyline") == 2


def test_how_small_a_cause_has_a_panel_for_each_method_over_all_the_others() -> None:
    page = html.page(full())
    section = page[page.index('id="acuity"') : page.index("Every verdict")]
    assert section.count("<figure ") == 2
    assert (
        section.count('class="curve a"') == section.count('class="curve other"') == section.count('class="band a"') == 2
    )
    worst = [min(column) for column in zip(*RECOVERY["recovery"], strict=True)]
    assert "".join(f"<td>{v:.2f}</td>" for v in worst) in section
    assert 'id="acuity"' not in html.page(report(result()))


@pytest.mark.parametrize("share", [0.0, 0.25, 0.5, 1.0])
def test_the_limits_of_recovery_are_wilsons(share: float) -> None:
    n = 32
    exact = binomtest(round(share * n), n).proportion_ci(method="wilson")
    assert wilson(share, n) == pytest.approx((exact.low, exact.high), abs=1e-6)


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=6, unique=True))
def test_a_scale_keeps_order_and_its_ticks_are_few_and_inside(values: list[float]) -> None:
    scale = svg.Scale.over(values)
    places = [float(scale.at(value)[:-1]) for value in sorted(values)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= 100
    ticks = scale.ticks()
    assert len(ticks) <= 6
    assert all(scale.low <= tick <= scale.high for tick in ticks)


def test_intervals_controls_and_bound_stand_where_the_numbers_say() -> None:
    bar = svg.Bar(score=0.5, low=0.25, high=0.75, kind="pass", controls={"random": 0.0})
    picture = svg.intervals([bar], svg.Scale(low=0, high=1), (">=", 0.1), "label")
    page = Page(picture)
    assert page.all("circle")[0]["cx"] == "50.00%"
    assert {a["x1"]: a["x2"] for a in page.all("line")} == {"0.00%": "0.00%", "25.00%": "75.00%", "10.00%": "10.00%"}
    assert (page.all("rect")[0]["x"], page.all("rect")[0]["width"]) == ("10.00%", "90.00%")
    below = Page(svg.intervals([bar], svg.Scale(low=0, high=1), ("<=", 0.1), "label")).all("rect")[0]
    assert (below["x"], below["width"]) == ("0.00%", "10.00%")


def test_worst_and_best_images_stand_beside_their_maps_with_the_cause_framed() -> None:
    page = Page(html.page(report(result(examples=[example(), example("best", cause=[])]))))
    assert [a["src"] for a in page.all("img")] == [f"data:image/png;base64,{PIXEL}"] * 4
    frames = page.all("rect", "cause")
    assert len(frames) == 4  # two lines each, on the input and on the map of the first
    assert (frames[0]["x"], frames[0]["width"]) == ("25.0%", "25.0%")


def test_two_runs_stand_side_by_side() -> None:
    scores = [[0.5 + i / 64 for i in range(16)]]
    old = report(
        result(score=0.6, scores=scores, fingerprint={"data": "a"}), result("complexity"), result("acuity"),
        result("contract"),
    )  # fmt: skip
    fell = [[value - 0.25 for value in scores[0]]]
    new = report(
        result(score=0.35, scores=fell, fingerprint={"data": "a"}), result("complexity", verdict="fail"),
        result("deletion"), result("contract"),
    )  # fmt: skip
    text = html.page(new, against=old)
    seen = " ".join(Page(text).texts)
    assert "0.25 worse (between 0.25 and 0.25; paired over 16 images)" in seen
    assert "pass became FAIL" in seen
    assert "no longer there" in seen
    assert "1 verdicts are as before" in seen
    assert text.count('class="before"') == 3
    changed = [a["data-check"] for a in Page(text).all("a", "chip") if "data-changed" in a]
    assert sorted(changed) == ["complexity", "deletion", "sign"]


def test_other_versions_are_told_when_runs_are_compared() -> None:
    old, new = report(result()), report(result())
    old.environment["python"] = "3.10"
    assert "python 3.10 before, 3.11 now" in html.page(new, against=old)
    old.environment["python"] = "3.11"
    assert "The two runs differ" not in html.page(new, against=old)


def test_an_incomplete_run_says_so() -> None:
    assert "incomplete: the run was interrupted" in html.page(report(result(), incomplete="the run was interrupted"))
    assert "incomplete:" not in html.page(report(result()))


def test_the_command_makes_the_page_of_a_json_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    json_report.write(full(), tmp_path / "in.json")
    assert cli.main(["report", str(tmp_path / "in.json"), "-o", str(tmp_path / "sub" / "out.html")]) == 0
    assert capsys.readouterr().out.startswith("9 results")
    made = (tmp_path / "sub" / "out.html").read_text("utf-8")
    assert made == html.page(json_report.read(tmp_path / "in.json"))
    assert len(Page(made).all("img")) == 4


def test_a_row_without_limits_is_drawn_too() -> None:
    assert "<circle" in html.page(report(result(low=None, high=None)))
    assert math.isfinite(svg.Scale.over([0.5]).low)
