"""What a benchmark costs: passes through the model, known before it runs, times measured seconds per pass.

    python benchmarks/scale.py [--images 32] [--side 96]      the model against a measured run, on a CPU
    python benchmarks/scale.py --imagenet FORWARD BACKWARD    a whole ImageNet, for these images/s of one GPU

Seconds are those of the processor, not of the clock, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence

import torch
from torch import nn

import saliency_checks as sc
from saliency_checks import cli, cost, registry
from saliency_checks.chunking import per_pass
from saliency_checks.explain import LEAST_PER_CALL
from saliency_checks.method import as_method
from saliency_checks.metric import Metric
from saliency_checks.studies.benchmark import METHODS, METRICS, RANDOM, coarser
from saliency_checks.vision import torchvision

TRIED = ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "grad_cam", "deep_lift")
SCORED = (
    "deletion@attribench", "deletion@attribench_lerf", "insertion@attribench", "irof@attribench",
    "infidelity@attribench_square", "sensitivity_n@attribench", "minimal_subset_deletion@attribench",
    "max_sensitivity@attribench",
)  # fmt: skip
STEPS, DRAWS = 10, 6
IMAGENET, GPUS = 50_000, (1, 8, 64)
ATTACK = 4  # passes that an image's patch takes on average: most turn in the first tries


def explanations(metric: Metric, stochastic: bool) -> int:
    """Further ones that an image takes."""
    if metric.name.startswith("max_sensitivity"):
        return int(metric.settings.draws) + stochastic
    return int(metric.name.startswith("impact_coverage"))


def passes(methods: Sequence[str], metrics: Sequence[Metric]) -> Counter[str]:
    """Of one image, forward and backward: what all scores ask the model, once each, and the explanations."""
    found: Counter[str] = Counter()
    asked = {}
    for name in dict.fromkeys((RANDOM, *methods)):
        method = as_method(name)
        each = cost.cost(method)
        calls = 1 + sum(explanations(metric, method.stochastic) for metric in metrics)
        found["forward"] += round(calls * each.forward)
        found["backward"] += round(calls * each.backward)
        for metric in metrics:
            if plan := getattr(metric.settings, "plan", None):
                asked |= {part if part.shared else (method.name, part): part.steps for part in plan.parts}
            if metric.name.startswith("max_sensitivity"):
                found["forward"] += metric.settings.draws + 1  # is the prediction the same?
            if metric.name.startswith("impact_coverage"):
                asked["attack"] = ATTACK
    found["forward"] += sum(asked.values())
    return found


def seconds_per_pass(model: nn.Module, inputs: torch.Tensor, repeats: int = 5) -> dict[str, float]:
    """Of the processor: a forward pass as the scores make it, and a backward pass as the explanations make it."""
    size = per_pass(inputs)
    batch = inputs.repeat(-(-size // len(inputs)), 1, 1, 1)[:size]
    few = inputs[: max(LEAST_PER_CALL, size)]

    def timed(once: object) -> float:
        spent = []
        for _ in range(repeats):
            started = time.process_time()
            once()  # type: ignore[operator]
            spent.append(time.process_time() - started)
        return sorted(spent)[repeats // 2]

    def forward() -> None:
        with torch.no_grad():
            model(batch)

    def both() -> None:
        leaf = few.clone().requires_grad_()
        torch.autograd.grad(model(leaf).amax(1).sum(), leaf)

    forward()
    once = timed(forward) / len(batch)
    return {"forward": once, "backward": max(timed(both) / len(few) - once, 0.0)}


def network(side: int, images: int) -> sc.Subject:
    torch.manual_seed(0)
    model = torchvision().models.resnet18(num_classes=10).eval()
    inputs = torch.rand(images, 3, side, side, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return sc.Subject(model, inputs, model(inputs).argmax(1), name="resnet18")


def against_a_run(side: int, images: int) -> float:
    """Prints the model and the run; returns the run over the model."""
    torch.set_num_threads(1)
    metrics = [coarser(registry.get("metrics", name), STEPS, DRAWS) for name in SCORED]
    planned = passes(TRIED, metrics)
    subject = network(side, images)
    each = seconds_per_pass(subject.model, subject.inputs)
    model = images * sum(planned[kind] * each[kind] for kind in planned)
    counted = cost.Passes()
    sys.modules["scale_subject"] = sys.modules[__name__]
    globals()["resnet18"] = lambda: subject
    counted.watch(subject.model)
    with tempfile.TemporaryDirectory() as out:
        command = [
            "study", "benchmark", "--out", out, "--methods", *TRIED, "--metrics", *SCORED, "--subjects",
            "scale_subject:resnet18", "--images", str(images), "--steps", str(STEPS), "--draws", str(DRAWS),
            "--device", "cpu", "--threads", "1",
        ]  # fmt: skip
        started = time.process_time()
        cli.main(command)
        run = time.process_time() - started
        started = time.process_time()
        cli.main([*command, "--report-only"])
        run -= time.process_time() - started  # tables and figures do not grow with the model
    print(f"{images} images of {side} pixels, ResNet-18, {len(TRIED)} methods, {len(SCORED)} scores, one core")
    for kind in ("forward", "backward"):
        print(
            f"  {kind:9} {each[kind] * 1e3:8.2f} ms a pass; passes by the model {images * planned[kind]:8,},"
            f" counted {counted.count[kind]:8,}"
        )
    print(f"  processor seconds, report left out: by the model {model:.1f}, run {run:.1f}, ratio {run / model:.2f}")
    return run / model


def imagenet(forward: float, backward: float) -> None:
    """Prints hours for all methods and scores of the paper with its own steps and draws."""
    planned = passes(METHODS, [registry.get("metrics", name) for name in METRICS])
    seconds = planned["forward"] / forward + planned["backward"] / backward
    print(f"{len(METHODS)} methods, {len(METRICS)} scores: passes of an image {dict(planned)}")
    print(f"at {forward:g} forward and {backward:g} backward passes a second and GPU:")
    for count in GPUS:
        hours = IMAGENET * seconds / count / 3600
        print(f"  {count:3} GPUs: {hours:10,.1f} hours ({hours / 24:,.1f} days), {hours * count:,.0f} GPU hours")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("--imagenet", type=float, nargs=2, metavar=("FORWARD", "BACKWARD"), help="images/s of one GPU")
    args = parser.parse_args()
    if args.imagenet:
        imagenet(*args.imagenet)
    else:
        against_a_run(args.side, args.images)


if __name__ == "__main__":
    main()
