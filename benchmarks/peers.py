"""The same scores through Quantus, captum and attribench, on the same model, images and maps, in one run.

pip install quantus && pip install --no-deps attribench h5py seaborn tqdm && python benchmarks/peers.py [--images N]

Neither is a dependency of the tests: Quantus wants an OpenCV with a screen, attribench a torch before 2. Who is not
there is left out. Every score is taken with the peer's own settings; a ratio above 1 says how much longer the
peer computes. Ours explains the images too, the peers are given the maps.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Callable
from dataclasses import replace
from importlib.util import find_spec

import numpy as np
import torch
from pairs import Pair, show
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
            theirs("MaxSensitivity", nr_samples=10, abs=False), "radii and norms differ", compared=False,
        ),
        Pair(
            "deletion", ours("deletion", gradient), flipping, "Quantus returns the curve of probabilities",
            compared=False,
        ),
        Pair(
            "five scores of the family", shared, lambda: np.stack([flipping() for _ in FAMILY]),
            "here from one pair of curves, there one run for each", compared=False,
        ),
        Pair("the same, one by one", family, lambda: np.stack([flipping() for _ in FAMILY]), compared=False),
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
    if find_spec("quantus"):
        show("Quantus, captum", pairs(subject))
    if find_spec("attribench"):
        import peers_attribench

        show("attribench", peers_attribench.pairs(subject))


if __name__ == "__main__":
    main()
