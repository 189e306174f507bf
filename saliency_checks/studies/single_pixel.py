"""One discriminative pixel: does a map point at it, and does the network need what the map points at?

Yasin, Hare, Marcu 2024, "Is saliency really captured by sensitivity?", over a grid of networks, seeds, data seeds
and deviations. The paper's columns stand beside corrected ones.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from itertools import product
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from saliency_checks import device as devices
from saliency_checks.explain import derive
from saliency_checks.fixtures import planted
from saliency_checks.fixtures.training import one_thread
from saliency_checks.studies import pixel_analysis, pixel_data, pixel_figures, pixel_models, pixel_report, workers
from saliency_checks.studies.bar import Bar
from saliency_checks.studies.pixel_data import Condition, Design, Planted
from saliency_checks.studies.store import Columns, Mismatch, Store, Unit

if TYPE_CHECKING:
    from torch import Tensor

CONTROLS = ("random", "input_magnitude", "chroma")
GRID = "0,0"  # of the paper: 0,0  0,5  3,5  3,3  1,3 (position, colour)
PIXEL, CLUSTER, DECOYS = "SinglePixelDataset", "PixelClusterDataset", "decoys"  # two names of the paper's table
# What says nothing of the design with decoys, where each image has its own places and colours.
PIXEL_ONLY = {"side": 1, "colours": "random", "labels": "independent", "train_sd": None, "test_sd": None, "size": 0}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``saliency-checks study single-pixel``."""
    add = parser.add_argument
    several: dict[str, Any] = {"action": "append", "metavar": "NAME"}
    add("--design", choices=("pixel", "decoys"), default="pixel", help="the paper's, or our checks' with seven decoys")
    add("--network", choices=tuple(pixel_models.NETWORKS), help="default small_cnn; repeatable", **several)
    add("--training", choices=tuple(pixel_models.TRAININGS), default="fast", help="the paper's, or one for a CPU")
    add("--epochs", type=int, help="instead of the recipe's")
    add("--rate", type=float, help="instead of the recipe's learning rate")
    add("--count", type=int, default=0, help="training images at most; default all")
    add("--data", default="FashionMNIST", help="FashionMNIST (embedded), CIFAR10, MNIST, or images for a folder's")
    add("--data-folder", metavar="DIR", help="where the data are")
    add("--size", type=int, default=0, metavar="N", help="images of N x N pixels; default their own")
    add("--labels", choices=("independent", "background"), default="independent", help="of the background or not")
    add("--colours", choices=("random", "corners"), default="random", help="corners of the cube: the easy fixture")
    add("--side", type=int, default=1, help="of the planted square; more than 1 is the cluster")
    add("--model-seeds", type=int, default=3, help="networks per design; default 3")
    add("--data-seeds", type=int, default=1, help="designs; default 1")
    add("--train-sd", action="append", metavar="POS,COL", help="deviations in training; repeatable, default 0,0")
    add("--test-sd", action="append", metavar="POS,COL", help="deviations in tests; repeatable, default 0,0")
    add("--images", type=int, default=512, help="tested per network; default 512")
    add("--method", help="a registered method beside the paper's five and the controls", **several)
    add("--workers", type=int, default=1, metavar="N", help="processes that train and measure; default this one")


def measure(options: argparse.Namespace, store: Store) -> None:
    """All parts that are missing; networks come from the cache or are trained.

    Raises:
        Mismatch: the options ask for what is not there, or contradict each other.
    """
    _check(options)
    fixed = (
        "design", "training", "epochs", "rate", "count", "data", "size", "labels", "colours", "side", "images",
    )  # fmt: skip
    store.setup(**{name: getattr(options, name) for name in fixed})
    store.note(device=str(devices.pick(options.device)))
    cells = [Cell(recipe, test, options) for recipe in recipes(options) for test in _pairs(options.test_sd)]
    units = [cell.unit() for cell in cells]
    if options.workers > 1:
        with workers.pool(options.workers) as pool:
            _train_ahead([cell for cell, unit in zip(cells, units, strict=True) if store.read(unit) is None], pool)
            store.run(units, pool)
    else:
        with one_thread():  # as each worker: sums of several threads depend on their number
            store.run(units)


def report(options: argparse.Namespace, store: Store) -> None:
    """The tables, figures and the summary."""
    pixel_figures.write(store, pixel_report.write(store))


def _check(options: argparse.Namespace) -> None:
    if options.design == "decoys":
        if idle := [name for name, default in PIXEL_ONLY.items() if getattr(options, name) != default]:
            flags = ", ".join(f"--{name.replace('_', '-')}" for name in idle)
            raise Mismatch(f"--design decoys draws places and colours by itself: {flags} says nothing there")
        options.size = planted.SIZE
    elif pixel_models.AMONG_DECOYS in (options.network or ()):
        raise Mismatch(f"--network {pixel_models.AMONG_DECOYS} has a class 'none': it needs --design decoys")
    if options.data == pixel_data.FOLDER and options.labels == "background":
        raise Mismatch("--labels background needs classes, and the pictures of a folder have none")
    try:
        _pairs(options.train_sd), _pairs(options.test_sd)
    except ValueError as error:
        raise Mismatch(f"{error}: expected two numbers, position and colour, such as --test-sd 3,5") from error
    try:
        for train in (True, False):
            _backgrounds(options, train=train)
    except (FileNotFoundError, ValueError) as error:
        raise Mismatch(f"--data {options.data} --data-folder {options.data_folder}: {error}") from error


