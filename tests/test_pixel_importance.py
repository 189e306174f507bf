"""Additive and subtractive importance on a detector whose causes are known."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from saliency_checks.metric import Draw
from saliency_checks.metrics.pixel_importance import additive_importance, pointed_at, subtractive_importance
from saliency_checks.subject import Unqualified

from toys import detector, made, zero

DRAW = Draw(n=64)


def _site(subject):
    """Maps that are one at the cause."""
    return subject.truth.float().unsqueeze(1)


def blockwise(subject, change):
    """The method is called block by block, so the images are found again by their values."""

    def explain(model, inputs, targets):
        rows = [int((subject.inputs == x).flatten(1).all(1).nonzero()[0]) for x in inputs]
        return change(_site(subject)[rows])

    return made(explain, "pointing", signed=True)


def test_pointing_where_the_model_does_not_look_costs_everything():
    subject = detector()
    elsewhere = blockwise(subject, lambda maps: -maps)
    without = subtractive_importance.measure(elsewhere, subject, DRAW)
    assert without.values.mean() == 1
    assert without.details["missed"] == without.values.shape[-1] >= 30
    # Other pixels alone are right by chance: one class in four.
    alone = additive_importance.measure(elsewhere, subject, DRAW)
    assert abs(alone.values.mean() - 0.75) < 0.15


@pytest.mark.parametrize("metric", [additive_importance, subtractive_importance])
def test_a_method_that_hardly_misses_is_not_judged(metric):
    subject = detector()
    with pytest.raises(Unqualified, match=r"misses the cause on 0 of .* fewer than 30 say nothing"):
        metric.measure(blockwise(subject, lambda maps: maps), subject, DRAW)


def test_as_many_pixels_are_pointed_at_as_the_cause_has():
    subject = detector()
    chosen = pointed_at(blockwise(subject, lambda maps: maps), subject, DRAW, 16)
    assert torch.equal(chosen, subject.truth[:16])
    by_lot = pointed_at(zero, subject, DRAW, 16)
    assert torch.equal(by_lot.flatten(1).sum(1), subject.truth[:16].flatten(1).sum(1))


def test_a_model_that_does_not_need_its_cause_is_no_subject():
    subject = detector()
    kept = replace(subject, clean=subject.inputs)
    with pytest.raises(Unqualified, match=r"right without it on 100\.0% .* at most chance"):
        additive_importance.measure(zero, kept, DRAW)
    wrong = replace(subject, targets=(subject.targets + 1) % 4)
    with pytest.raises(Unqualified, match="right with the cause on"):
        additive_importance.measure(zero, wrong, DRAW)


def test_neither_is_gated():
    assert additive_importance.bound is None
    assert subtractive_importance.bound is None
