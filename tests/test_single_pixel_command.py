"""The single-pixel study as a command: its table, its backgrounds, its processes, and what it refuses."""

from __future__ import annotations

import csv
import os
import pickle
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

from saliency_checks import vision
from saliency_checks.cli import main
from saliency_checks.studies import pixel_analysis, pixel_data, single_pixel, workers
from saliency_checks.studies.store import Store, Unfinished, Unit

TINY = ["--count", "64", "--epochs", "1", "--images", "6", "--model-seeds", "1", "--device", "cpu"]
SEED_COLUMNS = """
overall.withpix_model_accuracy overall.attribution_correct_accuracy overall.nopix_model_accuracy
overall.truebg_withblackpix_model_accuracy attribution_incorrect.nopix_model_accuracy
attribution_incorrect.withpix_model_accuracy attribution_incorrect.blackbg_withpix_model_accuracy
attribution_incorrect.blackbg_withattrpix_model_accuracy attribution_incorrect.truebg_withblackattrpix_model_accuracy
attribution_incorrect.truebg_withblackpix_model_accuracy
attribution_incorrect.truebg_withblackattrpix_preserved_accuracy
attribution_incorrect.truebg_withblackpix_preserved_accuracy overall.attribution_incorrect dataset data_seed model_type
model_seed train_pos_sd train_col_sd test_pos_sd test_col_sd attribution_method use_y_true use_softmax model
"""  # of attribution_results.csv, as grad_measures.py of the paper's code writes it


@pytest.fixture(autouse=True)
def _quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SALIENCY_CHECKS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(pixel_analysis, "STEPS", 2)
    pixel_data.backgrounds.cache_clear()


def study(out: Path, *flags: str) -> list[dict[str, str]]:
    """The table's rows."""
    assert main(["study", "single-pixel", "--out", str(out), *TINY, *flags]) == 0
    with (out / "all_results.csv").open() as file:
        return list(csv.DictReader(file))


def refused(capsys: pytest.CaptureFixture[str], out: Path, *flags: str) -> str:
    assert main(["study", "single-pixel", "--out", str(out), *TINY, *flags]) == 1
    return capsys.readouterr().err


def test_the_table_has_the_papers_columns_in_their_order_and_ours_behind_them(tmp_path: Path) -> None:
    rows = study(tmp_path / "out", "--test-sd", "0,0", "--test-sd", "3,5")
    names, theirs = list(rows[0]), SEED_COLUMNS.split()
    assert names[: len(theirs)] == theirs
    assert {name.split(".")[0] for name in names[len(theirs) :]} == {"gate", "different", "corrected", "pooled"}
    assert len(rows) == 2 * 4 * (5 + 3), (
        "two deviations; softmax or logit, predicted or true; five maps, three controls"
    )
    # What their notebook keeps: it scales every column with "accuracy" in its name, and filters these.
    assert {row["dataset"] for row in rows} == {"SinglePixelDataset"}
    assert {row["use_softmax"] for row in rows} == {"false", "true"}
    assert {(row["test_pos_sd"], row["test_col_sd"]) for row in rows} == {("0", "0"), ("3", "5")}
    for name in ("summary.md", "pointing_small_cnn.png", "deviations_small_cnn.png", "values.parquet", "manifest.json"):
        assert (tmp_path / "out" / name).exists(), name
    values = parquet.read_table(tmp_path / "out" / "values.parquet")
    assert {"different", "different_followed", "recovered", "needed", "share"} <= set(values.column_names)
    assert "another class's pixel" in (tmp_path / "out" / "summary.md").read_text()


def test_the_cluster_and_the_decoys_are_named_in_the_table(tmp_path: Path) -> None:
    rows = study(tmp_path / "cluster", "--side", "3")
    assert {row["dataset"] for row in rows} == {"PixelClusterDataset"}
    rows = study(tmp_path / "decoys", "--design", "decoys")
    assert {(row["dataset"], row["model_type"]) for row in rows} == {("decoys", "opponent_cnn")}
    assert all(0 <= float(row["corrected.recovery"]) <= 1 for row in rows)
    assert "beats the decoys" in (tmp_path / "decoys" / "summary.md").read_text()


