"""The command ``saliency-checks study benchmark``: what it measures, what it says of it, and that it goes on."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pyarrow import csv, parquet
from scipy import stats

import saliency_checks as sc
from saliency_checks import cli
from saliency_checks.metric import Draw
from saliency_checks.studies import benchmark_figures
from saliency_checks.studies.benchmark import METHODS, METRICS, coarser
from saliency_checks.studies.benchmark_report import Scored

from toys import detector, gradient, of_weights, weighted

TOYS = """
import os, time
from pathlib import Path
import torch
from saliency_checks import Subject
import toys

def linear():
    return toys.weighted(24, size=6, name="linear", absent=0.0)

def curved():
    made = toys.weighted(24, size=6)
    torch.manual_seed(0)
    model = torch.nn.Sequential(made.model, torch.nn.Tanh(), torch.nn.Linear(3, 3).double()).eval()
    model.weight = made.model.weight
    return Subject(model, made.inputs, made.targets, absent=0.3)

def counted(name, change):
    def explain(model, inputs, targets):
        with Path(os.environ["CALLS"]).open("a") as file:
            file.write(name + "\\n")
        time.sleep(float(os.environ.get("PAUSE", "0")))
        return change(model.weight[targets].detach() * inputs)
    return explain

right = counted("right", lambda m: m)
wrong = counted("wrong", lambda m: -m)
double = counted("double", lambda m: 2 * m)

def broken(model, inputs, targets):
    raise RuntimeError("boom")
"""
QUICK = ("deletion@attribench", "sensitivity_n@attribench", "insertion@attribench")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Linear models and methods whose calls are counted, importable here and in a process of its own."""
    (tmp_path / "bench_toys.py").write_text(TOYS)
    monkeypatch.syspath_prepend(str(tmp_path))
    path = os.pathsep.join([str(tmp_path), str(Path(__file__).parent)])
    monkeypatch.setenv("PYTHONPATH", path)
    monkeypatch.setenv("CALLS", str(tmp_path / "calls"))
    monkeypatch.delitem(sys.modules, "bench_toys", raising=False)
    return tmp_path


def arguments(out: Path, *methods: str, metrics: tuple[str, ...] = QUICK, also: tuple[str, ...] = ()) -> list[str]:
    named = [f"bench_toys:{name}" for name in methods]
    return [
        "study", "benchmark", "--out", str(out), "--methods", *named, "--metrics", *metrics,
        "--subjects", "bench_toys:linear", "--images", "24", "--device", "cpu", "--steps", "5", "--draws", "20", *also,
    ]  # fmt: skip


def rows(file: Path) -> list[dict[str, Any]]:
    return list((parquet.read_table(file) if file.suffix == ".parquet" else csv.read_csv(file)).to_pylist())


def calls(project: Path) -> set[str]:
    """The methods that were called since the last look."""
    file = project / "calls"
    found = set(file.read_text().split()) if file.exists() else set()
    file.unlink(missing_ok=True)
    return found


def test_the_right_method_beats_the_random_map_and_its_negative_does_not(project: Path) -> None:
    out = project / "out"
    assert cli.main(arguments(out, "right", "wrong")) == 0
    table = {(r["metric"], r["method"]): r for r in rows(out / "superiority.csv")}
    for metric in QUICK:
        assert table[metric, "right"]["superiority"] > 0.9
        assert table[metric, "right"]["beats_random"]
        assert table[metric, "wrong"]["superiority"] < 0.1
        assert not table[metric, "wrong"]["beats_random"]
    assert table["sensitivity_n@attribench", "right"]["images"] == 24