def recipes(options: argparse.Namespace) -> Iterator[pixel_models.PixelRecipe]:
    """The networks of the grid."""
    training = pixel_models.TRAININGS[options.training]
    training = replace(training, epochs=options.epochs or training.epochs, rate=options.rate or training.rate)
    usual = "small_cnn" if options.design == "pixel" else pixel_models.AMONG_DECOYS
    networks, pairs = options.network or [usual], _pairs(options.train_sd)
    data_seeds, model_seeds = range(1, 1 + options.data_seeds), range(options.model_seeds)
    for network, (position, colour), data_seed, model_seed in product(networks, pairs, data_seeds, model_seeds):
        design = Design(
            data_seed=data_seed, position_sd=position, colour_sd=colour, side=options.side, colours=options.colours,
            labels=options.labels, kind=options.design,
        )  # fmt: skip
        yield pixel_models.PixelRecipe(
            network=network, seed=model_seed, design=design, training=training, data=options.data, size=options.size,
            count=options.count,
        )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Cell:
    """One network, tested at one pair of deviations; another process can make it."""

    recipe: pixel_models.PixelRecipe
    test: tuple[float, float]
    options: argparse.Namespace

    @property
    def names(self) -> tuple[str, ...]:
        return (*(self.options.method or ()), *CONTROLS)

    def unit(self) -> Unit:
        recipe, design, options = self.recipe, self.recipe.design, self.options
        planting = DECOYS if design.kind == "decoys" else PIXEL if design.side == 1 else CLUSTER
        columns: dict[str, Any] = {
            "dataset": planting, "data_seed": design.data_seed,
            "model_type": recipe.network, "model_seed": recipe.seed, "train_pos_sd": design.position_sd,
            "train_col_sd": design.colour_sd, "test_pos_sd": self.test[0], "test_col_sd": self.test[1],
        }  # fmt: skip
        settings = {"recipe": asdict(recipe), "images": options.images, "seed": options.seed, "methods": self.names}
        passes = options.images * 3 * 2 * pixel_analysis.STEPS  # one forward and two backward, from black and white
        return Unit(columns=columns, recipe=settings, make=partial(_made, self), passes=passes)

    def network(self) -> nn.Module:
        return _model(self.recipe, self.options.data_folder, self.options.device)

    def is_trained(self) -> bool:
        return pixel_models.is_trained(self.recipe, *_backgrounds(self.options, train=True))

    def shown(self, condition: Condition = "same") -> Planted:
        """Test images of the same classes with the deviations that are tested, on the device."""
        images, own = _backgrounds(self.options, train=False)
        n, design = self.options.images, self.recipe.design
        seed = derive("single pixel", design.data_seed, *self.test, self.options.seed)
        examples = pixel_data.examples(design.jittered(*self.test), images[:n], own[:n], seed, condition)
        return examples.to(devices.pick(self.options.device))


def _made(cell: Cell) -> Columns:
    return tested(cell.network(), cell.shown(), cell.shown("different"), cell.names, seed=cell.options.seed)


def tested(model: nn.Module, shown: Planted, different: Planted, names: tuple[str, ...], *, seed: int) -> Columns:
    """Rows (softmax, method, class asked for, image)."""
    known = pixel_analysis.answers(model, shown, different)
    fixed = pixel_analysis.overall(shown, different, known)
    every = torch.arange(len(shown.labels), device=shown.labels.device)
    wrong = (known.withpix != shown.labels).nonzero().flatten()  # elsewhere both classes are the same question
    columns: dict[str, list[Any]] = {}

    def found(of: Tensor, rows: Tensor) -> dict[tuple[bool, str], pixel_analysis.Columns]:
        asked = pixel_analysis.every_map(model, shown, names, of=of, rows=rows, seed=seed) if len(rows) else ()
        part, answers = shown.at(rows), known.at(rows)
        return {(s, name): pixel_analysis.judged(model, part, answers, maps) for s, name, maps in asked}

    predicted, true = found(known.withpix, every), found(shown.labels, wrong)
    for (softmax, name), values in predicted.items():
        corrected = {key: list(column) for key, column in values.items()}
        for key, column in true.get((softmax, name), {}).items():
            for row, value in zip(wrong.tolist(), column, strict=True):
                corrected[key][row] = value
        for y_true, own in ((False, values), (True, corrected)):
            n = len(every)
            named: dict[str, list[Any]] = {
                "use_softmax": [softmax] * n, "attribution_method": [name] * n, "use_y_true": [y_true] * n,
                "image": list(range(n)),
            }  # fmt: skip
            for key, cells in {**named, **fixed, **own}.items():
                columns.setdefault(key, []).extend(cells)
    return columns


def _train_ahead(cells: list[Cell], pool: workers.Pool) -> None:
    """Have the cells' networks in the cache, trained side by side; one that fails will say why when it is tested."""
    several = {cell.recipe: cell for cell in cells}
    missing = [cell for cell in several.values() if not cell.is_trained()]
    if not missing:
        return
    bar = Bar("training", len(several), len(missing), len(missing))
    bar.show(f"{min(pool.count, len(missing))} processes")
    for _ in pool.each(Cell.network, missing):
        bar.advance(1)
        bar.show("the other networks")
    bar.close()


@cache
def _model(recipe: pixel_models.PixelRecipe, folder: str | None, device: str) -> nn.Module:
    images, own = pixel_data.backgrounds(recipe.data, folder, train=True, size=recipe.size)
    return pixel_models.trained(recipe, images, own, devices.pick(device))


def _backgrounds(options: argparse.Namespace, *, train: bool) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = pixel_data.backgrounds(
        options.data, options.data_folder, train=train, size=options.size
    )
    return found


def _pairs(texts: list[str] | None) -> list[tuple[float, float]]:
    """Deviations of position and colour."""
    found = []
    for text in texts or [GRID]:
        position, colour = map(float, text.split(","))
        found.append((position, colour))
    return found
