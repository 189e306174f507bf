"""Re-calibration against its closed form on linear models, its identity, and sums made by hand."""

from __future__ import annotations

from inspect import unwrap

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import saliency_checks as sc
from saliency_checks.method import as_method
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.methods.recalibrated import PATH_METHODS, recalibrate, recalibrated
from saliency_checks.methods.reference_path import even, straight
from saliency_checks.methods.references import agi, expected_gradients, ig_squared, ig_uniform, lpi

from nets import FEATURES, Negated, Y, images, kinked, linear, smooth, weights

laws = settings(max_examples=5, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
OTHERS = images(5, seed=7)
STRAIGHT = [method for method in PATH_METHODS if method not in (agi, ig_squared)]
names = pytest.mark.parametrize("base", PATH_METHODS, ids=lambda base: base.__name__)
estimates = pytest.mark.parametrize("estimate", ["valid_ip", "valid_ref"])


def settings_of(base) -> dict:
    return {"references": OTHERS} if base in (expected_gradients, lpi) else {}


def seeded(method, *args, seed=0, **kwargs):
    torch.manual_seed(seed)
    return method(*args, **kwargs)


def explained(base, model, x, estimate="valid_ip", seed=0):
    return seeded(recalibrated(base, estimate), model, x, Y, seed=seed, **settings_of(base))


def paths_of(base, model, x, seed=0):
    torch.manual_seed(seed)
    return list(unwrap(base)(model, x, Y, **settings_of(base)))


NEEDS = {"references"}


def from_one(model, inputs, targets, references, steps=5):
    """A path method of a user's own: one reference."""
    yield straight(model, inputs, targets, references, even(steps))


# Closed forms --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [2, 5, 8])
@pytest.mark.parametrize("at", [0.0, 0.5, 1.0])
def test_of_a_linear_model_half_of_what_speaks_for_the_class_is_left_of_each_step(at, steps):
    """A = max(w (x - r), 0) / (2 k): the places are even, so x - point is (x - r) / 2 on average."""
    model, x = linear(), images()
    one, product = torch.full_like(x, at), weights(model, Y) * (x - at)
    found = recalibrated(from_one, needs=NEEDS).explain(model, x, Y, references=one, steps=steps)
    torch.testing.assert_close(found, product.clamp(min=0) / (2 * steps))
    whole = recalibrated(from_one, "valid_ref", needs=NEEDS)(model, x, Y, references=one)
    torch.testing.assert_close(whole, product.clamp(min=0))


def test_agi_of_a_linear_model_keeps_the_steps_that_lower_the_logit():
    """Each attack takes one and the same step, -e sign(w_t), as often as it is long."""
    model, x = linear(), images()
    reach = 0.05 * (x.amax((1, 2, 3), keepdim=True) - x.amin((1, 2, 3), keepdim=True))
    q = torch.stack([-reach * weights(model, Y) * weights(model, (Y + shift) % 4).sign() for shift in (1, 2, 3)])
    expected = q.clamp(min=0).sum(0) / (q >= 0).sum(0).clamp(min=1)
    wide = {"bounds": (-1e9, 1e9)}
    torch.testing.assert_close(recalibrated(agi).explain(model, x, Y, **wide), expected)
    torch.testing.assert_close(recalibrated(agi, "valid_ref").explain(model, x, Y, **wide), 5 * expected)


# Identities ----------------------------------------------------------------------------------------------------------


def counted(products):
    return sum((one >= 0).double() for one in products), sum((one <= 0).double() for one in products)


@pytest.mark.parametrize("base", STRAIGHT, ids=lambda base: base.__name__)
@estimates
@laws
@given(seed=seeds)
def test_what_is_kept_of_f_and_of_minus_f_makes_up_the_whole(base, estimate, seed):
    """N+ A(f) - N- A(-f) = sum of q, where all references count alike."""
    model, x = kinked(seed), images(seed=seed)
    paths = paths_of(base, model, x, seed)
    products = [q for path in paths for q in (path.points() if estimate == "valid_ip" else [path.whole()])]
    plus, minus = counted(products)
    kept, dropped = (explained(base, one, x, estimate, seed) for one in (model, Negated(model)))
    torch.testing.assert_close(plus * kept - minus * dropped, sum(products), rtol=1e-9, atol=1e-12)


def test_that_law_kills_a_mean_over_all_points_and_a_count_that_leaves_out_zeros():
    model, x = kinked(), images()
    products = [q for path in paths_of(ig_uniform, model, x) for q in path.points()]  # 0 where a way ends
    plus, minus = counted(products)
    kept, dropped = (sum((sign * q).clamp(min=0) for q in products) for sign in (1, -1))
    right = explained(ig_uniform, model, x)
    torch.testing.assert_close(right, kept / plus)
    over_all, positive = kept / len(products), kept / sum((q > 0).double() for q in products).clamp(min=1)
    for mutant in (over_all, positive):
        assert not torch.allclose(plus * mutant - minus * dropped / minus, sum(products))


@names
@estimates
@laws
@given(seed=seeds)
def test_nothing_is_negative_and_a_pixel_that_is_not_read_gets_nothing(base, estimate, seed):
    model, x = kinked(seed), images(seed=seed)
    with torch.no_grad():
        model.first.weight[:, 5] = 0
    found = explained(base, model, x, estimate, seed)
    assert (found >= 0).all()
    assert (found.flatten(1)[:, 5] == 0).all()
    assert found.flatten(1).any(1).all()


@names
def test_vanilla_is_the_method_itself(base):
    model, x = smooth(), images()
    torch.testing.assert_close(explained(base, model, x, "vanilla"), seeded(base, model, x, Y, **settings_of(base)))


@names
@estimates
def test_kept_products_are_averaged_feature_by_feature(base, estimate):
    """With loops over features, paths and points in NumPy; shares of references weigh both sums."""
    model, x = smooth(), images()
    power = 2 if base is ig_squared else 1
    total, count = np.zeros((3, FEATURES)), np.zeros((3, FEATURES))
    for path in paths_of(base, model, x):
        k = 1 if base is agi else len(path.left)
        points = path.left.flatten(2).numpy() * path.gradients.flatten(2).numpy() / k
        if estimate == "valid_ref":
            mean = path.gradients.flatten(2).numpy().mean(0)
            points = [points.sum(0)] if base is agi else [path.way.flatten(1).numpy() * mean]
        share = np.broadcast_to(np.asarray(path.share).reshape(-1, 1), total.shape)
        for q in points:
            for place in zip(*np.nonzero(q >= 0), strict=True):
                total[place] += share[place] * q[place] ** power
                count[place] += share[place]
    expected = torch.from_numpy(total / np.where(count > 0, count, 1)).view_as(x)
    torch.testing.assert_close(explained(base, model, x, estimate), expected)


class Scaled(nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, x):
        return self.factor * self.model(x)


@names
@laws
@given(seed=seeds, factor=st.floats(0.1, 5))
def test_a_logit_that_is_scaled_scales_the_map(base, seed, factor):
    model, x = kinked(seed), images(seed=seed)
    power = 2 if base is ig_squared else 1
    expected = factor**power * explained(base, model, x, seed=seed)
    torch.testing.assert_close(explained(base, Scaled(model, factor), x, seed=seed), expected, rtol=1e-7, atol=1e-12)


# The wrapper ---------------------------------------------------------------------------------------------------------


@names
def test_the_wrapped_method_keeps_what_it_needs_and_claims_no_more_than_holds(base):
    inner, outer = as_method(base), sc.get("methods", f"recalibrated_{base.__name__}")
    assert (outer.needs, outer.stochastic, outer.signed) == (inner.needs, inner.stochastic, False)
    assert outer.claims == inner.claims - {"completeness", "linearity", "saturation"}


def test_names_and_registered_methods_may_be_wrapped_too():
    model, x = smooth(), images()
    found = seeded(recalibrated("ig_uniform"), model, x, Y)
    torch.testing.assert_close(found, seeded(sc.get("methods", "recalibrated_ig_uniform"), model, x, Y))
    torch.testing.assert_close(found, explained(ig_uniform, model, x))


def test_a_method_without_references_is_refused():
    with pytest.raises(TypeError, match="integrated_gradients is not written as paths from references"):
        recalibrated("integrated_gradients")
    with pytest.raises(TypeError, match="not written as paths"):
        recalibrated(lambda model, inputs, targets: input_gradient(model, inputs, targets))


def test_another_estimate_is_refused():
    with pytest.raises(ValueError, match="expected valid_ip, valid_ref or vanilla"):
        recalibrate(images(), [], "valid")
