"""Laws of the functions on maps, against scipy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from saliency_checks import maps
from saliency_checks.explain import generator

SHAPE = (3, 4, 5)


# Few levels give ties; many digits give none.
def stacks(most: int, scale: float) -> st.SearchStrategy[torch.Tensor]:
    whole = hnp.arrays(np.int64, SHAPE, elements=st.integers(-most, most), fill=st.nothing())
    return whole.map(lambda values: torch.from_numpy(values * scale))


tied, free = stacks(3, 1.0), stacks(10**6, 1e-4)
masks = hnp.arrays(np.bool_, SHAPE).map(torch.from_numpy)
few = settings(max_examples=25)


def rows(values: torch.Tensor) -> np.ndarray:
    return values.flatten(1).numpy()


def scipy_rho(one: np.ndarray, two: np.ndarray) -> float:
    """scipy's Spearman, 0 where it is undefined."""
    if len(one) < 2 or np.ptp(one) == 0 or np.ptp(two) == 0:
        return 0.0
    return float(stats.spearmanr(one, two).statistic)


@few
@given(tied | free)
def test_ranks_are_those_of_scipy(values):
    assert np.array_equal(maps.ranks(values.flatten(1)).numpy(), stats.rankdata(rows(values), axis=1))


def test_ranks_of_a_float32_map_larger_than_float32_counts_exactly_keep_every_half():
    values = torch.arange(30_000_000, dtype=torch.float32).view(1, -1)[:, :1_000_001]
    values[0, :2] = 0
    found = maps.ranks(values)
    assert found[0, :3].tolist() == [1.5, 1.5, 3.0]
    assert found[0, -1] == 1_000_001


@few
@given(tied | free, tied | free)
def test_spearman_is_that_of_scipy_and_zero_for_a_constant(first, second):
    expected = [scipy_rho(a, b) for a, b in zip(rows(first), rows(second), strict=True)]
    np.testing.assert_allclose(maps.spearman(first, second).numpy(), expected, atol=1e-9)


@few
@given(tied | free, tied | free, masks)
def test_magnitude_spearman_is_that_of_scipy_over_the_masked_pixels(first, second, where):
    first, second = first.abs(), second.abs()
    expected = [
        scipy_rho(a[m], b[m]) if np.ptp(a) and np.ptp(b) else 0.0
        for a, b, m in zip(rows(first), rows(second), rows(where), strict=True)
    ]
    np.testing.assert_allclose(maps.magnitude_spearman(first, second, where).numpy(), expected, atol=1e-9)


def test_magnitude_spearman_is_blind_to_zeros_that_both_maps_share():
    rng = torch.Generator().manual_seed(0)
    present = torch.zeros(64, 8, 8, dtype=torch.bool)
    present[:, 2:5] = True
    first, second = (torch.rand(64, 8, 8, generator=rng) * present for _ in range(2))
    assert maps.spearman(first, second).mean() > 0.7  # unrelated maps, yet the shared zeros correlate
    assert abs(maps.magnitude_spearman(first, second, present).mean()) < 0.1


@few
@given(free, st.sampled_from([torch.exp, torch.tanh, lambda x: 3 * x - 7, lambda x: x**3]))
def test_ranks_and_spearman_do_not_change_under_increasing_transforms(values, increasing):
    scaled = values / 100  # far from where exp and tanh saturate
    assume(len(scaled.unique()) == len(increasing(scaled).unique()))  # rounding may merge neighbours
    assert torch.equal(maps.ranks(scaled.flatten(1)), maps.ranks(increasing(scaled).flatten(1)))
    assert torch.equal(maps.spearman(scaled, values), maps.spearman(increasing(scaled), values))


@few
@given(tied | free, tied | free)
def test_spearman_is_symmetric_odd_and_within_its_range(first, second):
    rho = maps.spearman(first, second)
    assert rho.abs().max() <= 1 + 1e-12
    torch.testing.assert_close(rho, maps.spearman(second, first), atol=1e-12, rtol=0)
    torch.testing.assert_close(maps.spearman(-first, second), -rho, atol=1e-12, rtol=0)


