"""Cascading, bottom-up and independent randomisation, and permuted labels (Adebayo et al. 2018), with references.

The paper's protocol stands beside the corrected one: a fixed class, signed maps, several redraws, and for every
number what it would be for noise, for a second call and for the same task learned again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import cache, partial
from typing import Any

import torch
from torch import nn

from saliency_checks.fixtures import data, recipes, training
from saliency_checks.fixtures.splits import DEVELOPMENT
from saliency_checks.loading import build_subject, name_of
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Draw
from saliency_checks.randomization import Redraw
from saliency_checks.registry import get
from saliency_checks.studies import sanity_report
from saliency_checks.studies.cascades import NULL, STATES, Asked, Protocol, permuted, pictured, randomised, references
from saliency_checks.studies.store import Columns, Store, Unit, code
from saliency_checks.subject import Subject, Unqualified

METHODS = (
    "gradient", "smoothgrad", "guided_backprop", "grad_cam", "guided_grad_cam", "integrated_gradients",
    "input_x_gradient", "smoothgrad_ig",
)  # fmt: skip
NETWORKS = ("adebayo_cnn", "adebayo_mlp")
TWINS = ("fashion_cnn", "fashion_mlp")
INFORMATIONAL = ("efficient_mprt", "random_logit", "cosine_convergence")
PAPER_IMAGES = 10
DEAREST = frozenset({"smoothgrad_ig"})  # 150 passes an image: only where the paper has it


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``saliency-checks study sanity-checks``."""
    add = parser.add_argument
    add("--network", action="append", metavar="NAME", help=f"default {' and '.join(NETWORKS)}; any subject's name")
    add("--twins", action="append", metavar="NAME", help=f"subjects with permuted twins; default {' and '.join(TWINS)}")
    add("--method", action="append", metavar="NAME", help=f"default {', '.join(METHODS)}")
    add("--images", type=int, default=16, help="explained per network; default 16")
    add("--redraws", type=int, default=3, help="of the random weights; default 3")
    add("--picture", type=int, default=7, help="number of the image that is shown; default 7")
    add("--steps", type=int, help="group the layers into at most so many; default each by itself")
    add("--law", choices=("own", "truncated"), default="own", help="initialiser: the layer's or N(0, 0.01), cut off")
    add("--statistics", choices=("recalibrated", "reset", "kept"), default="recalibrated", help="of batch norms")


def measure(options: argparse.Namespace, store: Store) -> None:
    """All parts that are missing."""
    store.setup(
        images=options.images, redraws=options.redraws, steps=options.steps, law=options.law,
        statistics=options.statistics, picture=options.picture, data=data.digest(),
    )  # fmt: skip
    methods = [as_method(name) for name in options.method or METHODS]
    units: list[Unit] = []
    for network in options.network or NETWORKS:
        units += _network_units(network, [*methods, NULL], options)
    for network in options.twins or TWINS:
        units += [_unit(network, m, "permuted", options, permuted) for m in methods if _serves(m, network)]
    store.run(units)


def report(options: argparse.Namespace, store: Store) -> None:
    """Tables, figures and the summary."""
    sanity_report.write(store)


def _network_units(network: str, methods: list[Method], options: argparse.Namespace) -> list[Unit]:
    how = Redraw(most=options.steps, law=options.law, statistics=options.statistics)
    ours = Protocol(images=options.images, redraws=options.redraws, how=how)
    theirs = replace(ours, images=min(PAPER_IMAGES, options.images), redraws=1, predicted=True)
    retrained = partial(_retrained, network)
    units = []
    for m in methods:
        if not _serves(m, network):
            continue
        units.append(_unit(network, m, "paper", options, partial(_cascade, "top_down", theirs), theirs))
        for order in STATES if m.name not in DEAREST else ("top_down",):
            units.append(_unit(network, m, order, options, partial(_cascade, order, ours), ours))
        units.append(_unit(network, m, "references", options, lambda a: references(a, ours, retrained()), ours))
        if m is not NULL:
            units.append(_unit(network, m, "pictures", options, lambda a: pictured(a, options.picture, how), ours))
        if m is not NULL and m.name not in DEAREST:
            units += [_unit(network, m, x, options, partial(_metric, x)) for x in INFORMATIONAL]
    return units


def _cascade(order: str, protocol: Protocol, asked: Asked) -> Columns:
    return randomised(replace(asked, images=protocol.images), order, protocol)


def _metric(name: str, asked: Asked) -> Columns:
    """A registered metric's scores; they need no second map, so they have a column of their own."""
    metric = get("metrics", name)
    draw = Draw(n=asked.images, seed=asked.seed, redraws=1)
    try:
        values = metric.measure(asked.method, asked.subject, draw).values.mean((0, 1))
    except Unqualified:
        values = torch.empty(0).numpy()
    return {"image": list(range(len(values))), "score": values}


def _unit(
    network: str,
    method: Method,
    order: str,
    options: argparse.Namespace,
    make: Callable[[Asked], Columns],
    protocol: Protocol | None = None,
) -> Unit:
    def made() -> Columns:
        return make(Asked(method, _subject(network, options.device), options.images, options.seed))

    recipe: dict[str, Any] = {
        "images": options.images, "seed": options.seed, "code": code(method.source or method.explain),
        "protocol": asdict(protocol) if protocol else None,
    }  # fmt: skip
    return Unit(columns={"network": name_of(network), "order": order, "method": method.name}, recipe=recipe, make=made)


def _serves(method: Method, network: str) -> bool:
    """A network without convolutions has no class activation maps."""
    return "conv" not in method.needs or "mlp" not in network


@cache
def _subject(network: str, device: str) -> Subject:
    if network not in NETWORKS:
        return build_subject(network, device)
    model, facts = training.trained(recipes.adebayo(network.removeprefix("adebayo_"), DEVELOPMENT))
    images, labels = (part[slice(*DEVELOPMENT.test)] for part in data.embedded("test"))
    with torch.no_grad():
        right = torch.cat([model(part) for part in images.split(250)]).argmax(1) == labels
    found = Subject(model, images[right], labels[right], name=network, absent=0.0, facts=facts)
    return build_subject(found, device)


@cache
def _retrained(network: str) -> nn.Module | None:
    """The same task learned from another seed: what similarity a change of weights that changes nothing leaves."""
    if network not in NETWORKS:
        return None
    model: nn.Module = training.trained(recipes.adebayo(network.removeprefix("adebayo_"), DEVELOPMENT, replica=1))[0]
    return model
