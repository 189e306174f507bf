"""Class activation maps against closed forms on convolution - global average pooling - linear networks, and defects."""

from __future__ import annotations

import captum.attr
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks import registry
from saliency_checks.layers import resize_like
from saliency_checks.methods import activation as tap
from saliency_checks.methods.cam import (
    eigen_cam,
    eigen_grad_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    principal,
    xgrad_cam,
)
from saliency_checks.methods.cam_perturbation import ablation_cam, opti_cam, score_cam, unit
from saliency_checks.methods.controls import fake_cam, least_likely_complement

from convnets import Cam, Cramped, convnet, images, randomised

laws = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
Y = torch.tensor([0, 1, 2])
FAMILY = [
    grad_cam, grad_cam_plus_plus, xgrad_cam, hires_cam, layer_cam, eigen_cam, eigen_grad_cam, score_cam, ablation_cam,
    opti_cam,
]  # fmt: skip
each = pytest.mark.parametrize("method", FAMILY, ids=lambda method: method.__name__)


def parts(model: Cam, x: torch.Tensor, y: torch.Tensor = Y) -> tuple[torch.Tensor, torch.Tensor]:
    """The activation and the class's weight of each channel."""
    with torch.no_grad():
        return model.activation(model.conv(x).clone()), model.fc.weight[y]


def combined(a: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    return torch.einsum("nk,nkij->nij", weights, a).unsqueeze(1).detach()


# Closed forms on GAP + FC networks -----------------------------------------------------------------------------------


@laws
@given(seed=seeds)
def test_on_gap_and_fc_the_gradient_weighted_maps_are_the_class_activation_map(seed):
    model, x = randomised(Cam(), seed), images(seed=seed)
    a, w = parts(model, x)
    cam = combined(a, w) / 64
    torch.testing.assert_close(hires_cam(model, x, Y), cam)
    torch.testing.assert_close(xgrad_cam(model, x, Y), cam)
    torch.testing.assert_close(grad_cam(model, x, Y), cam.relu())
    torch.testing.assert_close(layer_cam(model, x, Y), combined(a, w.relu()) / 64)
    scores = model(x).gather(1, Y[:, None]).squeeze(1)
    torch.testing.assert_close(cam.sum((1, 2, 3)) + model.fc.bias[Y], scores)


@laws
@given(seed=seeds)
def test_on_gap_and_fc_grad_cam_plus_plus_has_a_closed_form(seed):
    model, x = randomised(Cam(), seed), images(seed=seed)
    a, w = parts(model, x)
    g = w / 64
    weights = 64 * g.relu() / (2 + g * a.sum((2, 3)))
    torch.testing.assert_close(grad_cam_plus_plus(model, x, Y), combined(a, weights).relu())


@laws
@given(seed=seeds)
def test_on_gap_and_fc_an_ablated_channel_takes_its_weighted_mean_away(seed):
    model, x = randomised(Cam(), seed), images(seed=seed)
    a, w = parts(model, x)
    torch.testing.assert_close(ablation_cam(model, x, Y), combined(a, w * a.mean((2, 3))).relu())


def test_ablation_is_not_turned_round_where_the_logit_is_negative():
    """The paper divides by f(x): a mutant that does gives the map of what speaks against the class."""
    model, x = randomised(Cam()), images()
    with torch.no_grad():
        model.fc.weight.abs_()
        model.fc.bias.fill_(-9)
    score = model(x).gather(1, Y[:, None]).view(-1, 1, 1, 1)
    assert (score < 0).all()
    found = ablation_cam(model, x, Y)
    assert (found > 0).any()
    a, w = parts(model, x)
    assert not combined(a, w * a.mean((2, 3)) / score.view(-1, 1)).relu().any()


def test_maps_of_a_coarser_activation_are_enlarged_and_nothing_else():
    model, x = randomised(Cam(stride=2)), images()
    a, w = parts(model, x)
    expected = F.interpolate(combined(a, w) / 16, size=(8, 8), mode="bilinear", align_corners=False)
    torch.testing.assert_close(hires_cam(model, x, Y), expected)


@each
@pytest.mark.parametrize("factor", [1e-6, 1e6])
def test_a_map_keeps_its_shape_when_the_activation_is_scaled(method, factor):
    """Guards such as + 1e-7 would distort small maps."""
    model, scaled, x = randomised(Cam()), randomised(Cam()), images()
    with torch.no_grad():
        scaled.conv.weight.mul_(factor)
        scaled.conv.bias.mul_(factor)
        scaled.fc.weight.div_(factor)
    torch.testing.assert_close(unit(method(scaled, x, Y)), unit(method(model, x, Y)), rtol=1e-4, atol=1e-6)


@each
def test_a_dead_activation_has_a_map_of_zeros(method):
    model, x = randomised(Cam()), images()
    with torch.no_grad():
        model.conv.bias.fill_(-99)
    assert not method(model, x, Y).any()


def test_captum_agrees_where_it_has_the_method():
    model, x = convnet(), images()
    theirs = captum.attr.LayerGradientXActivation(model, model[4]).attribute(x, target=Y)
    ours = hires_cam(model, x, Y, layer="4")
    torch.testing.assert_close(ours, resize_like(theirs.sum(1, keepdim=True), x).detach())


def test_hires_cam_sees_a_head_that_reads_places_and_grad_cam_does_not():
    head = nn.Linear(2 * 64, 4)
    model = randomised(nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU(), nn.Flatten(), head))
    with torch.no_grad():
        head.weight.zero_().view(4, 2, 8, 8)[:, 0, 3, 4] = 1.0  # one place alone decides
        model[0].bias.fill_(5)
    x = images()
    where = hires_cam(model, x, Y).flatten(1) != 0
    assert where.sum(1).tolist() == [1, 1, 1]
    assert where[:, 3 * 8 + 4].all()
    assert (grad_cam(model, x, Y) != 0).flatten(1).sum(1).min() > 1