def write_cifar(folder: Path, monkeypatch: pytest.MonkeyPatch, n: int = 12) -> np.ndarray:
    """Files as those of the set, but for their size; their sums are not those that torchvision knows."""
    inside = folder / "cifar-10-batches-py"
    inside.mkdir(parents=True)
    pixels = np.random.default_rng(0).integers(256, size=(6, n, 3 * 32 * 32), dtype=np.uint8)
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    for name, data in zip(names, pixels, strict=True):
        batch = {"batch_label": name, "labels": [i % 10 for i in range(n)], "data": data, "filenames": ["x.png"] * n}
        (inside / name).write_bytes(pickle.dumps(batch))
    (inside / "batches.meta").write_bytes(pickle.dumps({"label_names": list("abcdefghij")}))
    cifar = vision.torchvision().datasets.CIFAR10
    monkeypatch.setattr(cifar, "train_list", [[name, None] for name in names[:5]])
    monkeypatch.setattr(cifar, "test_list", [["test_batch", None]])
    monkeypatch.setattr(cifar, "meta", {"filename": "batches.meta", "key": "label_names", "md5": None})
    return pixels


def test_cifar_10_is_read_from_its_own_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pixels = write_cifar(tmp_path / "data", monkeypatch)
    images, own = pixel_data.backgrounds("CIFAR10", str(tmp_path / "data"), train=True)
    assert images.shape == (60, 3, 32, 32)
    assert torch.equal((images * 255).round().to(torch.uint8).flatten(1), torch.from_numpy(pixels[:5]).flatten(0, 1))
    assert own[:12].tolist() == [i % 10 for i in range(12)]
    flags = ["--data", "CIFAR10", "--data-folder", str(tmp_path / "data"), "--labels", "background"]
    rows = study(tmp_path / "out", *flags)
    assert len(rows) == 4 * 8


def write_pictures(folder: Path, n: int) -> None:
    rng = np.random.default_rng(0)
    for i in range(n):
        place = folder / ("deeper" if i % 2 else "")
        place.mkdir(parents=True, exist_ok=True)
        shape = (20 + i % 3, 40, 3) if i % 5 else (16, 16)  # grey ones, too
        Image.fromarray(rng.integers(256, size=shape, dtype=np.uint8)).save(place / f"{i:03}.{('png', 'JPG')[i % 2]}")


def test_a_folder_of_pictures_is_split_and_brought_to_one_size(tmp_path: Path) -> None:
    write_pictures(tmp_path / "pictures", 60)
    folder = str(tmp_path / "pictures")
    train, test = (pixel_data.backgrounds("images", folder, train=t)[0] for t in (True, False))
    assert (train.shape, test.shape) == ((48, 3, 32, 32), (12, 3, 32, 32))
    assert 0 <= float(train.min()) <= float(train.max()) <= 1
    assert pixel_data.backgrounds("images", folder, train=False, size=24)[0].shape[-1] == 24
    rows = study(tmp_path / "out", "--data", "images", "--data-folder", folder)
    assert len(rows) == 4 * 8


def test_a_constant_picture_keeps_its_colour_at_another_size(tmp_path: Path) -> None:
    for i in range(50):
        Image.new("RGB", (40 + i, 20), (i, 100, 255)).save(tmp_path / f"{i:02}.png")
    images, _ = pixel_data.backgrounds("images", str(tmp_path), train=True)
    expected = torch.tensor([[i, 100, 255] for i in range(40)]).view(40, 3, 1, 1).expand_as(images) / 255
    torch.testing.assert_close(images, expected, atol=1e-5, rtol=0)


def test_embedded_images_are_brought_to_the_size_asked_for() -> None:
    images, _ = pixel_data.backgrounds("FashionMNIST", None, train=False, size=32)
    own, _ = pixel_data.backgrounds("FashionMNIST", None, train=False)
    assert images.shape[1:] == (1, 32, 32)
    assert images.mean().item() == pytest.approx(own.mean().item(), abs=0.01)


