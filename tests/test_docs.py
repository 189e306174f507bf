"""The documentation: its code runs as it stands on the page, and the site builds strictly, without a network."""

from __future__ import annotations

import html
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import saliency_checks as sc
from saliency_checks import registry

ROOT = Path(__file__).parents[1]
GUIDES = sorted([ROOT / "docs" / "index.md", *(ROOT / "docs" / "guides").glob("*.md")])
FENCE = re.compile(r"^```(\w+)(?: title=\"([\w.-]+)\")?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
# What a page says, step by step, in one process, because each one would load torch again.
DRIVER = """
import importlib, json, shlex, sys
from pathlib import Path
import pytest
from saliency_checks import cli
sys.path.insert(0, "")
names = {"__name__": "the_page"}
for title, kind, code in json.loads(sys.stdin.read()):
    print("\\n>>>", title or code, flush=True)
    if title:
        Path(title).write_text(code)
        importlib.invalidate_caches()
    elif kind == "python":
        exec(compile(code, "the page", "exec"), names)
    else:
        for line in code.splitlines():
            program, *arguments = shlex.split(line)
            ended = {"pytest": pytest.main, "saliency-checks": cli.main}[program](arguments)
            assert ended == 0, f"{line} ended with {ended}"
"""


def run(folder: Path, *command: str, given: str = "") -> str:
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, env={**outer, "OMP_NUM_THREADS": "1"}, capture_output=True, text=True,
        input=given, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.parametrize("page", GUIDES, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs_as_it_stands_there(page: Path, tmp_path: Path) -> None:
    """Files (those with a title), Python and shell; what is marked as text is for reading."""
    fences = FENCE.findall(page.read_text("utf-8"))
    steps = [(title, kind, code) for kind, title, code in fences if title or kind in ("python", "sh")]
    assert steps
    run(tmp_path, "-c", DRIVER, given=json.dumps(steps))


def test_what_the_readme_names_exists() -> None:
    """Its code has gaps for the reader's own, so it is compiled and not run."""
    blocks = [code for kind, _, code in FENCE.findall((ROOT / "README.md").read_text("utf-8")) if kind == "python"]
    assert len(blocks) >= 6
    code = "\n".join(blocks)
    for block in blocks:
        compile(block, "README.md", "exec")
    assert set(re.findall(r"\bsc\.(\w+)", code)) <= set(sc.__all__)
    for metric in re.findall(r'sc\.(?:run|measure)\("([^"]+)"', code):
        registry.get("metrics", metric)
    for kind, name in re.findall(r'sc\.get\("(\w+)", "(\w+)"\)', code):
        registry.get(kind, name)


@pytest.mark.slow
def test_the_site_builds_strictly_and_has_a_page_of_everything(tmp_path: Path) -> None:
    """Strict: a broken link, an unknown anchor or a missing section of the README is an error."""
    run(ROOT, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path))
    for name in registry.names("methods"):
        assert (tmp_path / "methods" / f"{name}.html").exists()
    for name in registry.names("checks"):
        text = (tmp_path / "checks" / f"{name}.html").read_text("utf-8")
        assert html.escape(str(registry.get("metrics", name).bound)) in text
    recovery = (tmp_path / "checks" / "pixel_recovery.html").read_text("utf-8")
    assert recovery.count("<circle") >= 3 * 15  # three columns of methods and controls
    everything = [page.read_text("utf-8") for page in tmp_path.rglob("*.html")]
    assert not any(re.search(r"<(?:script|link|img)[^>]+(?:src|href)=\"?(?:https?:)?//", text) for text in everything)
