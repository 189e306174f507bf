"""Path methods against closed forms, quadrature, SciPy, captum, and the defects that published code has."""

from __future__ import annotations

from collections import Counter

import captum.attr
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from torch import nn

from saliency_checks.methods.gradient import input_gradient
from saliency_checks.methods.path import (
    baseline_like,
    blur_ig,
    guided_ig,
    integrated_gradients,
    quadrature,
    smoothgrad_ig,
    smoothgrad_squared_ig,
)
from saliency_checks.methods.references import (
    agi,
    expected_gradients,
    gradient_shap,
    ig_smoothgrad,
    ig_squared,
    ig_uniform,
    k_means,
    lpi,
)
from saliency_checks.perturbation.blur import blurred

from nets import CLASSES, Elementwise, Y, images, kinked, linear, slope, smooth, watched, weights

laws = settings(max_examples=5, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
RULES = ("gauss_legendre", "trapezoid", "midpoint", "left", "right")
OTHERS = images(7, seed=5)
WIDE = (-1e9, 1e9)  # nothing is clipped


def seeded(method, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return method(*args, **kwargs)


def change(model, x, start):
    return (model(x) - model(start)).detach()[torch.arange(len(x)), Y]


# Integrated gradients: baselines and quadrature ----------------------------------------------------------------------


@pytest.mark.parametrize("rule", RULES)
def test_weights_of_a_rule_sum_to_one_and_its_points_lie_on_the_way(rule):
    for steps in (1, 2, 7, 50):
        points, shares = zip(*quadrature(rule, steps), strict=True)
        assert sum(shares) == pytest.approx(1, abs=1e-12)
        assert 0 <= min(points) <= max(points) <= 1


@pytest.mark.parametrize(("rule", "degree"), [("gauss_legendre", 9), ("trapezoid", 1), ("midpoint", 1), ("left", 0)])
def test_rules_are_exact_up_to_their_degree(rule, degree):
    for power in range(degree + 1):
        found = sum(weight * place**power for place, weight in quadrature(rule, 5))
        assert found == pytest.approx(1 / (power + 1), abs=1e-12)


def test_a_rule_of_another_name_is_refused():
    with pytest.raises(ValueError, match="expected gauss_legendre, trapezoid, midpoint, left or right"):
        integrated_gradients(linear(), images(), Y, rule="simpson")


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("baseline", [0.0, 0.3, "black", "white", "mean", "blurred", torch.rand(2, 1, 1).double()])
def test_a_linear_model_is_explained_exactly_whatever_the_rule_and_the_baseline(rule, baseline):
    model, x = linear(), images()
    for steps in (1, 3):
        found = integrated_gradients(model, x, Y, baseline=baseline, steps=steps, rule=rule)
        torch.testing.assert_close(found, weights(model, Y) * (x - baseline_like(x, baseline)))


THEIRS = {
    "gauss_legendre": "gausslegendre",
    "midpoint": "riemann_middle",
    "left": "riemann_left",
    "right": "riemann_right",
}


@pytest.mark.parametrize("rule", THEIRS)
def test_captum_agrees_on_every_rule_but_the_trapezoid(rule):
    model, x = smooth(), images()
    explainer = captum.attr.IntegratedGradients(model)
    theirs = explainer.attribute(x, baselines=0.2, target=Y, n_steps=6, method=THEIRS[rule])
    ours = integrated_gradients(model, x, Y, baseline=0.2, steps=6, rule=rule)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)  # its step sizes are float32


def test_captum_s_trapezoid_loses_a_share_and_ours_does_not():
    """Why there is a trapezoid of our own. If this fails, captum has been mended."""
    model, x = linear(), images()
    explainer = captum.attr.IntegratedGradients(model)
    theirs = explainer.attribute(x, target=Y, n_steps=5, method="riemann_trapezoid")
    torch.testing.assert_close(theirs, 0.8 * weights(model, Y) * x, rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(
        integrated_gradients(model, x, Y, steps=5, rule="trapezoid"), weights(model, Y) * x, rtol=1e-9, atol=0
    )


def test_the_law_of_completeness_kills_a_sum_that_was_not_divided_by_its_steps():
    """Integrated gradients of the published re-calibration code: half the steps too large."""

    def summed(model, x, y, steps=5):
        places = torch.linspace(0, 1, steps).tolist()
        return torch.stack([place * x * input_gradient(model, place * x, y) for place in places]).sum(0)

    model, x = linear(), images()
    expected = change(model, x, torch.zeros_like(x))
    torch.testing.assert_close(integrated_gradients(model, x, Y).sum((1, 2, 3)), expected)
    torch.testing.assert_close(summed(model, x, Y).sum((1, 2, 3)), 2.5 * expected)


def test_named_baselines_are_what_their_names_say():
    x = images()
    assert not baseline_like(x, "black").any()
    assert (baseline_like(x, "white") == 1).all()
    soft = baseline_like(x, "blurred")
    assert (soft.std((2, 3)) < x.std((2, 3))).all()
    torch.testing.assert_close(baseline_like(x[1:2], "blurred"), soft[1:2])
    for name in ("black", "white"):
        with pytest.raises(ValueError, match=rf"baseline '{name}' is for images in \[0, 1\], these lie in \[-1, "):
            baseline_like(2 * x.round() - 1, name)


# Blur ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.5, 50.0])
def test_blur_is_scipy_s_where_the_outside_is_black(sigma):
    x = images(2)
    expected = np.stack([ndimage.gaussian_filter(one, (0, sigma, sigma), mode="constant") for one in x.numpy()])
    torch.testing.assert_close(blurred(x, sigma, fade=True), torch.from_numpy(expected))


@pytest.mark.parametrize("sigma", [0.0, 0.3, 50.0])
def test_blur_keeps_a_flat_image_and_makes_any_image_flat(sigma):
    flat = torch.full((1, 1, 5, 7), 0.4, dtype=torch.float64)
    torch.testing.assert_close(blurred(flat, sigma), flat)
    x = images()
    assert (blurred(x, 500.0) - x.mean((2, 3), keepdim=True)).abs().max() < 1e-4
    assert torch.equal(blurred(x, 0.0), x)


@pytest.mark.parametrize("steps", [1, 10])
def test_blur_ig_of_a_linear_model_is_weight_times_what_the_blur_takes_away(steps):
    model, x = linear(), images()
    expected = weights(model, Y) * (x - blurred(x, 3.0, fade=True))
    torch.testing.assert_close(blur_ig(model, x, Y, max_sigma=3.0, steps=steps), expected)


def test_blur_ig_is_the_integral_of_the_gradient_along_the_blur():
    """Equation 4, with SciPy's filter, its derivative by differences, and a rule of many equal steps."""
    model, x, sigma = smooth(), images(1), 4.0
    n, h = 500, 1e-4
    widths = (np.arange(n) + 0.5) * sigma / n

    def path(width):
        return torch.from_numpy(ndimage.gaussian_filter(x.numpy(), (0, 0, width, width), mode="constant", radius=16))

    points = torch.cat([path(width) for width in widths])
    speed = torch.cat([(path(width + h) - path(width - h)) / (2 * h) for width in widths])
    g = input_gradient(model, points, Y[:1].expand(len(points)))
    expected = -(g * speed).sum(0, keepdim=True) * sigma / n
    found = blur_ig(model, x, Y[:1], max_sigma=sigma, steps=400)
    torch.testing.assert_close(found, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


# Guided integrated gradients -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fraction", "max_dist"), [(0.25, 0.02), (0.1, 1.0), (1.0, 0.3), (0.5, 0.0)])
def test_guided_ig_of_a_linear_model_is_weight_times_distance_on_any_way(fraction, max_dist):
    model, x = linear(), images()
    found = guided_ig(model, x, Y, baseline=0.2, steps=9, fraction=fraction, max_dist=max_dist)
    torch.testing.assert_close(found, weights(model, Y) * (x - 0.2), rtol=1e-7, atol=1e-9)


class Product(nn.Module):
    """f(a, b) = a + a b."""

    def forward(self, x):
        a, b = x.flatten(1).unbind(1)
        return (a + a * b)[:, None]


def test_guided_ig_moves_the_value_of_the_smallest_gradient_first():
    """From (0, 0) the gradient is (1, 0), so b goes first, for nothing; then a alone, with slope 2."""
    x, y = torch.ones(1, 1, 1, 2, dtype=torch.float64), torch.tensor([0])
    found = guided_ig(Product(), x, y, steps=10, fraction=0.5, max_dist=1.0)
    torch.testing.assert_close(found.flatten(), torch.tensor([2.0, 0.0], dtype=torch.float64))
    straight = integrated_gradients(Product(), x, y)
    torch.testing.assert_close(straight.flatten(), torch.tensor([1.5, 0.5], dtype=torch.float64))


def test_guided_ig_that_may_not_leave_the_line_is_integrated_gradients():
    model, x = smooth(), images()
    found = guided_ig(model, x, Y, baseline=0.1, steps=8, max_dist=0.0)
    torch.testing.assert_close(found, integrated_gradients(model, x, Y, baseline=0.1, steps=8, rule="left"))


@laws
@given(seed=seeds)
def test_guided_ig_stays_near_the_line_and_shrinks_the_distance_evenly(seed):
    model, x = kinked(seed), images(seed=seed)
    start = baseline_like(x, 0.5)
    with watched(model) as seen:
        guided_ig(model, x, Y, baseline=0.5, steps=10, max_dist=0.15)
    assert len(seen) == 10
    for step, point in enumerate(seen):
        left = (x - point).abs().sum((1, 2, 3)) / (x - start).abs().sum((1, 2, 3))
        assert (left - (1 - step / 10)).abs().max() < 1e-6
        done = (point - start) / (x - start)
        assert done.min() > step / 10 - 0.15 - 1e-6
        assert done.max() < step / 10 + 0.15 + 1e-6


def test_guided_ig_is_complete_in_the_limit_of_a_smooth_function():
    model, x = smooth(), images()
    expected = change(model, x, torch.zeros_like(x))
    errors = [(guided_ig(model, x, Y, steps=k).sum((1, 2, 3)) - expected).abs().max() for k in (25, 100)]
    assert errors[1] < errors[0] / 3 < 0.03


def test_guided_ig_from_the_image_itself_is_nothing():
    assert not guided_ig(smooth(), images(), Y, baseline=images()).any()


# References ----------------------------------------------------------------------------------------------------------


def test_a_linear_model_is_explained_by_weight_times_the_distance_from_what_was_drawn():
    """Paths begin at r: the first point of each is r itself where places are even."""
    model, x = linear(), images()
    w = weights(model, Y)
    for method in (ig_uniform, ig_smoothgrad):
        with watched(model) as seen:
            found = method(model, x, Y, draws=3, steps=4)
        torch.testing.assert_close(found, w * (x - torch.stack(seen[::4]).mean(0)))
    with watched(model) as seen:
        found = ig_squared(model, x, Y, draws=3, steps=4)
    torch.testing.assert_close(found, w**2 * (x - torch.stack(seen[::4]).mean(0)))
    for method in (expected_gradients, gradient_shap, lpi):
        torch.testing.assert_close(method(model, x, Y, references=OTHERS[:1]), w * (x - OTHERS[:1]))


def by_hand(model, x, seen, draws, steps, power):
    """From the points alone: those of a path lie between its reference and the image."""
    total = torch.zeros_like(x)
    for path in torch.stack(seen).view(draws, steps, *x.shape):
        g = torch.stack([slope(model, point, Y) for point in path]).mean(0)
        total += (x - path[0]) * g**power / draws
    return total


@pytest.mark.parametrize(("method", "power"), [(ig_uniform, 1), (ig_smoothgrad, 1), (ig_squared, 2)])
def test_each_reference_meets_the_gradients_of_its_own_path(method, power):
    model, x = smooth(), images()
    with watched(model) as seen:
        found = method(model, x, Y, draws=4, steps=4)
    expected = by_hand(model, x, list(seen), 4, 4, power)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def published(model, x, y, draws=4, steps=4):
    """The pairing of the published code: slot s has reference s mod draws, but belongs to the path s // steps."""
    r = torch.rand(draws, *x.shape, dtype=x.dtype)
    places = np.linspace(0, 1, steps)
    slots = [r[s % draws] + places[s % steps] * (x - r[s % draws]) for s in range(draws * steps)]
    g = torch.stack([input_gradient(model, point, y) for point in slots]).view(draws, steps, *x.shape).mean(1)
    return ((x - r) * g).mean(0)


def test_that_law_kills_references_paired_with_the_gradients_of_other_paths():
    model, x = smooth(), images()
    with watched(model) as seen:
        found = published(model, x, Y)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(found, by_hand(model, x, list(seen), 4, 4, 1), rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("method", [ig_uniform, ig_smoothgrad, expected_gradients])
def test_no_point_is_looked_at_twice(method):
    """All references at all places: the published code visits 10 of 50 pairs at its default of 10 times 5."""
    model, x = smooth(), images(1)
    given_ = {"references": OTHERS} if method is expected_gradients else {}
    given_ |= {"draws": 10, "steps": 5}

    def distinct(explain, **settings):
        with watched(model) as seen:
            explain(model, x, Y[:1], **settings)
        return len({tuple(point.flatten().tolist()) for point in seen if not torch.allclose(point, x)})

    expected = 50 if method is expected_gradients else 40  # the last place of each way is the image itself
    assert distinct(method, **given_) == expected
    assert distinct(published, draws=10, steps=5) < 10


def shares_of_levels(method) -> Counter:
    """How often an image of one level was compared with something near another's level."""
    x = images() * 0.1 + torch.tensor([0.0, 100.0, 200.0]).view(3, 1, 1, 1)
    model = linear()
    with watched(model) as seen:
        method(model, x, Y)
    return Counter(bool((point - x).abs().max() < 10) for point in seen)


@pytest.mark.parametrize("method", [ig_uniform, ig_smoothgrad, ig_squared, agi])
def test_an_image_is_compared_with_references_of_its_own(method):
    assert not shares_of_levels(method)[False]


def test_that_law_kills_a_stack_of_references_that_is_read_in_the_wrong_order():
    def viewed(model, x, y, draws=4):
        r = x + 0.1 * torch.randn(draws, *x.shape, dtype=x.dtype)
        r = r.reshape(len(x), draws, *x.shape[1:])  # it is (draws, images): they are not exchanged
        return torch.stack([(x - one) * input_gradient(model, one, y) for one in r.unbind(1)]).mean(0)

    assert shares_of_levels(viewed)[False]


def test_bounds_are_the_image_s_own_or_those_given():
    x = images() + 3
    for method, count in ((ig_uniform, 5), (ig_smoothgrad, 5), (agi, None)):
        model = linear()
        with watched(model) as seen:
            method(model, x, Y)
            low, high = x.amin((1, 2, 3)), x.amax((1, 2, 3))
            for point in seen:
                assert (point.amin((1, 2, 3)) >= low - 1e-12).all()
                assert (point.amax((1, 2, 3)) <= high + 1e-12).all()
            seen.clear()
            if count:
                method(model, x, Y, bounds=(0.0, 1.0))
                assert all(point.min() >= 0 and point.max() <= 1 for point in seen[::count])


def many(method, x, y, copies=1500, **settings):
    maps = seeded(method, x.expand(copies, -1, -1, -1), y.expand(copies), **settings)
    return maps.mean(0), maps.std(0) / copies**0.5


QUADRATIC = Elementwise(lambda z: z**2)


@pytest.mark.parametrize("method", [expected_gradients, gradient_shap])
def test_expected_gradients_of_a_quadratic_function_has_its_closed_form(method):
    """E (x - r) 2 c (r + t (x - r)) = c (x^2 - r^2), on average over the references."""
    x, y = images(1), Y[1:2]
    found, error = many(lambda x, y: method(QUADRATIC, x, y, OTHERS), x, y)
    expected = 4 * (x**2 - (OTHERS**2).mean(0))
    assert ((found - expected[0]).abs() < 5 * error).all()


def test_expected_gradients_sums_to_the_logit_minus_its_mean_over_the_references():
    model, x, y = kinked(), images(1), Y[1:2]
    maps = seeded(expected_gradients, model, x.expand(1500, -1, -1, -1), y.expand(1500), OTHERS).sum((1, 2, 3))
    expected = float((model(x) - model(OTHERS).mean(0)).detach()[0, y])
    assert abs(float(maps.mean()) - expected) < 5 * float(maps.std()) / 1500**0.5


def test_captum_s_gradient_shap_agrees_in_the_mean_and_on_a_linear_model():
    model, x, y = smooth(), images(1), Y[1:2]
    spread = 0.2 * float(x.max() - x.min())
    explainer = captum.attr.GradientShap(model)

    def captums(x, y):
        return explainer.attribute(x, baselines=OTHERS, target=y, n_samples=5, stdevs=spread)

    np.random.seed(0)  # noqa: NPY002  (captum draws from it)
    one, e = many(captums, x, y, copies=800)
    two, f = many(lambda x, y: gradient_shap(model, x, y, OTHERS, samples=5, noise=0.2), x, y, copies=800)
    assert ((one - two).abs() < 5 * (e**2 + f**2).sqrt()).all()
    single = captum.attr.GradientShap(linear()).attribute(images(), baselines=OTHERS[:1], target=Y, stdevs=0.0)
    torch.testing.assert_close(gradient_shap(linear(), images(), Y, OTHERS[:1]), single, rtol=1e-6, atol=1e-7)


def test_smoothed_integrated_gradients_of_a_linear_model():
    """IG(x + z) = w (x + z - b): its mean and the mean of its square."""
    model, x, y = linear(), images(1), Y[1:2]
    w, s = weights(model, y)[0], 0.3 * float(x.max() - x.min())
    found, error = many(lambda x, y: smoothgrad_ig(model, x, y, 0.2, samples=2, noise=0.3, steps=1), x, y)
    assert ((found - w * (x[0] - 0.2)).abs() < 5 * error).all()
    found, error = many(lambda x, y: smoothgrad_squared_ig(model, x, y, 0.2, samples=2, noise=0.3, steps=1), x, y)
    assert ((found - w**2 * ((x[0] - 0.2) ** 2 + s**2)).abs() < 5 * error).all()


def test_captum_s_noise_tunnel_over_integrated_gradients_agrees_in_the_mean():
    model, x, y = smooth(), images(1), Y[1:2]
    tunnel = captum.attr.NoiseTunnel(captum.attr.IntegratedGradients(model))
    spread = 0.3 * float(x.max() - x.min())
    for ours, theirs in ((smoothgrad_ig, "smoothgrad"), (smoothgrad_squared_ig, "smoothgrad_sq")):

        def captums(x, y, theirs=theirs):
            return tunnel.attribute(x, nt_type=theirs, nt_samples=3, stdevs=spread, target=y, n_steps=5)

        one, e = many(captums, x, y, copies=500)
        two, f = many(lambda x, y, ours=ours: ours(model, x, y, samples=3, noise=0.3, steps=5), x, y, copies=500)
        assert ((one - two).abs() < 5 * (e**2 + f**2).sqrt()).all()


# Adversarial gradient integration ------------------------------------------------------------------------------------


def test_agi_of_a_linear_model_is_the_step_against_the_sign_of_every_other_class():
    model, x = linear(), images()
    reach = 0.05 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    signs = sum(weights(model, (Y + shift) % CLASSES).sign() for shift in range(1, CLASSES))
    expected = -5 * reach * weights(model, Y) * signs
    torch.testing.assert_close(agi(model, x, Y, bounds=WIDE), expected)


def test_agi_attacks_step_by_step_from_the_image():
    """One other class: z_j = x + e sign(grad f_t(z_{j-1})), z_0 = x."""
    model, x = smooth(), images()
    torch.manual_seed(0)
    with watched(model) as seen:
        found = agi(model, x, Y, classes=1, steps=3, step=0.4, bounds=WIDE)
    aimed, points = seen[1::2], seen[2::2]
    assert torch.equal(aimed[0], x)
    assert all(torch.equal(before, after) for before, after in zip(aimed[1:], points[:-1], strict=True))
    expected = sum((x - point) * slope(model, point, Y) for point in list(points))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-8)


def aims(seed):
    """The classes that attacks aim at: f_k reads the k-th value alone, so the first step shows which it was."""

    class One(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :6]

    model, x = One(), images(1)
    torch.manual_seed(seed)
    with watched(model) as seen:
        agi(model, x, torch.tensor([2]), classes=3, steps=1, bounds=WIDE)
    return [int((point - x).flatten()[:6].argmax()) for point in list(seen)[2::2]]


def test_agi_never_aims_at_the_class_itself_nor_twice_at_one_and_at_every_other_one_in_time():
    drawn = [aims(seed) for seed in range(40)]
    assert all(len(set(one)) == 3 for one in drawn)
    assert {label for one in drawn for label in one} == {0, 1, 3, 4, 5}


# Local path integration ----------------------------------------------------------------------------------------------


def test_k_means_finds_groups_that_lie_apart_and_makes_none_that_is_empty():
    rng = torch.Generator().manual_seed(0)
    centres = 10 * torch.randn(3, 4, generator=rng)
    own = torch.randint(3, (60,), generator=rng)
    points = centres[own] + 0.1 * torch.randn(60, 4, generator=rng)
    middles, groups = k_means(points, 3)
    assert len({(int(a), int(b)) for a, b in zip(own, groups, strict=True)}) == 3
    for group in range(3):
        torch.testing.assert_close(middles[group], points[groups == group].mean(0))
    again, _ = k_means(points[:5].repeat(4, 1), 20)
    assert len(again) == 5
    assert len(k_means(points[:1], 9)[0]) == 1


def test_lpi_weighs_a_reference_by_the_share_of_its_group():
    """Three references of one kind, one of another: a linear model shows the mean that it was compared with."""
    model, x = linear(), images()
    common, rare = OTHERS[:1], OTHERS[1:2] + 3
    found = lpi(model, x, Y, torch.cat([common, common, rare, common]), neighbours=2)
    torch.testing.assert_close(found, weights(model, Y) * (x - (3 * common + rare) / 4))


def test_lpi_of_many_neighbours_compares_with_every_reference():
    model, x = linear(), images()
    torch.testing.assert_close(lpi(model, x, Y, OTHERS), weights(model, Y) * (x - OTHERS.mean(0)))


def test_lpi_compares_an_image_with_its_own_neighbourhood():
    model, near, far = linear(), OTHERS[:3], OTHERS[3:] + 5
    x = torch.cat([images(2, seed=1), images(1, seed=2) + 5])
    found = lpi(model, x, Y, torch.cat([near, far]), centres=2)
    start = torch.stack([near.mean(0), near.mean(0), far.mean(0)])
    torch.testing.assert_close(found, weights(model, Y) * (x - start))


def test_lpi_does_not_divide_by_the_number_of_references_again():
    """The shares already sum to one; the published code takes their mean as well."""
    model, x = smooth(), images()
    found = seeded(lpi, model, x, Y, OTHERS, steps=60).sum((1, 2, 3))
    expected = (model(x) - model(OTHERS).mean(0)).detach()[torch.arange(3), Y]
    torch.testing.assert_close(found, expected, rtol=0.1, atol=0.05)
