"""torchvision is imported late, in one place, and also beside a torch that it was not built for."""

from __future__ import annotations

import importlib
import re
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from saliency_checks import fixtures, vision

ROOT = Path(__file__).parent.parent
MISMATCH = "operator torchvision::nms does not exist"


@pytest.fixture
def imports(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """Make the imports of torchvision raise these errors in turn, then succeed; returns what was done."""
    done: list[str] = []

    def arrange(*errors: Exception) -> list[str]:
        left = list(errors)

        def import_module(name: str) -> ModuleType:
            done.append("import")
            if left:
                raise left.pop(0)
            return ModuleType(name)

        monkeypatch.setattr(importlib, "import_module", import_module)
        monkeypatch.setattr(vision, "_declare_missing_operators", lambda: done.append("declare"))
        # What is really loaded must not be taken out of sys.modules by the test.
        monkeypatch.setattr(sys, "modules", {k: v for k, v in sys.modules.items() if "torchvision" not in k})
        vision.torchvision.cache_clear()
        return done

    return arrange


@pytest.fixture(autouse=True)
def _forget() -> None:
    vision.torchvision.cache_clear()


def test_nothing_is_declared_where_the_builds_match(imports: Callable[..., list[str]]) -> None:
    done = imports()
    vision.torchvision()
    vision.torchvision.cache_clear()
    assert done == ["import"]


def test_the_missing_operators_are_declared_after_that_failure_and_it_is_imported_again(
    imports: Callable[..., list[str]],
) -> None:
    done = imports(RuntimeError(MISMATCH))
    vision.torchvision()
    vision.torchvision.cache_clear()
    assert done == ["import", "declare", "import"]


@pytest.mark.parametrize("error", [RuntimeError("CUDA driver too old"), ImportError("no module torchvision")])
def test_any_other_failure_is_the_callers(imports: Callable[..., list[str]], error: Exception) -> None:
    done = imports(error)
    with pytest.raises(type(error), match=str(error)):
        vision.torchvision()
    assert done == ["import"]


def test_models_and_data_sets_work_with_the_installed_pair() -> None:
    assert vision.torchvision().models.resnet18
    assert vision.torchvision().datasets.FashionMNIST


def test_torchvision_is_imported_in_one_module_and_only_when_needed() -> None:
    importing = re.compile(r"^\s*(import|from)\s+torchvision|import_module\(.torchvision", re.MULTILINE)
    files = [path for room in ("saliency_checks", "fixtures", "checks") for path in (ROOT / room).rglob("*.py")]
    assert [path.name for path in files if importing.search(path.read_text(encoding="utf-8"))] == ["vision.py"]
    program = "import sys, saliency_checks.fixtures; sys.exit('torchvision' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.fixture(scope="module")
def resnet() -> nn.Module:
    return vision.resnet18(channels=1, classes=10).eval()


def test_the_small_resnet_keeps_its_resolution_in_the_stem(resnet: nn.Module) -> None:
    images = torch.rand(2, 1, 28, 28)
    assert resnet(images).shape == (2, 10)
    assert resnet.conv1(images).shape[-2:] == (28, 28)


def test_the_small_resnet_computes_what_torchvisions_own_does(resnet: nn.Module) -> None:
    peer = vision.torchvision().models.resnet18(num_classes=10)
    peer.conv1 = nn.Conv2d(1, 64, 3, padding=1, bias=False)
    peer.load_state_dict(resnet.state_dict())
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        torch.testing.assert_close(resnet(images), peer.eval()(images))


def write_idx(folder: Path, part: str, pixels: torch.Tensor, labels: torch.Tensor) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    image_header = struct.pack(">4i", 2051, *pixels.shape)
    (folder / f"{part}-images-idx3-ubyte").write_bytes(image_header + pixels.numpy().tobytes())
    (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">2i", 2049, len(labels)) + labels.numpy().tobytes())


@pytest.mark.parametrize("name", ["FashionMNIST", "MNIST"])
def test_complete_sets_come_from_a_folder(tmp_path: Path, name: str) -> None:
    pixels = torch.randint(256, (5, 28, 28), dtype=torch.uint8)
    labels = torch.arange(5, dtype=torch.uint8)
    for part in ("train", "t10k"):
        write_idx(tmp_path / name / "raw", part, pixels, labels)
    images, found = fixtures.load(tmp_path, name)
    assert torch.equal((images * 255).round().to(torch.uint8), pixels.unsqueeze(1))
    assert found.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("name", ["FashionMNIST", "MNIST", "CIFAR10"])
def test_files_that_are_not_there_are_named_and_never_fetched_unasked(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=rf"no complete {name} in .*download=True"):
        fixtures.load(tmp_path, name)
    assert not list(tmp_path.iterdir())


def test_an_unknown_set_and_a_missing_folder_say_what_was_expected() -> None:
    with pytest.raises(ValueError, match="expected one of FashionMNIST"):
        fixtures.load(name="ImageNet")
    with pytest.raises(ValueError, match="not embedded"):
        fixtures.load(name="CIFAR10")
