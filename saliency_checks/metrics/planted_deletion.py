"""Does deleting what the map ranks first take the class away, where the cause is known?

The bound lies above what a map of colourfulness reaches (.54 to .66): it finds the site and its seven decoys alike,
so the site is gone after eight pixels. Class activation maps of coarse cells lie there too; pixel_recovery is fair
to them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from saliency_checks import maps
from saliency_checks.explain import generator, subject_maps
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric, own_images
from saliency_checks.perturbation import local_mean, outputs
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from jaxtyping import Float, Int

COUNTS: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64)
SITES = (1, 2, 4)  # on a graft, by the size of the site
RANDOM_ORDERS = 4  # on a graft one: so few of all pixels go that hardly one hits the site
# The least distance from random to truth to divide by, as a share of the images' mean.
LEAST_DISTANCE = 0.25


def logit_drop(subject: Subject, order: Int[Tensor, "n p"]) -> Float[Tensor, " n"]:
    """Mean fall of the target logit over ``COUNTS`` deleted pixels.

    On a graft: of the logit that the cause adds, over ``SITES`` times the site's size; a deleted pixel gets its own
    value back. What the user's model makes of the deletion is not known, and would cost its passes.
    """
    n = len(order)
    inputs, counts = subject.inputs[:n], COUNTS
    if subject.clean is None:
        model, fill = subject.model, local_mean(inputs)
    else:
        assert subject.truth is not None
        site = int(subject.truth[0].sum())
        model, fill = subject.model.cause(), subject.clean[:n]  # type: ignore[operator]
        counts = tuple(site * times for times in SITES)

    def logits(counts: Sequence[int]) -> Float[Tensor, "n k"]:
        found = outputs(model, inputs, fill, order, counts)
        return found.gather(2, subject.targets[:n].view(-1, 1, 1).expand(-1, len(counts), 1)).squeeze(2)

    key = ("planted_deletion", "nothing deleted", n)  # the same for every map
    if key not in subject.cache:
        subject.cache[key] = logits((0,))[:, 0]
    drop: Tensor = subject.cache[key] - logits(counts).mean(1)
    return drop


def reference_drops(subject: Subject, n: int, seed: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """(mean over random orders, the truth first): the zero and the one of the scale, once per subject."""
    key = ("planted_deletion", n, seed)
    if key not in subject.cache:
        assert subject.truth is not None
        size = subject.inputs[0, 0].numel()
        device = subject.inputs.device
        orders = [
            maps.random_orders(n, size, generator=generator("orders", subject.name, i, seed)).to(device)
            for i in range(RANDOM_ORDERS if subject.clean is None else 1)
        ]
        truth = subject.truth[:n].flatten(1).to(subject.inputs.dtype)
        oracle = maps.strict_order(truth, generator("oracle", subject.name, seed))
        random = torch.stack([logit_drop(subject, order) for order in orders]).mean(0)
        subject.cache[key] = (random, logit_drop(subject, oracle))
    drops: tuple[Tensor, Tensor] = subject.cache[key]
    return drops


def rescaled(
    drop: Float[Tensor, " n"], random: Float[Tensor, " n"], oracle: Float[Tensor, " n"]
) -> Float[Tensor, " n"]:
    """``drop`` on a scale where a random order is 0 and the truth 1.

    Raises:
        Unqualified: deleting the truth takes no more away than a random order does.
    """
    distance = oracle - random
    mean = float(distance.mean())
    if mean <= 0:
        raise Unqualified(
            f"deleting the truth lowers the target's logit by {float(oracle.mean()):.2f}, random pixels by"
            f" {float(random.mean()):.2f}: the class does not depend on the pixels that are said to cause it"
        )
    # An image that a random order happens to solve would count without limit.
    return (drop - random) / distance.clamp(min=LEAST_DISTANCE * mean)


def reading(attributions: Float[Tensor, "n h w"], method: Method) -> Float[Tensor, "n h w"]:
    """Contributions as they are; magnitudes without their sign."""
    return attributions if method.signed else attributions.abs()


@metric(
    bound=">= 0.70",
    needs={"deletion"},
    readings=True,
    n=96,
    shows=own_images,
    reference="Samek et al. 2017 (perturbation curves), on a cause known by construction",
    meaning="deleting what the map ranks first does not take away the cause of the class",
    if_fails=(
        "does pixel_recovery fail too? then the map misses the site altogether",
        "is the site there but ranked behind many other pixels (a noisy map)?",
        "is the map coarser than a pixel (class activation maps)? then trust pixel_recovery instead",
        "is the map signed and its sign reversed?",
    ),
)
def planted_deletion(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Logit drop when the map's top 1 to 64 pixels are deleted: 0 is a random order, 1 is the truth."""
    members = subject.members(draw.replicas)
    n = min(draw.n, *(len(member) for member in members))
    values, constant = [], []
    for i, member in enumerate(members):
        attributions = subject_maps(method, member, 0, n, seed=draw.seed)
        ties = generator("ties", member.name, i, draw.seed)
        drop = logit_drop(member, maps.strict_order(reading(attributions, method).flatten(1), ties))
        values.append(rescaled(drop, *reference_drops(member, n, draw.seed)).double().cpu().numpy())
        constant.append(float(maps.degenerate(attributions).double().mean()))
    return Scores(
        values=np.stack(values)[:, None, :],
        groups=tuple(f"replica {i}" for i in range(len(members))),
        degenerate=max(constant),
    )
