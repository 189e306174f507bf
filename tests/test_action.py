"""The GitHub action: its own shell steps, run here as the runner would; annotations; the recipes of docs/ci.md."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from pages import HOSTILE, full, report, result

from saliency_checks import cli
from saliency_checks.report import github
from saliency_checks.report import json as json_report

import project

ROOT = Path(__file__).parent.parent
ACTION = (ROOT / "action.yml").read_text("utf-8")


def script(name: str) -> str:
    """The shell of one step."""
    step = re.search(rf"    - name: {name}\n(.*?)(?=\n    - name: |\Z)", ACTION, re.DOTALL)
    assert step
    return textwrap.dedent(step[1].partition("      run: |\n")[2])


def shell(folder: Path, step: str, **inputs: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    given = {
        "METHODS": "", "SUBJECTS": "", "PROFILE": "quick", "WORKERS": "0", "BASELINE": "", "ARGUMENTS": "",
        "REPORT": "out dir", "AGAINST": "", "GITHUB_STEP_SUMMARY": str(folder / "summary"), "OMP_NUM_THREADS": "1",
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
    }  # fmt: skip
    return subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script(step)],
        cwd=folder, env={**outer, **given, **inputs}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip


def test_the_actions_steps_check_report_and_annotate(tmp_path: Path) -> None:
    project.write(tmp_path)
    done = shell(
        tmp_path, "check", METHODS="mine:good\n  mine:crash\n", SUBJECTS="tiny", ARGUMENTS='-k "contract and not graft"'
    )  # fmt: skip
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout
    assert (tmp_path / "out dir" / "junit.xml").exists()
    assert (tmp_path / "out dir" / "behind" / "contract.crash.tiny" / "result.txt").exists()
    done = shell(tmp_path, "report")
    assert done.returncode == 0, done.stderr
    assert "::error title=contract/crash/tiny::" in done.stdout
    assert "boom" in (tmp_path / "summary").read_text()
    assert "<!doctype html>" in (tmp_path / "out dir" / "report.html").read_text("utf-8")


@pytest.mark.slow
def test_the_action_installs_the_folder_that_it_lies_in(tmp_path: Path) -> None:
    """As ``uses: ./path/to/saliency_checks`` has it; without a network, and where this environment does not look."""
    ignored = shutil.ignore_patterns(".*", "build", "docs", "*.egg-info", "__pycache__")
    folder = shutil.copytree(ROOT, tmp_path / "third_party" / "saliency_checks", ignore=ignored)
    offline = {
        "PIP_NO_INDEX": "1",
        "PIP_NO_DEPS": "1",
        "PIP_NO_BUILD_ISOLATION": "0",
        "PIP_TARGET": str(tmp_path / "to"),
    }
    done = shell(tmp_path, "install", GITHUB_ACTION_PATH=str(folder), **offline)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "to" / "saliency_checks" / "checks" / "conftest.py").exists()


def test_an_input_of_the_action_is_data(tmp_path: Path) -> None:
    """What a pull request may put into an input must not run."""
    evil = "$(touch hacked) `touch hacked` ; touch hacked"
    shell(tmp_path, "check", METHODS=evil, SUBJECTS=evil, ARGUMENTS=f"-k '{evil}' --co", BASELINE=evil)
    assert not (tmp_path / "hacked").exists()
    assert "${{" not in "".join(script(name) for name in ("install", "check", "report", "train what is not cached"))


def test_the_report_step_says_when_there_are_no_results(tmp_path: Path) -> None:
    done = shell(tmp_path, "report")
    assert done.returncode == 1
    assert "left no results" in done.stdout


def test_an_annotation_cannot_be_broken_out_of() -> None:
    made = report(
        result(f"sign\n::warning::{HOSTILE}", "a:b,c", verdict="fail", message="50%\r\n::error::x"),
        *(result(f"c{i}", verdict="fail") for i in range(12)),
    )  # fmt: skip
    found = list(github.lines(made))
    assert len(found) == github.MOST + 1
    assert "3 more need attention" in found[-1]
    everything = [line for one in found for line in one.splitlines()]
    assert len(everything) == len(found)
    assert all(line.startswith("::error title=") for line in everything)
    (mine,) = github.lines(report(result("x", "a:b,c", verdict="fail", message="50%\r\n::error::x")))
    assert mine == "::error title=x/a%3Ab%2Cc/tiny::50%25%0D%0A::error::x"
    assert list(github.lines(report(result()))) == []


def test_the_command_annotates_or_says_that_there_is_nothing_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    json_report.write(full(), tmp_path / "a.json")
    assert cli.main(["report", str(tmp_path / "a.json"), "--annotate"]) == 0
    assert capsys.readouterr().out.count("::error title=") == 3
    with pytest.raises(SystemExit) as stop:
        cli.main(["report", str(tmp_path / "a.json")])
    assert stop.value.code == cli.USAGE_ERROR


@pytest.mark.parametrize(("page", "least"), [("docs/ci.md", 10), ("README.md", 4)])
def test_every_command_of_the_recipes_exists(page: str, least: int) -> None:
    """Flags and subcommands are known; pytest's own pass through ``run``."""
    text = (ROOT / page).read_text("utf-8").replace("\\\n", " ")
    commands = re.findall(r"(?:^|\s)(saliency-checks (?:run|report|baseline|warm)\b[^#\n|]*)", text)
    assert len(commands) >= least
    for command in commands:
        options, rest = cli._parser().parse_known_args(shlex.split(command)[1:])
        assert options.command in ("run", "report", "baseline", "warm")
        assert not rest or options.command == "run", command
        for flag in rest:
            known = ("--saliency-baseline", "--saliency-bundle", "--saliency-images", "--junitxml", "-q")
            assert flag.startswith(known) or not flag.startswith("-"), flag
