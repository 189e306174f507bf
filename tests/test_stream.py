"""Data sets that are read when needed: what is read, what cannot be, and that no more is held than a shard."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pyarrow import parquet

import saliency_checks as sc
from saliency_checks import cli
from saliency_checks.stream import Unreadable, to_tensor
from saliency_checks.subject import Subject
from saliency_checks.vision import torchvision

SIDE = 8


def picture(number: int, size: tuple[int, int] = (SIDE, SIDE), mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(number)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


def folder(root: Path, count: int = 12, classes: int = 3) -> Path:
    """``root/class/number.png``; some are grey or have another ending."""
    for i in range(count):
        place = root / f"class{i % classes}"
        place.mkdir(parents=True, exist_ok=True)
        picture(i, mode="L" if i == 5 else "RGB").save(place / f"{i:04}.{'bmp' if i == 4 else 'png'}")
    (root / "class0" / "notes.txt").write_text("no image")
    return root


def tar(path: Path, numbers: range, *, label: bool = True) -> Path:
    with tarfile.open(path, "w") as archive:
        for i in numbers:
            data = io.BytesIO()
            picture(i).save(data, "png")
            for name, content in ((f"a/{i:04}.png", data.getvalue()), (f"a/{i:04}.cls", f"{i % 3}\n".encode())):
                if label or name.endswith("png"):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))
    return path


def model(classes: int = 3) -> torch.nn.Module:
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * SIDE * SIDE, classes)).eval()


def read(subject: Subject) -> tuple[torch.Tensor, torch.Tensor]:
    shard = subject.cut(0, subject.size, subject.size)
    return shard.inputs, shard.targets


def test_a_folder_is_read_as_torchvision_reads_it(tmp_path: Path) -> None:
    transforms = torchvision().transforms
    theirs = torchvision().datasets.ImageFolder(str(folder(tmp_path)), transform=transforms.ToTensor())
    inputs, targets = read(sc.stream(model(), sc.image_folder(tmp_path)))
    assert len(theirs) == len(inputs) == 12
    assert torch.equal(inputs, torch.stack([image for image, _ in theirs]))
    assert targets.tolist() == [label for _, label in theirs]


def test_every_kind_of_data_set_gives_the_same_images(tmp_path: Path) -> None:
    found = sc.image_folder(folder(tmp_path / "folder"))
    files = sc.Files([str(path) for path in found.paths], found.labels)
    theirs = torchvision().datasets.ImageFolder(str(tmp_path / "folder"))
    reference = read(sc.stream(model(), found))
    for images in (files, theirs):
        for one, other in zip(reference, read(sc.stream(model(), images)), strict=True):
            assert torch.equal(one, other)
    tars = sc.Tars([tar(tmp_path / "0.tar", range(5)), tar(tmp_path / "1.tar", range(5, 12))])
    inputs, targets = read(sc.stream(model(), tars))
    assert torch.equal(inputs, torch.stack([to_tensor(picture(i)) for i in range(12)]))
    assert targets.tolist() == [i % 3 for i in range(12)]


@pytest.mark.parametrize("size", [(40, 30), (30, 41), (16, 16), (9, 50)])
def test_images_are_resized_and_cut_as_is_usual(size: tuple[int, int]) -> None:
    transforms, image = torchvision().transforms, picture(0, size)
    usual = transforms.Compose([transforms.Resize(16), transforms.CenterCrop(14), transforms.ToTensor()])
    assert torch.equal(to_tensor(image, 14), usual(image))


def test_an_image_without_a_class_is_named(tmp_path: Path) -> None:
    with pytest.raises(Unreadable, match=r"0001\.png has no a/0001\.cls beside it"):
        sc.Tars([tar(tmp_path / "0.tar", range(1, 3), label=False)])


@pytest.mark.parametrize("what", ["empty folder", "nothing readable", "no pair"])
def test_a_data_set_without_an_image_is_refused(tmp_path: Path, what: str) -> None:
    def made() -> Any:
        if what == "empty folder":
            return sc.image_folder(tmp_path)
        if what == "no pair":
            return sc.Tars([tar(tmp_path / "0.tar", range(0))])
        (tmp_path / "a.png").write_text("no image")
        return sc.Files([tmp_path / "a.png"], [0])

    with pytest.raises(Unreadable, match=r"expected folders|no pair|none of the first images can be read"):
        sc.stream(model(), made())


def test_the_class_to_explain_may_be_the_predicted_one(tmp_path: Path) -> None:
    subject = sc.stream(model(), sc.image_folder(folder(tmp_path)), explain="predicted")
    inputs, targets = read(subject)
    assert torch.equal(targets, subject.model(inputs).argmax(1))
    with pytest.raises(ValueError, match="expected 'label' or 'predicted'"):
        sc.stream(model(), sc.image_folder(tmp_path), explain="lable")


BROKEN = {3: "cut", 7: "text", 40: "size", 66: "nan"}


class Broken:
    """Seventy images, four of which cannot be used."""

    def __len__(self) -> int:
        return 70

    def __getitem__(self, index: int) -> tuple[Any, int]:
        what = BROKEN.get(index)
        data = io.BytesIO()
        picture(index, (5, 5) if what == "size" else (SIDE, SIDE)).save(data, "png")
        content = data.getvalue()[:60] if what == "cut" else b"text" if what == "text" else data.getvalue()
        image = to_tensor(Image.open(io.BytesIO(content)))
        return image * float("nan") if what == "nan" else image, index % 3


def broken() -> Subject:
    return sc.stream(model(), Broken(), absent=0.5)


def whole() -> Subject:
    """The same in memory, with anything in the place of the broken ones."""
    images = torch.stack([to_tensor(picture(i)) for i in range(70)])
    return Subject(model(), images, torch.arange(70) % 3, absent=0.5)


def noisy(net: torch.nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    return net[1].weight[targets].detach().view_as(inputs) * inputs + 0.1 * torch.randn_like(inputs)


def test_broken_images_are_reported_and_the_others_scored_as_from_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = {}
    for name, build in (("broken", broken), ("whole", whole)):
        toys = ModuleType(f"toys_{name}")
        toys.images, toys.noisy = build, noisy  # type: ignore[attr-defined]  # of one name: draws are keyed by it
        monkeypatch.setitem(sys.modules, toys.__name__, toys)
        arguments = [
            "study", "benchmark", "--out", str(tmp_path / name), "--methods", f"{toys.__name__}:noisy", "--metrics",
            "deletion@attribench", "sensitivity_n@attribench", "--subjects", f"{toys.__name__}:images", "--images",
            "100", "--shard", "32", "--steps", "3", "--draws", "3", "--device", "cpu",
        ]  # fmt: skip
        assert cli.main(arguments) == 0
        tables[name] = parquet.read_table(tmp_path / name / "scores.parquet").to_pylist()
    assert {r["image"] for r in tables["broken"] if r["skipped"]} == set(BROKEN)
    assert all(np.isnan(r["score"]) for r in tables["broken"] if r["skipped"])
    page = (tmp_path / "broken" / "summary.md").read_text()
    for image, why in ((7, "UnidentifiedImageError"), (40, "(3, 5, 5), the others' (3, 8, 8)"), (66, "not finite")):
        assert f"images image {image}: " in page
        assert why in page
    keys = ("method", "metric", "image")
    good = {tuple(r[k] for k in keys): r["score"] for r in tables["broken"] if not r["skipped"]}
    assert good == {tuple(r[k] for k in keys): r["score"] for r in tables["whole"] if r["image"] not in BROKEN}


def test_a_score_of_all_images_at_once_is_refused_where_they_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "stream_toys", sys.modules[__name__])
    arguments = [
        "study", "benchmark", "--out", str(tmp_path), "--methods", "stream_toys:noisy", "--metrics", "flip_agreement",
        "entropy", "--subjects", "stream_toys:broken", "--images", "32", "--device", "cpu",
    ]  # fmt: skip
    assert cli.main(arguments) == 0
    assert "depends on all images at once" in (tmp_path / "summary.md").read_text()
    assert set(parquet.read_table(tmp_path / "scores.parquet")["metric"].to_pylist()) == {"entropy"}


def test_the_gate_judges_the_sample() -> None:
    subject = broken()
    assert len(subject) == 64
    assert subject.size == 70
    assert len(sc.measure("entropy", noisy, subject, n=32)) == 32


PEAK = """
import resource, sys
import numpy as np, torch
import saliency_checks as sc
from saliency_checks import cli

