"""Holes filled from around them: the direct solution of the same system, whatever the size of image, hole and batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import lil_matrix
from scipy.sparse.linalg import spsolve

from saliency_checks.perturbation import linear
from saliency_checks.perturbation.imputers import EXACT
from saliency_checks.perturbation.linear import HARMONIC, NOISY_LINEAR, Stencil, solved


def by_scipy(image: np.ndarray, gone: np.ndarray, stencil: Stencil) -> np.ndarray:
    """One equation per removed pixel: the weights of its neighbours in the image, times itself, are the weighted
    neighbours (the formula of ROAD and of pytorch-grad-cam), solved directly."""
    height, width = gone.shape
    index = {place: i for i, place in enumerate(zip(*np.nonzero(gone), strict=True))}
    matrix, right = lil_matrix((len(index), len(index))), np.zeros(len(index))
    for (y, x), i in index.items():
        for dy in (-1, 0, 1):
            for dx in (-1, 0, 1):
                weight, place = (0, stencil.edge, stencil.corner)[abs(dy) + abs(dx)], (y + dy, x + dx)
                if not (0 <= place[0] < height and 0 <= place[1] < width):
                    continue
                matrix[i, i] += weight
                if place in index:
                    matrix[i, index[place]] -= weight
                else:
                    right[i] += weight * image[place]
    found = image.copy()
    found[gone] = spsolve(matrix.tocsc(), right)
    return found


@settings(max_examples=25)
@given(st.integers(1, 9), st.integers(2, 9), st.floats(0.05, 0.95), st.integers(0, 99), st.booleans())
def test_the_linear_systems_are_solved_as_scipy_solves_them(height, width, share, seed, is_harmonic):
    rng = np.random.default_rng(seed)
    images, gone = rng.random((2, 2, height, width)), rng.random((2, 1, height, width)) < share
    gone[:, :, 0, 0] = False
    stencil = HARMONIC if is_harmonic else NOISY_LINEAR
    found = solved(torch.from_numpy(images), torch.from_numpy(gone), stencil, torch.zeros(1, 2, 1, 1))
    for i, channel in np.ndindex(2, 2):
        expected = by_scipy(images[i, channel], gone[i, 0], stencil)
        np.testing.assert_allclose(found[i, channel].numpy(), expected, atol=1e-8)


def test_a_plane_is_its_own_harmonic_inpainting():
    """Linear functions solve the Laplace equation, so a hole in a ramp is filled by the ramp."""
    ramp = (2 * torch.arange(12.0)[:, None] - 3 * torch.arange(12.0)).double().view(1, 1, 12, 12)
    gone = torch.zeros(1, 1, 12, 12, dtype=torch.bool)
    gone[..., 3:9, 2:8] = True
    torch.testing.assert_close(solved(ramp, gone, HARMONIC, torch.zeros(1, 1, 1, 1)), ramp, atol=1e-8, rtol=0)


def holes(size: int, share: float, images: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """Rough images in float64, and of each the largest values of a smooth field: one large hole or a few."""
    rng = torch.Generator().manual_seed(size)
    rough = torch.rand(images, 1, size, size, generator=rng, dtype=torch.float64)
    field = torch.rand(images, 1, 4, 4, generator=rng, dtype=torch.float64)
    field = torch.nn.functional.interpolate(field, size=(size, size), mode="bicubic")
    edge = field.flatten(1).quantile(1 - share, dim=1).view(-1, 1, 1, 1)
    return rough, field >= edge


@pytest.mark.parametrize("stencil", [NOISY_LINEAR, HARMONIC], ids=["noisy_linear", "harmonic"])
@pytest.mark.parametrize(("size", "share"), [(28, 0.3), (28, 0.95), (45, 0.95), (112, 0.8)])
def test_float32_at_the_tolerance_is_the_solution_up_to_a_few_times_of_it_in_ten_iterations(
    stencil, size, share, monkeypatch
):
    """Conjugate gradients alone took 65 to 97 iterations at 28 pixels."""
    images, gone = holes(size, share)
    expected = solved(images, gone, stencil, torch.zeros(1, 1, 1, 1))
    monkeypatch.setattr(linear, "MOST_ITERATIONS", 10)
    found = solved(images.float(), gone, stencil, torch.zeros(1, 1, 1, 1), EXACT)
    assert float((found - expected).abs().max()) < 10 * EXACT


@pytest.mark.parametrize("look", [1, 4])
def test_an_image_is_filled_alike_whoever_is_in_its_batch(look):
    """They take different numbers of iterations: one is done before the others and stands still until a look."""
    images, small = holes(28, 0.1)
    _, large = holes(28, 0.95)
    images, masks = torch.cat([images[:1], images]), torch.cat([small[:1], large])
    otherwise = torch.zeros(1, 1, 1, 1)
    together = solved(images, masks, NOISY_LINEAR, otherwise, EXACT, look)
    for image, gone, found in zip(images, masks, together, strict=True):
        alone = solved(image[None], gone[None], NOISY_LINEAR, otherwise, EXACT)
        torch.testing.assert_close(alone[0], found, atol=1e-10, rtol=0)


def test_channels_share_the_hole_and_one_that_is_not_gone_stays():
    images, gone = holes(12, 0.5)
    three = torch.cat([images, images.flip(2), images * 3], 1)
    wide = torch.cat([gone, gone, torch.zeros_like(gone)], 1)
    otherwise = torch.zeros(1, 1, 1, 1)
    shared, own = (solved(three, mask, HARMONIC, otherwise) for mask in (gone, wide))
    torch.testing.assert_close(shared[:, :2], own[:, :2], atol=1e-9, rtol=0)
    torch.testing.assert_close(shared[:, 2], 3 * shared[:, 0], atol=1e-9, rtol=0)
    assert torch.equal(own[:, 2], three[:, 2])


@pytest.mark.parametrize("shape", [(1, 40), (40, 1), (3, 50)])
def test_a_strip_is_filled_too(shape):
    images = torch.rand(1, 1, *shape, dtype=torch.float64)
    gone = torch.ones(shape, dtype=torch.bool)
    gone[0, 0] = gone[-1, -1] = False
    found = solved(images, gone.view(1, 1, *shape), NOISY_LINEAR, torch.zeros(1, 1, 1, 1))
    np.testing.assert_allclose(found[0, 0], by_scipy(images[0, 0].numpy(), gone.numpy(), NOISY_LINEAR), atol=1e-8)