# Eigen-CAM -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("centred", [True, False])
def test_the_principal_map_is_numpy_s_first_component_turned_to_the_sum_of_channels(centred):
    a = images(channels=5, seed=3)
    for activation, found in zip(a, principal(a, centred), strict=True):
        places = activation.flatten(1).T.numpy()
        cut = places - places.mean(0) if centred else places
        direction = np.linalg.svd(cut)[2][0]
        direction = direction * np.sign((cut @ direction) @ cut.sum(1))
        np.testing.assert_allclose(found.flatten().numpy(), np.maximum(cut @ direction, 0), atol=1e-12)


@laws
@given(seed=seeds)
def test_the_principal_map_has_no_arbitrary_sign(seed):
    """A singular vector's sign changes with the order of the channels: the mutant without a rule turns maps round."""
    a = images(channels=5, seed=seed) ** 3
    order = torch.randperm(5, generator=torch.Generator().manual_seed(seed))
    torch.testing.assert_close(principal(a[:, order], True), principal(a, True))


def test_uncentred_it_is_the_perron_map_which_no_place_leaves():
    assert (principal(images(channels=5), centred=False) > 0).all()


def test_eigen_cam_is_blind_to_the_class_and_the_head_and_eigen_grad_cam_is_not():
    model, other, x = randomised(Cam()), randomised(Cam()), images()
    with torch.no_grad():
        other.fc.weight.copy_(model.fc.weight.flip(0))
    assert torch.equal(eigen_cam(model, x, Y), eigen_cam(other, x, Y.flip(0)))
    assert not torch.allclose(eigen_grad_cam(model, x, Y), eigen_grad_cam(other, x, Y))


# Score-CAM and Opti-CAM ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.5])
def test_score_cam_is_a_loop_over_images_and_channels(baseline):
    model, x = randomised(Cam(stride=2)), images()
    with torch.no_grad():
        model.conv.bias[2] = -99
        a, _ = parts(model, x)
        expected = []
        for image, activation, label in zip(x, a, Y, strict=True):
            varied = [channel for channel in activation if channel.min() < channel.max()]
            assert 0 < len(varied) < 7  # a dead channel masks nothing
            scores = []
            for channel in varied:
                mask = F.interpolate(channel[None, None], size=(8, 8), mode="bilinear")[0, 0]
                mask = (mask - mask.min()) / (mask.max() - mask.min())
                scores.append(model((mask * image + (1 - mask) * baseline)[None])[0, label])
            weights = torch.stack(scores).softmax(0)
            expected.append((weights[:, None, None] * torch.stack(varied)).sum(0))
    expected = resize_like(torch.stack(expected)[:, None], x)
    torch.testing.assert_close(score_cam(model, x, Y, baseline=baseline), expected)