class Many:
    def __init__(self, count):
        self.count = count
    def __len__(self):
        return self.count
    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        return torch.from_numpy(rng.random((3, 64, 64), dtype=np.float32)), index % 3

def many():
    model = torch.nn.Sequential(torch.nn.AvgPool2d(8), torch.nn.Flatten(), torch.nn.Linear(192, 3)).eval()
    return sc.stream(model, Many(int(sys.argv[1])))

if __name__ == "__main__":
    code = cli.main(["study", "benchmark", "--out", sys.argv[2], "--methods", "gradient", "--metrics", "entropy",
        "--subjects", "peak:many", "--images", sys.argv[1], "--shard", "64", "--device", "cpu"])
    print(code, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path) -> None:
    """Held, 1,500 more images of 64 pixels were 74 megabytes."""
    (tmp_path / "peak.py").write_text(PEAK)
    peaks = []
    for count in (256, 1792):
        done = subprocess.run(
            [sys.executable, tmp_path / "peak.py", str(count), str(tmp_path / str(count))], capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(tmp_path)}, timeout=120,
        )  # fmt: skip
        code, peak = done.stdout.split()[-2:]
        assert code == "0", done.stderr
        peaks.append(int(peak) * (1 if sys.platform == "darwin" else 1024))
    assert peaks[1] - peaks[0] < 25e6, peaks
