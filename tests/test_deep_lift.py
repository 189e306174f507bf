"""DeepLIFT and Deep SHAP: slope formulas, completeness on hard networks, refusals."""

from __future__ import annotations

import warnings

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks.methods import deep_lift as room
from saliency_checks.methods.deep_lift import deep_lift, deep_lift_shap
from saliency_checks.methods.path import baseline_like, integrated_gradients

from convnets import HARD_NETS, RELUS, Calls, change, convnet, hard, images, linear, pair, randomised

laws = settings(max_examples=10, deadline=None, derandomize=True)
Y = torch.tensor([0, 1, 2])


# One hidden layer: integrated gradients = DeepLIFT = a formula -------------------------------------------------------

ACTIVATIONS = {
    "relu": F.relu, "sigmoid": torch.sigmoid, "tanh": torch.tanh, "softplus": F.softplus, "elu": F.elu,
    "leaky_relu": F.leaky_relu, "gelu": F.gelu, "silu": F.silu, "mish": F.mish, "hardswish": F.hardswish,
    "relu6": F.relu6, "hardtanh": F.hardtanh, "softsign": F.softsign, "logsigmoid": F.logsigmoid, "celu": F.celu,
    "selu": F.selu, "abs": abs, "square": torch.square, "pow": lambda z: z**3, "exp": torch.exp,
    "clamp": lambda z: z.clamp(-0.3, 0.4), "threshold": lambda z: F.threshold(z, 0.1, 0.1),
    "prelu": nn.PReLU().double(), "hardsigmoid": F.hardsigmoid,
}  # fmt: skip