@few
@given(tied | free)
def test_a_map_that_varies_agrees_wholly_with_itself_and_one_that_does_not_says_nothing(values):
    varies = values.flatten(1).amax(1) > values.flatten(1).amin(1)
    torch.testing.assert_close(maps.spearman(values, values), varies.double(), atol=1e-12, rtol=0)
    assert maps.spearman(torch.full_like(values, 2.5), values).tolist() == [0.0] * 3


@few
@given(tied | free, tied | free, masks, st.permutations(range(3)))
def test_batch_permutation_commutes(first, second, where, order):
    for function in (
        lambda i: maps.spearman(first[i], second[i]),
        lambda i: maps.magnitude_spearman(first[i].abs(), second[i].abs(), where[i]),
        lambda i: maps.similarity(first[i], second[i], where[i]),
        lambda i: maps.entropy(first[i]),
        lambda i: maps.degenerate(first[i]),
        lambda i: maps.ranks(first[i].flatten(1)),
    ):
        assert torch.equal(function(order), function(list(range(3)))[order])


def test_similarity_reads_each_image_as_signed_or_not_by_its_first_map():
    rng = torch.Generator().manual_seed(1)
    signed, unsigned, second = torch.randn(3, 1, 6, 6, generator=rng).unbind(0)
    unsigned, present = unsigned.abs(), torch.rand(2, 6, 6, generator=rng) < 0.5
    found = maps.similarity(torch.cat([signed, unsigned]), second.expand(2, -1, -1), present)
    assert found[0] == maps.spearman(signed, second)[0]
    assert found[1] == maps.magnitude_spearman(unsigned, second, present[1:])[0]
    assert found[1] != maps.spearman(unsigned, second)[0]


@few
@given(free, free, masks)
def test_similarity_of_signed_maps_ignores_the_mask(first, second, where):
    signed = (first < 0).flatten(1).any(1)
    found, expected = maps.similarity(first, second, where), maps.spearman(first, second)
    assert torch.equal(found[signed], expected[signed])


def test_a_map_that_is_constant_up_to_rounding_correlates_with_nothing():
    ramp = torch.linspace(0, 1, 64).view(1, 8, 8)
    flat = torch.full_like(ramp, 0.1) + 1e-9 * ramp
    flat.flatten()[40:] += torch.finfo(torch.float32).eps * 0.1
    assert len(flat.unique()) > 1
    assert maps.spearman(flat, ramp).item() == 0.0
    assert maps.spearman(ramp, flat).item() == 0.0


@few
@given(tied | free, st.integers(0, 2**31), st.booleans())
def test_strict_order_is_a_permutation_that_sorts(values, seed, descending):
    flat = values.flatten(1)
    order = maps.strict_order(flat, torch.Generator().manual_seed(seed), descending=descending)
    assert torch.equal(order.sort(1).values, torch.arange(flat.shape[1]).expand_as(order))
    steps = flat.gather(1, order).diff(dim=1)
    assert bool((steps <= 0).all() if descending else (steps >= 0).all())


@few
@given(tied, st.integers(0, 2**31), st.integers(1, 3))
def test_strict_order_of_the_first_rows_does_not_depend_on_how_many_follow(values, seed, n):
    def order(count: int) -> torch.Tensor:
        return maps.strict_order(values[:count].flatten(1), torch.Generator().manual_seed(seed))

    assert torch.equal(order(3)[:n], order(n))


def test_a_constant_row_is_ordered_uniformly_at_random():
    """Chi-square over the six orders of three pixels and over the places of one pixel, alpha 1e-4."""
    order = maps.strict_order(torch.zeros(6000, 3), generator("uniform"))
    codes = order[:, 0] * 9 + order[:, 1] * 3 + order[:, 2]
    _, counts = codes.unique(return_counts=True)
    assert len(counts) == 6
    assert stats.chisquare(counts).pvalue > 1e-4
    place = maps.strict_order(torch.full((4000, 16), 0.5), generator("places")).argmin(1)
    assert stats.chisquare(place.bincount(minlength=16)).pvalue > 1e-4


