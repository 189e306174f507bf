"""Attribution methods against closed forms, identities, and captum where captum is right."""

from __future__ import annotations

import contextlib
import copy

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks import registry
from saliency_checks.methods.backprop import guided_backprop
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.deep_lift import deep_lift
from saliency_checks.methods.gradient import gradient, input_gradient, input_x_gradient, smoothgrad
from saliency_checks.methods.oracle import truth_oracle
from saliency_checks.methods.path import baseline_like, integrated_gradients
from saliency_checks.methods.perturbation import occlusion
from saliency_checks.snapshot import Snapshot
from saliency_checks.subject import Contrast, Subject

from convnets import RELUS, Calls, change, convnet, images, linear, pair, randomised

METHODS = registry.entries("methods")
BUILT_IN = sorted(name for name, entry in METHODS.items() if entry.source.__module__.startswith("saliency_checks."))
CONTROLS = [name for name in BUILT_IN if METHODS[name].control]
EXPLAINERS = [name for name in BUILT_IN if not METHODS[name].control]
DETERMINISTIC = [name for name in BUILT_IN if not METHODS[name].stochastic]
laws = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)


def claiming(axiom: str) -> list[str]:
    return [name for name in EXPLAINERS if axiom in METHODS[name].claims]


def explain(name: str, model: nn.Module, x: torch.Tensor, y: torch.Tensor, seed: int = 0) -> torch.Tensor:
    torch.manual_seed(seed)
    found: torch.Tensor = METHODS[name](model, x, y)
    return found


# Linear model: every map is known ------------------------------------------------------------------------------------


def test_a_linear_model_is_explained_by_its_weights():
    model, x, y = linear(), images(), torch.tensor([0, 3, 1])
    w = model[1].weight[y].view_as(x).detach()
    with pytest.warns(UserWarning, match="met no ReLU"):
        torch.testing.assert_close(guided_backprop(model, x, y), w)
    torch.testing.assert_close(gradient(model, x, y), w)
    torch.testing.assert_close(smoothgrad(model, x, y), w)
    torch.testing.assert_close(input_x_gradient(model, x, y), w * x)


@pytest.mark.parametrize("baseline", [0.0, 0.7, "mean", torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)])
@pytest.mark.parametrize("steps", [1, 2, 24])
def test_difference_methods_explain_a_linear_model_by_weight_times_distance(baseline, steps):
    model, x, y = linear(), images(), torch.tensor([0, 3, 1])
    w = model[1].weight[y].view_as(x).detach()
    expected = w * (x - baseline_like(x, baseline))
    torch.testing.assert_close(integrated_gradients(model, x, y, baseline=baseline, steps=steps), expected)
    torch.testing.assert_close(deep_lift(model, x, y, baseline=baseline), expected)
    one_pixel = occlusion(model, x, y, baseline=baseline, window=1, stride=1)
    torch.testing.assert_close(one_pixel, expected.sum(1, keepdim=True))


@pytest.mark.parametrize(("window", "stride"), [(3, 1), (3, 2), (2, 2), (5, 3), (8, 1), (99, 7)])
def test_occlusion_of_a_linear_model_is_the_mean_over_the_windows_that_cover_a_pixel(window, stride):
    model, x, y = linear(), images(), torch.tensor([0, 3, 1])
    effect = (model[1].weight[y].view_as(x) * x).detach().sum(1, keepdim=True)
    side = min(window, 8)
    starts = sorted({*range(0, 8 - side, stride), 8 - side})
    total, count = torch.zeros_like(effect), torch.zeros_like(effect)
    for top in starts:
        for left in starts:
            cut = (..., slice(top, top + side), slice(left, left + side))
            total[cut] += effect[cut].sum((-2, -1), keepdim=True)
            count[cut] += 1
    torch.testing.assert_close(occlusion(model, x, y, window=window, stride=stride), total / count)


def test_occlusion_takes_some_two_hundred_windows_or_fewer_whatever_the_size():
    calls = []
    model = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    model.register_forward_hook(lambda m, args, out: calls.append(len(out)))
    for size in (8, 28, 32, 64, 224):
        calls.clear()
        occlusion(model, torch.rand(1, 1, size, size), torch.tensor([0]))
        assert 9 < sum(calls) < 260, size


