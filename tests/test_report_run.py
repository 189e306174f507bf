"""Reports of real runs: across workers, with images, interrupted, on a disk that takes nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pages
import pytest

from saliency_checks.report import json as json_report

import project


def test_workers_send_images_curves_and_commands_to_the_page(tmp_path: Path) -> None:
    project.write(tmp_path)
    (tmp_path / "file").write_text("")
    run = project.check_in(
        tmp_path, "good", "crash", checks="complexity or deletion_insertion",
        also=("-n2", "--saliency-report=out.html", "--saliency-report=out.md", "--junitxml=out.xml",
              "--saliency-report=file/out.html", "--saliency-bundle=behind"),
    )  # fmt: skip
    assert run.code == pytest.ExitCode.INTERNAL_ERROR, run.output  # one of the four files cannot be
    assert "NOT WRITTEN" in run.output
    assert run.count("failed") >= 2  # and hides no verdict
    found = json_report.read(tmp_path / "out.json")
    good = found.rows["complexity/good/tiny"].result
    assert len(good.examples) == 4
    assert len(good.scores[0]) == good.n
    assert set(good.fingerprint) == {"data", "model"}
    assert good.command == "saliency-checks run mine:good --subject tiny -k complexity --profile quick"
    assert set(found.rows["deletion_insertion/good/tiny"].result.details) >= {"fractions", "curves"}
    assert found.checks["complexity"]["meaning"]
    page = pages.Page((tmp_path / "out.html").read_text("utf-8"))
    assert {(c["data-method"], c["data-status"]) for c in page.all("a", "chip")} >= {("crash", "error")}
    assert len(page.all("img")) == 2 * 2 * 4
    assert "**ERROR**" in (tmp_path / "out.md").read_text("utf-8")
    red = {key.replace("/", ".") for key, verdict in run.verdicts.items() if verdict not in ("pass", "skip")}
    assert {path.name for path in (tmp_path / "behind").iterdir()} == red
    assert "complexity.good.tiny" not in red
    assert f"bundle   behind{os.sep}deletion_insertion.good.tiny" in run.output
    assert (tmp_path / "behind" / "deletion_insertion.good.tiny" / "images.npz").exists()
    assert good.examples[0]["input"] not in (tmp_path / "out.xml").read_text("utf-8")


FAILS_AT_THE_END = """
class Last:
    def pytest_sessionfinish(self):
        raise OSError(28, "No space left on device")

def pytest_sessionstart(session):  # the hooks that are registered last are called first
    session.config.pluginmanager.register(Last())
"""


def test_another_plugin_that_fails_at_the_end_takes_no_results_with_it(tmp_path: Path) -> None:
    """As pytest's own JUnit plugin does on a full disk."""
    project.write(tmp_path, {"conftest.py": project.CONFTEST + FAILS_AT_THE_END})
    run = project.check_in(tmp_path, "good", checks="complexity")
    assert "No space left on device" in run.output
    assert run.verdicts == {"complexity/good/tiny": "pass"}


STOP = """
def stop(model, inputs, targets):
    import signal
    os.kill(os.getpid(), signal.SIGTERM)
"""


def test_a_run_that_is_cut_short_says_so_in_its_report(tmp_path: Path) -> None:
    """By SIGTERM, as a CI server does it; to pytest that is Ctrl-C."""
    project.write(tmp_path, {"mine.py": project.METHODS + STOP})
    run = project.check_in(tmp_path, "good", "stop", checks="complexity")
    assert run.code == pytest.ExitCode.INTERRUPTED, run.output
    found = json_report.read(tmp_path / "out.json")
    assert found.incomplete == "the run was interrupted"
    assert set(found.rows) == {"complexity/good/tiny"}
    assert found.rows["complexity/good/tiny"].result.examples == ()  # no page, no images
