"""The pytest plugin, used as a user would: in a project of its own, serial and with workers."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from saliency_checks import plugin
from saliency_checks.scheduling import CellScheduling
from saliency_checks.selection import BadSelection, Selection

import project
from project import Run, check_in, pytest_in

BATTERY = ("good", "nan", "crash", "shape", "array", "same", "late")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return project.write(tmp_path)


@pytest.fixture(scope="module")
def battery(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All methods of the project, serial."""
    return check_in(project.write(tmp_path_factory.mktemp("battery")), *BATTERY, also=("--junitxml=out.xml", "-ra"))


@pytest.mark.parametrize(
    ("method", "contract", "complexity"),
    [
        ("good", "pass", "pass"),
        ("array", "pass", "pass"),
        ("nan", "error", "skip"),
        ("crash", "error", "skip"),
        ("shape", "error", "skip"),
        ("same", "fail", "pass"),
        ("late", "pass", "error"),
    ],
)
def test_every_way_of_being_wrong_has_its_verdict(battery: Run, method: str, contract: str, complexity: str) -> None:
    assert battery.verdicts[f"contract/{method}/tiny"] == contract
    assert battery.verdicts[f"complexity/{method}/tiny"] == complexity


def test_the_exit_code_and_the_outcomes_are_those_of_the_verdicts(battery: Run) -> None:
    assert battery.code == pytest.ExitCode.TESTS_FAILED
    assert (battery.count("failed"), battery.count("passed"), battery.count("skipped")) == (5, 6, 3)


def test_it_says_where_the_methods_were_imported_from(battery: Run) -> None:
    assert "saliency_checks: method mine:good from mine.py\n" in battery.output
    assert battery.output.index("method mine:late from") < battery.output.index("collected")


def test_a_broken_contract_is_one_error_and_no_cascade(battery: Run) -> None:
    assert battery.results["complexity/nan/tiny"]["message"] == "contract broken, see contract/nan/tiny"
    assert len(re.findall(r"contract: nan", battery.output.partition("short test summary")[0])) == 1


def test_a_breach_that_the_contract_check_misses_stays_red(battery: Run) -> None:
    assert "FAILED" in battery.output
    assert "too many" in battery.results["complexity/late/tiny"]["message"]


def test_a_breach_is_red_where_the_contract_is_not_selected(folder: Path) -> None:
    run = check_in(folder, "nan", checks="complexity")
    assert (run.code, run.verdicts) == (1, {"complexity/nan/tiny": "error"})


def test_failures_say_how_to_repeat_them_as_they_were_asked_for(battery: Run) -> None:
    assert "saliency-checks run mine:same --subject tiny -k contract --profile quick" in battery.output


def test_failures_show_no_traceback_of_the_harness(battery: Run) -> None:
    assert "judging.py" not in battery.output
    assert "def run(" not in battery.output


def test_the_summary_has_the_matrix_the_reasons_and_the_report(battery: Run) -> None:
    summary = battery.output.partition("saliency checks =")[2]
    assert re.search(r"^crash +ERROR +skip *$", summary, re.MULTILINE)
    assert re.search(r"^good +pass 1.00", summary, re.MULTILINE)
    assert "contract broken, see contract/crash/tiny" in summary
    assert str(battery.folder / "out.json") in summary
    assert all(len(line) <= 120 for line in summary.partition("short test summary")[0].splitlines())


def test_output_that_is_no_terminal_has_no_control_characters(battery: Run) -> None:
    assert "\x1b" not in battery.output
    assert "\r" not in battery.output


def test_junit_has_score_interval_and_verdict(battery: Run) -> None:
    cases = {case.get("name"): case for case in ET.parse(battery.folder / "out.xml").iter("testcase")}
    found = {p.get("name"): p.get("value") for p in cases["test_contract[same-tiny]"].iter("property")}
    result = battery.results["contract/same/tiny"]
    assert found["saliency_verdict"] == "fail"
    assert [float(found[f"saliency_{name}"] or "") for name in ("score", "low", "high")] == [
        result["score"], result["low"], result["high"],
    ]  # fmt: skip
    assert len(cases) == 2 * len(BATTERY)


