"""The model and the data, as training and the checks read them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

SIDE = 24


def network(classes: int) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(12, 24, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(24 * (SIDE // 4) ** 2, 32), nn.ReLU(), nn.Linear(32, classes),
    )  # fmt: skip


def read_images(folder: Path) -> tuple[torch.Tensor, torch.Tensor]:
    """All images of folder/CLASS/*.png (N, 3, H, W) as the network takes them, and their classes (N,)."""
    files = sorted(folder.glob("*/*.png"))
    classes = sorted({file.parent.name for file in files})
    images = np.stack([np.asarray(Image.open(file).convert("RGB"), dtype=np.float32) / 255 for file in files])
    labels = [classes.index(file.parent.name) for file in files]
    return torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), torch.tensor(labels)
