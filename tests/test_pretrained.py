"""A network that somebody else trained (1,000 classes, ReLU6, inverted residuals), on photographs."""

from __future__ import annotations

from functools import cache, partial
from inspect import signature
from typing import Any

import pytest
import torch
from torch import Tensor

from saliency_checks import maps, registry
from saliency_checks.explain import explain
from saliency_checks.graft import graft
from saliency_checks.loading import build_subject
from saliency_checks.method import Method, as_method
from saliency_checks.metrics.acuity import NEVER
from saliency_checks.result import FAIL, PASS
from saliency_checks.run import run
from saliency_checks.snapshot import Snapshot
from saliency_checks.subject import Subject

from pretrained import lite0, photos, subject

SIDE = 64
FEWER = {"samples", "steps", "draws", "iterations", "permutations", "copies", "classes"}
MOST = 4  # of each: whether it runs, not how well
METHODS = [name for name in registry.names("methods") if not registry.get("methods", name).control]


def brief(name: str) -> Method:
    """The method with as few passes as show that it runs."""
    method = registry.get("methods", name)
    defaults = {key: p.default for key, p in signature(method.source).parameters.items() if key in FEWER}
    fewer: dict[str, Any] = {key: min(value, MOST) for key, value in defaults.items()}
    return method if not fewer else as_method(
        partial(method.source, **fewer), name=name, needs=method.needs, signed=method.signed
    )  # fmt: skip


def maps_of(method: Method, images: int = 2, side: int = SIDE) -> Tensor:
    own = build_subject(subject(side))
    return explain(method, own.model, own.inputs[:images], own.targets[:images], **own.supplies)


def test_it_knows_seventeen_of_the_twenty_photographs():
    inputs, targets = photos()
    with torch.no_grad():
        assert int((lite0()(inputs).argmax(1) == targets).sum()) == 17


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_and_leaves_it_as_it_was(name):
    before = Snapshot.of(lite0())
    found = maps_of(brief(name))
    assert before.changes(lite0()) == []
    assert found.shape == (2, SIDE, SIDE)
    if name != "least_likely_complement":  # nothing may speak for that class, and then its complement is everything
        assert not maps.degenerate(found).any()


def test_backward_rules_are_not_the_plain_gradient_though_every_activation_is_a_relu6():
    """captum 0.9.0 does not know ReLU6: both are silently the gradient, and input x gradient, there."""
    gradient, product = maps_of(as_method("gradient")), maps_of(as_method("input_x_gradient"))
    assert float(maps.spearman(maps_of(as_method("guided_backprop")), gradient).max()) < 0.9
    assert float(maps.spearman(maps_of(as_method("deep_lift")), product).max()) < 0.9


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gradient", "integrated_gradients", "guided_backprop", "deep_lift", "grad_cam"])
def test_the_contract_holds(name):
    result = run("contract", brief(name), subject(SIDE), profile="quick")
    assert result.verdict == PASS, result.message


# --- a known cause, grafted onto it ----------------------------------------------------------------------------------


@cache
def grafted() -> Subject:
    return build_subject(graft(subject(112)))


@pytest.mark.slow
def test_the_gradient_finds_a_small_cause_and_guided_backprop_misses_a_large_one():
    """Known for such networks (Sixt et al. 2020); on the small embedded ones guided backprop finds it too."""
    found = run("acuity", "gradient", grafted(), profile="quick")
    missed = run("acuity", "guided_backprop", grafted(), profile="quick")
    assert found.verdict == PASS, found.message
    assert missed.verdict == FAIL, missed.message
    assert set(missed.controls.values()) == {NEVER}
