"""The map of every method on one photograph and a pretrained network: draws docs/images/methods.jpg.

    python scripts/gallery.py [--side 224]      # twenty minutes on one core; what was found stays in build/gallery

The photograph is scikit-image's Chelsea the cat (CC0), the network EfficientNet-Lite0 (``dev`` extra).
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import matplotlib
import numpy as np
import torch
from torch.nn import functional as F

from saliency_checks import registry
from saliency_checks.explain import explain
from saliency_checks.loading import build_subject
from saliency_checks.method import Method
from saliency_checks.subject import Subject

matplotlib.use("agg")
import matplotlib.pyplot as plt

sys.path.append(str(Path(__file__).parents[1] / "tests"))
from pretrained import MEAN, SD, lite0, photos

ACROSS = 8
KEPT = Path("build/gallery")


def photograph(side: int) -> torch.Tensor:
    from skimage import data

    image = torch.from_numpy(data.chelsea().copy()).permute(2, 0, 1).unsqueeze(0) / 255
    square = image[..., 40:300, 100:360]
    return F.interpolate(square, size=(side, side), mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)


def found(method: Method, subject: Subject, side: int) -> np.ndarray:
    file = KEPT / f"{method.name}-{side}.npy"
    if not file.exists():
        started = time.perf_counter()
        maps = explain(method, subject.model, subject.inputs, subject.targets, seed=0, **subject.supplies)
        np.save(file, maps[0].cpu().numpy())
        print(f"{method.name:36}{time.perf_counter() - started:7.1f} s", flush=True)
    return np.load(file)


def draw(image: np.ndarray, maps: dict[str, np.ndarray], file: Path) -> None:
    down = -(-(len(maps) + 1) // ACROSS)
    figure, axes = plt.subplots(down, ACROSS, figsize=(1.75 * ACROSS, 2.0 * down))
    for axis in axes.flat:
        axis.axis("off")
    axes.flat[0].imshow(image)
    axes.flat[0].set_title("image", fontsize=8)
    for axis, (name, values) in zip(list(axes.flat)[1:], maps.items(), strict=False):
        top = float(np.quantile(np.abs(values), 0.995)) or 1.0
        signed = bool((values < 0).any())
        axis.imshow(values, cmap="RdBu_r" if signed else "magma", vmin=-top if signed else 0, vmax=top)
        axis.set_title(name.replace("integrated_gradients", "ig").replace("recalibrated", "recal."), fontsize=7)
    figure.tight_layout(pad=0.3)
    figure.savefig(file, dpi=80, pil_kwargs={"quality": 80})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=224)
    options = parser.parse_args()
    KEPT.mkdir(parents=True, exist_ok=True)
    image = photograph(options.side)
    inputs, model = (image - MEAN) / SD, lite0()
    with torch.no_grad():
        target = model(inputs).argmax(1)
    others = photos(options.side)[0]  # what methods compare with
    subject = build_subject(
        Subject(model, inputs, target, references=others, absent=tuple(others.mean((0, 2, 3)).tolist()))
    )
    maps = {name: found(registry.get("methods", name), subject, options.side) for name in registry.names("methods")}
    file = Path("docs/images/methods.jpg")
    file.parent.mkdir(parents=True, exist_ok=True)
    draw(image[0].permute(1, 2, 0).numpy(), maps, file)
    print(f"class {int(target)}; wrote {file}")


if __name__ == "__main__":
    main()
