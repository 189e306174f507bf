"""What a verdict costs: seconds and model passes per check, and the engine's overhead over the bare passes.

    python benchmarks/cost.py [--profile quick] [--methods gradient integrated_gradients] [--subjects ...]

A pass is one image through the model, forward or backward; controls are counted apart, because they are measured
once per subject and shared by all methods.
"""

from __future__ import annotations

import argparse
import time

import torch
from torch import nn

from saliency_checks import registry
from saliency_checks.case import applicable, default_subjects
from saliency_checks.chunking import per_pass
from saliency_checks.cost import Passes
from saliency_checks.loading import build_subject
from saliency_checks.method import as_method
from saliency_checks.metrics.label_permutation import twins_of
from saliency_checks.perturbation import outputs
from saliency_checks.profile import PROFILES, Profile
from saliency_checks.run import run
from saliency_checks.subject import Subject, SubjectFactory


def models_of(subject: Subject, profile: Profile) -> list[nn.Module]:
    """Its own model, its replicas' and its twins'."""
    found = [member.model for member in subject.members(profile.replicas)]
    if subject.twins and ("label_permutation", subject.name) not in profile.without:
        twins = twins_of(subject)
        found += [*twins.same, *twins.permuted]
    return found


def verdict_costs(profile: str, methods: list[str], subjects: list[str]) -> float:
    print(f"{'check':28}{'method':24}{'subject':20}{'seconds':>8}{'forward':>10}{'backward':>10}  verdict")
    total = 0.0
    for name in subjects:
        factory: SubjectFactory = registry.get("subjects", name)
        subject = build_subject(name)
        passes = Passes()
        for model in models_of(subject, PROFILES[profile]):
            passes.watch(model)
        for check in registry.names("checks"):
            for method in map(as_method, methods):
                if applicable(check, method, factory, profile):
                    continue
                passes.count.clear()
                result = run(check, method, name, profile=profile)
                total += result.seconds
                print(
                    f"{check:28}{method.name:24}{name:20}{result.seconds:8.2f}"
                    f"{passes.count['forward']:10}{passes.count['backward']:10}  {result.verdict}",
                    flush=True,
                )
    print(f"total {total:.1f} s (the first method of each subject also pays for the controls)")
    return total


def engine_overhead(images: int = 96, steps: int = 10, repeats: int = 5) -> float:
    """Seconds of the perturbation engine over seconds of the same forward passes on ready-made batches."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip
    inputs = torch.rand(images, 1, 28, 28)
    order = torch.rand(images, 784).argsort(1)
    counts = [round(i * 784 / steps) for i in range(1, steps + 1)]
    ready = torch.cat([inputs] * steps)
    size = per_pass(inputs)
    ratios = []
    for _ in range(repeats):
        start = time.perf_counter()
        outputs(model, inputs, torch.zeros_like(inputs), order, counts)
        spent = time.perf_counter() - start
        start = time.perf_counter()
        with torch.no_grad():
            for chunk in ready.split(size):
                model(chunk)
        ratios.append(spent / (time.perf_counter() - start))
    ratio = sorted(ratios)[len(ratios) // 2]
    print(f"engine over bare passes, {images} images x {steps} steps at 28 px: {ratio:.2f}")
    return ratio


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--profile", default="quick", choices=list(PROFILES))
    parser.add_argument("--methods", nargs="+", default=["integrated_gradients"])
    parser.add_argument("--subjects", nargs="+")
    args = parser.parse_args()
    torch.set_num_threads(1)
    engine_overhead()
    verdict_costs(args.profile, args.methods, args.subjects or default_subjects(args.profile))


if __name__ == "__main__":
    main()
