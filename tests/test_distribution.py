"""The wheel holds everything and runs without this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

import project

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SHIPPED = {
    "saliency_checks": "saliency_checks",
    "checks": "saliency_checks/checks",
    "fixtures": "saliency_checks/fixtures",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, without a network: setuptools is already here."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("dist")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    for name in SHIPPED:
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, source]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def bare(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment that has the wheel, what it depends on, and nothing else of this repository."""
    folder = tmp_path_factory.mktemp("bare")
    venv.create(folder, with_pip=False, symlinks=True)
    dependencies = folder / "dependencies"
    dependencies.mkdir()
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if "saliency" not in entry.name and entry.suffix != ".pth":  # the editable install stays outside
            (dependencies / entry.name).symlink_to(entry)
    python = folder / "bin" / "python"
    site = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"],
        capture_output=True,
        text=True,
        check=True,
    )
    (Path(site.stdout.strip()) / "dependencies.pth").write_text(f"{dependencies}\n")
    install = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps", "--no-index", wheel]
    done = subprocess.run(install, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / "bin"


def test_the_wheel_holds_every_file_of_the_rooms_and_nothing_else(wheel: Path) -> None:
    inside = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    expected = {
        f"{there}/{path.relative_to(ROOT / here).as_posix()}"
        for here, there in SHIPPED.items()
        for path in (ROOT / here).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert inside == expected
    assert {"saliency_checks/py.typed", "saliency_checks/checks/conftest.py"} <= inside
    assert any(name.startswith("saliency_checks/fixtures/data/LICENSE") for name in inside)


def test_the_wheel_is_small_and_names_its_entry_points(wheel: Path) -> None:
    assert wheel.stat().st_size < 6e6
    with zipfile.ZipFile(wheel) as archive:
        (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        text = archive.read(points).decode()
        assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
    assert "[pytest11]\nsaliency_checks = saliency_checks.plugin" in text
    assert "saliency-checks = saliency_checks.cli:main" in text


def run(bare: Path, folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "PYTHON", "COV_"))}
    return subprocess.run(
        [bare / command[0], *command[1:]], cwd=folder, env={**outer, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, stdin=subprocess.DEVNULL,
    )  # fmt: skip


def test_the_installed_package_is_the_one_of_the_wheel(bare: Path, tmp_path: Path) -> None:
    code = "import saliency_checks as s, saliency_checks.checks as c, saliency_checks.fixtures.data as d;"
    code += "d.embedded('test'); print(s.__file__, c.__file__, d.__file__)"
    done = run(bare, tmp_path, "python", "-c", code)
    assert done.returncode == 0, done.stderr
    assert all(Path(path).is_relative_to(bare.parent) for path in done.stdout.split())


@pytest.mark.parametrize("workers", ["0", "2"])
def test_the_wheel_checks_a_method_in_a_bare_environment(bare: Path, tmp_path: Path, workers: str) -> None:
    project.write(tmp_path)
    flags = ("--subject", "tiny", "--profile", "quick", "-n", workers, "--report", "out.json")
    done = run(
        bare, tmp_path, "saliency-checks", "run", "mine:good", "mine:nan", *flags, "-k", "contract or complexity"
    )
    verdicts = project.Run(done.returncode, done.stdout + done.stderr, tmp_path).verdicts
    assert verdicts == {
        "contract/good/tiny": "pass",
        "complexity/good/tiny": "pass",
        "contract/nan/tiny": "error",
        "complexity/nan/tiny": "skip",
    }
    assert done.returncode == pytest.ExitCode.TESTS_FAILED


def test_the_tests_are_collected_without_any_configuration(bare: Path, tmp_path: Path) -> None:
    done = run(bare, tmp_path, "python", "-m", "pytest", "--pyargs", "saliency_checks.checks", "--collect-only", "-q")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "test_pixel_recovery.py::test_pixel_recovery[gradient-planted_pixel_a]" in done.stdout
    assert "NOTSET" not in done.stdout
    assert "[random-" not in done.stdout
