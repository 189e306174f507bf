"""Defects that published code has had: each is red in one of the checks, and its right form is not."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saliency_checks.axioms.search import smallest, workable
from saliency_checks.method import Method, as_method
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.result import FAIL, PASS
from saliency_checks.run import run

from toys import conv_net, made, subject_of

SAMPLES, STEPS = 6, 5


def around(x: Tensor) -> Tensor:
    """References near each image, (R, N, C, H, W); not drawn, or the draws would hide what depends on the batch."""
    near = torch.randn(SAMPLES, 1, *x.shape[1:], generator=torch.Generator().manual_seed(0))
    return x + 0.3 * near


def from_references(model, x: Tensor, y: Tensor, references: Tensor) -> Tensor:
    """Integrated gradients from each image's own references (N, R, C, H, W)."""
    way = x.unsqueeze(1) - references
    total = torch.zeros_like(way)
    for step in range(STEPS):
        point = references + (step + 0.5) / STEPS * way
        total += input_gradient(model, point.flatten(0, 1), y.repeat_interleave(SAMPLES)).view_as(way) / STEPS
    return (way * total).mean(1)


def ig_smoothgrad(model, x, y):
    return from_references(model, x, y, around(x).transpose(0, 1))


def ig_smoothgrad_with_other_images_references(model, x, y):
    """A stack (R, N, ...) that is viewed as (N, R, ...): right for one image, wrong for a batch."""
    return from_references(model, x, y, around(x).reshape(len(x), SAMPLES, *x.shape[1:]))


def gradient_of_all_parameters(model, x, y):
    """zero_grad and backward: the user's own gradients are gone."""
    model.zero_grad()
    x = x.requires_grad_()
    model(x).gather(1, y.view(-1, 1)).sum().backward()
    return x.grad


def without_eval(model, x, y):
    """saliencysense never calls eval: batch norm sees the batch, and learns from it."""
    model.train()
    return input_gradient(model, x, y)


def in_eval_mode(model, x, y):
    model.eval()
    return input_gradient(model, x, y)


CONTRACT = {
    "references of other images": (ig_smoothgrad, ig_smoothgrad_with_other_images_references),
    "gradients left behind": (in_eval_mode, gradient_of_all_parameters),
    "train mode": (in_eval_mode, without_eval),
}


@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract_kills(name):
    subject = subject_of(conv_net(), 3)
    verdicts = [run("contract", made(one, signed=True), subject).verdict for one in CONTRACT[name]]
    assert verdicts == [PASS, FAIL]


def expected_gradients(model, x, y, references):
    return paired(model, x, y, references, shift=0)


def with_the_next_slot(model, x, y, references):
    """References are tiled one way and gradients grouped another: way and gradient of different references."""
    return paired(model, x, y, references, shift=1)


def paired(model, x, y, references, shift):
    total = torch.zeros_like(x)
    for i, reference in enumerate(references):
        way = x - reference
        for step in range(STEPS):
            slope = input_gradient(model, reference + (step + 0.5) / STEPS * way, y)
            total += (x - references[(i + shift) % len(references)]) * slope / STEPS / len(references)
    return total


def complete(explain) -> Method:
    entry = as_method("expected_gradients")
    return replace(entry, name="mine", explain=explain, source=explain, claims=frozenset({"completeness"}))


def test_completeness_kills_gradients_that_meet_the_wrong_reference():
    def found(explain):
        method = complete(explain)
        return smallest(method, "completeness", workable(method)[0], networks=24, thorough=False)

    assert found(expected_gradients) is None
    assert found(with_the_next_slot) is not None
