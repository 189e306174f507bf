"""Similarities of maps against scikit-image, SciPy and closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from skimage.feature import hog as skimage_hog
from skimage.metrics import structural_similarity

from saliency_checks import comparison, maps

GENERATOR = torch.Generator().manual_seed(3)
FIRST, SECOND = torch.randn(2, 5, 28, 30, generator=GENERATOR)


@pytest.mark.parametrize("window", [5, 7])
@pytest.mark.parametrize("data_range", [1.0, 2.0])
def test_ssim_is_that_of_scikit_image(window, data_range):
    ours = comparison.ssim(FIRST, SECOND, window=window, data_range=data_range)
    for value, a, b in zip(ours, FIRST.double().numpy(), SECOND.double().numpy(), strict=True):
        theirs = structural_similarity(a, b, win_size=window, data_range=data_range, full=False)
        assert value.item() == pytest.approx(theirs, abs=1e-10)


@pytest.mark.parametrize(("size", "cell"), [((28, 30), 7), ((64, 64), 16), ((33, 50), 8)])
def test_hog_is_that_of_scikit_image(size, cell):
    images = torch.rand(3, *size, generator=GENERATOR, dtype=torch.float64)
    ours = comparison.hog(images, cell)
    for row, image in zip(ours, images.numpy(), strict=True):
        theirs = skimage_hog(image, pixels_per_cell=(cell, cell))
        # theirs: block, cell, orientation; ours: block, orientation, cell.
        theirs = theirs.reshape(-1, 9, 9).transpose(0, 2, 1).flatten()
        np.testing.assert_allclose(row.numpy(), theirs, atol=2e-5)


def test_the_default_cell_gives_the_papers_size_on_photographs_and_fits_small_images():
    photograph = torch.rand(1, 224, 224, generator=GENERATOR)
    assert torch.equal(comparison.hog(photograph), comparison.hog(photograph, 16))
    assert torch.equal(comparison.hog(FIRST), comparison.hog(FIRST, 7))
    with pytest.raises(ValueError, match="fewer than 3x3"):
        comparison.hog(FIRST, 16)


def test_every_measure_is_one_for_the_same_map_and_the_same_alone_as_in_a_batch():
    channels = FIRST.unsqueeze(1)
    for name, measure in comparison.MEASURES.items():
        torch.testing.assert_close(measure(channels, channels), torch.ones(5, dtype=torch.float64), msg=name)
        together = measure(channels, SECOND.unsqueeze(1))
        alone = torch.cat([measure(a[None, None], b[None, None]) for a, b in zip(FIRST, SECOND, strict=True)])
        torch.testing.assert_close(together, alone)


def test_a_flipped_sign_changes_signed_rank_and_cosine_but_not_the_abs_measures_or_the_sign_maximum():
    one, flipped = FIRST.unsqueeze(1), -FIRST.unsqueeze(1)
    signs = {name: measure(one, flipped).mean().item() for name, measure in comparison.MEASURES.items()}
    assert {name for name, value in signs.items() if value > 0.999} >= {"abs_spearman", "paper_abs", "ssim", "ssim_abs"}
    assert signs["spearman"] == pytest.approx(-1)
    assert signs["cosine"] == pytest.approx(-1)


def test_the_papers_abs_measure_is_the_rank_correlation_of_maps_cut_off_at_the_99th_percentile():
    ours = comparison.MEASURES["paper_abs"](FIRST.unsqueeze(1), SECOND.unsqueeze(1))
    for value, a, b in zip(ours, FIRST.numpy(), SECOND.numpy(), strict=True):
        a, b = (np.minimum(np.abs(m), np.percentile(np.abs(m).astype(float), 99)) for m in (a, b))
        assert value.item() == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-9)


@pytest.mark.parametrize("share", [0.19, 0.35, 0.5, 1.0])
def test_abs_rank_correlation_of_input_times_noise_is_the_closed_form(share):
    """Nothing of a model is in these maps, and yet they agree: spec section 2.5, key identity."""
    n, side = 24, 64
    present = torch.zeros(n, side * side)
    present[:, : round(share * side * side)] = 1
    noise = torch.randn(2, n, side * side, generator=torch.Generator().manual_seed(0))
    rho = maps.spearman((present * noise[0]).abs().view(n, side, side), (present * noise[1]).abs().view(n, side, side))
    assert rho.mean().item() == pytest.approx(comparison.magnitude_null(share), abs=0.01)
    signed = maps.spearman((present * noise[0]).view(n, side, side), (present * noise[1]).view(n, side, side))
    assert abs(signed.mean().item()) < 0.01


def test_the_closed_form_has_the_values_of_the_paper_on_mnist():
    assert comparison.magnitude_null(0.19) == pytest.approx(0.985, abs=5e-4)
    assert comparison.magnitude_null(0.35) == pytest.approx(0.941, abs=5e-4)


def test_a_shuffled_map_keeps_its_values_and_loses_its_places():
    moved = comparison.shuffled(FIRST, torch.Generator().manual_seed(0))
    torch.testing.assert_close(moved.flatten(1).sort().values, FIRST.flatten(1).sort().values)
    assert maps.spearman(FIRST, moved).abs().max() < 0.15


def test_heavy_tailed_maps_share_an_ssim_floor_that_gaussian_ones_do_not():
    tails = torch.randn(2, 6, 56, 56, generator=torch.Generator().manual_seed(1)).pow(5)
    floor = comparison.ssim(*(comparison.unit_range(m.abs()) for m in tails)).mean()
    gaussian = comparison.ssim(*(comparison.unit_range(m) for m in torch.randn(2, 6, 56, 56, generator=GENERATOR)))
    assert gaussian.mean() < 0.15
    assert floor > gaussian.mean() + 0.2


def test_constant_maps_correlate_with_nothing():
    flat = torch.ones_like(FIRST)
    assert comparison.cosine(torch.zeros_like(FIRST), FIRST).abs().max() == 0
    assert comparison.hog_correlation(flat, FIRST).abs().max() == 0