def test_ties_are_random_within_their_level_and_never_across_levels():
    values = torch.tensor([1.0, 0.0, 1.0, 0.0]).repeat(4000, 1)
    order = maps.strict_order(values, generator("levels"))
    assert set(order[:, :2].flatten().tolist()) == {0, 2}
    first = (order[:, 0] == 0).sum().item()
    assert stats.binomtest(first, 4000, 0.5).pvalue > 1e-4


def test_random_orders_differ_from_row_to_row_and_repeat_with_their_generator():
    one, two = (maps.random_orders(50, 20, generator=generator("same")) for _ in range(2))
    assert torch.equal(one, two)
    assert len({tuple(row) for row in one.tolist()}) == 50


@few
@given(st.integers(0, 19), st.floats(1e-3, 1e3))
def test_entropy_of_one_pixel_is_zero_whatever_its_height_and_sign(place, height):
    one = torch.zeros(1, 20)
    one[0, place] = height
    assert maps.entropy(one.view(1, 4, 5)).item() == 0.0
    assert maps.entropy(-one.view(1, 4, 5)).item() == 0.0


@pytest.mark.parametrize("size", [2, 7, 28])
@pytest.mark.parametrize("height", [1e-6, 1.0, 1e6])
def test_entropy_of_a_uniform_map_is_one(size, height):
    assert maps.entropy(torch.full((1, size, size), height)).item() == pytest.approx(1, abs=1e-12)
    assert maps.entropy(torch.zeros(1, size, size)).item() == pytest.approx(1, abs=1e-12)


@few
@given(free, st.floats(1e-6, 1e6))
def test_entropy_is_that_of_scipy_and_does_not_depend_on_scale_or_sign(values, scale):
    assume(bool((values != 0).flatten(1).any(1).all()))
    expected = stats.entropy(np.abs(rows(values)), axis=1) / np.log(20)
    np.testing.assert_allclose(maps.entropy(values).numpy(), expected, atol=1e-9)
    np.testing.assert_allclose(maps.entropy(-scale * values).numpy(), expected, atol=1e-9)


@few
@given(tied | free, hnp.arrays(np.bool_, (3, 2, 4, 5)).map(torch.from_numpy))
def test_over_masks_is_the_mean_over_each_mask_and_zero_for_an_empty_one(values, several):
    found = maps.over_masks(values, several)
    for i in range(3):
        for k in range(2):
            inside = values[i][several[i, k]]
            assert found[i, k].item() == pytest.approx(inside.mean().item() if len(inside) else 0.0, abs=1e-9)


def test_over_masks_of_a_constant_map_ties_exactly_wherever_the_masks_lie():
    patches = torch.zeros(1, 100, 28, 28, dtype=torch.bool)
    for i in range(100):
        patches[0, i, 2 * (i // 10) : 2 * (i // 10) + 3, i % 10 : i % 10 + 3] = True
    assert len(maps.over_masks(torch.full((1, 28, 28), 0.1), patches).unique()) == 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-30, 1e-4, 1.0, 1e20])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.3])
def test_degenerate_means_constant_up_to_rounding_at_any_scale(dtype, scale, value):
    flat = torch.full((1, 8, 8), value * scale, dtype=dtype)
    assert maps.degenerate(flat).all()
    assert maps.degenerate(flat * (1 + 2 * torch.finfo(dtype).eps * torch.arange(64).view(8, 8) / 64)).all()
    spike = flat.clone()
    spike[0, 3, 3] += scale * 1e-3
    assert not maps.degenerate(spike).any()


def test_channels_are_summed_with_their_sign():
    values = torch.tensor([[[[1.0, -2.0]], [[3.0, 2.0]]]])
    assert maps.reduce_channels(values).tolist() == [[[4.0, 0.0]]]
