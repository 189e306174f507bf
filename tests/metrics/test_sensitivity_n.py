"""Sensitivity-n is 1 on linear models and -1 for the negative, whatever the subsets; a constant map says nothing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import saliency_checks as sc
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.perturbation.subsets import drawn
from saliency_checks.perturbation.units import units_of
from saliency_checks.subject import Unqualified

from toys import against, constant, effect, of_weights, weighted, white_noise, zero

GRID = {"segments": "grid", "count": 9}


def measured(name, method, subject, n=12, **changes):
    changes = changes | (GRID if name.startswith("segment") and "segments" not in changes else {})
    metric = sc.get("metrics", name)
    return metric.with_settings(**changes).measure(method, subject, Draw(n=n)).values[0, 0]


@settings(max_examples=10)
@given(
    st.integers(0, 99), st.sampled_from([1, 3]), st.sampled_from(["exact", "bernoulli"]), st.sampled_from([2, 9, 20]),
    st.floats(0.01, 100),
)  # fmt: skip
def test_it_is_1_for_the_effect_of_each_pixel_and_minus_1_for_the_negative(seed, channels, law, draws, factor):
    subject = weighted(5, channels, seed=seed)
    scaled = of_weights(lambda w, x: factor * w * (x - 0.3), "scaled")
    for name in ("sensitivity_n", "segment_sensitivity_n"):
        given = {"law": law, "draws": draws} | ({"sizes": (0.3, 0.5)} if draws == 2 else {})
        found = measured(name, scaled, subject, 5, **given)
        if law == "exact" or draws > 2:  # two independent draws may be the same subset
            np.testing.assert_allclose(found, 1, atol=1e-6)
            np.testing.assert_allclose(measured(name, against, subject, 5, **given), -1, atol=1e-6)


@pytest.mark.parametrize("name", ["sensitivity_n", "segment_sensitivity_n"])
@pytest.mark.parametrize("method", [constant, zero], ids=lambda m: m.name)
def test_a_constant_map_foretells_nothing(name, method):
    """Of subsets of one size its sums are all the same: the correlation is 0, and not one of rounding errors."""
    flat = Method(name="flat", signed=True, explain=lambda m, x, t: torch.full_like(x, 0 if method is zero else 1 / 3))
    np.testing.assert_allclose(measured(name, flat, weighted()), 0, atol=1e-12)


@pytest.mark.parametrize("name", ["sensitivity_n", "segment_sensitivity_n"])
def test_the_effect_is_first_and_its_negative_last(name):
    found = [measured(name, m, weighted(48), 48).mean() for m in (effect, white_noise, against)]
    assert found[0] > found[1] + 0.5 > found[2] + 1


def test_the_subsets_have_their_sizes_and_are_the_same_for_every_image():
    subject, given = weighted(), sc.get("metrics", "sensitivity_n").settings
    units = units_of(subject, slice(0, 12), given)
    subsets = drawn(subject, slice(0, 12), 0, given, units)
    for subset, size in zip(subsets, (3, 10, 18, 25, 32), strict=True):
        inside = subset.turn < subset.high
        assert inside.shape == (given.draws, 1, 36)
        assert set(inside.sum(2).flatten().tolist()) == {size}
        assert len(inside[:, 0].unique(dim=0)) == given.draws


def test_a_bernoulli_subset_holds_each_unit_with_its_probability():
    subject = weighted()
    given = sc.get("metrics", "sensitivity_n").with_settings(law="bernoulli", sizes=(0.3,), draws=500).settings
    (subset,) = drawn(subject, slice(0, 12), 0, given, units_of(subject, slice(0, 12), given))
    share = (subset.turn < subset.high).double().mean().item()
    assert abs(share - 0.3) < 4 * (0.3 * 0.7 / (500 * 36)) ** 0.5


def test_numbers_of_segments_are_not_shares_and_too_many_do_not_qualify():
    subject = weighted()
    np.testing.assert_allclose(measured("segment_sensitivity_n", effect, subject, sizes=(2, 5)), 1, atol=1e-6)
    with pytest.raises(Unqualified, match="9 units"):
        measured("segment_sensitivity_n", effect, subject, sizes=(5, 10))


def test_images_of_different_numbers_of_segments_each_have_subsets_of_their_own():
    subject, labels = weighted(6), torch.arange(36).view(6, 6)
    cells = torch.stack([labels // (1 + i) for i in range(6)]).unsqueeze(1)
    number = cells.flatten(1).amax(1) + 1
    assert number.tolist() == [36, 18, 12, 9, 8, 6]
    subject.recent.get(("segments", "slic", 100, 0), lambda: cells.squeeze(1))
    found = measured("segment_sensitivity_n", effect, subject, 6, segments="slic", count=100)
    np.testing.assert_allclose(found, 1, atol=1e-6)
    given = sc.get("metrics", "segment_sensitivity_n").settings
    for subset in drawn(subject, slice(0, 6), 0, given, units_of(subject, slice(0, 6), given)):
        for image, count in enumerate(number.tolist()):
            assert bool((subset.turn[:, image, :count] < count).all())