def test_a_baseline_of_another_name_is_refused():
    with pytest.raises(ValueError, match="expected a number, a tensor or 'mean'"):
        baseline_like(images(), "median")


def test_the_mean_baseline_is_each_image_s_own_colour():
    x = images()
    torch.testing.assert_close(baseline_like(x, "mean")[:1], baseline_like(x[:1], "mean"))
    torch.testing.assert_close(baseline_like(x, "mean").mean((2, 3)), x.mean((2, 3)))


# Axioms that a method claims -----------------------------------------------------------------------------------------


# Of the others, which compare with several images or with none, the check axioms is asked (test_axioms.py).
FROM_A_BASELINE = [name for name in claiming("completeness") if "baseline" in METHODS[name].needs]


@pytest.mark.parametrize("name", FROM_A_BASELINE)
@laws
@given(seed=seeds)
def test_contributions_sum_to_the_change_of_the_logit(name, seed):
    model, x, y = convnet(seed=seed), images(seed=seed), torch.tensor([0, 1, 2])
    expected = change(model, x, y, torch.zeros_like(x))
    tolerance = 1e-9 if name == "deep_lift" else 0.02 * float(expected.abs().max()) + 0.005
    torch.testing.assert_close(explain(name, model, x, y).sum((1, 2, 3)), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("name", sorted({*claiming("dummy"), "deep_lift", "guided_backprop"}))
def test_a_pixel_that_no_weight_reads_gets_nothing(name):
    model, x = randomised(Calls(nn.ReLU())), images()
    with torch.no_grad():
        model.first.weight[:, 5] = 0
    map_ = explain(name, model, x, torch.tensor([0, 1, 2])).flatten(1)
    assert torch.equal(map_[:, 5], torch.zeros(3, dtype=torch.float64))
    assert (map_ != 0).any(1).all()


class Minimum(nn.Module):
    """min(a, b) as a - ReLU(a - b), or with the roles exchanged."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def forward(self, x):
        a, b = x.flatten(1)[:, [self.first, 1 - self.first]].unbind(1)
        return (a - F.relu(a - b))[:, None]


class Order(nn.Module):
    """ReLU(z1 - 1 - ReLU(z2)) or ReLU(ReLU(z1 - 1) - z2): the same function of (z1, z2) = ReLU(x)."""

    def __init__(self, inner_first: bool) -> None:
        super().__init__()
        self.inner_first = inner_first

    def forward(self, x):
        z = F.relu(x.flatten(1))
        inner = F.relu(z[:, :1] - 1) - z[:, 1:] if self.inner_first else z[:, :1] - 1 - F.relu(z[:, 1:])
        return F.relu(inner)


@pytest.mark.parametrize("name", claiming("implementation_invariance"))
@pytest.mark.parametrize("models", [(Minimum(0), Minimum(1)), (Order(True), Order(False))], ids=["minimum", "order"])
def test_two_networks_of_one_function_get_one_map(name, models):
    x, y = pair([3.0, 1.0]), torch.tensor([0])
    first, second = (explain(name, model, x, y) for model in models)
    torch.testing.assert_close(first, second)


def test_rules_of_their_own_are_not_implementation_invariant():
    x, y = pair([3.0, 1.0]), torch.tensor([0])
    torch.testing.assert_close(guided_backprop(Minimum(0), x, y), pair([1.0, 0.0]))
    torch.testing.assert_close(guided_backprop(Minimum(1), x, y), pair([0.0, 1.0]))
    torch.testing.assert_close(deep_lift(Order(False), x, y), pair([1.5, -0.5]))
    torch.testing.assert_close(deep_lift(Order(True), x, y), pair([2.0, -1.0]))


class Rewired(nn.Module):
    """The same function with hidden units permuted, rescaled and split in halves."""

    def __init__(self, model: Calls, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(12, generator=generator)
        scale = torch.rand(12, generator=generator, dtype=torch.float64) + 0.5
        rows = order.repeat(2)
        self.first = nn.Linear(192, 24).double()
        self.second, self.last = nn.Linear(24, 12).double(), model.last
        with torch.no_grad():
            self.first.weight.copy_(model.first.weight[rows] * scale[rows, None])
            self.first.bias.copy_(model.first.bias[rows] * scale[rows])
            self.second.weight.copy_(model.second.weight[:, rows] / scale[rows] / 2)
            self.second.bias.copy_(model.second.bias)

    def forward(self, x):
        return self.last(F.relu(self.second(F.relu(self.first(x.flatten(1))))))


@pytest.mark.parametrize("name", claiming("implementation_invariance"))
@laws
@given(seed=seeds)
def test_rewiring_that_keeps_the_function_keeps_the_map(name, seed):
    model = randomised(Calls(nn.ReLU()), seed)
    rewired, x, y = Rewired(model, seed), images(seed=seed), torch.tensor([0, 1, 2])
    torch.testing.assert_close(rewired(x), model(x))
    torch.testing.assert_close(explain(name, rewired, x, y), explain(name, model, x, y), rtol=1e-6, atol=1e-9)


class Combined(nn.Module):
    def __init__(self, a, f, b, g) -> None:
        super().__init__()
        self.a, self.f, self.b, self.g = a, f, b, g

    def forward(self, x):
        return self.a * self.f(x) + self.b * self.g(x)


@pytest.mark.parametrize("name", sorted({*claiming("linearity"), "deep_lift"}))
@laws
@given(seed=seeds, a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_the_map_of_a_sum_of_networks_is_the_sum_of_their_maps(name, seed, a, b):
    f, g = convnet(seed=seed), convnet(seed=seed + 1)
    x, y = images(seed=seed), torch.tensor([0, 1, 2])
    expected = a * explain(name, f, x, y) + b * explain(name, g, x, y)
    torch.testing.assert_close(explain(name, Combined(a, f, b, g), x, y), expected, rtol=1e-6, atol=1e-9)


class Saturated(nn.Module):
    def forward(self, x):
        return 1 - F.relu(1 - x.flatten(1))


@pytest.mark.parametrize("name", EXPLAINERS)
def test_saturation_is_seen_by_the_methods_that_claim_it_and_by_no_gradient(name):
    if "conv" in METHODS[name].needs:
        pytest.skip("needs a convolution")
    x = torch.full((1, 1, 1, 1), 2.0, dtype=torch.float64)
    seen = explain(name, Saturated(), x, torch.tensor([0])).item()
    if name in FROM_A_BASELINE:
        assert seen == pytest.approx(1, abs=0.03)
    elif "saturation" in METHODS[name].claims:
        return
    elif not METHODS[name].needs & {"baseline", "references"} and name != "blur_ig":  # what compares may see some of it
        assert seen == 0


@pytest.mark.parametrize("name", FROM_A_BASELINE)
def test_an_image_that_is_the_baseline_gets_nothing(name):
    x = torch.zeros(2, 3, 8, 8, dtype=torch.float64)
    assert not explain(name, convnet(), x, torch.tensor([0, 1])).any()


# captum as a peer, on networks that it explains correctly ------------------------------------------------------------

PEERS = {
    "gradient": lambda m, x, y: captum.attr.Saliency(m).attribute(x, target=y, abs=False),
    "input_x_gradient": lambda m, x, y: captum.attr.InputXGradient(m).attribute(x, target=y),
    "integrated_gradients": lambda m, x, y: captum.attr.IntegratedGradients(m).attribute(x, target=y, n_steps=24),
    "guided_backprop": lambda m, x, y: captum.attr.GuidedBackprop(m).attribute(x, target=y),
    "deep_lift": lambda m, x, y: captum.attr.DeepLift(m).attribute(x, target=y),
    "grad_cam": lambda m, x, y: captum.attr.LayerAttribution.interpolate(
        captum.attr.LayerGradCam(m, m[4]).attribute(x, target=y, relu_attributions=True), (8, 8), "bilinear"
    ),
}


@pytest.mark.parametrize("name", PEERS)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_agrees_where_it_is_right(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    model[2] = nn.AvgPool2d(2)
    torch.testing.assert_close(explain(name, model, x, y), PEERS[name](model, x, y), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("window", "stride"), [(2, 1), (2, 2), (4, 2)])
def test_captum_s_occlusion_agrees_where_windows_fit_the_image(window, stride):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    theirs = captum.attr.Occlusion(model).attribute(
        x, target=y, sliding_window_shapes=(3, window, window), strides=(3, stride, stride)
    )
    ours = occlusion(model, x, y, window=window, stride=stride)
    torch.testing.assert_close(ours, theirs[:, :1].double(), rtol=1e-5, atol=1e-6)  # captum's is float32 always


def test_smoothgrad_of_no_noise_is_the_gradient_and_its_noise_is_scaled_per_image():
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    torch.testing.assert_close(smoothgrad(model, x, y, samples=3, noise=0.0), gradient(model, x, y))
    seen = []

    def look(_, args):
        seen.append(args[0].detach())

    handle = model.register_forward_pre_hook(look)
    scaled = torch.cat([x, 100 * x])
    torch.manual_seed(0)
    smoothgrad(model, scaled, y.repeat(2), samples=60, noise=0.15)
    handle.remove()
    spread = torch.stack(seen).sub(scaled).std(0).mean((1, 2, 3))
    expected = 0.15 * (scaled.amax((1, 2, 3)) - scaled.amin((1, 2, 3)))
    torch.testing.assert_close(spread, expected, rtol=0.05, atol=0)


# Grad-CAM ------------------------------------------------------------------------------------------------------------


class Cam(nn.Module):
    """Convolution, ReLU, global average pooling, linear: the class activation map is known."""

    def __init__(self, relu) -> None:
        super().__init__()
        self.conv, self.relu, self.fc = nn.Conv2d(3, 7, 3, stride=2, padding=1), relu, nn.Linear(7, 4)

    def forward(self, x):
        return self.fc(self.relu(self.conv(x)).mean((2, 3)))


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_grad_cam_is_the_class_activation_map_behind_the_relu(relu):
    model, x, y = randomised(Cam(relu)), images(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.fc.weight.abs_()
        activation = model.conv(x).relu()
        cam = torch.einsum("nk,nkhw->nhw", model.fc.weight[y], activation)[:, None]
    expected = F.interpolate(cam, size=(8, 8), mode="bilinear", align_corners=False) / 16
    torch.testing.assert_close(grad_cam(model, x, y), expected.detach())


def test_grad_cam_drops_evidence_against_the_class():
    model, x, y = randomised(Cam(F.relu)), images(), torch.tensor([0, 1, 2])
    with torch.no_grad():
        model.fc.weight.copy_(-model.fc.weight.abs())
    assert not grad_cam(model, x, y).any()


def test_grad_cam_reads_the_block_after_the_residual_addition():
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.fc = nn.Conv2d(3, 3, 3, padding=1), nn.BatchNorm2d(3), nn.Linear(3, 4)

        def forward(self, x):
            out = self.norm(self.conv(x))
            out += x
            out.relu_()
            self.kept = out.detach().clone()
            return self.fc(F.dropout(out, training=self.training).mean((2, 3)))

    model, x, y = randomised(Block()), images(), torch.tensor([0, 1, 2])
    expected = torch.einsum("nk,nkhw->nhw", model.fc.weight[y] / 64, (model(x), model.kept)[1]).relu()[:, None]
    torch.testing.assert_close(grad_cam(model, x, y), expected.detach())


def test_grad_cam_passes_over_convolutions_on_a_single_cell():
    model = randomised(nn.Sequential(*list(convnet())[:6], nn.Conv2d(8, 4, 1), nn.Flatten()))
    assert grad_cam(model, images(), torch.tensor([0, 1, 2])).flatten(1).std(1).min() > 0


@pytest.mark.parametrize("name", ["grad_cam"])
def test_methods_that_need_a_convolution_say_so(name):
    assert "conv" in METHODS[name].needs
    with pytest.raises(ValueError, match="no convolution"):
        explain(name, linear(), images(), torch.tensor([0, 1, 2]))


# Controls and the oracle ---------------------------------------------------------------------------------------------


class Forbidden(nn.Module):
    def forward(self, x):
        raise AssertionError("a control called the model")


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("channels", [1, 3])
def test_controls_never_look_at_the_model_or_the_target(name, channels):
    x = images(channels=channels)
    first = explain(name, Forbidden(), x, torch.tensor([0, 1, 2]))
    assert torch.equal(first, explain(name, Forbidden(), x, torch.tensor([3, 3, 3])))
    assert torch.isfinite(first).all()


def test_every_control_is_declared_as_one():
    assert set(CONTROLS) >= {
        "random", "constant", "input_magnitude", "input_contrast", "edges", "center_blob", "chroma", "laplacian"
    }  # fmt: skip
    assert not [name for name in CONTROLS if METHODS[name].needs or METHODS[name].claims]


def test_controls_that_find_nothing_in_a_flat_image_find_nothing():
    flat, y = torch.full((2, 3, 8, 8), 0.4, dtype=torch.float64), torch.tensor([0, 1])
    for name in ("edges", "laplacian", "input_contrast", "chroma"):
        assert explain(name, Forbidden(), flat, y).abs().max() < 1e-12, name


def test_edges_are_the_sobel_magnitude():
    from scipy import ndimage

    x = images(n=1, channels=1, size=9)
    picture = x[0, 0].numpy()
    expected = (ndimage.sobel(picture, 0, mode="nearest") ** 2 + ndimage.sobel(picture, 1, mode="nearest") ** 2) ** 0.5
    torch.testing.assert_close(explain("edges", Forbidden(), x, torch.tensor([0]))[0, 0], torch.from_numpy(expected))


def test_the_laplacian_control_finds_single_pixels_and_chroma_finds_colour():
    x = torch.full((1, 3, 8, 8), 0.5, dtype=torch.float64)
    x[0, :, 2, 3] = torch.tensor([0.9, 0.5, 0.1], dtype=torch.float64)
    for name in ("laplacian", "chroma"):
        best = explain(name, Forbidden(), x, torch.tensor([0])).abs().sum(1).flatten().argmax()
        assert divmod(int(best), 8) == (2, 3)


def planted(seed: int = 0, **extra) -> Subject:
    x = images(seed=seed).float()
    truth = torch.zeros(3, 8, 8, dtype=torch.bool)
    truth[0, 1, 1] = truth[1, 2, 2] = truth[2, 3, 3] = True
    return Subject(convnet().float(), x, torch.tensor([0, 1, 2]), truth=truth, decoys=~truth[:, None], **extra)


def test_the_oracle_returns_the_truth_of_the_asked_images_in_any_order():
    subject = planted()
    shuffled = torch.tensor([2, 0])
    maps = truth_oracle(subject)(subject.model, subject.inputs[shuffled], subject.targets[shuffled])
    assert torch.equal(maps, subject.truth[shuffled].float())
    against = truth_oracle(subject)(subject.model, subject.inputs[:1], torch.tensor([3]))
    assert torch.equal(against, -subject.truth[:1].float())


def test_the_oracle_returns_the_asked_class_s_own_site_of_two_and_knows_replicas():
    sites = torch.zeros(2, 2, 8, 8, dtype=torch.bool)
    sites[:, 0, 0, 0] = sites[:, 1, 7, 7] = True
    contrast = Contrast(inputs=images(2, seed=5).float(), targets=torch.tensor([[0, 1], [2, 1]]), sites=sites)
    replica = planted(seed=9)
    subject = planted(contrast=contrast, replicas=(lambda: replica,))
    oracle = truth_oracle(subject)
    assert torch.equal(oracle(subject.model, contrast.inputs, contrast.targets[:, 0]), sites[:, 0].float())
    assert torch.equal(oracle(subject.model, contrast.inputs, contrast.targets[:, 1]), sites[:, 1].float())
    assert torch.equal(oracle(replica.model, replica.inputs, replica.targets), replica.truth.float())
    with pytest.raises(LookupError, match="an image that the subject lacks"):
        oracle(subject.model, images(1, seed=77).float(), torch.tensor([0]))


def test_a_subject_without_truth_has_no_oracle():
    subject = Subject(convnet(), images(), torch.tensor([0, 1, 2]))
    with pytest.raises(ValueError, match="offers no truth mask"):
        truth_oracle(subject)(subject.model, subject.inputs, subject.targets)


# Every registered method ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("channels", [1, 3])
def test_maps_have_the_inputs_shape_dtype_and_device(name, dtype, channels):
    model, x = convnet(channels).to(dtype), images(channels=channels).to(dtype)
    found = explain(name, model, x, torch.tensor([0, 1, 2]))
    assert found.shape in {(3, channels, 8, 8), (3, 1, 8, 8)}
    assert (found.dtype, found.device, found.requires_grad) == (dtype, x.device, False)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("name", DETERMINISTIC)
def test_the_device_does_not_change_the_map(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    expected = explain(name, model, x, y)
    found = explain(name, copy.deepcopy(model).cuda(), x.cuda(), y.cuda())
    assert found.is_cuda
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("name", [name for name in EXPLAINERS if "conv" not in METHODS[name].needs])
def test_networks_without_convolutions_are_explained_too(name):
    found = explain(name, randomised(Calls(nn.ReLU())), images(), torch.tensor([0, 1, 2]))
    assert found.flatten(1).std(1).min() > 0


@pytest.mark.parametrize("name", DETERMINISTIC)
def test_an_image_gets_the_same_map_alone_and_in_a_batch(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    alone = torch.cat([explain(name, model, x[i : i + 1], y[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(explain(name, model, x, y, seed=1), alone)


@pytest.mark.parametrize("name", BUILT_IN)
def test_only_the_global_seed_decides_the_draws(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    assert torch.equal(explain(name, model, x, y, seed=3), explain(name, model, x, y, seed=3))
    assert torch.equal(explain(name, model, x, y), explain(name, model, x, y, seed=3)) != METHODS[name].stochastic


# They read the activation alone, or ask for a class of their own.
CLASS_BLIND = {"eigen_cam", "least_likely_complement"}


@pytest.mark.parametrize("name", EXPLAINERS)
def test_another_class_gets_another_map(name):
    model, x = convnet(), images()
    one, two = (explain(name, model, x, torch.full((3,), label)) for label in (0, 1))
    assert torch.allclose(one, two) == (name in CLASS_BLIND)


@pytest.mark.parametrize("name", EXPLAINERS)
@pytest.mark.parametrize("raises", [False, True])
@pytest.mark.parametrize("frozen", [False, True])
def test_the_model_and_the_arguments_are_left_as_they_were(name, raises, frozen):
    model, x, y = convnet().requires_grad_(not frozen), images(), torch.tensor([0, 1, 2])
    model[1].inplace = True
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    if raises:
        model[7].register_forward_hook(fail)
    inputs, targets, before = x.clone(), y.clone(), Snapshot.of(model)
    with pytest.raises(RuntimeError, match="on purpose") if raises else contextlib.nullcontext():
        METHODS[name](model, inputs, targets)
    assert before.changes(model) == []
    assert torch.equal(inputs, x)
    assert torch.equal(targets, y)
    assert (inputs.requires_grad, inputs.grad, torch.is_grad_enabled()) == (False, None, True)


def fail(*_):
    raise RuntimeError("on purpose")


@pytest.mark.parametrize("name", EXPLAINERS)
def test_gradients_switched_off_around_a_method_do_not_matter(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    expected = explain(name, model, x, y)
    with torch.no_grad():
        torch.testing.assert_close(explain(name, model, x, y), expected)


@pytest.mark.parametrize("name", EXPLAINERS)
def test_a_first_layer_that_works_in_place_is_no_obstacle(name):
    model, x, y = convnet(), images(), torch.tensor([0, 1, 2])
    in_place = nn.Sequential(nn.Hardtanh(-9, 9, inplace=True), *model)  # the identity on these images
    torch.testing.assert_close(explain(name, in_place, x, y), explain(name, model, x, y))


def test_a_model_that_returns_no_logits_is_named():
    model = nn.Sequential(nn.Conv2d(3, 4, 3))
    with pytest.raises(TypeError, match=r"returned \(3, 4, 6, 6\), expected logits \(3, classes\)"):
        input_gradient(model.double(), images(), torch.tensor([0, 1, 2]))


def test_every_method_has_a_docstring_and_every_explainer_a_reference():
    assert [name for name in BUILT_IN if not METHODS[name].source.__doc__] == []
    assert [name for name in EXPLAINERS if not METHODS[name].reference] == []
