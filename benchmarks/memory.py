"""Peak memory of whole faithfulness scores as images and methods grow, beyond the images themselves.

    python benchmarks/memory.py [--images 32 96 192 384] [--methods 1 4] [--size 224]

Each pair runs in a process of its own on a tiny network, so that what is measured is what the program holds. ``kept``
are the bytes of the maps and segments that the subject keeps afterwards.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.subject import Subject

FAMILY = ("srg", "deletion", "insertion", "irof")


def method(number: int) -> Method:
    """A map that costs no pass and has all channels, as most gradients do."""

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        return inputs.roll(number, dims=-1)

    return Method(name=f"map_{number}", explain=explain, signed=True)


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measured(images: int, methods: int, size: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 7, stride=8), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten())
    inputs = torch.rand(images, 3, size, size)
    subject = Subject(model.eval(), inputs, torch.zeros(images, dtype=torch.long), name="tiny", absent=0.5)
    before = peak()
    for number in range(methods):
        for name in FAMILY:
            metric = registry.get("metrics", name)
            changes = {"scale": "own", **({"segments": "grid"} if name == "irof" else {})}
            metric.with_settings(**changes).measure(method(number), subject, Draw(n=images))
    kept = getattr(getattr(subject, "recent", None), "held", 0)
    print(f"RESULT {peak() - before} {kept} {inputs.nbytes}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[32, 96, 192, 384])
    parser.add_argument("--methods", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measured(args.images[0], args.methods[0], args.size)
        return
    print(f"{', '.join(FAMILY)} at {args.size} pixels; MB")
    print("methods   images   the images   beyond them   kept")
    for methods in args.methods:
        for images in args.images:
            asked = ["--images", str(images), "--methods", str(methods), "--size", str(args.size), "--child"]
            done = subprocess.run([sys.executable, Path(__file__), *asked], text=True, capture_output=True)
            if done.returncode:
                raise SystemExit(done.stdout + done.stderr)
            beyond, kept, own = (int(value) / 1e6 for value in done.stdout.split("RESULT")[1].split())
            print(f"{methods:7}{images:9}{own:13.0f}{beyond:14.0f}{kept:7.0f}", flush=True)


if __name__ == "__main__":
    main()
