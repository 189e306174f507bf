"""Studies on a Ray cluster, for real: several nodes, a node and the driver killed, a poisonous image, a full disk."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow import parquet

from saliency_checks import cli
from saliency_checks.studies import engines, store
from saliency_checks.studies.engines import Ray, culprits, here
from saliency_checks.studies.store import Store, Unfinished, Unit

TOYS = '''
import os, time
from pathlib import Path
import torch
import toys

POISON = 0.987654

def linear():
    return toys.weighted(96, size=6, name="linear", absent=0.0)

def poisoned(image=5):
    made = linear()
    made.inputs[image, 0, 0, 0] = POISON
    return made

def poisoned_first():
    return poisoned(0)

def right(model, inputs, targets):
    return model.weight[targets].detach() * inputs

def noisy(model, inputs, targets):
    return right(model, inputs, targets) + 0.1 * torch.randn_like(inputs)

def slow(model, inputs, targets):
    time.sleep(0.1)
    return right(model, inputs, targets)

def raises(model, inputs, targets):
    if (inputs[:, 0, 0, 0] == POISON).any():
        raise RuntimeError("boom")
    return right(model, inputs, targets)

def dies(model, inputs, targets):
    if (inputs[:, 0, 0, 0] == POISON).any():
        os._exit(1)
    return right(model, inputs, targets)

def always_dies(model, inputs, targets):
    os._exit(1)

def values(number):
    return {"value": [number, number + 1]}

def bug(number):
    raise KeyError(number)

def dies_until(file, times):
    """Leaves a line for every call; the first ``times`` end the process."""
    with Path(file).open("a") as lines:
        lines.write("called\\n")
    if len(Path(file).read_text().splitlines()) <= times:
        os._exit(1)
    return values(0)
'''
QUICK = ("deletion@attribench", "insertion@attribench", "sensitivity_n@attribench")


@pytest.fixture(scope="module")
def toys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A user's module, importable here and by every process that is started from here."""
    folder = tmp_path_factory.mktemp("toys")
    (folder / "engine_toys.py").write_text(TOYS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        patch.setenv("PYTHONPATH", os.pathsep.join([str(folder), str(Path(__file__).parent)]))
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        import engine_toys

        yield engine_toys
        del sys.modules["engine_toys"]


@pytest.fixture(scope="module")
def cluster(toys: Any) -> Iterator[Any]:
    """A head that computes nothing, and two nodes of one worker each."""
    from ray.cluster_utils import Cluster

    small = {"object_store_memory": 80 << 20}
    made = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, **small})
    try:
        for _ in range(2):
            made.add_node(num_cpus=1, **small)
        yield made
    finally:
        made.shutdown()


def arguments(
    out: Path, *methods: str, also: Sequence[str] = (), metrics: Sequence[str] = QUICK, subject: str = "linear",
    shard: int = 32,
) -> list[str]:  # fmt: skip
    return [
        "study", "benchmark", "--out", str(out), "--methods", *(f"engine_toys:{name}" for name in methods),
        "--metrics", *metrics, "--subjects", f"engine_toys:{subject}", "--images", "96", "--shard", str(shard),
        "--device", "cpu", "--steps", "4", "--draws", "4", *also,
    ]  # fmt: skip


def on(cluster: Any) -> tuple[str, ...]:
    return ("--engine", "ray", "--address", cluster.address)


def rows(out: Path) -> list[dict[str, Any]]:
    return list(parquet.read_table(out / "scores.parquet").to_pylist())


def scores(out: Path, method: str) -> dict[tuple[str, int], float]:
    return {(r["metric"], r["image"]): r["score"] for r in rows(out) if r["method"] == method}


def same(one: Path, other: Path) -> None:
    """All results, to the last byte."""
    for name in ("scores.parquet", "superiority.csv", "pairs.csv", "summary.md"):
        assert (one / name).read_bytes() == (other / name).read_bytes(), name