def test_score_cam_does_not_change_when_a_constant_is_added_to_the_logits():
    model, shifted, x = randomised(Cam()), randomised(Cam()), images()
    with torch.no_grad():
        shifted.fc.bias.add_(7)
    torch.testing.assert_close(score_cam(shifted, x, Y), score_cam(model, x, Y))


def test_opti_cam_begins_with_equal_weights():
    model, x = randomised(Cam(torch.tanh)), images()
    a, _ = parts(model, x)
    torch.testing.assert_close(opti_cam(model, x, Y, iterations=0), a.relu().mean(1, keepdim=True))


def test_opti_cam_comes_nearer_to_the_score_of_the_whole_image():
    model, x = randomised(Cam()), images()
    goal = model(x).gather(1, Y[:, None])

    def missed(iterations: int) -> torch.Tensor:
        masked = unit(opti_cam(model, x, Y, iterations=iterations)) * x
        return (model(masked).gather(1, Y[:, None]) - goal).abs().sum().detach()

    assert missed(100) < 0.7 * missed(0)


def test_opti_cam_finds_the_channel_that_is_the_cause():
    """Two patches, one in each channel; the paler one alone counts, and has to catch up with the other."""
    model = nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).double()
    with torch.no_grad():
        model[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        model[0].bias.zero_()
    x = torch.zeros(1, 2, 8, 8, dtype=torch.float64)
    x[0, 0, 1:3, 1:3], x[0, 1, 5:7, 5:7] = 0.4, 0.8
    before, after = (unit(opti_cam(model, x, torch.tensor([0]), iterations=k))[0, 0] for k in (0, 50))
    assert before[1, 1].item() == pytest.approx(0.5)
    assert after[1, 1] > 0.95


# Which activation ----------------------------------------------------------------------------------------------------


def side_effect(z: torch.Tensor) -> torch.Tensor:
    F.relu(z, inplace=True)
    return z


RELUS = {
    "module": nn.ReLU(), "inplace module": nn.ReLU(inplace=True), "functional": F.relu, "method": lambda z: z.relu(),
    "functional in place": lambda z: F.relu(z, inplace=True), "method_": lambda z: z.relu_(), "torch_": torch.relu_,
    "clamp": lambda z: z.clamp(min=0), "side effect": side_effect,
}  # fmt: skip


@each
@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_a_map_does_not_depend_on_how_the_relu_is_written(method, relu):
    x = images()
    torch.testing.assert_close(method(randomised(Cam(relu)), x, Y), method(randomised(Cam()), x, Y))


@each
def test_the_layer_that_is_found_may_be_named_and_another_one_gives_another_map(method):
    model, x = convnet(), images()
    found = method(model, x, Y)
    torch.testing.assert_close(method(model, x, Y, layer="4"), found)
    assert not torch.allclose(method(model, x, Y, layer="0"), found)


@each
def test_a_named_layer_is_read_before_an_in_place_activation_overwrites_it(method):
    """pytorch-grad-cam stores the tensor itself, which the ReLU behind it changes."""
    x, plain, in_place = images(), convnet(), convnet()
    in_place[4].inplace = True
    torch.testing.assert_close(method(in_place, x, Y, layer="3"), method(plain, x, Y, layer="3"))


class Odd(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu, self.fc, self.unused = nn.Conv2d(3, 3, 1), nn.ReLU(), nn.Linear(3, 4), nn.ReLU()
        self.pair = nn.MaxPool2d(2, return_indices=True)

    def forward(self, x):
        z = self.relu(self.conv(self.relu(x)))
        return self.fc(self.pair(z)[0].mean((2, 3)))


@each
@pytest.mark.parametrize(
    ("layer", "text"),
    [
        ("nope", r"has no layer 'nope'; it has conv, relu, fc, unused, pair"), ("relu", "runs more than once"),
        ("pair", "returns tuple, expected a tensor"), ("fc", r"returns \(3, 4\), expected a spatial activation"),
        ("unused", "does not run"),
    ],
)  # fmt: skip
def test_a_layer_that_has_no_map_is_refused_with_a_sentence(method, layer, text):
    with pytest.raises(ValueError, match=text):
        method(randomised(Odd()), images(), Y, layer=layer)


@each
def test_models_without_a_spatial_convolution_are_refused(method):
    model = randomised(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))
    with pytest.raises(ValueError, match="no convolution with a spatial output"):
        method(model, images(), Y)


class Tokens(nn.Module):
    """Patches as tokens behind a class token, mixed by one layer and read by a mean over all of them."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.patch, self.block, self.fc = nn.Conv2d(3, 5, 2, stride=2), nn.Linear(5, 6), nn.Linear(6, 4)
        self.cls = nn.Parameter(torch.zeros(1, extra, 5))

    def forward(self, x):
        tokens = torch.cat([self.cls.expand(len(x), -1, -1), self.patch(x).flatten(2).transpose(1, 2)], 1)
        return self.fc(self.block(tokens).relu().mean(1))


@pytest.mark.parametrize("extra", [0, 1, 2])
def test_the_tokens_of_a_named_layer_are_put_back_on_their_places(extra):
    model, x = randomised(Tokens(extra)), images()
    with torch.no_grad():
        tokens = model.block(model.patch(x).flatten(2).transpose(1, 2))
        a = tokens.transpose(1, 2).unflatten(2, (4, 4))
        slope = (a > 0) * model.fc.weight[Y][:, :, None, None] / (16 + extra)
    expected = resize_like((slope * a).sum(1, keepdim=True), x)
    torch.testing.assert_close(hires_cam(model, x, Y, layer="block"), expected)
    drop = torch.stack([(a * slope).sum((2, 3))])[0]
    expected = resize_like(combined(a, drop).relu(), x)
    torch.testing.assert_close(ablation_cam(model, x, Y, layer="block"), expected)


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
@pytest.mark.parametrize("layer", [None, "conv"])
def test_an_activation_that_is_put_back_unchanged_changes_nothing_and_zeros_leave_the_bias(relu, layer):
    model, x = randomised(Cam(relu)), images()
    run = tap.editor(model, x, layer)
    with torch.no_grad():
        torch.testing.assert_close(run(x, lambda a: a), model(x))
        torch.testing.assert_close(run(x, torch.zeros_like), model.fc.bias.expand(3, -1))


def test_a_model_that_takes_another_way_without_gradients_is_refused():
    class Fickle(Cam):
        def forward(self, x):
            return super().forward(x) if torch.is_grad_enabled() else self.fc(x.mean((2, 3)).repeat(1, 3)[:, :7])

    with pytest.raises(ValueError, match="other functions without gradients"):
        ablation_cam(randomised(Fickle()), images(), Y)


# Memory --------------------------------------------------------------------------------------------------------------


@each
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_loses_nothing(method):
    model, x = convnet(), images(n=5)
    y = torch.tensor([0, 1, 2, 3, 0])
    torch.testing.assert_close(method(Cramped(model, room=2), x, y), method(model, x, y))
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        method(Cramped(model, room=0), x, y)


def test_every_one_of_the_family_is_registered_and_needs_a_convolution():
    for method in FAMILY:
        entry = registry.get("methods", method.__name__)
        assert entry.needs >= {"gradient", "conv"}


# Controls ------------------------------------------------------------------------------------------------------------


def test_fake_cam_is_one_but_for_the_corner_and_never_looks_at_the_model():
    found = fake_cam(None, images(), Y)
    assert found.shape == (3, 1, 8, 8)
    assert not found[..., 0, 0].any()
    assert found.sum() == 3 * 63
    assert registry.get("methods", "fake_cam").control


def test_the_complement_of_the_least_likely_class_turns_its_map_round():
    model, x = convnet(), images()
    least = model(x).argmin(1)
    found = least_likely_complement(model, x, Y)
    torch.testing.assert_close(found, 1 - unit(grad_cam(model, x, least)))
    torch.testing.assert_close(least_likely_complement(model, x, Y.flip(0)), found)
    by_gradient = least_likely_complement(model, x, Y, base=hires_cam)
    assert (by_gradient.flatten(1).argmin(1) == hires_cam(model, x, least).flatten(1).argmax(1)).all()
    entry = registry.get("methods", "least_likely_complement")
    assert not entry.control  # it looks at the model
    assert not entry.profiles
