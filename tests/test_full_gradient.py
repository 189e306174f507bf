"""FullGrad: its raw terms are complete, its biases are those that a formula gives, its map is the paper's."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks.layers import resize_like
from saliency_checks.methods.full_gradient import full_grad, full_gradient
from saliency_checks.methods.gradient import input_gradient

from convnets import HARD_NETS, RELUS, Calls, convnet, hard, images, linear, odd, randomised

laws = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
Y = torch.tensor([0, 1, 2])


def total(model: nn.Module, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The sum of all terms, and the logit."""
    term, biases = full_gradient(model, x, Y)
    summed = term.sum((1, 2, 3)) + sum(bias.flatten(1).sum(1) for bias in biases)
    return summed, model(x).gather(1, Y[:, None]).squeeze(1).detach()


@pytest.mark.parametrize("name", HARD_NETS)
def test_terms_sum_to_the_logit_of_each_image(name):
    torch.testing.assert_close(*total(hard(name), images()), rtol=1e-9, atol=1e-12)


SMOOTH = {"relu6": F.relu6, "gelu": F.gelu, "silu": F.silu, "sigmoid": torch.sigmoid, "exp": torch.exp, "abs": abs}


@pytest.mark.parametrize("activation", [*RELUS.values(), *SMOOTH.values()], ids=[*RELUS, *SMOOTH])
@laws
@given(seed=seeds)
def test_terms_are_complete_whatever_the_activation(activation, seed):
    torch.testing.assert_close(*total(randomised(Calls(activation), seed), images(seed=seed)), rtol=1e-9, atol=1e-12)


def statistics(norm: nn.BatchNorm2d) -> nn.BatchNorm2d:
    with torch.no_grad():
        norm.running_mean.copy_(torch.linspace(-1, 1, 5))
        norm.running_var.copy_(torch.linspace(0.5, 2, 5))
    return norm


def test_batch_norm_counts_with_its_effective_bias():
    """Srinivas and Fleuret 2019, appendix: beta - gamma mu / sqrt(var + eps), times the gradient at its output."""
    norm = statistics(nn.BatchNorm2d(5))
    model = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), norm, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4))
    randomised(model)
    _, biases = full_gradient(model, images(), Y)
    effective = norm.bias - norm.weight * norm.running_mean / (norm.running_var + norm.eps).sqrt()
    expected = (effective * model[4].weight[Y] / 36)[:, :, None, None].expand(3, 5, 6, 6)
    found = [bias for bias in biases if bias.any()]
    torch.testing.assert_close(found[0], expected.detach())
    torch.testing.assert_close(found[1].sum(1), model[4].bias[Y].detach())
    assert len(found) == 2


def test_of_a_linear_model_the_terms_are_weight_times_input_and_the_bias():
    model, x = linear(), images()
    term, biases = full_gradient(model, x, Y)
    torch.testing.assert_close(term, (model[1].weight[Y].view_as(x) * x).detach())
    torch.testing.assert_close(sum(bias.sum(1) for bias in biases), model[1].bias[Y].detach())


class Beside(nn.Module):
    """Two networks side by side."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x):
        return self.first(x) - 2 * self.second(x)


def test_terms_of_networks_side_by_side_are_those_of_each():
    first, second, x = convnet(seed=1), convnet(seed=2), images()
    term, biases = full_gradient(Beside(first, second), x, Y)
    one, two = full_gradient(first, x, Y), full_gradient(second, x, Y)
    torch.testing.assert_close(term, one[0] - 2 * two[0])
    summed = [sum(part.sum() for part in parts) for parts in (biases, one[1], two[1])]
    torch.testing.assert_close(summed[0], summed[1] - 2 * summed[2])


def test_constants_of_the_network_are_biases_too():
    class Shifted(nn.Module):
        def forward(self, x):
            return 1 - (x.flatten(1) + 0.3)[:, :4]

    torch.testing.assert_close(*total(Shifted(), images()))


def scaled(maps: torch.Tensor) -> torch.Tensor:
    """The authors' psi, without its 1e-6, and an enlargement that does not align corners."""
    maps = maps.abs()
    flat = maps.flatten(1)
    low, high = flat.min(1).values.view(-1, 1, 1, 1), flat.max(1).values.view(-1, 1, 1, 1)
    return (maps - low) / (high - low)


def test_the_map_is_the_sum_of_scaled_magnitudes_of_all_spatial_terms():
    model, x = convnet(), images()
    slopes = []
    for layer in (model[0], model[3]):
        layer.register_full_backward_hook(lambda _, __, out: slopes.append(out[0].detach()))
    term = x * input_gradient(model, x, Y)
    expected = scaled(term).sum(1, keepdim=True)
    for slope, layer in zip(slopes, (model[3], model[0]), strict=True):
        bias = scaled(slope * layer.bias.detach().view(-1, 1, 1)).sum(1, keepdim=True)
        expected = expected + resize_like(bias, x)
    torch.testing.assert_close(full_grad(model, x, Y), expected)


def test_an_image_gets_the_same_map_alone_and_in_a_batch():
    model, x = hard("residual"), images()
    alone = torch.cat([full_grad(model, x[i : i + 1], Y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(full_grad(model, x, Y), alone)


def test_the_check_kills_a_lost_bias(monkeypatch):
    """The authors' own check of completeness is commented out in the code of the seed."""
    model, x = convnet(), images()
    full_grad(model, x, Y)
    monkeypatch.setattr("saliency_checks.methods.full_gradient.Biases.layer", lambda self, call: call.own())
    with pytest.raises(ValueError, match="full_grad: the contributions of the images sum to"):
        full_grad(model, x, Y)


@pytest.mark.parametrize("name", ["cumprod", "logsumexp"])
def test_full_grad_names_the_function_that_has_no_rule(name):
    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(192, 4)

        def forward(self, x):
            z = self.first(x.flatten(1))
            return z.cumprod(1) if name == "cumprod" else z + z.logsumexp(1, keepdim=True)

    with pytest.raises(ValueError, match=f"full_grad: .* has no rule here .*{name}"):
        full_gradient(randomised(Odd()), images(), Y)


def test_opposite_errors_of_two_images_do_not_hide_one_another():
    x = images(2)
    with pytest.raises(ValueError, match="sinh"):
        full_gradient(odd(), torch.cat([x, -x]), torch.zeros(4, dtype=torch.long))
