"""A user's project on disk: methods that are right or wrong on purpose, and an untrained subject; runs pytest in it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFTEST = """
import saliency_checks as sc
import torch
from torch import nn

@sc.subject(offers={"gradient", "conv"}, graft=False)
def tiny():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, 4, 3, padding=1), nn.Tanh(),
        nn.Flatten(), nn.Linear(256, 3),
    ).eval()
    inputs = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sc.Subject(model, inputs, model(inputs).argmax(1))

def pytest_collection_modifyitems(config, items):
    import os
    if os.environ.get("REVERSED"):
        items.reverse()
"""
METHODS = '''
import os
import torch

def good(model, inputs, targets):
    score = model(inputs.requires_grad_()).gather(1, targets[:, None]).sum()
    return torch.autograd.grad(score, inputs)[0]

def nan(model, inputs, targets):
    return good(model, inputs, targets) * float("nan")

def crash(model, inputs, targets):
    raise RuntimeError("boom")

def shape(model, inputs, targets):
    return torch.ones(2, 3)

def array(model, inputs, targets):
    return good(model, inputs, targets).numpy()

def same(model, inputs, targets):
    return torch.linspace(0, 1, inputs[0].numel()).view_as(inputs[:1]).expand_as(inputs).clone()

def late(model, inputs, targets):
    """Keeps the contract on the eight images that the contract check looks at."""
    if len(inputs) > 8:
        raise RuntimeError("too many")
    return good(model, inputs, targets)

def die(model, inputs, targets):
    os._exit(1)
'''


@dataclass(frozen=True)
class Run:
    """What a pytest run left behind."""

    code: int
    output: str
    folder: Path

    @property
    def results(self) -> dict[str, dict[str, Any]]:
        """Results of ``out.json`` by key."""
        found = json.loads((self.folder / "out.json").read_text())["results"]
        return {f"{r['check']}/{r['method']}/{r['subject']}": r for r in found}

    @property
    def verdicts(self) -> dict[str, str]:
        return {key: result["verdict"] for key, result in self.results.items()}

    def count(self, outcome: str) -> int:
        """Tests of one outcome, from pytest's last line."""
        words = self.output.strip().splitlines()[-1].replace(",", "").split()
        return next((int(words[i - 1]) for i, word in enumerate(words) if word == outcome), 0)


def write(folder: Path, files: Mapping[str, str] | None = None) -> Path:
    """The project, and further files; one of the same name is replaced."""
    for name, text in {"conftest.py": CONFTEST, "mine.py": METHODS, **(files or {})}.items():
        (folder / name).write_text(text)
    return folder


def pytest_in(folder: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Run:
    """Plain pytest in a process of its own: what a user types, and nothing of this process leaks in."""
    outer = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "COV_"))}
    done = subprocess.run(
        [Path(sys.executable).with_name("pytest"), *arguments],
        cwd=folder,
        env={**outer, "OMP_NUM_THREADS": "1", "COLUMNS": "120", **(environment or {})},
        capture_output=True,
        text=True,
        timeout=300,
        stdin=subprocess.DEVNULL,
    )
    return Run(done.returncode, done.stdout + done.stderr, folder)


def check_in(
    folder: Path, *methods: str, checks: str = "contract or complexity", also: tuple[str, ...] = (), **given: Any
) -> Run:
    """The cheap checks on methods of ``mine.py`` and the tiny subject, with the report in ``out.json``."""
    flags = [f"--saliency-method=mine:{method}" for method in methods]
    return pytest_in(
        folder, "--pyargs", "saliency_checks.checks", "--saliency-subject=tiny", "--saliency-profile=quick",
        "--saliency-report=out.json", "-k", checks, *flags, *also, **given,
    )  # fmt: skip
