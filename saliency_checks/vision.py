"""The only import of torchvision: when first needed, and also beside a build of torch that it does not match."""

from __future__ import annotations

import importlib
import sys
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from jaxtyping import Int, UInt8

_keep_alive: list[Any] = []  # a torch Library takes its operators with it when it is collected


@lru_cache
def torchvision() -> ModuleType:
    """torchvision with its models and data sets.

    A wheel with CUDA operators beside a CPU-only torch fails at import with ``operator torchvision::nms does not
    exist``. Then, and only then, the two missing operators are declared (not implemented) and it is imported again:
    models, transforms and data sets work, ``ops.nms`` and image decoding do not.

    Raises:
        ImportError: torchvision is not installed.
        RuntimeError: another mismatch with the installed torch.
    """
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    _declare_missing_operators()
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]  # half imported
    return importlib.import_module("torchvision")


def _declare_missing_operators() -> None:
    library = torch.library.Library("torchvision", "FRAGMENT")
    for name in ("nms", "qnms"):
        library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    _keep_alive.append(library)


def images(
    name: str, folder: Path, *, train: bool, download: bool
) -> tuple[UInt8[Tensor, "n c h w"], Int[Tensor, " n"]]:
    """All images and labels of ``FashionMNIST``, ``MNIST`` or ``CIFAR10`` in ``folder`` (torchvision's root).

    Raises:
        FileNotFoundError: says which folder was looked in and how to get the files.
    """
    dataset = getattr(torchvision().datasets, name)
    try:
        found = dataset(str(folder), train=train, download=download)
    except RuntimeError as error:
        if download or "not found" not in str(error).lower():
            raise
        inside = "cifar-10-batches-py" if name == "CIFAR10" else f"{name}/raw"
        raise FileNotFoundError(
            f"no complete {name} in {folder}: expected torchvision's files in {folder / inside};"
            " download=True fetches them"
        ) from error
    pixels = torch.as_tensor(found.data)
    pixels = pixels.unsqueeze(1) if pixels.ndim == 3 else pixels.permute(0, 3, 1, 2)
    return pixels.contiguous(), torch.as_tensor(found.targets)


def resnet18(*, channels: int, classes: int) -> nn.Module:
    """torchvision's ResNet-18 for small images: a 3x3 stem of stride 1, random weights, every ReLU its own module.

    Attribution rules hook modules, so an activation that is called twice, or writes in place, is explained wrongly.
    """
    resnet: Any = torchvision().models.resnet

    class Block(resnet.BasicBlock):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            self.relu = nn.ReLU()
            self.relu_out = nn.ReLU()

        def forward(self, x: Tensor) -> Tensor:
            shortcut = x if self.downsample is None else self.downsample(x)
            residual = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
            out: Tensor = self.relu_out(residual + shortcut)
            return out

    model: nn.Module = resnet.ResNet(Block, [2, 2, 2, 2], num_classes=classes)
    model.conv1 = nn.Conv2d(channels, 64, kernel_size=3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.relu = nn.ReLU()
    return model


def classifier(name: str, *, classes: int) -> nn.Module:
    """torchvision's ``resnet18``, ``resnet101`` or ``vgg16`` (no batch norm) with random weights, for RGB images."""
    model: nn.Module = getattr(torchvision().models, name)(weights=None, num_classes=classes)
    return model