def test_every_row_is_what_the_metric_says_alone(project: Path) -> None:
    """The table against ``sc.measure``, and its statistics against scipy on the table."""
    out = project / "out"
    cli.main(arguments(out, "right", "wrong"))
    found = rows(out / "scores.parquet")
    assert len(found) == 3 * 24 * len(QUICK)
    assert set(found[0]) == {"subject", "method", "metric", "preset", "repeat", "image", "score"}
    of = {
        method: np.array([r["score"] for r in found if (r["method"], r["metric"]) == (method, "deletion")])
        for method in ("right", "random")
    }
    input_times_weight = of_weights(lambda w, x: w * x, "right")
    metric = coarser(sc.get("metrics", "deletion@attribench"), 5, 20)
    subject = weighted(24, size=6, name="linear", absent=0.0)
    assert of["right"] == pytest.approx(metric.measure(input_times_weight, subject, Draw(n=24)).values[0, 0])
    said = next(r for r in rows(out / "superiority.csv") if (r["metric"], r["method"]) == (QUICK[0], "right"))
    assert said["superiority"] == (of["right"] < of["random"]).mean()  # lower is better
    assert said["p"] == pytest.approx(stats.wilcoxon(of["random"], of["right"], alternative="greater").pvalue)


def test_adding_a_method_or_a_metric_measures_only_the_new(project: Path) -> None:
    out = project / "out"
    cli.main(arguments(out, "right"))
    assert calls(project) == {"right"}
    cli.main(arguments(out, "right", "double"))
    assert calls(project) == {"double"}
    cli.main(arguments(out, "wrong", metrics=QUICK[:1]))
    assert calls(project) == {"wrong"}
    cli.main(arguments(out, "right", "double", metrics=(*QUICK, "deletion@attribench_lerf")))
    assert calls(project) == {"right", "double"}
    counts: dict[str, int] = {}
    for row in rows(out / "scores.parquet"):
        counts[row["method"]] = counts.get(row["method"], 0) + 1
    assert counts == {"right": 96, "double": 96, "random": 96, "wrong": 24}


