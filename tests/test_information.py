"""The information bottleneck against its formula, a loop, and what it must let through."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks.methods.information import divergence, iba, transmission

from convnets import Cam, Cramped, convnet, images, randomised

laws = settings(max_examples=15, deadline=None, derandomize=True)
Y = torch.tensor([0, 1, 2])


@laws
@given(share=st.floats(0, 0.999), activation=st.floats(-4, 4))
def test_the_divergence_is_that_of_two_normal_distributions(share, activation):
    passed, normal = (torch.tensor([[[[value]]]], dtype=torch.float64) for value in (share, activation))
    z = torch.distributions.Normal(passed * normal, 1 - passed)
    expected = torch.distributions.kl_divergence(z, torch.distributions.Normal(0.0, 1.0))
    torch.testing.assert_close(divergence(passed, normal), expected)


def test_noise_alone_tells_nothing_and_whatever_passes_tells_something():
    normal = images() - 0.5
    nothing, something = (divergence(torch.full_like(normal, share), normal) for share in (0.0, 0.3))
    assert not nothing.any()
    assert (something > 0).all()


@pytest.mark.parametrize("value", [-3.0, 0.0, 5.0])
def test_the_blur_keeps_what_is_even_and_spreads_a_single_place_like_a_gaussian(value):
    a = torch.full((1, 1, 9, 9), value, dtype=torch.float64)
    torch.testing.assert_close(transmission(a, 1.0), torch.sigmoid(a))
    a[0, 0, 4, 4] = 40.0
    bump = (transmission(a, 1.0) - math.exp(-math.log1p(math.exp(-value)))) / (1 / (1 + math.exp(value)))
    line = torch.exp(-(torch.arange(-2.0, 3).double() ** 2) / 2)
    expected = (line[:, None] * line) / line.sum() ** 2
    torch.testing.assert_close(bump[0, 0, 2:7, 2:7], expected)
    assert transmission(torch.full_like(a, 1e4), 1.0).max() < 1


def loop(model: Cam, x: torch.Tensor, y: torch.Tensor, noise: torch.Tensor, mean, spread) -> torch.Tensor:
    """One image at a time, the head written out."""
    maps = []
    for image, label, m, s in zip(x, y, mean, spread, strict=True):
        r = F.relu(model.conv(image[None])).detach()
        a = torch.full_like(r, 5.0).requires_grad_()
        adam = torch.optim.Adam([a], lr=1.0)
        for drawn in noise:
            passed = transmission(a, 1.0)
            z = passed * r + (1 - passed) * (m + s * drawn)
            loss = F.cross_entropy(model.fc(z.mean((2, 3))), label.repeat(len(drawn)))
            loss = loss + 10 * divergence(passed, (r - m) / s).mean()
            a.grad = torch.autograd.grad(loss, a)[0]
            adam.step()
        maps.append(divergence(transmission(a.detach(), 1.0), (r - m) / s).sum(1) / math.log(2))
    return torch.stack(maps)


@pytest.mark.parametrize("with_references", [False, True])
def test_it_is_a_loop_over_images_with_the_same_noise(with_references):
    model, x, others = randomised(Cam()), images(), images(6, seed=1)
    a = F.relu(model.conv(others if with_references else x)).detach()
    dims = (0,) if with_references else (2, 3)
    mean, spread = a.mean(dims, keepdim=True), a.std(dims, keepdim=True).clamp(min=0.01)
    like = torch.zeros(3, 7, 8, 8, dtype=torch.float64)
    torch.manual_seed(0)
    found = iba(model, x, Y, references=others if with_references else None)
    torch.manual_seed(0)
    noise = torch.randn(10, 10, 7, 8, 8).double()
    torch.testing.assert_close(found, loop(model, x, Y, noise, mean.expand_as(like), spread.expand_as(like)))


def test_an_image_gets_the_same_map_alone_and_in_a_batch_with_the_same_noise():
    model, x, others = convnet(), images(), images(6, seed=1)
    maps = []
    for rows in (slice(None), slice(1, 2)):
        torch.manual_seed(0)
        maps.append(iba(model, x[rows], Y[rows], references=others))
    torch.testing.assert_close(maps[1], maps[0][1:2])


class Corner(nn.Module):
    """Only the upper left quarter counts, for class 0 against class 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 1, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        score = 40 * (self.conv(x).relu()[:, 0, :4, :4].mean((1, 2)) - 0.7)  # noise, of mean .5, is class 1
        return torch.stack([score, -score], 1)


def test_information_is_let_through_where_the_class_needs_it():
    model = Corner().double()
    with torch.no_grad():
        model.conv.weight.fill_(1)
        model.conv.bias.zero_()
    x = torch.full((2, 1, 8, 8), 0.9, dtype=torch.float64)
    torch.manual_seed(0)
    found = iba(model, x, torch.tensor([0, 0]), references=images(20, channels=1), iterations=40)
    needed, rest = found[:, :, :3, :3].mean(), found[:, :, 5:, 5:].mean()
    assert found.min() >= 0
    assert needed > 3 * rest
    torch.manual_seed(0)
    dear = iba(model, x, torch.tensor([0, 0]), references=images(20, channels=1), iterations=40, beta=1e4)
    assert dear.sum() < 0.2 * found.sum()  # where information costs more than the class is worth


def test_features_that_never_vary_do_not_count_for_all():
    model, x = randomised(Cam()), images()
    found = iba(model, x, Y, references=x[:1].expand(4, -1, -1, -1))
    assert torch.isfinite(found).all()


def test_a_named_layer_is_read_and_the_reference_images_with_it():
    model, x = convnet(), images()
    torch.manual_seed(0)
    found = iba(model, x, Y, references=images(6, seed=1))
    torch.manual_seed(0)
    torch.testing.assert_close(iba(model, x, Y, references=images(6, seed=1), layer="4"), found)
    assert not torch.allclose(iba(model, x, Y, references=images(6, seed=1), layer="1"), found)


def test_a_batch_that_does_not_fit_into_memory_is_halved_and_loses_nothing():
    model, x, found = convnet(), images(), []
    for room in (10**9, 10):
        torch.manual_seed(0)
        found.append(iba(Cramped(model, room), x, Y))
    torch.testing.assert_close(found[1], found[0])
