"""One discriminative pixel: does a map point at it, and does the network need what the map points at?

Yasin, Hare, Marcu 2024, "Is saliency really captured by sensitivity?", over a grid of networks, seeds, data seeds
and deviations. The paper's columns stand beside corrected ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, replace
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from saliency_checks import device as devices
from saliency_checks.explain import derive
from saliency_checks.studies import pixel_analysis, pixel_data, pixel_models, pixel_report
from saliency_checks.studies.pixel_data import Design, Planted
from saliency_checks.studies.store import Columns, Store, Unit

if TYPE_CHECKING:
    from torch import Tensor

CONTROLS = ("random", "input_magnitude", "chroma")
GRID = "0,0"  # of the paper: 0,0  0,5  3,5  3,3  1,3 (position, colour)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``saliency-checks study single-pixel``."""
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "metavar": "NAME"}
    add("--network", choices=tuple(pixel_models.NETWORKS), help="default small_cnn; repeatable", **several)
    add("--training", choices=tuple(pixel_models.TRAININGS), default="fast", help="the paper's, or one for a CPU")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--count", type=int, default=0, help="training images at most; default all")
    add("--data", default="FashionMNIST", help="FashionMNIST (embedded), CIFAR10, MNIST, or images for a folder's")
    add("--data-folder", metavar="DIR", help="where the data are")
    add("--labels", choices=("independent", "background"), default="independent", help="of the background or not")
    add("--colours", choices=("random", "corners"), default="random", help="corners of the cube: the easy fixture")
    add("--side", type=int, default=1, help="of the planted square; more than 1 is the cluster")
    add("--model-seeds", type=int, default=3, help="networks per design; default 3")
    add("--data-seeds", type=int, default=1, help="designs; default 1")
    add("--train-sd", default="0,0", metavar="POS,COL", help="deviations in training; default 0,0")
    add("--test-sd", action="append", metavar="POS,COL", help="deviations in tests; repeatable, default 0,0")
    add("--images", type=int, default=512, help="tested per network; default 512")
    add("--method", help="a registered method beside the paper's five and the controls", **several)


def measure(options: argparse.Namespace, store: Store) -> None:
    """All parts that are missing; networks come from the cache or are trained."""
    setup = {
        name: getattr(options, name)
        for name in ("training", "epochs", "count", "data", "labels", "colours", "side", "train_sd", "images")
    }
    store.setup(**setup)
    units = list(_units(options))
    store.run(units)


def report(options: argparse.Namespace, store: Store) -> None:
    """The tables, figures and the summary."""
    pixel_report.write(store)


def _units(options: argparse.Namespace) -> Iterator[Unit]:
    training = pixel_models.TRAININGS[options.training]
    training = replace(training, epochs=options.epochs or training.epochs)
    position, colour = _pair(options.train_sd)
    for network, data_seed, model_seed in product(
        options.network or ["small_cnn"], range(1, 1 + options.data_seeds), range(options.model_seeds)
    ):
        design = Design(
            data_seed=data_seed, position_sd=position, colour_sd=colour, side=options.side, colours=options.colours,
            labels=options.labels,
        )  # fmt: skip
        recipe = pixel_models.PixelRecipe(
            network=network, seed=model_seed, design=design, training=training, data=options.data, count=options.count
        )
        for test, softmax in product(map(_pair, options.test_sd or [GRID]), (False, True)):
            yield _unit(recipe, test, softmax, options)


def _unit(
    recipe: pixel_models.PixelRecipe, test: tuple[float, float], softmax: bool, options: argparse.Namespace
) -> Unit:
    design = recipe.design
    names = (*(options.method or ()), *CONTROLS)
    columns: dict[str, Any] = {
        "dataset": recipe.data, "data_seed": design.data_seed, "model_type": recipe.network,
        "model_seed": recipe.seed, "train_pos_sd": design.position_sd, "train_col_sd": design.colour_sd,
        "test_pos_sd": test[0], "test_col_sd": test[1], "use_softmax": softmax,
    }  # fmt: skip

    def make() -> Columns:
        model = _model(recipe, options.data_folder, options.device)
        shown = _shown(recipe, test, options)
        return tested(model, shown, names, softmax=softmax, seed=options.seed)

    settings = {"recipe": asdict(recipe), "images": options.images, "seed": options.seed, "methods": names}
    return Unit(columns=columns, recipe=settings, make=make, passes=options.images * 2 * pixel_analysis.STEPS)


def tested(model: nn.Module, shown: Planted, names: tuple[str, ...], *, softmax: bool, seed: int) -> Columns:
    """Rows (method, class asked for, image)."""
    known = pixel_analysis.answers(model, shown)
    columns: dict[str, list[Any]] = {}
    found: dict[str, dict[str, list[float]]] = {}
    for y_true, of in ((False, known.withpix), (True, shown.labels)):
        if not (y_true and torch.equal(known.withpix, shown.labels)):  # otherwise the question is the same
            maps = pixel_analysis.every_map(model, shown, names, softmax=softmax, of=of, seed=seed)
            found = {name: pixel_analysis.judged(model, shown, known, a) for name, a in maps}
        for name, values in found.items():
            n = len(of)
            rows: dict[str, list[Any]] = {
                "attribution_method": [name] * n,
                "use_y_true": [y_true] * n,
                "image": list(range(n)),
            }
            for column, own in {**rows, **values}.items():
                columns.setdefault(column, []).extend(own)
    return columns


@cache
def _model(recipe: pixel_models.PixelRecipe, folder: str | None, device: str) -> nn.Module:
    images, own = pixel_data.backgrounds(recipe.data, folder, train=True)
    return pixel_models.trained(recipe, images, own, devices.pick(device))


def _shown(recipe: pixel_models.PixelRecipe, test: tuple[float, float], options: argparse.Namespace) -> Planted:
    """Test images of the same classes with the deviations ``test``, on the device."""
    images, own = pixel_data.backgrounds(recipe.data, options.data_folder, train=False)
    design = recipe.design.jittered(*test)
    seed = derive("single pixel", design.data_seed, *test, options.seed)
    planted = pixel_data.examples(design, images[: options.images], own[: options.images], seed)
    place = devices.pick(options.device)
    moved: list[Tensor] = [part.to(place) for part in (planted.inputs, planted.clean, planted.labels, planted.site)]
    return Planted(*moved)


def _pair(text: str) -> tuple[float, float]:
    position, _, colour = text.partition(",")
    return float(position), float(colour)
