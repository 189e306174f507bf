"""Cascading, bottom-up and independent randomisation, and permuted labels (Adebayo et al. 2018), with references.

The paper's protocol stands beside the corrected one: a fixed class, signed maps, several redraws, and for every
number what it would be for noise, for a second call and for the same task learned again.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial

from saliency_checks.fixtures import data
from saliency_checks.loading import name_of
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Draw
from saliency_checks.randomization import Redraw
from saliency_checks.registry import get
from saliency_checks.studies import sanity_networks, sanity_report
from saliency_checks.studies.cascades import (
    NULL,
    STATES,
    Asked,
    Protocol,
    accuracies,
    permuted,
    pictured,
    randomised,
    references,
)  # fmt: skip
from saliency_checks.studies.questions import question
from saliency_checks.studies.store import Columns, Store, Unit
from saliency_checks.subject import Subject

METHODS = (
    "gradient", "smoothgrad", "guided_backprop", "grad_cam", "guided_grad_cam", "integrated_gradients",
    "input_x_gradient", "smoothgrad_ig",
)  # fmt: skip
TWINS = ("fashion_cnn", "fashion_mlp", sanity_networks.RESNET)
# sMPRT explains so many noisy copies of each image instead of fifty, of fewer images and by few passes a map: every
# step of the cascade costs them all.
SMOOTH, SMOOTH_IMAGES = "smooth_mprt@samples=8", 8
INFORMATIONAL = ("efficient_mprt", SMOOTH, "random_logit", "cosine_convergence")
PAPER_IMAGES = 10
STEPS = 17  # the paper's blocks of Inception v3
DEAREST = frozenset({"smoothgrad_ig"})  # 150 passes an image: only where the paper has it
DEAR = DEAREST | {"smoothgrad", "integrated_gradients"}


def arguments(parser: argparse.ArgumentParser) -> None:
    """The flags of ``saliency-checks study sanity-checks``."""
    add = parser.add_argument
    clothes, digits = map(" and ".join, (sanity_networks.CLOTHES, sanity_networks.DIGITS))
    own = f"default {clothes}; or {digits} (scikit-learn's), or any subject's name"
    add("--network", action="append", metavar="NAME", help=own)
    add("--twins", action="append", metavar="NAME", help=f"with permuted twins; default {', '.join(TWINS)}; or none")
    add("--method", action="append", metavar="NAME", help=f"default {', '.join(METHODS)}")
    add(
        "--order",
        action="append",
        choices=tuple(STATES),
        help="of the layers drawn again; default all; top_down always",
    )
    add("--images", type=int, default=16, help="explained per network; default 16")
    add("--redraws", type=int, default=3, help="of the random weights; default 3")
    add("--picture", type=int, default=7, help="number of the image that is shown; default 7")
    add("--steps", type=int, default=STEPS, help=f"layers in so many groups at most; default {STEPS}; 0 for each alone")
    add("--law", choices=("own", "truncated"), default="own", help="initialiser: the layer's or N(0, 0.01), cut off")
    add("--statistics", choices=("recalibrated", "reset", "kept"), default="recalibrated", help="of batch norms")
    add("--buffers", action="store_true", help="draw bare floating buffers again as well")


def measure(options: argparse.Namespace, store: Store) -> None:
    """All parts that are missing."""
    store.setup(
        images=options.images, redraws=options.redraws, steps=options.steps, law=options.law, buffers=options.buffers,
        statistics=options.statistics, picture=options.picture, data=data.digest(),
    )  # fmt: skip
    methods = [as_method(name) for name in options.method or METHODS]
    units: list[Unit] = []
    for network in options.network or sanity_networks.CLOTHES:
        subject = sanity_networks.subject_of(network, options.device)
        store.note(device=str(subject.inputs.device))
        units += _network_units(network, subject, [*methods, NULL], options)
    for network in options.twins or TWINS:
        if network != "none":
            subject = sanity_networks.subject_of(network, options.device)
            units += [_unit(network, subject, m, "permuted", options, permuted) for m in methods]
    store.run(units)


def report(options: argparse.Namespace, store: Store) -> None:
    """Tables, figures and the summary."""
    sanity_report.write(store)


def _network_units(network: str, subject: Subject, methods: list[Method], options: argparse.Namespace) -> list[Unit]:
    how = Redraw(
        most=options.steps or None, law=options.law, statistics=options.statistics, buffers=options.buffers
    )  # fmt: skip
    ours = Protocol(images=options.images, redraws=options.redraws, how=how)
    theirs = replace(ours, images=min(PAPER_IMAGES, options.images), redraws=1, predicted=True)
    retrained = partial(sanity_networks.retrained, network)
    orders = dict.fromkeys(("top_down", *(options.order or STATES)))
    shown = min(options.picture, len(subject) - 1)
    unit = partial(_unit, network, subject, options=options)
    units = [unit(NULL, "accuracy", make=lambda a: accuracies(a, ours), protocol=ours)]
    for m in methods:
        units.append(unit(m, "paper", make=partial(_cascade, "top_down", theirs), protocol=theirs))
        for order in orders if m.name not in DEAREST else ("top_down",):
            units.append(unit(m, order, make=partial(_cascade, order, ours), protocol=ours))
        units.append(unit(m, "references", make=lambda a: references(a, ours, retrained()), protocol=ours))
        if m is not NULL:
            units.append(unit(m, "pictures", make=lambda a: pictured(a, shown, how), protocol=ours))
            units += [unit(m, name, make=partial(_metric, name)) for name in _informational(m)]
    return units


def _informational(method: Method) -> list[str]:
    without = set(INFORMATIONAL) if method.name in DEAREST else {SMOOTH} if method.name in DEAR else set()
    return [name for name in INFORMATIONAL if name not in without]


def _cascade(order: str, protocol: Protocol, asked: Asked) -> Columns:
    return randomised(replace(asked, images=protocol.images), order, protocol)


def _metric(name: str, asked: Asked) -> Columns:
    """A registered metric's scores; they need no second map, so they have a column of their own."""
    images = min(asked.images, SMOOTH_IMAGES) if name == SMOOTH else asked.images
    scores = get("metrics", name).measure(asked.method, asked.subject, Draw(n=images, seed=asked.seed, redraws=1))
    values = scores.values.mean((0, 1))
    return {"image": list(range(len(values))), "score": values}


def _unit(
    network: str,
    subject: Subject,
    method: Method,
    order: str,
    options: argparse.Namespace,
    make: Callable[[Asked], Columns],
    protocol: Protocol | None = None,
) -> Unit:
    columns = {"network": name_of(network), "order": order, "method": method.name}
    return question(
        columns, method, subject, options, lambda images: make(Asked(method, subject, images, options.seed)),
        protocol=asdict(protocol) if protocol else None,
    )  # fmt: skip
