"""The same scores through Quantus and captum, on the same model, images and maps, in one run: differences and cost.

pip install quantus && python benchmarks/peers.py [--images N]

Quantus is no dependency of the tests: it wants an OpenCV with a screen. Every score is taken with the peer's own
settings; a ratio above 1 says how much longer the peer takes. Ours explains the images too, Quantus is given the maps.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from saliency_checks import registry
from saliency_checks.fixtures import build
from saliency_checks.method import Method
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.metric import Draw
from saliency_checks.subject import Subject
from saliency_checks.vision import torchvision

torchvision()  # before a peer imports it
warnings.simplefilter("ignore")
FAMILY = ("deletion", "insertion", "srg", "aopc", "diffid")
STEPS = 14  # of a curve; Quantus wants a divisor of the number of pixels


@dataclass(frozen=True)
class Pair:
    """One score of both, or of the peer many times over."""

    name: str
    ours: Callable[[], np.ndarray]
    theirs: Callable[[], np.ndarray]
    note: str = ""


def explain(model, inputs, targets, **_: object) -> np.ndarray:
    """The plain gradient, summed over the channels, as Quantus calls it."""
    return input_gradient(model, torch.as_tensor(inputs), torch.as_tensor(targets)).sum(1, keepdim=True).numpy()


def pairs(subject: Subject) -> list[Pair]:
    import captum.metrics
    import quantus

    gradient = Method(name="gradient", explain=input_gradient, signed=True)
    magnitude = replace(gradient, signed=False)
    x, y, n = subject.inputs, subject.targets, len(subject)
    maps = explain(subject.model, x, y)
    given = {
        "model": subject.model, "x_batch": x.numpy(), "y_batch": y.numpy(), "a_batch": maps,
        "s_batch": subject.truth[:, None].numpy(), "explain_func": explain,
    }  # fmt: skip

    def ours(name: str, method: Method = magnitude, scale: float = 1.0, **settings: object) -> Callable[[], np.ndarray]:
        metric = registry.get("metrics", name)
        chosen = metric.with_settings(**settings) if settings else metric
        return lambda: scale * chosen.measure(method, replace(subject), Draw(n=n)).values.mean((0, 1))

    def theirs(metric: str, **settings: object) -> Callable[[], np.ndarray]:
        quiet = {"disable_warnings": True, "display_progressbar": False, "normalise": False, **settings}
        chosen = getattr(quantus, metric)(**quiet)
        return lambda: np.asarray(chosen(**given), dtype=float)

    pixels = x[0, 0].numel()
    step = max(1, pixels // STEPS)
    flipping = theirs("PixelFlipping", features_in_step=step, perturb_baseline="mean", abs=False)

    def family() -> np.ndarray:
        return np.stack([ours(name, gradient)() for name in FAMILY])

    def shared() -> np.ndarray:
        once = replace(subject)
        return np.stack(
            [registry.get("metrics", name).measure(gradient, once, Draw(n=n)).values.mean((0, 1)) for name in FAMILY]
        )

    def sensitivity() -> np.ndarray:
        def attribute(inputs: tuple[Tensor], target: Tensor) -> tuple[Tensor]:
            return (input_gradient(subject.model, *inputs, target).sum(1, keepdim=True),)

        return captum.metrics.sensitivity_max(attribute, x, target=y, perturb_radius=0.02, n_perturb_samples=10).numpy()

    return [
        Pair("entropy", ours("entropy", scale=np.log(pixels)), theirs("Complexity", abs=True)),
        Pair("sparseness", ours("sparseness"), theirs("Sparseness", abs=True)),
        Pair("pointing_game", ours("pointing_game"), theirs("PointingGame", abs=True)),
        Pair("relevance_mass_accuracy", ours("relevance_mass_accuracy"), theirs("RelevanceMassAccuracy", abs=True)),
        Pair("relevance_rank_accuracy", ours("relevance_rank_accuracy"), theirs("RelevanceRankAccuracy", abs=True)),
        Pair(
            "max_sensitivity@captum", ours("max_sensitivity@captum", gradient), sensitivity,
            "captum; both draw, so means are compared",
        ),
        Pair(
            "max_sensitivity (Quantus)", ours("max_sensitivity", gradient, draws=10),
            theirs("MaxSensitivity", nr_samples=10, abs=False), "cost only: radii and norms differ",
        ),
        Pair("deletion", ours("deletion", gradient), flipping, "cost only: Quantus returns the curve of probabilities"),
        Pair(
            "five scores of the family", shared, lambda: np.stack([flipping() for _ in FAMILY]),
            "cost only: here from one pair of curves, there one run for each",
        ),
        Pair("the same, one by one", family, lambda: np.stack([flipping() for _ in FAMILY]), "cost only"),
    ]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=64)
    images = parser.parse_args().images
    torch.set_num_threads(1)
    whole = build("planted_pixel_a")
    subject = replace(
        whole, inputs=whole.inputs[:images], targets=whole.targets[:images], truth=whole.truth[:images],
        decoys=whole.decoys[:images],
    )  # fmt: skip
    print(f"{'score':28}{'ours':>9}{'theirs':>9}{'greatest difference':>21}{'ours s':>9}{'theirs / ours':>15}")
    for pair in pairs(subject):
        found, seconds = [], []
        for side in (pair.ours, pair.theirs):
            started = time.perf_counter()
            found.append(side())
            seconds.append(time.perf_counter() - started)
        one, two = found
        is_cost = "cost only" in pair.note
        means = "" if is_cost else f"{one.mean():9.4f}{two.mean():9.4f}{np.abs(one - two).max():21.2g}"
        print(f"{pair.name:28}{means:39}{seconds[0]:9.2f}{seconds[1] / seconds[0]:15.1f}  {pair.note}", flush=True)


if __name__ == "__main__":
    main()