def test_a_method_whose_file_changed_is_measured_again(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = arguments(project / "out", "right", metrics=QUICK[:1])
    before = [(cli.main(command), calls(project)) for _ in range(2)]
    assert before == [(0, {"right"}), (0, set())]
    (project / "bench_toys.py").write_text(TOYS.replace("lambda m: m)", "lambda m: 3 * m)"))
    monkeypatch.delitem(sys.modules, "bench_toys")
    assert cli.main(command) == 0
    assert calls(project) == {"right"}


def test_a_killed_run_goes_on_and_ends_as_if_it_had_not_been_killed(project: Path) -> None:
    command = Path(sys.executable).with_name("saliency-checks")
    names = ("right", "wrong", "double")
    out, whole = project / "killed", project / "whole"
    environment = {**os.environ, "PAUSE": "0.4"}
    killed = subprocess.Popen([command, *arguments(out, *names)], env=environment, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while len(list(out.glob("parts/*.parquet"))) < 5 and time.monotonic() < until:
        time.sleep(0.005)
    os.kill(killed.pid, signal.SIGKILL)
    killed.wait(60)
    there = {file: file.stat().st_mtime_ns for file in out.glob("parts/*.parquet")}
    assert 5 <= len(there) < 12
    calls(project)
    assert cli.main(arguments(out, *names)) == 0
    assert "double" in calls(project)
    assert {file: file.stat().st_mtime_ns for file in there} == there
    assert cli.main(arguments(whole, *names)) == 0
    for name in ("scores.parquet", "superiority.csv", "pairs.csv", "convergence.csv", "summary.md"):
        assert (out / name).read_bytes() == (whole / name).read_bytes(), name


def test_a_report_needs_nothing_but_the_store(project: Path) -> None:
    out = project / "out"
    cli.main(arguments(out, "right", "wrong"))
    page, scores = (out / "summary.md").read_text(), (out / "scores.parquet").read_bytes()
    calls(project)
    for file in out.iterdir():
        if file.is_file() and file.name != "manifest.json":
            file.unlink()
    (project / "bench_toys.py").unlink()
    assert cli.main(["study", "benchmark", "--out", str(out), "--report-only"]) == 0
    assert calls(project) == set()
    assert (out / "summary.md").read_text() == page
    assert (out / "scores.parquet").read_bytes() == scores
    assert len(list(out.glob("*.png"))) >= 3


def test_what_cannot_be_measured_is_said_and_the_rest_goes_on(project: Path) -> None:
    out = project / "out"
    assert cli.main(arguments(out, "right", "broken", metrics=QUICK[:1])) == 0
    page = (out / "summary.md").read_text()
    assert "## Not measured" in page
    assert "broken deletion attribench" in page
    assert "RuntimeError: boom" in page
    assert {r["method"] for r in rows(out / "scores.parquet")} == {"right", "random"}


def test_repeats_tell_signal_from_noise(project: Path) -> None:
    """Fifteen times the subsets in a repeat are fifteen times the signal to noise; half of that at least."""
    ratios = []
    for draws in (4, 60):
        out = project / f"out{draws}"
        command = arguments(out, "right", metrics=QUICK[1:2], also=("--repeats", "6", "--draws", str(draws)))
        command[command.index("bench_toys:linear")] = "bench_toys:curved"
        assert cli.main(command) == 0
        noise = {r["method"]: r for r in rows(out / "noise.csv")}
        assert noise["right"]["metric"] == "sensitivity_n@attribench"
        assert noise["right"]["repeats"] == 6
        ratios.append(noise["right"]["signal_to_noise"])
    assert ratios[1] > 7 * ratios[0]


def test_another_setup_in_the_same_folder_is_refused(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = project / "out"
    cli.main(arguments(out, "right", metrics=QUICK[:1]))
    assert cli.main(arguments(out, "right", metrics=QUICK[:1], also=("--seed", "1"))) == 1
    assert "was made with seed 0, and this run asks for 1" in capsys.readouterr().err
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["setup"]["seed"] == 0
    assert manifest["device"] == "cpu"


def test_an_empty_folder_has_nothing_to_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["study", "benchmark", "--out", str(tmp_path), "--report-only"]) == 1
    assert "holds no results yet" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("given", "text"),
    [(["study"], "NAME"), (["study", "nothing"], "invalid choice"), (["study", "benchmark"], "--out")],
)
def test_wrong_usage_is_one_sentence(given: list[str], text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        cli.main(given)
    assert caught.value.code == 4
    assert text in capsys.readouterr().err


def test_the_default_methods_and_metrics_exist() -> None:
    assert len(METHODS) == 17
    assert {sc.get("methods", name).name for name in METHODS} == set(METHODS)
    assert [sc.get("metrics", name).name for name in METRICS] == list(METRICS)


def test_fewer_steps_keep_the_ends_and_the_name() -> None:
    metric = sc.get("metrics", "deletion@attribench")
    fewer = coarser(metric, 7, None)
    assert fewer.name == metric.name
    assert fewer.better == metric.better
    assert len(fewer.settings.fractions) == 7
    assert (fewer.settings.fractions[0], fewer.settings.fractions[-1]) == (0, 0.15)
    assert set(fewer.settings.fractions) <= set(metric.settings.fractions)
    assert coarser(metric, 1000, 1000) is metric
    few = coarser(sc.get("metrics", "sensitivity_n@attribench"), None, 9)
    assert few.settings.draws == 9
    assert few.measure(gradient, detector(8), Draw(n=8)).values.shape == (1, 1, 8)


def test_a_metric_that_says_the_same_of_all_methods_takes_no_figure_away(tmp_path: Path) -> None:
    rng, methods = np.random.default_rng(0), ["a", "b", "c", "d"]

    def scored(metric: str, values: Any) -> Scored:
        return Scored(
            subject="s", metric=metric, sign=1, methods=methods, images=np.arange(6), random=np.zeros(6), repeats={},
            values=np.asarray(values) + np.zeros((4, 6)),
        )  # fmt: skip

    told = [scored(name, rng.normal(size=(4, 6))) for name in ("one", "two")]
    for name, found in (("both", told), ("three", [*told, scored("flat", 0.5)])):
        file = tmp_path / f"{name}.png"
        benchmark_figures._clusters(file, "s", found, {})
        assert file.exists()
    assert (tmp_path / "both.png").read_bytes() == (tmp_path / "three.png").read_bytes()
