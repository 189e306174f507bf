"""Rules on networks of every day and on transformers: each method is right by its own identity, or says what is not."""

from __future__ import annotations

import warnings
from functools import cache, partial

import pytest
import torch
from test_graft import TinyViT, briefly_trained
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks import vision
from saliency_checks.graft import graft
from saliency_checks.loading import build_subject
from saliency_checks.methods.backprop import deconvolution, guided_backprop, guided_grad_cam
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.deep_lift import deep_lift, deep_lift_shap
from saliency_checks.methods.full_gradient import full_grad, full_gradient
from saliency_checks.methods.gradient import gradient
from saliency_checks.methods.relevance import lrp
from saliency_checks.run import run
from saliency_checks.subject import Subject

from convnets import change, images

Y = torch.tensor([0, 1])
SIZE = 32


def transformer() -> nn.Module:
    build = vision.torchvision().models.VisionTransformer
    model: nn.Module = build(
        image_size=SIZE, patch_size=8, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=24, num_classes=4
    )
    return model


def windows() -> nn.Module:
    build = vision.torchvision().models.SwinTransformer
    model: nn.Module = build(
        patch_size=[2, 2], embed_dim=8, depths=[1, 2], num_heads=[2, 2], window_size=[4, 4], num_classes=4
    )
    return model


def named(name: str):
    return lambda: getattr(vision.torchvision().models, name)(num_classes=4)


NETWORKS = {
    **{name: named(name) for name in ("resnet18", "squeezenet1_1", "densenet121", "efficientnet_b0")},
    "mobilenet_v2": named("mobilenet_v2"),
    "transformer": transformer,
    "windows": windows,
}
each = pytest.mark.parametrize("name", NETWORKS)


@cache
def network(name: str) -> nn.Module:
    """Untrained, but with biases, and with batch norm statistics of its own so that the signal does not vanish."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = NETWORKS[name]().double()
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None
        with torch.no_grad():
            model.train(bool(norms))(images(8, size=SIZE, seed=2))
            for parameter in model.parameters():
                if parameter.ndim == 1 or not parameter.any():
                    parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@each
def test_deep_lift_is_complete(name):
    model, x, start = network(name), images(2, size=SIZE), images(2, size=SIZE, seed=1)
    found = deep_lift(model, x, Y, baseline=start)
    torch.testing.assert_close(found.sum((1, 2, 3)), change(model, x, Y, start), rtol=1e-6, atol=1e-9)


@each
def test_full_gradient_is_complete_for_all_images_together(name):
    model, x = network(name), images(2, size=SIZE)
    term, biases = full_gradient(model, x, Y)
    due = model(x).gather(1, Y[:, None]).detach().sum()
    torch.testing.assert_close(term.sum() + sum(bias.sum() for bias in biases), due, rtol=1e-8, atol=1e-9)
    assert full_grad(model, x, Y).shape == (2, 1, SIZE, SIZE)


@each
def test_relevance_finds_its_way_and_does_not_depend_on_the_batch(name):
    """Its sum is checked inside, constants included; here the same map must come back for each image alone."""
    model, x = network(name), images(2, size=SIZE)
    found = lrp(model, x, Y)
    assert found.any()
    alone = torch.cat([lrp(model, x[i : i + 1], Y[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(found, alone, rtol=1e-5, atol=1e-8 * float(found.abs().max()))


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "densenet121", "mobilenet_v2"])
@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
def test_guided_rules_are_those_of_hooks_on_modules_that_are_each_called_once(name, method):
    """Another way to the same map: every ReLU call becomes a function with a backward of its own."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx, z, top):
            ctx.save_for_backward(z)
            ctx.top = top
            return z.clamp(0, top)

        @staticmethod
        def backward(ctx, g):
            (z,) = ctx.saved_tensors
            passes = ((z > 0) & (z < ctx.top)) if method is guided_backprop else 1.0
            return g.clamp(min=0) * passes, None

    x = images(2, size=SIZE)
    leaf = x.clone().requires_grad_()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "relu", lambda z, inplace=False: Rule.apply(z, torch.inf))
        patch.setattr(F, "hardtanh", lambda z, low, high, inplace=False: Rule.apply(z, high))
        total = network(name)(leaf).gather(1, Y[:, None]).sum()
        expected = torch.autograd.grad(total, leaf)[0]
    torch.testing.assert_close(method(network(name), x, Y), expected)
    assert expected.any()


def test_guided_grad_cam_is_fine_and_localised():
    assert guided_grad_cam(network("resnet18"), images(2, size=64), Y).shape == (2, 3, 64, 64)


# A transformer that was trained --------------------------------------------------------------------------------------


@cache
def planted() -> Subject:
    """A cause grafted onto a small vision transformer of 7 x 7 patches."""
    fashion = build_subject("fashion_cnn")
    return build_subject(graft(Subject(briefly_trained(TinyViT), fashion.inputs, fashion.targets, name="tiny_vit")))


@pytest.mark.slow
@pytest.mark.parametrize("method", ["gradient", "input_x_gradient", "integrated_gradients", "smoothgrad", "lrp"])
def test_methods_at_pixel_resolution_recover_a_cause_in_a_trained_transformer(method):
    result = run("pixel_recovery", method, planted(), n=24)
    assert result.score is not None
    assert result.score >= 0.9, result.message


@pytest.mark.slow
def test_random_does_not():
    result = run("pixel_recovery", "random", planted(), n=24)
    assert result.score is not None
    assert result.score < 0.5


@pytest.mark.slow
def test_deep_lift_is_complete_on_a_trained_transformer():
    subject = planted()
    x, y = subject.inputs[:8].double(), subject.targets[:8]
    model = subject.model.double()
    try:
        found = deep_lift_shap(model, x, y, references=x[:3].flip(0))
        changes = [change(model, x, y, one.expand_as(x)) for one in x[:3]]
        torch.testing.assert_close(found.sum((1, 2, 3)), torch.stack(changes).mean(0), rtol=1e-6, atol=1e-8)
    finally:
        model.float()
    assert isinstance(found, Tensor)


@pytest.mark.slow
def test_vit_b_16_is_explained_whole():
    torch.manual_seed(0)
    model, x = vision.torchvision().models.vit_b_16(weights=None).eval(), torch.randn(1, 3, 224, 224)
    torch.nn.init.normal_(model.heads.head.weight, std=0.1)  # zero as torchvision makes it: no logit would depend on x
    blocks = partial(grad_cam, layer="encoder.layers.encoder_layer_11.ln_1")
    for method in (gradient, guided_backprop, deep_lift, lrp, blocks):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # guided_backprop: no ReLU
            found = method(model, x.clone(), torch.tensor([3]))
        assert found.shape[-2:] == x.shape[-2:]
        assert torch.isfinite(found).all()
        assert found.any()
