"""Monotonicity correlation against its definition, group by group."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

import saliency_checks as sc
from saliency_checks.metric import Draw
from saliency_checks.perturbation.imputers import imputer
from saliency_checks.perturbation.units import scene_of

from toys import effect, made, weighted, white_noise

ALL = slice(0, 12)


def measured(method, subject, n=12, **changes):
    metric = sc.get("metrics", "monotonicity_correlation").with_settings(**changes)
    return metric.measure(method, subject, Draw(n=n)).values[0, 0]


@pytest.mark.parametrize("groups", [6, 7])
def test_it_is_the_rank_correlation_of_what_groups_are_given_with_what_they_move(groups):
    subject = weighted()
    given = np.abs(effect.explain(subject.model, subject.inputs, subject.targets).flatten(1).numpy())
    edges = np.arange(groups + 1) * 36 // groups
    expected = []
    for i in range(12):
        rising, sums, moved = given[i].argsort(), [], []
        for low, high in pairwise(edges):
            group = torch.zeros(12, 1, 6, 6, dtype=torch.bool)
            group.view(12, -1)[i, rising[low:high].copy()] = True
            squares = []
            for draw in range(3):
                image = imputer("uniform", scene_of(subject, ALL, 0, draw))(torch.arange(12), group)[i : i + 1]
                change = (subject.model(image) - subject.model(subject.inputs[i : i + 1]))[0, subject.targets[i]]
                squares.append(float(change.detach()) ** 2)
            sums.append(given[i][rising[low:high]].sum())
            moved.append(np.mean(squares))
        expected.append(spearmanr(sums, moved).statistic)
    np.testing.assert_allclose(measured(effect, subject, groups=groups, draws=3), expected, atol=1e-9)


def test_the_size_of_each_effect_is_first_its_reverse_last_and_noise_between():
    subject = weighted(64)
    size = made(lambda m, x, t: (m.weight[t].detach() * (x - 0.3)).abs(), "size", signed=False)
    reverse = made(lambda m, x, t: 1 / (1 + (m.weight[t].detach() * (x - 0.3)).abs()), "reverse", signed=False)
    found = [measured(m, subject, 64, imputer="absent", draws=1).mean() for m in (size, white_noise, reverse)]
    assert found[0] > 0.2 > abs(found[1])
    assert found[2] < -0.2


def test_a_constant_map_does_not_correlate():
    subject = weighted(300)
    flat = made(lambda m, x, t: torch.full_like(x, 0.5), "flat", signed=False)
    np.testing.assert_array_equal(measured(flat, subject, 300, groups=6), 0)