def parts(out: Path) -> dict[Path, int]:
    return {file: file.stat().st_mtime_ns for file in out.glob("parts/*.parquet")}


def when_there_are(count: int, out: Path, then: Callable[[], Any]) -> threading.Thread:
    """Do it in the middle: as soon as so many parts are there."""

    def watch() -> None:
        until = time.monotonic() + 120
        while len(parts(out)) < count and time.monotonic() < until:
            time.sleep(0.01)
        then()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def test_shards_change_no_byte_of_the_table(toys: Any, tmp_path: Path) -> None:
    for shard in (32, 64):
        assert cli.main(arguments(tmp_path / str(shard), "right", "noisy", shard=shard)) == 0
    assert (len(parts(tmp_path / "32")), len(parts(tmp_path / "64"))) == (27, 18)
    same(tmp_path / "32", tmp_path / "64")
    assert [r["image"] for r in rows(tmp_path / "32")[:96]] == list(range(96))


def test_parts_of_two_sizes_of_shards_are_not_mixed(
    toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments(tmp_path, "right", metrics=QUICK[:1])) == 0
    assert cli.main(arguments(tmp_path, "right", metrics=QUICK[:1], shard=64)) == 1
    assert "was made with shard 32, and this run asks for 64" in capsys.readouterr().err


