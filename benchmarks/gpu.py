"""Everything that a GPU should be asked, in one go: throughput, families, randomisation, options, precision.

    pip install -e '.[dev]' quantus          once; without quantus its rows say so
    python benchmarks/gpu.py                 on the best device there is; full size on CUDA, tiny elsewhere
    python benchmarks/gpu.py --write FILE    the table with device and versions

Networks are untrained: speed does not depend on weights. The drift of scores under another precision is measured on the
embedded fashion_cnn, which is trained when it is first needed.
"""

from __future__ import annotations

import argparse
import copy
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from engine import FAMILY, ready, small_cnn, subject_of
from scipy.stats import spearmanr
from torch import nn

from saliency_checks import cost, registry
from saliency_checks import device as devices
from saliency_checks.chunking import per_pass
from saliency_checks.loading import build_subject
from saliency_checks.method import as_method
from saliency_checks.methods.path import integrated_gradients
from saliency_checks.metric import Draw
from saliency_checks.metrics.cascading_randomization import similarities
from saliency_checks.perturbation import Plan
from saliency_checks.randomization import cascading
from saliency_checks.studies.provenance import versions
from saliency_checks.subject import Subject
from saliency_checks.vision import torchvision

DRIFT = ("deletion", "sensitivity_n", "infidelity", "minimal_subset_deletion", "max_sensitivity")
EXPLAINED = ("gradient", "integrated_gradients", "grad_cam")
METHODS, STEPS = 10, 20
TARGET, PEER_TARGET = 0.9, 10.0  # of the bare passes' throughput; times Quantus on the family
NOT_MEASURED = "not measured"
# Quantus gets as many passes for a score as ours has: twelve steps of a curve (of channel by channel), subsets of five
# sizes, and 196 squares to perturb.
QUARTER, SIZES, SUBSETS, SQUARES = 4, (0.1, 0.3, 0.5, 0.7, 0.9), 50, 14
# What Quantus has of the family, and which of its scores are called for each. It has no minimal subsets and no average
# drop, increase or gain: these five count in our time only.
PEER = {
    "deletion": ("falling",), "insertion": ("rising",), "srg": ("falling", "rising"), "aopc": ("falling",),
    "diffid": ("falling", "rising"), "sensitivity_n": ("subsets",), "infidelity": ("squares",),
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    what: str
    value: str
    target: str = ""


@dataclass(frozen=True)
class Place:
    """Where it runs and how large it is there."""

    device: torch.device
    images: int
    side: int
    models: dict[str, Callable[[], nn.Module]]

    @property
    def on_cuda(self) -> bool:
        return self.device.type == "cuda"

    def seconds(self, run: Callable[[], object], repeats: int = 3) -> float:
        run()
        spent = []
        for _ in range(repeats):
            self.wait()
            started = time.perf_counter()
            run()
            self.wait()
            spent.append(time.perf_counter() - started)
        return sorted(spent)[repeats // 2]

    def wait(self) -> None:
        if self.on_cuda:
            torch.cuda.synchronize()

    def subject(self, model: nn.Module) -> Subject:
        return subject_of(model, 3, self.side, self.images, str(self.device))


def place_of(name: str | None) -> Place:
    device = devices.take(name)
    if device.type == "cuda":
        models = torchvision().models
        return Place(device, 256, 224, {"resnet50": models.resnet50, "vit_b_16": models.vit_b_16})
    torch.set_num_threads(1)
    return Place(device, 8, 28, {"small_cnn": lambda: _three_channels(small_cnn())})


def _three_channels(model: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 1, 1), model)


def forward(model: nn.Module, inputs: torch.Tensor) -> None:
    with torch.no_grad():
        for part in inputs.split(per_pass(inputs)):
            model(part)


def throughput(place: Place, subject: Subject) -> Iterator[Row]:
    """A whole score over the same passes alone."""
    metric, method = registry.get("metrics", "srg").with_settings(scale="own"), ready(0, 3)
    passes = metric.settings.plan.passes(1, 1)

    def score() -> None:
        metric.measure(method, replace(subject), Draw(n=place.images))

    bare, spent = passes * place.seconds(lambda: forward(subject.model, subject.inputs)), place.seconds(score)
    yield Row("bare forward, images/s", f"{passes * place.images / bare:,.0f}")
    yield Row("engine (srg), images/s", f"{passes * place.images / spent:,.0f}")
    yield Row("engine over bare", f"{bare / spent:.0%}", f"{TARGET:.0%}")
    yield Row("GPU busy share", busy(place, score))


def busy(place: Place, run: Callable[[], object]) -> str:
    """Share of the time in which a kernel runs."""
    if not place.on_cuda:
        return NOT_MEASURED
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as found:
        started = time.perf_counter()
        run()
        place.wait()
        spent = time.perf_counter() - started
    return f"{sum(event.self_device_time_total for event in found.key_averages()) / 1e6 / spent:.0%}"


def family(place: Place, subject: Subject) -> Iterator[Row]:
    """Twelve scores of ten methods, shared, and the passes that they take."""
    metrics = [registry.get("metrics", metric) for metric in FAMILY]
    plan = Plan(frozenset())
    for metric in metrics:
        plan |= metric.settings.plan
    subject = replace(subject)  # with nothing measured yet
    place.wait()
    started = time.perf_counter()
    for method in (ready(i, 3) for i in range(METHODS)):
        for metric in metrics:
            metric.measure(method, subject, Draw(n=place.images))
    place.wait()
    spent, passes = time.perf_counter() - started, plan.passes(place.images, METHODS)
    yield Row(f"{len(FAMILY)} scores, {METHODS} methods, seconds", f"{spent:.1f} ({passes:,} passes)")
    called = [name for names in PEER.values() for name in names]
    try:
        each = quantus(place, subject)
    except ImportError as error:
        yield Row(f"{len(PEER)} of them by Quantus", f"{NOT_MEASURED}: {error}", f"{PEER_TARGET:.0f} times as long")
        return
    for how, names in (("a call for each score and method", called), ("curves shared by hand", list(each))):
        theirs, count = (sum(each[name][i] for name in names) for i in (0, 1))
        yield Row(
            f"{len(PEER)} of them by Quantus, {how}, seconds",
            f"{theirs:.1f} ({count:,.0f} passes), {theirs / spent:.1f} times as long",
            f"{PEER_TARGET:.0f} times as long",
        )


def quantus(place: Place, subject: Subject) -> dict[str, tuple[float, float]]:
    """Seconds and passes of each of its scores for all images and methods: it shares nothing, so that one map of a
    quarter of the images, scaled, says it. The maps are given to it.

    Raises:
        ImportError: it is not installed, or not whole.
    """
    torchvision()  # before it imports it
    import quantus as peer

    few = max(8, place.images // QUARTER)
    x, y = subject.inputs[:few].cpu().numpy(), subject.targets[:few].cpu().numpy()
    maps = torch.rand(few, 1, place.side, place.side, generator=torch.Generator().manual_seed(0)).numpy()
    plain = {"disable_warnings": True, "perturb_baseline": "mean", "normalise": False}
    flips = peer.PixelFlipping(features_in_step=place.side**2 // QUARTER, **plain)
    subsets = [
        peer.FaithfulnessCorrelation(nr_runs=SUBSETS, subset_size=int(share * place.side**2), **plain)
        for share in SIZES
    ]
    squares = peer.Infidelity(n_perturb_samples=1, perturb_patch_sizes=[place.side // SQUARES], **plain)
    runs = {
        "falling": ([flips], maps),
        "rising": ([flips], 1 - maps),
        "subsets": (subsets, maps),
        "squares": ([squares], maps),
    }
    counted, found, scale = cost.Passes(), {}, METHODS * place.images / few
    counted.watch(subject.model)
    for name, (scores, a) in runs.items():
        counted.count.clear()
        place.wait()
        started = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            for score in scores:
                score(subject.model, x, y, a, device=str(place.device), batch_size=per_pass(subject.inputs))
        place.wait()
        found[name] = (scale * (time.perf_counter() - started), scale * counted.count["forward"])
    return found


def explanations(place: Place, subject: Subject) -> Iterator[Row]:
    """Integrated gradients, ours and captum's, on the same batch."""
    from captum.attr import IntegratedGradients

    inputs, targets = (one[: max(1, place.images // 8)] for one in (subject.inputs, subject.targets))
    theirs = IntegratedGradients(subject.model)
    mine = place.seconds(
        lambda: integrated_gradients(subject.model, inputs.clone(), targets, baseline=0.5 + 0 * inputs, steps=STEPS)
    )
    peer = place.seconds(lambda: theirs.attribute(inputs, 0.5 + 0 * inputs, target=targets, n_steps=STEPS))
    yield Row("integrated gradients, captum's time over ours", f"{peer / mine:.2f}")


def randomised(place: Place, subject: Subject) -> Iterator[Row]:
    """Cascading randomisation with its similarities on the device."""
    images = min(32, place.images)

    def fall() -> None:
        similarities(cascading, as_method("gradient"), replace(subject), Draw(n=images, redraws=1), images)

    yield Row(f"cascading randomisation, {images} images, seconds", f"{place.seconds(fall, repeats=1):.1f}")


def options(place: Place, subject: Subject) -> Iterator[Row]:
    """What would be kept only if it gained something."""
    bare = place.seconds(lambda: forward(subject.model, subject.inputs))
    if place.on_cuda:
        compiled = torch.compile(subject.model, mode="reduce-overhead")
        gain = f"{bare / place.seconds(lambda: forward(compiled, subject.inputs)):.2f}"
    else:
        gain = NOT_MEASURED
    yield Row("torch.compile with CUDA graphs, gain of the forward pass", gain)
    last = subject.inputs.to(memory_format=torch.channels_last)
    model = copy.deepcopy(subject.model).to(memory_format=torch.channels_last)
    yield Row("channels_last, gain of the forward pass", f"{bare / place.seconds(lambda: forward(model, last)):.2f}")


def drift(place: Place) -> Iterator[Row]:
    """How far scores move under another precision, on a trained network."""
    subject = build_subject("fashion_cnn", str(place.device))
    for precision in ("tf32", "bf16") if place.on_cuda else ("bf16",):
        for name in DRIFT:
            metric = registry.get("metrics", name)
            exact, other = [], []
            for method in map(as_method, EXPLAINED):
                for kind, found in (("fp32", exact), (precision, other)):
                    with devices.computing(kind, place.device):
                        found.append(metric.measure(method, replace(subject), Draw(n=64)).values[0].mean(0))
            one, two = np.concatenate(exact), np.concatenate(other)
            means = max(abs(a.mean() - b.mean()) for a, b in zip(exact, other, strict=True))
            yield Row(
                f"drift of {name} in {precision}: largest of a method's mean, mean per image, rank correlation",
                f"{means:.4f}, {np.abs(one - two).mean():.4f}, {spearmanr(one, two).statistic:.3f}",
                f"spread of the scores {one.std():.3f}",
            )


def rows(place: Place, names: list[str]) -> Iterator[Row]:
    for name, make in place.models.items():
        subject = place.subject(make())
        for part in PARTS:
            if part.__name__ in names:
                yield from (replace(row, what=f"{name}: {row.what}") for row in safely(part, place, subject))
    if drift.__name__ in names:
        yield from safely(drift, place)


def safely(part: Callable[..., Iterator[Row]], *given: Any) -> Iterator[Row]:
    """Its rows; where it fails, that is a row too: time on a GPU is not had twice."""
    try:
        yield from part(*given)
    except Exception as error:
        yield Row(part.__name__, f"failed: {type(error).__name__}: {error}".replace("\n", " ").replace("|", "/"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device")
    parser.add_argument("--write", type=Path, metavar="FILE.md")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", help="of: " + " ".join(part.__name__ for part in (*PARTS, drift))
    )
    args = parser.parse_args()
    place = place_of(args.device)
    kind = torch.cuda.get_device_name(place.device) if place.on_cuda else "CPU, tiny sizes: not a GPU's numbers"
    lines = [f"Device: {kind}; " + ", ".join(f"{name} {version}" for name, version in versions().items()) + ".", ""]
    lines += ["| what | measured | target or scale |", "| --- | --- | --- |"]
    print("\n".join(lines), flush=True)
    for row in rows(place, args.only or [part.__name__ for part in (*PARTS, drift)]):
        lines.append(f"| {row.what} | {row.value} | {row.target} |")
        print(lines[-1], flush=True)
        if args.write:
            args.write.write_text("\n".join(lines) + "\n", "utf-8")


PARTS = (throughput, family, explanations, randomised, options)

if __name__ == "__main__":
    main()