def test_what_is_missing_or_contradictory_is_said_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = partial(refused, capsys, tmp_path / "out")
    assert "not embedded: give the folder" in ask("--data", "CIFAR10")
    told = ask("--data", "CIFAR10", "--data-folder", str(tmp_path / "none"))
    assert "no complete CIFAR10" in told
    assert "cifar-10-batches-py" in told
    write_pictures(tmp_path / "few", 4)
    assert "4 pictures (.jpg, .jpeg, .png)" in ask("--data", "images", "--data-folder", str(tmp_path / "few"))
    assert "expected one of FashionMNIST" in ask("--data", "ImageNet")
    assert "the pictures of a folder have none" in ask("--data", "images", "--labels", "background")
    assert "--side, --test-sd says nothing there" in ask("--design", "decoys", "--side", "2", "--test-sd", "1,3")
    assert "needs --design decoys" in ask("--network", "opponent_cnn")
    assert "such as --test-sd 3,5" in ask("--test-sd", "3")
    assert "Traceback" not in told
    # A damaged file of the set: torchvision knows what it must hold.
    write_cifar(tmp_path / "damaged", monkeypatch)
    monkeypatch.undo()
    assert "no complete CIFAR10" in ask("--data", "CIFAR10", "--data-folder", str(tmp_path / "damaged"))


def test_a_second_run_goes_on_where_the_first_one_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    study(tmp_path / "out")
    parts = {file: file.stat().st_mtime_ns for file in (tmp_path / "out" / "parts").iterdir()}
    monkeypatch.setattr(pixel_analysis, "answers", None)  # nothing that is there may be measured again
    assert len(study(tmp_path / "out")) == 32
    assert {file: file.stat().st_mtime_ns for file in parts} == parts


@pytest.mark.slow
def test_several_processes_find_the_same_to_the_last_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flags = ["--model-seeds", "2", "--images", "3"]
    monkeypatch.setattr(pixel_analysis, "STEPS", 100)  # the other processes know of no other number
    for count in ("1", "2"):
        monkeypatch.setenv("SALIENCY_CHECKS_CACHE", str(tmp_path / f"cache{count}"))
        single_pixel._model.cache_clear()  # another test's network is no file here
        study(tmp_path / count, *flags, "--workers", count)
    one, two = (tmp_path / count for count in ("1", "2"))
    for name in ("values.parquet", "all_results.csv", "summary.md"):
        assert (one / name).read_bytes() == (two / name).read_bytes(), name
    networks = [sorted(file.name for file in (tmp_path / f"cache{c}").glob("*.safetensors")) for c in "12"]
    assert networks[0] == networks[1]
    assert len(networks[0]) == 2


def made(value: int) -> dict[str, list[int]]:
    return {"image": [value]}


def dies() -> dict[str, list[int]]:
    os._exit(3)


def unit(name: str, make: partial[dict[str, list[int]]]) -> Unit:
    return Unit(columns={"method": name}, recipe={}, make=make)


@pytest.mark.slow
def test_of_a_process_that_dies_the_finished_parts_stay_and_the_same_command_makes_the_rest(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy")
    good = unit("good", partial(made, 0))
    with workers.pool(1) as pool, pytest.raises(Unfinished, match=r"2 parts failed; the same command tries them again"):
        store.run([good, unit("bad", partial(dies)), unit("later", partial(made, 2))], pool)
    assert store.read(good) is not None
    store.run([good, unit("bad", partial(made, 1)), unit("later", partial(made, 2))])
    assert sorted(store.table()["image"].to_pylist()) == [0, 1, 2]


PROGRAM = """
import sys, time
from functools import partial
from pathlib import Path
from saliency_checks.studies import workers
from saliency_checks.studies.store import Store, Unit

if __name__ == "__main__":
    units = [Unit(columns={"method": "sleeps"}, recipe={}, make=partial(time.sleep, 600))]
    print("begun", flush=True)
    with workers.pool(1) as pool:
        Store(Path(sys.argv[1]), "toy").run(units, pool)
"""


@pytest.mark.slow
def test_a_killed_study_leaves_no_process_behind(tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    (tmp_path / "program.py").write_text(PROGRAM)
    program = [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "out")]
    with subprocess.Popen(program, stdout=subprocess.PIPE) as study:
        assert study.stdout
        study.stdout.readline()
        children: list[object] = []
        while len(children) < 2:  # a worker, and what keeps count of its resources
            children = psutil.Process(study.pid).children(recursive=True)
        study.kill()
    _, alive = psutil.wait_procs(children, timeout=60)
    assert not alive