def test_the_cluster_gives_the_same_bytes_as_this_process(toys: Any, cluster: Any, tmp_path: Path) -> None:
    assert cli.main(arguments(tmp_path / "here", "right", "noisy")) == 0
    assert cli.main(arguments(tmp_path / "there", "right", "noisy", also=on(cluster))) == 0
    same(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
def test_a_node_that_dies_loses_no_part_and_doubles_none(toys: Any, cluster: Any, tmp_path: Path) -> None:
    node, there = cluster.list_all_nodes()[-1], {}

    def kill() -> None:
        there.update(parts(tmp_path / "there"))
        cluster.remove_node(node)

    killer = when_there_are(3, tmp_path / "there", kill)
    assert cli.main(arguments(tmp_path / "there", "slow", "right", also=on(cluster))) == 0
    killer.join()
    cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    assert 3 <= len(there) < 27
    assert {file: parts(tmp_path / "there")[file] for file in there} == there
    assert cli.main(arguments(tmp_path / "here", "slow", "right")) == 0
    same(tmp_path / "here", tmp_path / "there")


@pytest.mark.slow
def test_a_driver_that_is_killed_goes_on_where_it_was(toys: Any, cluster: Any, tmp_path: Path) -> None:
    out, wanted = tmp_path / "there", ("slow", "right")
    command = [Path(sys.executable).with_name("saliency-checks"), *arguments(out, *wanted, also=on(cluster))]
    driver = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    when_there_are(3, out, lambda: os.kill(driver.pid, signal.SIGKILL)).join()
    assert driver.wait(60) == -signal.SIGKILL
    there = parts(out)
    assert 3 <= len(there) < 27
    assert cli.main(arguments(out, *wanted, also=on(cluster))) == 0
    assert {file: parts(out)[file] for file in there} == there
    assert cli.main(arguments(tmp_path / "here", *wanted)) == 0
    same(tmp_path / "here", out)


@pytest.mark.parametrize(("subject", "image"), [("poisoned", 5), ("poisoned_first", 0)])
def test_an_image_that_makes_the_method_fail_is_left_out_and_named(
    toys: Any, tmp_path: Path, subject: str, image: int
) -> None:
    assert cli.main(arguments(tmp_path, "right", "raises", subject=subject)) == 0
    right, found = scores(tmp_path, "right"), scores(tmp_path, "raises")
    assert found.keys() == right.keys()
    for key in right:
        assert np.isnan(found[key]) if key[1] == image else found[key] == right[key], key
    assert {r["image"] for r in rows(tmp_path) if r["skipped"]} == {image}
    page = (tmp_path / "summary.md").read_text()
    assert f"image {image}: raises raised RuntimeError: boom (raises)" in page
    table = parquet.read_table(tmp_path / "scores.parquet").to_pylist()
    assert sum(r["skipped"] is not None for r in table) == len(QUICK)


@pytest.mark.slow
def test_an_image_that_kills_every_worker_is_left_out_and_the_rest_done(
    toys: Any, cluster: Any, tmp_path: Path
) -> None:
    also = (*on(cluster), "--retries", "0", "--images", "8")
    assert cli.main(arguments(tmp_path, "right", "dies", metrics=QUICK[:1], also=also, subject="poisoned")) == 0
    right, found = scores(tmp_path, "right"), scores(tmp_path, "dies")
    assert found.keys() == right.keys()
    for key in right:
        assert np.isnan(found[key]) if key[1] == 5 else found[key] == right[key], key
    assert "image 5: its explanation ends the process" in (tmp_path / "summary.md").read_text()


@pytest.mark.slow
def test_a_method_that_always_kills_is_reported_and_not_kept(
    toys: Any, cluster: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What may be the cluster's fault is tried again by the next run; the other methods are done."""
    also = (*on(cluster), "--retries", "0", "--images", "32")
    assert cli.main(arguments(tmp_path, "right", "always_dies", metrics=QUICK[:1], also=also)) == 1
    told = capsys.readouterr().err
    assert "1 parts failed; the same command tries them again, with --report-only it shows what is there" in told
    assert "always_dies deletion attribench 0 images 0 to 32: every worker that makes it dies" in told
    assert {part.columns["method"] for part in Store(tmp_path, "benchmark").made()} == {"random", "right"}


def units(toys: Any, **makes: Callable[[], Any]) -> list[Unit]:
    return [Unit(columns={"name": name}, recipe={}, make=make, shares=(name,)) for name, make in makes.items()]


@pytest.mark.slow
def test_a_worker_that_dies_is_replaced_so_often_and_no_more(toys: Any, cluster: Any, tmp_path: Path) -> None:
    lines = {times: tmp_path / f"calls{times}" for times in (1, 9)}
    made = units(
        toys, once=partial(toys.dies_until, str(lines[1]), 1), ever=partial(toys.dies_until, str(lines[9]), 9),
        good=partial(toys.values, 5),
    )  # fmt: skip
    kept = Store(tmp_path, "toy")
    with pytest.raises(Unfinished, match="1 parts failed") as raised:
        kept.run(made, Ray(address=cluster.address, retries=1))
    assert "ever: every worker that makes it dies" in str(raised.value)
    assert kept.table()["value"].to_pylist() == [5, 6, 0, 1]
    assert [len(file.read_text().splitlines()) for file in lines.values()] == [2, 2]


def test_a_unit_with_a_bug_fails_alone(toys: Any, cluster: Any, tmp_path: Path) -> None:
    made = units(toys, bad=partial(toys.bug, 3), good=partial(toys.values, 5))
    for name, engine in (("here", here), ("there", Ray(address=cluster.address))):
        kept = Store(tmp_path / name, "toy")
        with pytest.raises(Unfinished, match="bad: KeyError: 3"):
            kept.run(made, engine)
        assert kept.table()["value"].to_pylist() == [5, 6]


@pytest.mark.parametrize("engine", ["here", pytest.param("there", marks=pytest.mark.slow)])
def test_a_full_disk_keeps_what_is_whole_and_the_next_run_goes_on(
    toys: Any, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str], engine: str,
) -> None:  # fmt: skip
    also = on(request.getfixturevalue("cluster")) if engine == "there" else ()
    room, write = [4], store._write

    def limited(table: pa.Table, file: Path) -> None:
        write(table, file)
        room[0] -= 1
        if room[0] < 0:
            file.write_bytes(file.read_bytes()[:100])
            raise OSError(errno.ENOSPC, "No space left on device", str(file))

    with monkeypatch.context() as patch:
        patch.setattr(store, "_write", limited)
        assert cli.main(arguments(tmp_path / "out", "right", "noisy", also=also, metrics=QUICK[:1])) == 1
    assert "no space is left" in capsys.readouterr().err
    there = parts(tmp_path / "out")
    assert len(there) == 4
    assert [file.name for file in (tmp_path / "out" / "parts").iterdir() if file not in there] == []
    assert cli.main(arguments(tmp_path / "out", "right", "noisy", also=also, metrics=QUICK[:1])) == 0
    assert {file: parts(tmp_path / "out")[file] for file in there} == there
    assert cli.main(arguments(tmp_path / "whole", "right", "noisy", metrics=QUICK[:1])) == 0
    same(tmp_path / "whole", tmp_path / "out")


def test_a_part_that_is_cut_off_or_of_another_shard_is_made_again(toys: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert cli.main(arguments(out, "right")) == 0
    before = (out / "scores.parquet").read_bytes()
    cut, foreign, other = sorted(parts(out))[:3]
    cut.write_bytes(cut.read_bytes()[:-20])
    foreign.write_bytes(other.read_bytes())
    there = parts(out)
    assert cli.main(arguments(out, "right")) == 0
    assert {file for file, when in parts(out).items() if there[file] != when} == {cut, foreign}
    assert (out / "scores.parquet").read_bytes() == before


def test_without_ray_the_command_says_how_to_get_it(
    toys: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert cli.main(arguments(tmp_path, "right", also=("--engine", "ray"))) == 1
    assert "pip install 'saliency-checks[ray]'" in capsys.readouterr().err


@given(size=st.integers(1, 60), data=st.data())
def test_the_images_that_fail_are_found_and_no_others(size: int, data: st.DataObject) -> None:
    bad = data.draw(st.sets(st.integers(0, size - 1), max_size=4))
    tried = []

    def fails(places: Sequence[int]) -> bool:
        tried.append(len(places))
        return bool(bad & set(places))

    assert culprits(fails, range(size)) == sorted(bad)
    assert len(tried) <= 1 + 2 * len(bad) * size.bit_length()


def test_units_that_share_a_shard_go_to_the_worker_that_holds_it() -> None:
    """And a worker without one takes a shard that nobody has, while there is any."""
    jobs = [engines._Job(shares, engines.deque()) for shares in (("a", "x"), ("a", "y"), ("b", "x"))]
    assert engines.chosen(jobs, held="b", taken={"a"}) is jobs[2]
    assert engines.chosen(jobs, held="a", taken={"b"}) is jobs[0]
    assert engines.chosen(jobs, held="", taken={"a"}) is jobs[2]
    assert engines.chosen(jobs[:2], held="b", taken={"a"}) is jobs[0]


@pytest.mark.parametrize(
    ("there", "options", "workers"),
    [
        ({"CPU": 8.0}, {}, 8), ({"CPU": 8.0}, {"threads": 3}, 2), ({"CPU": 8.0, "GPU": 2.0}, {}, 2),
        ({"CPU": 8.0, "GPU": 2.0}, {"gpus": 0.5}, 4), ({"CPU": 8.0, "GPU": 2.0}, {"gpus": 0.1}, 8),
        ({"CPU": 8.0, "GPU": 2.0}, {"gpus": 0.0}, 8), ({}, {}, 1),
    ],
)  # fmt: skip
def test_as_many_workers_as_there_is_room_for(
    monkeypatch: pytest.MonkeyPatch, there: dict[str, float], options: dict[str, Any], workers: int
) -> None:
    monkeypatch.setattr(engines, "_resources", lambda: there)
    assert Ray(**options)._room() == workers


def test_an_address_where_no_cluster_is_says_so(toys: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    also = ("--engine", "ray", "--address", "127.0.0.1:1")
    assert cli.main(arguments(tmp_path, "right", metrics=QUICK[:1], also=also)) == 1
    assert "no Ray cluster answers at 127.0.0.1:1" in capsys.readouterr().err
