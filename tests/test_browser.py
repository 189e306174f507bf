"""The HTML report in a real browser: opens from disk, filters, opens cells by keyboard; smuggled code does not run.

Runs where there are both Playwright (a package) and a Chromium (the system's own); skipped elsewhere.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pages import full, hostile, report, result

from saliency_checks.report import Report, files

sync_api = pytest.importorskip("playwright.sync_api", reason="the package playwright is not installed")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH (Debian: apt-get install chromium)")

PHONE = {"viewport": {"width": 360, "height": 740}, "has_touch": True}
Open = Callable[..., Any]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        # Root has no sandbox in a container; the pages are our own.
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Writes the report, opens it from disk; at the end nothing may have been said on the console or asked for."""
    complaints: list[str] = []
    contexts = []

    def visit(made: Report, *, against: Report | None = None, fragment: str = "", **settings: Any) -> Any:
        files.write(made, tmp_path / "out.html", against=against)
        contexts.append(browser.new_context(**settings))
        page = contexts[-1].new_page()
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append("alert") or dialog.dismiss())
        page.on("request", lambda r: r.url.startswith(("file:", "data:")) or complaints.append(r.url))
        page.goto(f"{(tmp_path / 'out.html').as_uri()}{fragment}")
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == []


def chips(page: Any) -> list[tuple[str, str, str]]:
    shown = page.locator("a.chip:visible").evaluate_all(
        "all => all.map(c => [c.dataset.check, c.dataset.method, c.dataset.subject])"
    )
    return sorted(map(tuple, shown))


def test_it_filters_by_method_check_subject_and_verdict(visit: Open) -> None:
    made = full()
    page = visit(made)
    everything = sorted((r.result.check, r.result.method, r.result.subject) for r in made.sorted_rows)
    assert chips(page) == everything
    page.fill("[name=method]", "GRAD")
    assert chips(page) == [key for key in everything if key[1] == "gradient"]
    assert page.locator("#shown").text_content() == "5 of 9 verdicts"
    page.select_option("[name=check]", "deletion_insertion")
    assert len(chips(page)) == 2
    assert page.locator(".matrix thead th:visible").count() == 2  # the column of names and one check
    page.select_option("[name=subject]", "tiny")
    assert chips(page) == [("deletion_insertion", "gradient", "tiny")]
    assert page.locator("a.chip.lead:visible").text_content() == "pass.50"
    page.click("text=Show all")
    assert chips(page) == everything
    page.select_option("[name=status]", "red")
    assert chips(page) == sorted(
        (r.result.check, r.result.method, r.result.subject) for r in made.having("fail", "error", "inconclusive")
    )
    page.click(".counts button.error")
    assert chips(page) == [("sign", "ig", "tiny")]
    assert page.locator(".card:visible").count() == 1


def test_a_cell_opens_and_closes_by_keyboard_alone(visit: Open) -> None:
    page = visit(full())
    chip = page.locator("a.chip[data-check=deletion_insertion][data-method=gradient]").first
    for _ in range(40):
        page.keyboard.press("Tab")
        if chip.evaluate("c => c === document.activeElement"):
            break
    page.keyboard.press("Enter")
    panel = page.locator("#panel")
    assert panel.is_visible()
    assert page.locator("#panel-title").text_content() == "gradient: deletion_insertion"
    assert panel.locator("img").count() == 4
    assert (
        panel.locator("pre", has_text="saliency-checks run gradient --subject other -k deletion_insertion").count() == 1
    )
    page.keyboard.press("ArrowRight")
    assert page.locator("#panel-title").text_content() != "gradient: deletion_insertion"
    page.keyboard.press("ArrowLeft")
    assert page.locator("#panel-title").text_content() == "gradient: deletion_insertion"
    page.keyboard.press("Escape")
    assert not panel.is_visible()
    assert chip.evaluate("c => c === document.activeElement")


def test_it_reads_without_a_script(visit: Open) -> None:
    page = visit(full(), java_script_enabled=False)
    assert not page.locator("#filters").is_visible()
    page.click("a.chip.lead.fail")
    assert page.locator("pre", has_text="0.00 breaks").is_visible()


def test_a_link_into_the_report_opens_its_cell(visit: Open) -> None:
    page = visit(full(), fragment="#c-acuity.ig")
    assert page.locator(".card[open]").count() == 1
    assert "least effect" in page.locator(".card[open]").inner_text()


@pytest.mark.parametrize("made", [full(), hostile()])
def test_nothing_sticks_out_of_a_phone(made: Report, visit: Open) -> None:
    page = visit(made, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    page.locator("a.chip.lead").first.tap()
    assert page.locator("#panel").is_visible()
    assert page.evaluate("document.querySelector('#panel').scrollWidth") <= 360


def test_what_was_smuggled_in_does_not_run(visit: Open) -> None:
    page = visit(hostile())
    page.locator("a.chip").first.click()
    page.wait_for_timeout(200)
    assert page.locator("img[src=x]").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(scheme: str, visit: Open) -> None:
    """Contrast of WCAG 2: at least 4.5, of the page and of every kind of verdict."""
    kinds = ("pass", "fail", "inconclusive", "skip", "error", "reported")
    made = report(*(result(kind, verdict=kind) for kind in kinds))
    page = visit(made, color_scheme=scheme)
    colours = "e => [getComputedStyle(e).color, getComputedStyle(e).backgroundColor]"
    pairs = [
        page.locator("body").evaluate(colours),
        *(page.locator(f"a.chip.lead.{k}").first.evaluate(colours) for k in kinds),
    ]
    for text, ground in pairs:
        assert contrast(rgb(text), rgb(ground)) >= 4.5, (text, ground)


def rgb(colour: str) -> list[float]:
    return [float(part) / 255 for part in colour.removeprefix("rgb(").removesuffix(")").split(",")]


def contrast(one: list[float], other: list[float]) -> float:
    def luminance(colour: list[float]) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_only_what_changed_can_be_shown(visit: Open) -> None:
    page = visit(report(result(verdict="fail"), result("complexity")), against=report(result(), result("complexity")))
    page.select_option("[name=status]", "changed")
    assert chips(page) == [("sign", "gradient", "tiny")]
    assert "was pass" in page.locator("a.chip.lead:visible").inner_text()
