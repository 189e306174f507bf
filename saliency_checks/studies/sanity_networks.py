"""The networks of the randomisation study: those of Adebayo et al. 2018, a residual network's twins, any subject."""

from __future__ import annotations

from functools import cache

import torch
from torch import nn

from saliency_checks.fixtures import data, recipes, training
from saliency_checks.fixtures.splits import DEVELOPMENT
from saliency_checks.fixtures.subjects import memorised_twins
from saliency_checks.loading import build_subject
from saliency_checks.subject import Subject

CLOTHES, DIGITS = ("adebayo_cnn", "adebayo_mlp"), ("adebayo_cnn_digits", "adebayo_mlp_digits")
RESNET = "fashion_resnet14"


@cache
def subject_of(network: str, device: str) -> Subject:
    """One of this study's own networks by its name, or any subject; trained, or loaded, when first asked for."""
    if network in (*CLOTHES, *DIGITS):
        return build_subject(_understood(network), device)
    return build_subject(_residual() if network == RESNET else network, device)


@cache
def retrained(network: str) -> nn.Module | None:
    """The same task learned from another seed: what similarity a change of weights that changes nothing leaves.

    None for networks that take long to train, and for the user's.
    """
    if network not in CLOTHES:
        return None
    model: nn.Module = training.trained(recipes.adebayo(network.split("_")[1], DEVELOPMENT, replica=1))[0]
    return model


def _understood(network: str) -> Subject:
    """Its test images that it classifies correctly."""
    kind = network.split("_")[1]
    if network in DIGITS:
        model, facts = training.trained(recipes.adebayo_digits(kind, DEVELOPMENT))
        images, labels = data.digits("test")
    else:
        model, facts = training.trained(recipes.adebayo(kind, DEVELOPMENT))
        images, labels = (part[slice(*DEVELOPMENT.test)] for part in data.embedded("test"))
    with torch.no_grad():
        right = torch.cat([model(part) for part in images.split(250)]).argmax(1) == labels
    return Subject(model, images[right], labels[right], name=network, absent=0.0, facts=facts)


def _residual() -> Subject:
    """Four networks with batch norm that memorised the same images, two under permuted labels; the first one explains.

    They take minutes to train and serve this study only, so they are no subject of the checks.
    """
    twins = memorised_twins("resnet", DEVELOPMENT)
    return Subject(twins.same[0], twins.inputs, twins.targets, name=RESNET, absent=0.0, twins=lambda: twins)
