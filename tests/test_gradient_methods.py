"""Methods that read gradients at and around the image, against closed forms, identities and captum."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saliency_checks.methods.gradient import (
    abs_gradient_x_abs_input,
    gradient_magnitude,
    input_gradient,
    smoothgrad,
    smoothgrad_squared,
    vargrad,
)

from nets import Elementwise, Y, images, kinked, linear, slope, smooth, watched, weights

laws = settings(max_examples=5, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
SAMPLING = (smoothgrad, smoothgrad_squared, vargrad)


def seeded(method, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return method(*args, **kwargs)


def test_a_linear_model_is_explained_by_its_weights():
    model, x = linear(), images()
    w = weights(model, Y)
    torch.testing.assert_close(gradient_magnitude(model, x, Y), w.abs())
    torch.testing.assert_close(abs_gradient_x_abs_input(model, x, Y), w.abs() * x.abs())
    torch.testing.assert_close(smoothgrad_squared(model, x, Y), w**2)
    assert vargrad(model, x, Y).abs().max() < 1e-28


@pytest.mark.parametrize("build", [smooth, kinked])
def test_magnitudes_are_those_of_the_gradient(build):
    model, x = build(), images() - 0.5
    g = slope(model, x, Y)
    torch.testing.assert_close(gradient_magnitude(model, x, Y), g.abs(), rtol=1e-5, atol=1e-8)
    torch.testing.assert_close(abs_gradient_x_abs_input(model, x, Y), g.abs() * x.abs(), rtol=1e-5, atol=1e-8)


def test_moments_are_those_of_the_gradients_at_the_points_that_were_looked_at():
    model, x = smooth(), images()
    for method, moment in {
        smoothgrad: lambda g: g.mean(0),
        smoothgrad_squared: lambda g: (g**2).mean(0),
        vargrad: lambda g: g.var(0, correction=0),
    }.items():
        with watched(model) as seen:
            found = method(model, x, Y, samples=7)
        assert len(seen) == 7
        expected = moment(torch.stack([slope(model, point, Y) for point in list(seen)]))
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def many(method, model, image, target, copies=2000, **settings):
    """The mean of a method's maps over independent draws: an image is drawn for without its neighbours."""
    maps = seeded(method, model, image.expand(copies, -1, -1, -1), target.expand(copies), **settings)
    return maps.mean(0), maps.std(0) / copies**0.5


def test_moments_of_a_cubic_function_have_their_closed_forms():
    """g = 3 c x^2 under noise z ~ N(0, s^2)."""
    x, y = images(1), Y[1:2]
    s, c, n = 0.3 * (x.max() - x.min()), 4, 10
    expected = {
        smoothgrad: 3 * c * (x**2 + s**2),
        smoothgrad_squared: 9 * c**2 * (x**4 + 6 * x**2 * s**2 + 3 * s**4),
        vargrad: 9 * c**2 * (4 * x**2 * s**2 + 2 * s**4) * (n - 1) / n,
    }
    for method, value in expected.items():
        found, error = many(method, Elementwise(lambda z: z**3), x, y, samples=n, noise=0.3)
        assert ((found - value[0]).abs() < 5 * error).all(), method.__name__


@laws
@given(seed=seeds)
def test_the_variance_is_the_second_moment_minus_the_squared_first(seed):
    model, x = kinked(seed), images(seed=seed)
    first, second, variance = (seeded(method, model, x, Y, seed=seed) for method in SAMPLING)
    torch.testing.assert_close(variance, second - first**2, rtol=1e-9, atol=1e-12)
    assert (variance >= 0).all()


class Scaled(nn.Module):
    def __init__(self, model, factor=1.0, slope=0.0):
        super().__init__()
        self.model, self.factor, self.slope = model, factor, slope

    def forward(self, x):
        return self.factor * self.model(x) + self.slope * x.flatten(1).sum(1, keepdim=True)


@laws
@given(seed=seeds, factor=st.floats(-3, 3))
def test_magnitudes_scale_with_the_size_of_the_logit_and_squares_with_its_square(seed, factor):
    model, x = kinked(seed), images(seed=seed)
    scaled = Scaled(model, factor)
    for method in (gradient_magnitude, abs_gradient_x_abs_input):
        torch.testing.assert_close(method(scaled, x, Y), abs(factor) * method(model, x, Y))
    for method in (smoothgrad_squared, vargrad):
        torch.testing.assert_close(seeded(method, scaled, x, Y), factor**2 * seeded(method, model, x, Y))


def test_the_variance_does_not_see_what_is_linear():
    model, x = kinked(), images()
    tilted = Scaled(model, slope=5.0)
    torch.testing.assert_close(seeded(vargrad, tilted, x, Y), seeded(vargrad, model, x, Y))


@pytest.mark.parametrize(("ours", "theirs"), [(smoothgrad_squared, "smoothgrad_sq"), (vargrad, "vargrad")])
def test_captum_s_noise_tunnel_agrees_in_the_mean(ours, theirs):
    model, x, y = smooth(), images(1), Y[1:2]
    tunnel = captum.attr.NoiseTunnel(captum.attr.Saliency(model))
    spread = 0.5 * float(x.max() - x.min())  # captum's is absolute

    def captums(model, inputs, targets):
        return tunnel.attribute(inputs, nt_type=theirs, nt_samples=10, stdevs=spread, target=targets, abs=False)

    (one, e), (two, f) = many(captums, model, x, y), many(ours, model, x, y, samples=10, noise=0.5)
    assert ((one - two).abs() < 5 * (e**2 + f**2).sqrt()).all()


# Noise belongs to its image ------------------------------------------------------------------------------------------


def spreads(method) -> tuple[torch.Tensor, torch.Tensor]:
    """Standard deviation of the noise on each of three images, alone and beside one of a far larger range."""
    model, x = smooth(), torch.cat([images(2), 50 * images(1, seed=1)])
    with watched(model) as seen:
        seeded(method, model, x, Y, samples=200)
    return torch.stack(seen).sub(x).std(0).mean((1, 2, 3)), 0.15 * (x.amax((1, 2, 3)) - x.amin((1, 2, 3)))


def test_noise_is_a_share_of_each_image_s_own_range():
    for method in SAMPLING:
        torch.testing.assert_close(*spreads(method), rtol=0.08, atol=0)


def test_that_law_kills_a_spread_taken_from_the_whole_batch():
    def of_the_batch(model, inputs, targets, samples):
        spread = 0.15 * (inputs.max() - inputs.min())
        noisy = [inputs + spread * torch.randn_like(inputs) for _ in range(samples)]
        return torch.stack([input_gradient(model, one, targets) for one in noisy]).mean(0)

    with pytest.raises(AssertionError):
        torch.testing.assert_close(*spreads(of_the_batch), rtol=0.08, atol=0)
