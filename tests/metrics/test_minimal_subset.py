"""How few pixels decide, where it can be counted."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.subject import Subject

from toys import made

SHARES = tuple(i / 36 for i in range(37))


class Threshold(nn.Module):
    """Class 0 while at least ``least`` of the first twelve pixels are bright."""

    def __init__(self, least: int) -> None:
        super().__init__()
        self.least = least

    def forward(self, x):
        bright = (x.flatten(1)[:, :12] > 0.5).sum(1).double()
        return torch.stack([bright - self.least + 0.5, self.least - 0.5 - bright], 1)


def subject(least: int) -> Subject:
    inputs = torch.full((3, 1, 6, 6), 0.9, dtype=torch.float64)
    return Subject(Threshold(least).eval(), inputs, torch.zeros(3, dtype=torch.long), absent=0.1)


rank = torch.arange(36.0).view(1, 6, 6)
oracle = made(lambda m, x, t: -rank.expand_as(x), "oracle", signed=True)
worst = made(lambda m, x, t: rank.expand_as(x), "worst", signed=True)


def measured(name: str, method: Method, judged: Subject, **changes) -> np.ndarray:
    return sc.get("metrics", name).with_settings(**changes).measure(method, judged, Draw(n=3)).values[0, 0]


@pytest.mark.parametrize("least", [1, 5, 12])
def test_it_counts_what_must_go_and_what_must_be_shown(least):
    judged = subject(least)
    must_go = 12 - least + 1
    for method, before in ((oracle, 0), (worst, 24)):
        deleted = measured("minimal_subset_deletion", method, judged, fractions=SHARES)
        inserted = measured("minimal_subset_insertion", method, judged, fractions=SHARES)
        np.testing.assert_allclose(deleted, (before + must_go) / 36)
        np.testing.assert_allclose(inserted, (before + least) / 36)


def test_a_prediction_that_nothing_changes_has_no_smaller_subset_than_all():
    judged = replace(subject(0), model=Threshold(0))  # zero bright pixels are enough
    np.testing.assert_allclose(measured("minimal_subset_deletion", oracle, judged, fractions=SHARES), 1)
    np.testing.assert_allclose(measured("minimal_subset_insertion", oracle, judged, fractions=SHARES), 0)


def test_by_segments_the_units_are_segments():
    """Six rows of pixels as segments; the first two decide."""
    judged = subject(12)
    rows = torch.arange(6).view(6, 1).expand(6, 6)
    judged.recent.get(("segments", "slic", 100, 0), lambda: rows.expand(3, 6, 6))
    sixths = tuple(i / 6 for i in range(7))
    for method, deleted, inserted in ((oracle, 1, 2), (worst, 5, 6)):
        found = measured("segment_minimal_subset_deletion", method, judged, fractions=sixths)
        np.testing.assert_allclose(found, deleted / 6)
        found = measured("segment_minimal_subset_insertion", method, judged, fractions=sixths)
        np.testing.assert_allclose(found, inserted / 6)


@pytest.mark.parametrize("name", ["minimal_subset_deletion", "minimal_subset_insertion"])
def test_the_oracle_needs_least_and_its_reverse_most(name):
    judged = subject(6)
    noisy = made(lambda m, x, t: torch.randn_like(x), "noisy")
    found = [sc.get("metrics", name).measure(m, judged, Draw(n=3)).values.mean() for m in (oracle, noisy, worst)]
    assert found[0] < found[1] < found[2]