class OneHidden(Calls):
    def forward(self, x):
        return self.last(self.activation(self.first(x.flatten(1))))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_deep_lift_of_one_hidden_layer_is_the_slope_formula_and_integrated_gradients_agrees(name):
    act, x, y = ACTIVATIONS[name], images(), torch.tensor([0, 1, 2])
    model = OneHidden(act)
    randomised(model)
    start = baseline_like(x, 0.2)
    z, z0 = model.first(x.flatten(1)), model.first(start.flatten(1))
    slope = (act(z) - act(z0)) / (z - z0)
    expected = ((x - start).flatten(1) * ((model.last.weight[y] * slope) @ model.first.weight)).view_as(x).detach()
    torch.testing.assert_close(deep_lift(model, x, y, baseline=0.2), expected, rtol=1e-9, atol=1e-12)
    close = integrated_gradients(model, x, y, baseline=0.2, steps=300)
    torch.testing.assert_close(close, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_deep_lift_does_not_depend_on_how_the_relu_is_written(relu):
    x, y = images(), torch.tensor([0, 1, 2])
    model, plain = randomised(Calls(relu)), randomised(Calls(nn.ReLU()))
    torch.testing.assert_close(deep_lift(model, x, y), deep_lift(plain, x, y))


@pytest.mark.parametrize("name", HARD_NETS)
def test_deep_lift_is_complete_where_backward_hooks_are_not(name):
    model, x, y = hard(name), images(), torch.tensor([0, 1, 2])
    start = images(seed=1)  # a zero baseline hides what a varied one shows
    found = deep_lift(model, x, y, baseline=start).sum((1, 2, 3))
    torch.testing.assert_close(found, change(model, x, y, start), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["relu then pool", "overlapping pool"])
def test_captum_s_deep_lift_is_incomplete_there(name):
    """Why it is not captum's: issue 1104 of captum and its max_unpool. If this fails, captum has been mended."""
    model, x, y = hard(name), images(), torch.tensor([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.DeepLift(model).attribute(x, images(seed=1), target=y).sum((1, 2, 3))
    assert (theirs - change(model, x, y, images(seed=1))).abs().max() > 1e-3


def test_deep_lift_of_one_image_does_not_leak_into_another_where_nothing_differs_from_the_baseline():
    model, x, y = hard("overlapping pool"), images(), torch.tensor([0, 1, 2])
    start = x.clone()
    start[:, :, 2:6, 2:6] = 0.5
    alone = torch.cat([deep_lift(model, x[i : i + 1], y[i : i + 1], baseline=start[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(deep_lift(model, x, y, baseline=start), alone)


def test_deep_lift_takes_the_derivative_where_a_unit_does_not_differ_from_the_baseline():
    class Balance(nn.Module):
        def forward(self, x):
            return torch.sigmoid(x.flatten(1).sum(1, keepdim=True))

    x, y = pair([2.0, -2.0]), torch.tensor([0])
    torch.testing.assert_close(deep_lift(Balance(), x, y), pair([0.5, -0.5]))  # sigmoid'(0) = 1/4
    torch.testing.assert_close(integrated_gradients(Balance(), x, y), pair([0.5, -0.5]))


UNRULED = {
    "logsumexp": lambda z: z.logsumexp(1, keepdim=True) * torch.ones(9, dtype=z.dtype),
    "cumprod": lambda z: z.cumprod(1),
    "prod": lambda z: z.prod(1, keepdim=True) * torch.ones(9, dtype=z.dtype),
    "norm": lambda z: z / z.norm(dim=1, keepdim=True),
}


@pytest.mark.parametrize("name", UNRULED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_deep_lift_names_the_function_that_has_no_rule(name, dtype):
    model, x = randomised(OneHidden(UNRULED[name], hidden=9)).to(dtype), images().to(dtype)
    with pytest.raises(ValueError, match=f"deep_lift: .* has no rule here \\({name}"):
        deep_lift(model, x, Y)


def test_deep_lift_refuses_what_autograd_does_not_see():
    class Hidden(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] * x.detach().mean((1, 2, 3))[:, None]

    with pytest.raises(ValueError, match="none by name; a value computed outside autograd"):
        deep_lift(Hidden(), images(), Y, baseline=images(seed=1))


@pytest.mark.parametrize("name", HARD_NETS)
def test_deep_lift_takes_no_rounding_in_float32_for_a_missing_rule(name):
    model, x, y = hard(name).float(), images().float(), torch.tensor([0, 1, 2])
    deep_lift(model, x, y)
    deep_lift(model, x, y, baseline=x * (1 + 1e-6))


# Products and what is made of them -----------------------------------------------------------------------------------


class Gated(nn.Module):
    """One pixel times another."""

    def forward(self, x):
        z = x.flatten(1)
        return (z[:, :1] * z[:, 1:]) if z.shape[1] == 2 else z * z.roll(1, 1)


def test_each_factor_of_a_product_gets_its_shapley_value():
    """3 * 5 from 1 * 2: half of (3 - 1) * 2 and (3 - 1) * 5, and of (5 - 2) * 1 and (5 - 2) * 3."""
    x, start = pair([3.0, 5.0]), pair([1.0, 2.0])
    torch.testing.assert_close(deep_lift(Gated(), x, Y[:1], baseline=start), pair([7.0, 6.0]))


def test_dividing_is_a_product_with_the_reciprocal():
    class Quotient(nn.Module):
        def forward(self, x):
            a, b = x.flatten(1).unbind(1)
            return (a / b)[:, None]

    x, start = pair([6.0, 2.0]), pair([1.0, 4.0])
    expected = pair([5 * (1 / 2 + 1 / 4) / 2, (1 / 2 - 1 / 4) * (6 + 1) / 2])
    torch.testing.assert_close(deep_lift(Quotient(), x, Y[:1], baseline=start), expected)


def flat(*layers: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 12), *layers, nn.Linear(12, 4))


class Squeezed(nn.Module):
    """A gate per channel, as in squeeze and excitation."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.gate, self.head = nn.Conv2d(3, 5, 3), nn.Conv2d(5, 5, 1), nn.Linear(5, 4)

    def forward(self, x):
        h = self.conv(x).relu() + 0  # what a ReLU returned may not be written to
        h *= self.gate(h.mean((2, 3), keepdim=True)).sigmoid()
        return self.head(h.mean((2, 3)))


MADE_OF_PRODUCTS = {
    "product": lambda: nn.Sequential(nn.Flatten(), Gated(), nn.Linear(192, 4)),
    "layer norm": lambda: flat(nn.LayerNorm(12), nn.ReLU()),
    "rms norm": lambda: flat(nn.RMSNorm(12), nn.ReLU()),
    "group norm": lambda: pooled_norm(nn.GroupNorm(2, 6)),
    "softmax": lambda: flat(nn.Softmax(1)),
    "log softmax": lambda: flat(nn.LogSoftmax(-1)),
    "squeeze and excitation": Squeezed,
}


def pooled_norm(norm: nn.Module) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 6, 3), norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))


@pytest.mark.parametrize("name", MADE_OF_PRODUCTS)
def test_deep_lift_is_complete_through_normalisations_gates_and_softmax(name):
    model, x, start = randomised(MADE_OF_PRODUCTS[name]()), images(), images(seed=1)
    found = deep_lift(model, x, Y, baseline=start)
    torch.testing.assert_close(found.sum((1, 2, 3)), change(model, x, Y, start), rtol=1e-9, atol=1e-12)
    alone = torch.cat([deep_lift(model, x[i : i + 1], Y[i : i + 1], baseline=start[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize("name", MADE_OF_PRODUCTS)
def test_close_to_its_reference_deep_lift_is_the_gradient_times_the_way(name):
    """Each rule is a slope of the function itself, so all must tend to its derivative."""
    model, x = randomised(MADE_OF_PRODUCTS[name]()), images()
    way = 1e-5 * images(seed=2)
    found = deep_lift(model, x, Y, baseline=x - way)
    expected = integrated_gradients(model, x, Y, baseline=x - way, steps=2)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4 * float(expected.abs().max()))


# Deep SHAP -----------------------------------------------------------------------------------------------------------


@laws
@given(seed=st.integers(0, 2**31 - 1))
def test_deep_shap_is_the_mean_over_its_references_and_sums_to_the_mean_change(seed):
    model, x, references = convnet(seed=seed), images(seed=seed), images(5, seed=seed + 1)
    found = deep_lift_shap(model, x, Y, references=references)
    each = [deep_lift(model, x, Y, baseline=reference) for reference in references]
    torch.testing.assert_close(found, torch.stack(each).mean(0))
    changes = torch.stack([change(model, x, Y, one.expand_as(x)) for one in references]).mean(0)
    torch.testing.assert_close(found.sum((1, 2, 3)), changes)


def test_deep_shap_of_a_linear_model_is_weight_times_the_distance_from_the_mean_reference():
    model, x, references = linear(), images(), images(4, seed=1)
    expected = model[1].weight[Y].view_as(x) * (x - references.mean(0))
    torch.testing.assert_close(deep_lift_shap(model, x, Y, references=references), expected.detach())


def test_deep_shap_goes_through_its_references_in_chunks_and_takes_no_more_than_asked(monkeypatch):
    model, x, references = convnet(), images(), images(7, seed=1)
    whole = deep_lift_shap(model, x, Y, references=references)
    monkeypatch.setattr(room, "per_pass", lambda _: 4)
    torch.testing.assert_close(deep_lift_shap(model, x, Y, references=references), whole)
    few = deep_lift_shap(model, x, Y, references=references, most=2)
    torch.testing.assert_close(few, deep_lift_shap(model, x, Y, references=references[:2]))
    assert not torch.allclose(few, whole)


def test_deep_shap_names_the_image_whose_contributions_do_not_add_up(monkeypatch):
    class HiddenAboveFive(nn.Module):
        def forward(self, x):
            z = x.flatten(1)[:, :4]
            return z * (z < 5) + z.detach() * (z >= 5)

    monkeypatch.setattr(room, "per_pass", lambda _: 6)  # three references at once
    x, references = images(), images(7, seed=1)
    assert deep_lift_shap(HiddenAboveFive(), x, Y, references=references).any()
    x[1] = 9
    with pytest.raises(ValueError, match="deep_lift_shap: the contributions of image 1 sum to"):
        deep_lift_shap(HiddenAboveFive(), x, Y, references=references)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_s_deep_shap_agrees_where_it_is_right():
    model, x, references = convnet(), images(), images(4, seed=1)
    model[2] = nn.AvgPool2d(2)  # its max pooling is not complete behind a ReLU
    theirs = captum.attr.DeepLiftShap(model).attribute(x, references, target=Y)
    torch.testing.assert_close(deep_lift_shap(model, x, Y, references=references), theirs)
