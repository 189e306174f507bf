"""Guided backpropagation, deconvolution and guided Grad-CAM against hand formulas, however a ReLU is written."""

from __future__ import annotations

import warnings

import captum.attr
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from saliency_checks.layers import resize_like
from saliency_checks.methods.backprop import deconvolution, guided_backprop, guided_grad_cam
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.deep_lift import deep_lift
from saliency_checks.methods.full_gradient import full_grad
from saliency_checks.methods.gradient import gradient
from saliency_checks.methods.relevance import lrp

from convnets import RELUS, Calls, Skip, convnet, images, pooled, randomised

Y = torch.tensor([0, 1, 2])


def guided_by_hand(model: Calls, x: torch.Tensor, y: torch.Tensor, top: float = float("inf")) -> torch.Tensor:
    z1 = model.first(x.flatten(1))
    z2 = model.second(z1.clamp(0, top))
    g2 = model.last.weight[y].clamp(min=0) * ((z2 > 0) & (z2 < top))
    g1 = (g2 @ model.second.weight).clamp(min=0) * ((z1 > 0) & (z1 < top))
    return (g1 @ model.first.weight).view_as(x).detach()


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_guided_backprop_is_the_hand_formula_however_the_relu_is_written(relu):
    model, x, y = randomised(Calls(relu)), images(), Y
    torch.testing.assert_close(guided_backprop(model, x, y), guided_by_hand(model, x, y))
    assert not torch.allclose(guided_backprop(model, x, y), gradient(model, x, y))


@pytest.mark.parametrize("relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda z: F.hardtanh(z, 0, 6)])
def test_guided_backprop_meets_relu6(relu6):
    model, x, y = randomised(Calls(relu6)), 12 * images(), torch.tensor([0, 1, 2])
    assert (model.first(x.flatten(1)) > 6).any()
    torch.testing.assert_close(guided_backprop(model, x, y), guided_by_hand(model, x, y, top=6.0))


def deconvolved_by_hand(model: Calls, y: torch.Tensor) -> torch.Tensor:
    g2 = model.last.weight[y].clamp(min=0)
    return ((g2 @ model.second.weight).clamp(min=0) @ model.first.weight).view(-1, 3, 8, 8).detach()


@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_deconvolution_is_the_hand_formula_however_the_relu_is_written(relu):
    model, x = randomised(Calls(relu)), images()
    torch.testing.assert_close(deconvolution(model, x, Y), deconvolved_by_hand(model, Y))


@pytest.mark.parametrize("relu6", [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda z: F.hardtanh(z, 0, 6)])
def test_deconvolution_meets_relu6(relu6):
    model = randomised(Calls(relu6))
    torch.testing.assert_close(deconvolution(model, 12 * images(), Y), deconvolved_by_hand(model, Y))


def test_deconvolution_does_not_depend_on_the_image_unless_a_maximum_chooses_places():
    averaged, chosen = (randomised(materialised(pooled(nn.ReLU(), pool(2)))) for pool in (nn.AvgPool2d, nn.MaxPool2d))
    torch.testing.assert_close(deconvolution(averaged, images(), Y), deconvolution(averaged, images(seed=1) - 0.5, Y))
    assert not torch.allclose(deconvolution(chosen, images(), Y), deconvolution(chosen, images(seed=1) - 0.5, Y))


def materialised(model: nn.Module) -> nn.Module:
    model.double()(images())  # lazy layers
    return model


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_s_deconvolution_and_guided_grad_cam_agree_where_they_are_right():
    model, x = convnet(), images()
    theirs = captum.attr.Deconvolution(model).attribute(x, target=Y)
    torch.testing.assert_close(deconvolution(model, x, Y), theirs)
    # At the size of the input, where captum's nearest and our bilinear enlargement are the same.
    theirs = captum.attr.GuidedGradCam(model, model[1]).attribute(x, target=Y)
    torch.testing.assert_close(guided_grad_cam(model, x, Y, layer="1"), theirs)


def test_guided_grad_cam_is_the_product_of_its_two_maps():
    model, x = convnet(), images()
    found = guided_grad_cam(model, x, Y)
    assert found.any()
    torch.testing.assert_close(found, guided_backprop(model, x, Y) * grad_cam(model, x, Y))
    coarse = guided_grad_cam(model, x, Y, layer="2") / guided_backprop(model, x, Y)
    torch.testing.assert_close(coarse[:, :1].nan_to_num(), coarse[:, 1:2].nan_to_num())
    assert resize_like(coarse[:, :1], x).shape == (3, 1, 8, 8)


@pytest.mark.parametrize("relu", [F.relu, nn.ReLU6()], ids=["functional", "relu6"])
def test_captum_returns_the_plain_gradient_for_these_in_silence(relu):
    """Why the rules act on functions: with captum alone nobody would notice. If this fails, captum has been mended."""
    model, x, y = randomised(Calls(relu)), images(), torch.tensor([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = captum.attr.GuidedBackprop(model).attribute(x, target=y)
    torch.testing.assert_close(theirs, gradient(model, x, y))


def test_guided_backprop_keeps_a_skip_connection_around_a_relu():
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64)
    assert guided_backprop(Skip(), x, torch.tensor([0])).item() == 2 * (-3 + 1)


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
def test_a_model_without_a_relu_gets_the_gradient_and_says_so(method):
    model, x = randomised(Calls(F.gelu)), images()
    with pytest.warns(UserWarning, match=f"{method.__name__} met no ReLU in this model"):
        torch.testing.assert_close(method(model, x, Y), gradient(model, x, Y))


@pytest.mark.parametrize("method", [guided_backprop, deconvolution])
def test_a_model_that_is_not_relu_throughout_is_told_where_there_is_no_rule(method):
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 9), nn.SiLU(), nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 4))
    with pytest.warns(UserWarning, match="rule for ReLU alone: through silu it is the plain gradient"):
        method(randomised(model), images(), Y)


@pytest.mark.parametrize("rule", [guided_backprop, deconvolution, deep_lift, lrp, full_grad])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused_with_the_fix(rule):
    model = torch.jit.trace(convnet(), images())
    with pytest.raises(TypeError, match=r"give the nn\.Module itself"):
        rule(model, images(), Y)
