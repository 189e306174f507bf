"""Passes are counted and memory is measured: closed forms."""

from __future__ import annotations

import pytest
import torch

from saliency_checks.cost import PeakMemory, cost
from saliency_checks.method import as_method

FLOATS = 4  # bytes


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [
        ("gradient", 1, 1), ("integrated_gradients", 24, 24), ("smoothgrad", 20, 20), ("deep_lift", 2, 2),
        ("rise", 500, 0), ("random", 0, 0),
    ],
)  # fmt: skip
def test_passes_are_those_of_the_formula(name, forward, backward):
    spent = cost(as_method(name))
    assert (spent.forward, spent.backward) == (forward, backward)


def test_the_gradients_memory_is_the_unit():
    assert cost(as_method("gradient")).memory == pytest.approx(1, abs=0.2)
    assert cost(as_method("occlusion")).memory > 5  # many windows at once


def test_the_peak_is_what_lives_at_once_not_all_that_was_made():
    with PeakMemory() as memory:
        for _ in range(5):
            torch.zeros(1000)
        first, second = torch.zeros(1000), torch.zeros(500)
        view = first.view(10, 100)  # no memory of its own
    assert memory.peak == 1500 * FLOATS
    assert view.shape == (10, 100)
    assert memory.now == 1500 * FLOATS
    del first, second, view


def test_the_peak_holds_what_autograd_keeps():
    x = torch.rand(1000, requires_grad=True)
    with PeakMemory() as memory:
        y = x.exp().exp().exp()
        y.sum().backward()
    assert memory.peak >= 3 * 1000 * FLOATS