@pytest.mark.parametrize("how", ["workers", "reversed"])
def test_results_are_the_same_for_any_worker_count_and_order(battery: Run, folder: Path, how: str) -> None:
    also, environment = (("-n", "2"), {}) if how == "workers" else ((), {"REVERSED": "1"})
    other = check_in(folder, *BATTERY, also=also, environment=environment)

    def timeless(run: Run) -> dict[str, dict[str, Any]]:
        return {key: {**result, "seconds": 0} for key, result in run.results.items()}

    assert timeless(other) == timeless(battery)
    assert other.code == battery.code


def test_a_killed_worker_is_an_error_of_its_cell_and_the_others_are_judged(folder: Path) -> None:
    run = check_in(folder, "die", "good", checks="contract", also=("-n", "2"))
    assert run.verdicts == {"contract/die/tiny": "error", "contract/good/tiny": "pass"}
    assert re.search(r"crashed while running .*\[die-tiny\]", run.results["contract/die/tiny"]["message"])
    assert run.code == pytest.ExitCode.TESTS_FAILED


EXPECTED = """[pytest]
saliency_expected_failures =
    same/contract: knows neither image nor class
    good/contract: was thought to be wrong
    mine:crash/contract: crashes, which nothing excuses
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_expected_failures_are_strict_and_excuse_no_error(tmp_path: Path, workers: str) -> None:
    folder = project.write(tmp_path, {"pytest.ini": EXPECTED})
    run = check_in(folder, "same", "good", "crash", checks="contract", also=("-n", workers))
    assert (run.count("xfailed"), run.count("failed")) == (1, 2)
    assert "unexpected pass" in run.output
    assert "was thought to be wrong" in run.output
    summary = run.output.partition("saliency checks =")[2]
    assert "same/contract: knows neither image nor class" in summary
    assert re.search(r"^same +xfail", summary, re.MULTILINE)
    assert re.search(r"^crash +ERROR", summary, re.MULTILINE)


def test_runxfail_takes_expected_failures_as_they_are(tmp_path: Path) -> None:
    folder = project.write(tmp_path, {"pytest.ini": EXPECTED})
    run = check_in(folder, "same", "good", checks="contract", also=("--runxfail",))
    assert (run.count("passed"), run.count("failed"), run.count("xfailed")) == (1, 1, 0)


def test_stop_at_first_and_last_failed_work(folder: Path) -> None:
    first = check_in(folder, "nan", "same", checks="contract", also=("-x",))
    assert (first.count("failed"), len(first.results)) == (1, 1)
    again = check_in(folder, "nan", "same", checks="contract", also=("--lf",))
    assert list(again.results) == list(first.results)


def test_an_undecided_verdict_is_red_unless_it_is_allowed(folder: Path) -> None:
    between = ("--saliency-bound", "complexity >= 0.97")  # 64 of 64 images: the interval reaches from .92 to 1
    strict = check_in(folder, "good", checks="complexity", also=between)
    assert (strict.code, strict.verdicts) == (1, {"complexity/good/tiny": "inconclusive"})
    assert strict.results["complexity/good/tiny"]["bound_origin"] == "command line"
    lenient = check_in(folder, "good", checks="complexity", also=(*between, "--saliency-allow-inconclusive"))
    assert (lenient.code, lenient.verdicts) == (0, strict.verdicts)


def test_the_users_own_registered_methods_are_the_default(tmp_path: Path) -> None:
    own = project.CONFTEST + "import mine\nsc.method(mine.good)\n"
    run = check_in(project.write(tmp_path, {"conftest.py": own}))
    assert run.verdicts == {"contract/good/tiny": "pass", "complexity/good/tiny": "pass"}


MIXED = """
import os
import pytest

@pytest.fixture
def method():
    return "mine"

@pytest.fixture
def subject():
    return "too"

@pytest.mark.parametrize("i", range(6))
def test_own(method, subject, i):
    assert method + subject == "minetoo"
"""


@pytest.mark.parametrize("workers", ["0", "2"])
def test_own_tests_mix_with_the_checks_in_one_run(tmp_path: Path, workers: str) -> None:
    folder = project.write(tmp_path, {"test_own.py": MIXED})
    run = check_in(
        folder, "good", "array", checks="contract or complexity or own", also=("test_own.py", "-v", "-n", workers)
    )
    assert run.code == 0, run.output
    assert run.count("passed") == 10
    for method in ("good", "array") if workers == "2" else ():
        at = set(re.findall(rf"\[(gw\d)\].*\[{method}-tiny\]", run.output))
        assert len(at) == 1, f"the checks of {method} ran on {at}"


CASES = """
import mine
import saliency_checks as sc

