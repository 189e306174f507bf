"""The command saliency-checks: pytest with flags, from any folder."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from saliency_checks import cli, fixtures, registry
from saliency_checks.subject import SubjectFactory

import project

COMMAND = Path(sys.executable).with_name("saliency-checks")


@pytest.fixture
def passed_on(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """What pytest would be called with."""
    calls: list[list[str]] = []

    def fake(arguments: list[str]) -> int:
        calls.append(arguments)
        return 5

    monkeypatch.setattr(pytest, "main", fake)
    return calls


def test_run_is_pytest_with_flags(passed_on: list[list[str]]) -> None:
    ours = "run gradient mine:good --subject a --subject=b --profile quick --report out.json -n 2 -k sign"
    code = cli.main([*ours.split(), "-x", "--junitxml=out.xml", "--maxfail", "3"])
    assert code == 5
    assert passed_on == [
        [
            *("--pyargs", "saliency_checks.checks", "--saliency-method=gradient", "--saliency-method=mine:good"),
            *("--saliency-subject=a", "--saliency-subject=b", "--saliency-profile=quick"),
            *("--saliency-report=out.json", "-k", "sign", "-n", "2", "-x", "--junitxml=out.xml", "--maxfail", "3"),
        ]
    ]


def test_run_adds_nothing_that_was_not_asked_for(passed_on: list[list[str]]) -> None:
    cli.main(["run", "gradient"])
    assert passed_on == [["--pyargs", "saliency_checks.checks", "--saliency-method=gradient"]]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([], "required"),
        (["run"], "METHOD"),
        (["walk"], "invalid choice: 'walk'"),
        (["run", "gradient", "--profile", "fast"], "invalid choice: 'fast'"),
        (["list", "everything"], "invalid choice: 'everything'"),
        (["list", "--all"], "list knows no --all"),
    ],
)
def test_wrong_usage_is_one_sentence_and_exit_code_4(
    arguments: list[str], text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(arguments)
    said = capsys.readouterr().err
    assert caught.value.code == pytest.ExitCode.USAGE_ERROR
    assert text in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("what", ["methods", "checks", "subjects"])
def test_list_names_everything_of_a_kind(what: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[1:]] == registry.names(what)


def test_list_shows_which_check_applies_and_builds_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Any) -> None:
        raise AssertionError(f"{self.name} was built")

    monkeypatch.setattr(SubjectFactory, "__call__", refuse)
    assert cli.main(["list"]) == 0
    matrix = capsys.readouterr().out.partition("which check applies")[2].splitlines()
    marks = {line.split()[0]: line.split()[1:] for line in matrix if line[2:3].isalpha() and "applies" not in line}
    subjects = registry.names("subjects")
    applies = dict(zip(subjects, marks["planted_deletion"], strict=True))
    assert applies["planted_pixel_a"] == "x"
    assert applies["fashion_cnn"] == "."
    assert set(marks["contract"]) == {"x"}


def test_warm_trains_what_the_profile_needs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[Any] = []

    def fake(**given: Any) -> list[tuple[str, float, str]]:
        asked.append(given)
        return [("cnn", 1.0, "trained"), ("mlp", 0.0, "cached")]

    monkeypatch.setattr(fixtures, "warm", fake)
    assert cli.main(["warm", "--profile", "quick", "--workers", "3"]) == 0
    assert asked == [{"profile": "quick", "workers": 3}]
    assert "quick profile needs is trained and cached: 2 networks" in capsys.readouterr().out


def test_warm_says_what_could_not_be_trained(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fake(**_: Any) -> None:
        raise fixtures.TrainingFailed("cnn: no space left")

    monkeypatch.setattr(fixtures, "warm", fake)
    assert cli.main(["warm"]) == 1
    assert capsys.readouterr().err == "saliency-checks: cnn: no space left\n"


def test_the_command_runs_in_any_folder_and_has_pytests_exit_code(tmp_path: Path) -> None:
    project.write(tmp_path)
    flags = ("--subject", "tiny", "--profile", "quick", "-k", "contract", "-q")
    command = [COMMAND, "run", "mine:good", "mine:nan", *flags]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert "1 failed, 1 passed" in done.stdout


def test_python_m_is_the_same_command() -> None:
    command = [sys.executable, "-m", "saliency_checks", "--help"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: saliency-checks")
