"""Everything in examples/ runs, as its README says, in a copy of its folder; and a mistake in it is found."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nbclient
import nbformat
import pytest

from project import Run, pytest_in

EXAMPLES = Path(__file__).parents[1] / "examples"
RUN = ("--pyargs", "saliency_checks.checks", "--saliency-profile=quick", "--saliency-report=out.json")
Copy = Callable[[str], Path]


@pytest.fixture
def copy(tmp_path: Path) -> Copy:
    def copy(name: str) -> Path:
        ignored = shutil.ignore_patterns("__pycache__", ".*", "build", "*.egg-info", "images", "*.pt")
        return Path(shutil.copytree(EXAMPLES / name, tmp_path / name, ignore=ignored))

    return copy


def verdicts(run: Run) -> dict[str, str]:
    assert (run.folder / "out.json").exists(), run.output
    return run.verdicts


def test_an_own_method_is_judged_by_its_name_and_among_its_own_tests(copy: Copy) -> None:
    folder = copy("own_method")
    run = pytest_in(folder, "-k", "class_contrast and planted", "--saliency-report=out.json")
    assert verdicts(run) == {
        "class_contrast/smooth_ig/planted_pixel_a": "pass",
    }
    source = (folder / "attribution.py").read_text().replace("gather(1, targets[", "gather(1, ((targets + 1) % 3)[")
    (folder / "attribution.py").write_text(source)
    by_name = ("--saliency-method=smooth_ig", "--saliency-subject=planted_pixel_a", "-k", "class_contrast")
    run = pytest_in(folder, *RUN, *by_name)
    assert verdicts(run) == {"class_contrast/smooth_ig/planted_pixel_a": "fail"}


@pytest.mark.slow
def test_an_own_model_on_own_images_is_explained(copy: Copy) -> None:
    folder = copy("own_model")
    done = subprocess.run(
        [sys.executable, "train.py"], cwd=folder, env={**os.environ, "OMP_NUM_THREADS": "1"}, capture_output=True,
        text=True,
    )  # fmt: skip
    assert done.stdout.startswith("300 images, "), done.stderr
    assert len(list((folder / "images").glob("*/*.png"))) == 300
    run = pytest_in(
        folder, *RUN, "--saliency-method=integrated_gradients", "--saliency-method=edges",
        "--saliency-subject=subjects:shapes", "-k", "not graft and deletion_insertion",
    )  # fmt: skip
    found = verdicts(run)
    assert found["deletion_insertion/integrated_gradients/shapes"] == "pass"
    assert found["deletion_insertion/edges/shapes"] == "fail"


@pytest.fixture
def plugin(copy: Copy, tmp_path: Path) -> dict[str, str]:
    """The package, installed where only this test looks: the environment that finds it."""
    target = tmp_path / "site"
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run(
        [*install, "--target", target, copy("plugin_package")], capture_output=True, text=True
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return {"PYTHONPATH": str(target)}


def test_an_installed_package_adds_a_method_a_subject_and_a_check(plugin: dict[str, str], tmp_path: Path) -> None:
    folder = tmp_path / "plugin_package"
    run = pytest_in(folder / "tests", environment=plugin)
    assert run.code == pytest.ExitCode.OK, run.output
    assert run.count("passed") >= 4
    methods = [f"--saliency-method={name}" for name in ("positive_contributions", "random")]
    also = ("--saliency-subject=stripes", "-k", "top_pixel")
    run = pytest_in(tmp_path, *RUN, *methods, *also, environment=plugin)
    place = Path(plugin["PYTHONPATH"], "saliency_plugin", "__init__.py").relative_to(tmp_path)
    assert "method positive_contributions from saliency_plugin:positive_contributions of the package" in run.output
    assert f"saliency-plugin, {place}\n" in run.output
    assert verdicts(run) == {
        "top_pixel/positive_contributions/stripes": "pass",
        "top_pixel/random/stripes": "fail",
    }


def test_the_notebook_runs_and_says_what_its_saved_outputs_say(tmp_path: Path) -> None:
    path = EXAMPLES / "verdict.ipynb"
    assert path.stat().st_size < 100_000
    saved = nbformat.read(path, as_version=4)
    again = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(
        again, timeout=300, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    ).execute()
    for before, now in zip(told(saved), told(again), strict=True):
        assert before == now


def told(notebook) -> list[str]:  # type: ignore[no-untyped-def]
    """The words of every output's first line: digits, and with them the columns, may differ between machines."""
    texts = [
        output.get("text") or output["data"]["text/plain"]
        for cell in notebook.cells
        for output in cell.get("outputs", [])
    ]
    assert len(texts) >= 4
    firsts = [text.splitlines()[0] for text in texts]
    return ["".join(letter for letter in text if letter.isalpha() or letter == "_") for text in firsts]