@sc.parametrize_with_checks([mine.good, mine.crash], subjects=["tiny"], checks=["complexity", "sign"])
def test_faithful(case):
    case.require()
"""


def test_cases_in_own_tests_are_recorded_and_skip_with_their_reason(tmp_path: Path) -> None:
    folder = project.write(tmp_path, {"test_cases.py": CASES})
    run = pytest_in(folder, "test_cases.py", "-rs", "--saliency-report=out.json", "-p", "no:cacheprovider")
    assert run.verdicts["complexity/good/tiny"] == "pass"
    assert run.verdicts["complexity/crash/tiny"] == "error"
    assert run.verdicts["sign/good/tiny"] == "skip"
    assert (run.count("passed"), run.count("failed"), run.count("skipped")) == (1, 1, 2)
    assert "tiny offers none" in run.output


def test_a_check_that_a_named_subject_cannot_serve_says_why(folder: Path) -> None:
    run = check_in(folder, "good", checks="class_contrast", also=("-rs",))
    assert run.verdicts == {"class_contrast/good/tiny": "skip"}
    assert "class_contrast needs contrast; tiny offers none" in run.output


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--saliency-method=gradien"], "did you mean 'gradient'"),
        (["--saliency-method=mine:god"], "did you mean 'good'"),
        (["--saliency-method=yours:good"], "no module named 'yours'"),
        (["--saliency-method=broken:method"], "ZeroDivisionError: division by zero"),
        (["--saliency-method=bound:explainer"], "lambda model: IntegratedGradients(model)"),
        (["--saliency-method=mine:good", "--saliency-method=other:good"], "two methods are called 'good'"),
        (["--saliency-subject=planted_pixel"], "did you mean 'planted_pixel"),
        (["--saliency-device=cuda:99"], "device 'cuda:99' is not available"),
        (["--saliency-bound=complexty>=1"], "did you mean 'complexity'"),
        (["-c", "bad.ini"], "unknown check 'contrat'; did you mean 'contract'"),
        (["-c", "odd.ini"], "unknown method 'gradiant'; did you mean 'gradient'"),
    ],
)
def test_a_name_that_is_wrong_is_one_sentence(pytester: pytest.Pytester, arguments: list[str], text: str) -> None:
    files = {
        "broken.py": "1 / 0",
        "other.py": "from mine import good",
        "bound.py": "import torch, captum.attr as c\nexplainer = c.IntegratedGradients(torch.nn.ReLU())",
        "bad.ini": "[pytest]\nsaliency_expected_failures = gradient/contrat: a reason\n",
        "odd.ini": "[pytest]\nsaliency_expected_failures = gradiant/contract: a reason\n",
    }
    project.write(pytester.path, files)
    config = pytester.parseconfigure(*arguments)
    with pytest.raises(BadSelection, match=re.escape(text)) as caught:
        Selection.of(plugin.settings(config))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_name_that_is_wrong_ends_the_run_with_exit_code_4(folder: Path, workers: str) -> None:
    run = check_in(folder, "god", also=("-n", workers))
    assert run.code == pytest.ExitCode.USAGE_ERROR
    assert "did you mean 'good'" in run.output
    assert "Traceback" not in run.output


@pytest.mark.parametrize(
    ("arguments", "ini", "text"),
    [
        (["--saliency-bound=complexity"], "", "'complexity' is no bound"),
        (["--saliency-report=out.txt"], "", "ends in .json"),
        (["--saliency-seed=-1"], "", "whole number"),
        ([], "saliency_profile = fast", "quick, standard, thorough"),
        ([], "saliency_expected_failures = good/contract:", "has no reason"),
        ([], "saliency_expected_failures = good contract", "cannot be read"),
        ([], "saliency_bounds = complexity", "is no bound"),
    ],
)
def test_an_option_that_is_wrong_is_refused_before_anything_is_imported(
    pytester: pytest.Pytester, arguments: list[str], ini: str, text: str
) -> None:
    pytester.makeini(f"[pytest]\n{ini}")
    with pytest.raises(pytest.UsageError, match=re.escape(text)):
        pytester.parseconfigure(*arguments)


def settings_of(pytester: pytest.Pytester, *arguments: str, ini: str) -> plugin.Settings:
    pytester.makeini(f"[pytest]\n{ini}")
    return plugin.settings(pytester.parseconfigure(*arguments))


def test_the_command_line_comes_before_the_ini_file(pytester: pytest.Pytester) -> None:
    ini = "saliency_profile = thorough\nsaliency_seed = 3\nsaliency_bounds =\n  sign >= 0.1\n  complexity>=.2"
    found = settings_of(pytester, "--saliency-profile=quick", "--saliency-bound", "sign>= .3", ini=ini)
    assert (found.profile, found.seed) == ("quick", 3)
    assert found.bounds == {"sign": (">= .3", "command line"), "complexity": (">=.2", "ini")}


def test_an_expected_failure_may_name_a_module_or_one_subject(pytester: pytest.Pytester) -> None:
    ini = "saliency_expected_failures =\n  a/sign: one: two\n  a/sign/tiny: three\n  pkg.mod:b/sign: four"
    found = settings_of(pytester, ini=ini)
    assert {key: known.reason for key, known in found.expected_failures.items()} == {
        ("a", "sign", ""): "one: two",
        ("a", "sign", "tiny"): "three",
        ("pkg.mod:b", "sign", ""): "four",
    }


@pytest.mark.parametrize(
    ("nodeid", "cell"),
    [
        ("checks/test_sign.py::test_sign[a_b-c]", ("sign", "a_b", "c")),
        ("test_class_contrast.py::test_class_contrast[a-c1]", ("class_contrast", "a", "c1")),
        ("checks/test_further.py::test_further[my_check-a-c]", ("my_check", "a", "c")),
        ("test_sign.py::test_sign[my_check-a-c]", None),
        ("test_further.py::test_further[a-c]", None),
        ("test_sign.py::test_other[a-c]", None),
        ("test_sign.py::test_sign[a]", None),
        ("test_sign.py::test_sign", None),
    ],
)
def test_cells_are_read_from_test_ids(nodeid: str, cell: tuple[str, str, str] | None) -> None:
    assert plugin.cell_of(nodeid) == cell


@pytest.mark.parametrize(
    ("arguments", "ours"),
    [
        (["--pyargs", "saliency_checks.checks", "-n2"], True),
        (["--pyargs", "saliency_checks.checks.test_sign::test_sign", "-n2"], True),
        (["--pyargs", "saliency_checks.checks", "-n2", "--dist=load"], False),
        (["--pyargs", "saliency_checks.checks", "-n2", "--dist", "worksteal"], False),
        (["-n2"], False),
    ],
)
def test_the_scheduler_is_ours_only_for_our_checks_and_where_none_was_chosen(
    pytester: pytest.Pytester, arguments: list[str], ours: bool
) -> None:
    config = pytester.parseconfigure(*arguments)
    if config.option.dist == "no":  # what -n does a moment later
        config.option.dist = "load"
    config.option.tx = ["popen"] * 2
    made = plugin.pytest_xdist_make_scheduler(config, None)
    assert isinstance(made, CellScheduling) == ours


QUIET = """
import sys

def test_nothing_heavy_is_imported():
    assert not {"torch", "captum", "numpy", "scipy", "saliency_checks.run"} & set(sys.modules)
"""


def test_a_run_without_our_checks_imports_nothing_heavy_and_prints_nothing_of_us(tmp_path: Path) -> None:
    (tmp_path / "test_quiet.py").write_text(QUIET)
    (tmp_path / "pytest.ini").write_text("[pytest]\nsaliency_bounds = sign >= 0.1\n")
    # jaxtyping and Hypothesis bring pytest plugins of their own, which import more than ours
    run = pytest_in(tmp_path, "-p", "no:jaxtyping", "-p", "no:hypothesispytest")
    assert run.code == 0, run.output
    assert "saliency_checks:" not in run.output
    assert "saliency checks" not in run.output


def test_importing_the_plugin_and_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, saliency_checks, saliency_checks.plugin, saliency_checks.cli;"
        "print({'torch', 'captum', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
