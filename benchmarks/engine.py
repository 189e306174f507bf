"""The perturbation engine: its overhead over bare passes, and the faithfulness family shared against one by one.

python benchmarks/engine.py [--images N]

Every ratio is taken in one run, on the same images; maps are ready beforehand and cost nothing. On a CPU seconds are
those that this process computed for, so that a machine that others use as well changes little.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import nn

from saliency_checks import registry
from saliency_checks.chunking import per_pass
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Metric
from saliency_checks.perturbation import Plan
from saliency_checks.subject import Subject
from saliency_checks.vision import torchvision

FAMILY = (
    "deletion", "insertion", "srg", "aopc", "diffid", "minimal_subset_deletion", "minimal_subset_insertion",
    "sensitivity_n", "infidelity", "average_drop", "average_increase", "average_gain",
)  # fmt: skip
SETTINGS = ({}, {"unit": "segment", "segments": "grid"}, {"imputer": "blur"}, {"imputer": "noisy_linear"})


def small_cnn() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.MaxPool2d(2), nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(32 * 49, 10),
    )  # fmt: skip


def subject_of(model: nn.Module, channels: int, size: int, images: int, device: str) -> Subject:
    torch.manual_seed(0)
    inputs = torch.rand(images, channels, size, size, device=device)
    model = model.eval().to(device)
    with torch.no_grad():
        targets = torch.cat([model(some) for some in inputs.split(per_pass(inputs))]).argmax(1)
    return Subject(model, inputs, targets, name="benchmark", absent=0.5)


def ready(number: int, channels: int) -> Method:
    """A map that needs no model: noise that is smooth, so that holes are large."""

    def explain(model: nn.Module, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        rng = torch.Generator().manual_seed(number)
        cells = torch.rand(len(inputs), channels, 7, 7, generator=rng).to(inputs.device)
        return nn.functional.interpolate(cells, size=inputs.shape[-2:], mode="bilinear")

    return Method(name=f"map_{number}", explain=explain, signed=True)


def seconds(work: Callable[[], object], device: str) -> float:
    if device == "cpu":
        start = time.process_time()
        work()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def batches(subject: Subject, work: Callable[[], object]) -> list[int]:
    """Sizes of the batches that the model gets."""
    sizes: list[int] = []
    handle = subject.model.register_forward_pre_hook(lambda module, args: sizes.append(len(args[0])))
    work()
    handle.remove()
    return sizes


def bare(subject: Subject, sizes: list[int]) -> None:
    """The model alone, on ready images in batches of these sizes."""
    ready = subject.inputs.repeat(1 + max(sizes) // len(subject), 1, 1, 1)
    with torch.no_grad():
        for size in sizes:
            subject.model(ready[:size])


def overhead(subject: Subject, metric: Metric, device: str, repeats: int = 5) -> float:
    """Seconds of a whole score over seconds of its passes, median; ranking, masking and imputing included."""
    draw, ratios = Draw(n=len(subject)), []

    def work(number: int) -> None:
        metric.measure(ready(number, subject.inputs.shape[1]), replace(subject), draw)

    sizes = batches(subject, lambda: work(repeats))
    for repeat in range(repeats):
        spent = seconds(lambda number=repeat: work(number), device)
        ratios.append(spent / seconds(lambda: bare(subject, sizes), device))
    return statistics.median(ratios)


def family(subject: Subject, methods: int, device: str) -> tuple[float, float, int, int]:
    """(seconds shared, seconds one by one, passes shared, passes one by one) of ``FAMILY`` for so many methods."""
    metrics = [registry.get("metrics", name) for name in FAMILY]
    maps, draw = [ready(i, subject.inputs.shape[1]) for i in range(methods)], Draw(n=len(subject))
    common = replace(subject)
    shared = seconds(lambda: [m.measure(one, common, draw) for m in metrics for one in maps], device)
    separate = seconds(lambda: [m.measure(one, replace(subject), draw) for m in metrics for one in maps], device)
    joint = Plan(frozenset())
    for metric in metrics:
        joint |= metric.settings.plan
    apart = sum(metric.settings.plan.passes(len(subject)) for metric in metrics) * methods
    return shared, separate, joint.passes(len(subject), methods), apart


def road(subject: Subject, repeats: int = 3) -> tuple[float, float]:
    """(seconds of ours, seconds of pytorch-grad-cam's) of ROAD from both ends at four shares, medians."""
    from pytorch_grad_cam.metrics.road import ROADCombined
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputSoftmaxTarget

    wanted = [ClassifierOutputSoftmaxTarget(int(target)) for target in subject.targets]
    theirs, metric, spent = ROADCombined(percentiles=[20, 40, 60, 80]), registry.get("metrics", "road"), []
    for number in range(repeats):
        method = ready(number, 1)
        drawn = method.explain(subject.model, subject.inputs, subject.targets)[:, 0].numpy()
        spent.append((
            seconds(lambda m=method: metric.measure(m, replace(subject), Draw(n=len(subject))), "cpu"),
            seconds(lambda d=drawn: theirs(subject.inputs, d, wanted, subject.model), "cpu"),
        ))  # fmt: skip
    return tuple(map(statistics.median, zip(*spent, strict=True)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64, help="at 28 pixels; a sixteenth of it at 224")
    parser.add_argument("--device", default="cpu")
    args = parser.parse_args()
    torch.set_num_threads(1)
    cases = (
        ("28 px, small CNN", small_cnn(), 1, 28, args.images),
        ("224 px, ResNet-18", torchvision().models.resnet18(), 3, 224, max(2, args.images // 16)),
    )
    print("a score's seconds over those of its bare passes")
    for label, model, channels, size, images in cases:
        subject = subject_of(model, channels, size, images, args.device)
        for changes in SETTINGS:
            metric = registry.get("metrics", "srg").with_settings(scale="own", **changes)
            shown = ", ".join(changes.values()) or "pixel, absent"
            print(
                f"  {label:20}{images:4} images  {shown:20}{overhead(subject, metric, args.device, 3):6.2f}", flush=True
            )
        if args.device == "cpu":
            try:
                ours, theirs = road(replace(subject))
            except ImportError:
                print("  no pytorch-grad-cam: pip install 'saliency-checks[peers]'")
            else:
                told = f"{ours:6.2f} s, pytorch-grad-cam {theirs:7.2f} s: {theirs / ours:.0f} times as long"
                print(f"  {label:20}{images:4} images  road {told}", flush=True)
    few_images = max(8, args.images // 4)
    subject = subject_of(small_cnn(), 1, 28, few_images, args.device)
    shared, separate, few, many = family(subject, 10, args.device)
    print(f"{len(FAMILY)} scores for ten methods, {few_images} images at 28 px")
    print(f"  shared      {shared:7.1f} s  {few:9} passes")
    print(f"  one by one  {separate:7.1f} s  {many:9} passes   {separate / shared:.1f} times as long")


if __name__ == "__main__":
    main()
