"""Peak memory and speed of a benchmark over tar shards of JPEG files, from 1,000 images to 50,000.

    python benchmarks/streaming.py [--counts 1000 50000] [--side 96] [--network small|resnet18]

The last column is the share of the time in which nothing is scored, because images are read and decoded: what decoding
ahead could hide at most. The images are generated. Each count runs in a process of its own, whose peak resident memory
is reported; held as tensors, 50,000 images of 96 pixels were 5.5 gigabytes.
"""

from __future__ import annotations

import argparse
import io
import os
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

import saliency_checks as sc
from saliency_checks import cli
from saliency_checks.stream import Stream
from saliency_checks.vision import torchvision

FOLDER, SIDE, NETWORK = "STREAMING_FOLDER", "STREAMING_SIDE", "STREAMING_NETWORK"
PER_TAR = 5000


def small() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, stride=4), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(128, 10)
    )


NETWORKS = {"small": small, "resnet18": lambda: torchvision().models.resnet18(num_classes=10)}


def generate(folder: Path, count: int, side: int) -> None:
    for first in range(0, count, PER_TAR):
        with tarfile.open(folder / f"{first:06}.tar", "w") as archive:
            for i in range(first, min(first + PER_TAR, count)):
                rng, data = np.random.default_rng(i), io.BytesIO()
                coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
                coarse.resize((side + 10, side), Image.Resampling.BILINEAR).save(data, "jpeg", quality=85)
                for name, content in ((f"{i:06}.jpg", data.getvalue()), (f"{i:06}.cls", str(i % 10).encode())):
                    member = tarfile.TarInfo(name)
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def generated() -> sc.Subject:
    """An untrained network on the tars of the folder."""
    torch.manual_seed(0)
    side, model = int(os.environ[SIDE]), NETWORKS[os.environ[NETWORK]]()
    tars = sc.Tars(sorted(Path(os.environ[FOLDER]).glob("*.tar")))
    return sc.stream(model.eval(), tars, side=side, name="generated")


def measured(out: Path, count: int) -> None:
    torch.set_num_threads(1)
    load, decoding = Stream.load, [0.0]

    def timed(stream: Stream, rows: range) -> object:
        started = time.perf_counter()
        found = load(stream, rows)
        decoding[0] += time.perf_counter() - started
        return found

    Stream.load = timed  # type: ignore[method-assign,assignment]
    started = time.perf_counter()
    code = cli.main([
        "study", "benchmark", "--out", str(out), "--methods", "gradient", "--metrics", "entropy",
        "--subjects", "streaming:generated", "--images", str(count), "--device", "cpu",
    ])  # fmt: skip
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    spent = time.perf_counter() - started
    print(f"RESULT {code} {peak} {spent:.1f} {decoding[0] / spent:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 50000])
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--network", choices=NETWORKS, default="small")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        measured(Path(args.child[0]), int(args.child[1]))
        return
    print("images   peak MB   seconds   images/s   decoding")
    for count in args.counts:
        with tempfile.TemporaryDirectory() as place:
            tars = Path(place) / "tars"
            tars.mkdir()
            generate(tars, count, args.side)
            path = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
            done = subprocess.run(
                [sys.executable, __file__, "--child", str(Path(place) / "out"), str(count)], text=True,
                capture_output=True,
                env={**os.environ, FOLDER: str(tars), SIDE: str(args.side), NETWORK: args.network, "PYTHONPATH": path},
            )  # fmt: skip
            found = [line.split() for line in done.stdout.splitlines() if line.startswith("RESULT")]
            if not found or found[0][1] != "0":
                raise SystemExit(done.stdout + done.stderr)
            peak, seconds, share = int(found[0][2]), float(found[0][3]), float(found[0][4])
            print(f"{count:6}   {peak / 1e6:7.0f}   {seconds:7.0f}   {count / seconds:8.1f}   {share:8.1%}", flush=True)


if __name__ == "__main__":
    main()
