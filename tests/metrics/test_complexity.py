"""Entropy against closed forms; only a map that is the same everywhere fails."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from saliency_checks.metric import Draw
from saliency_checks.metrics.complexity import (
    Smallest,
    complexity,
    effective_complexity,
    entropy,
    sparseness,
)
from saliency_checks.run import run
from saliency_checks.subject import Subject

from toys import changed, constant, conv_net, detector, gradient, made, subject_of, white_noise, zero


def spread_over(pixels: int):
    """A map with so many equal values, of either sign, and zeros."""

    def explain(m, x, t):
        flat = torch.zeros(len(x), 64)
        flat[:, torch.randperm(64)[:pixels]] = 2.0
        flat[:, 0] *= -1
        return flat.view(-1, 8, 8)

    return made(explain, f"spread_{pixels}")


@pytest.mark.parametrize("pixels", [1, 2, 10, 63, 64])
def test_the_entropy_of_k_equal_pixels_is_log_k(pixels):
    found = entropy.measure(spread_over(pixels), detector(8), Draw(n=8)).values
    np.testing.assert_allclose(found, np.log(pixels) / np.log(64), atol=1e-9)


def test_the_truth_of_one_pixel_is_the_extreme_and_is_noted_but_not_failed():
    scores = complexity.measure(gradient, detector(8), Draw(n=8))
    assert scores.values.all()
    assert "one pixel" in str(scores.details["note"])
    assert run("complexity", gradient, detector(96)).verdict == "pass"


@pytest.mark.parametrize("scale", [-1.0, 1e-6, 1e6])
def test_scale_and_sign_change_nothing(scale):
    subject = subject_of(conv_net(), 3)
    one, two = (
        entropy.measure(method, subject, Draw(n=16)).values
        for method in (gradient, changed(lambda g: scale * g, "scaled"))
    )
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert ((one > 0.5) & (one < 1)).all()


def nearly_uniform(contrast):
    """1 on one half and 1 + contrast on the other."""
    half = torch.ones(8, 8)
    half[:, 4:] += contrast
    return made(lambda m, x, t: half.expand(len(x), 8, 8), "nearly_uniform")


@pytest.mark.parametrize(("contrast", "kept"), [(0.1, False), (1.0, True)])
def test_the_line_is_drawn_just_below_uniform(contrast, kept):
    p = np.array([1.0, 1 + contrast]) / (2 + contrast) / 32
    expected = -(32 * p * np.log(p)).sum() / np.log(64)
    assert (expected <= 0.995) == kept
    assert (complexity.measure(nearly_uniform(contrast), detector(8), Draw(n=8)).values == kept).all()


@pytest.mark.parametrize("method", [constant, zero, nearly_uniform(0.01)], ids=lambda m: m.name)
def test_a_map_that_is_the_same_everywhere_fails(method):
    assert run("complexity", method, detector(96)).verdict == "fail"


def test_some_flat_maps_among_good_ones_fail_by_their_share():
    some = made(lambda m, x, t: gradient.explain(m, x, t) * (t > 0).view(-1, 1, 1, 1), "a_quarter_zero")
    scores = complexity.measure(some, detector(96), Draw(n=96))
    assert (scores.values.mean(), scores.degenerate) == (0.75, 0.25)
    assert run("complexity", some, detector(96)).verdict == "fail"


def test_noise_passes_because_no_threshold_separates_it():
    assert run("complexity", white_noise, detector(96)).verdict == "pass"


SINGLE = spread_over(1)


def score(metric, drawn, **given):
    """Of one map (H, W)."""
    method = made(lambda m, x, t: drawn.expand(len(x), 1, *drawn.shape), "drawn")
    subject = Subject(torch.nn.Flatten(), torch.zeros(1, 1, *drawn.shape), torch.zeros(1, dtype=torch.long))
    return float(metric.measure(method, subject, Draw(n=1), **given).values.squeeze())


def test_the_published_numbers_of_the_fake_class_activation_map():
    """Zhang et al. 2024, table 3: complexity 10.8, effective complexity 50175, sparseness 0.0, at 224 px."""
    fake = torch.ones(224, 224)
    fake[0, 0] = 0
    assert score(entropy, fake) * np.log(224 * 224) == pytest.approx(10.8233, abs=5e-5)
    assert (
        score(effective_complexity, fake, settings=effective_complexity.with_preset("saliencysense").settings) == 50175
    )
    assert score(sparseness, fake) == pytest.approx(2.0e-5, abs=1e-6)


@given(st.lists(st.floats(0, 100), min_size=64, max_size=64).filter(lambda v: max(v) > 1e-3))
@settings(deadline=None, max_examples=40)
def test_the_gini_index_is_half_the_relative_mean_difference(values):
    """sum |a - b| / (2 n^2 mean): the definition without sorting."""
    drawn = torch.tensor(values).view(8, 8)
    flat = drawn.flatten().double().numpy()
    expected = np.abs(flat[:, None] - flat).sum() / (2 * 64**2 * flat.mean())
    assert score(sparseness, drawn) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("pixels", [1, 2, 10, 63, 64])
def test_k_equal_pixels_have_gini_1_minus_their_share_and_effective_complexity_their_share(pixels):
    method, subject = spread_over(pixels), detector(8)
    np.testing.assert_allclose(sparseness.measure(method, subject, Draw(n=8)).values, 1 - pixels / 64, atol=1e-9)
    np.testing.assert_allclose(effective_complexity.measure(method, subject, Draw(n=8)).values, pixels / 64)


@given(seed=st.integers(0, 10**6), scale=st.sampled_from([-1.0, 1e-6, 1e6]))
@settings(deadline=None, max_examples=20)
def test_neither_scale_nor_the_pixels_order_matter(seed, scale):
    rng = torch.Generator().manual_seed(seed)
    drawn, order = torch.randn(64, generator=rng), torch.randperm(64, generator=rng)
    for metric in (entropy, sparseness, effective_complexity):
        one, two = score(metric, drawn.view(8, 8)), score(metric, scale * drawn[order].view(8, 8))
        assert 0 <= one <= 1
        assert one == pytest.approx(two, abs=1e-6)


@pytest.mark.parametrize("method", [constant, zero], ids=lambda m: m.name)
def test_a_map_without_any_contrast_is_the_most_complex_and_least_sparse(method):
    assert (effective_complexity.measure(method, detector(8), Draw(n=8)).values == 1).all()
    np.testing.assert_allclose(sparseness.measure(method, detector(8), Draw(n=8)).values, 0, atol=1e-12)


def test_pixels_count_from_one_percent_of_the_largest_on():
    steps = torch.zeros(8, 8)
    steps[0, :4] = torch.tensor([-100.0, 2.0, -1.5, 0.5])
    assert score(effective_complexity, steps) == 3 / 64
    assert score(effective_complexity, steps, settings=Smallest(threshold=1.0, of_largest=False, in_pixels=True)) == 3
    assert score(effective_complexity, 0.01 * steps, settings=Smallest(threshold=1.0, of_largest=False)) == 0


def test_one_pixel_is_first_and_a_constant_last():
    for metric in (sparseness, effective_complexity, entropy):
        found = [
            float(metric.measure(m, detector(64), Draw(n=64)).values.mean()) for m in (SINGLE, white_noise, constant)
        ]
        assert found == sorted(found, reverse=metric.better == "higher")
