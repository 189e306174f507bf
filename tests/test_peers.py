"""Beside the authors' or the field's own packages, on the same network and images: the same map, or why not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks import registry
from saliency_checks.method import Method
from saliency_checks.methods import cam, path, perturbation
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.metric import Draw
from saliency_checks.perturbation import imputers
from saliency_checks.subject import Subject
from saliency_checks.vision import torchvision

from convnets import convnet, images
from toys import conv_net

Y = torch.tensor([0, 1, 2])
GRID = torch.arange(64).view(8, 8) // 24 * 3 + torch.arange(8) // 3  # nine segments of an 8 x 8 image
CAMS = {
    "grad_cam": "GradCAM", "grad_cam_plus_plus": "GradCAMPlusPlus", "xgrad_cam": "XGradCAM", "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM", "eigen_cam": "EigenCAM", "eigen_grad_cam": "EigenGradCAM",
}  # fmt: skip


def shifted(model: nn.Module) -> nn.Module:
    """Positive activations and large gradients, beside which the package's small constants do not matter."""
    with torch.no_grad():
        model[3].bias.add_(3)
        model[-1].weight.mul_(1000)
    return model


@pytest.mark.parametrize("name", CAMS)
def test_cams_are_those_of_pytorch_grad_cam(name):
    torchvision()  # before it is imported there
    peers = pytest.importorskip("pytorch_grad_cam")
    targets = pytest.importorskip("pytorch_grad_cam.utils.model_targets")
    model, x = shifted(convnet()), images()
    wanted = [targets.ClassifierOutputTarget(int(y)) for y in Y]
    with getattr(peers, CAMS[name])(model=model, target_layers=[model[4]]) as peer:
        if peer.uses_gradients:
            peer(x, wanted)
            grads = peer.activations_and_grads.gradients[0].numpy()
        else:
            peer.activations_and_grads(x)
            grads = None
        activations = peer.activations_and_grads.activations[0].numpy()
        raw = torch.from_numpy(peer.get_cam_image(x, model[4], wanted, activations, grads, False))
    found = getattr(cam, name)(model, x, Y, layer="4")
    if name in ("xgrad_cam", "hires_cam"):
        expected = raw  # signed here, as in the papers; cut at 0 there
    else:
        expected = raw.relu() if name not in ("eigen_cam", "eigen_grad_cam") else _turned(raw, activations, grads)
    enlarged = F.interpolate(expected.unsqueeze(1), size=x.shape[-2:], mode="bilinear")
    torch.testing.assert_close(found, enlarged.to(found), rtol=1e-3, atol=1e-3)


def _turned(raw: Tensor, activations: np.ndarray, grads: np.ndarray | None) -> Tensor:
    """A singular vector's sign is arbitrary there; here it grows with the channels' sum."""
    shown = torch.from_numpy(activations if grads is None else activations * grads).flatten(2)
    centred = (shown - shown.mean(2, keepdim=True)).sum(1)
    sign = (raw.flatten(1) * centred).sum(1).sign()
    return (raw * sign.view(-1, 1, 1)).relu()


def gradients_for(model: nn.Module, y: int):
    """A model as the saliency package calls it: images (N, H, W, C) -> their gradients."""

    def call(values, call_model_args=None, expected_keys=None):
        x = torch.from_numpy(np.asarray(values)).permute(0, 3, 1, 2).double()
        slopes = input_gradient(model, x, torch.full((len(x),), y))
        return {"INPUT_OUTPUT_GRADIENTS": slopes.permute(0, 2, 3, 1).numpy()}

    return call


def by_pair(explainer, model: nn.Module, x: Tensor, **settings) -> Tensor:
    """Maps of the PAIR saliency package, image by image."""
    maps = [
        explainer.GetMask(image.permute(1, 2, 0).numpy(), gradients_for(model, int(y)), **settings)
        for image, y in zip(x, Y, strict=True)
    ]
    return torch.from_numpy(np.stack(maps)).permute(0, 3, 1, 2)


def error(found: Tensor, expected: Tensor) -> float:
    """Greatest difference, relative to the greatest value."""
    return float((found - expected).abs().max() / expected.abs().max())


def test_integrated_gradients_are_the_limit_of_pair_s():
    peer = pytest.importorskip("saliency.core")
    model, x = convnet(), images()
    expected = by_pair(peer.IntegratedGradients(), model, x, x_steps=400, batch_size=50)
    assert error(path.integrated_gradients(model, x, Y, steps=200), expected) < 0.01


@pytest.mark.parametrize("max_dist", [0.02, 1.0])
def test_guided_integrated_gradients_are_pair_s(max_dist, monkeypatch):
    peer = pytest.importorskip("saliency.core")
    own = np.quantile  # its argument has another name since the package was written
    monkeypatch.setattr(np, "quantile", lambda a, q, interpolation: own(a, q, method=interpolation))
    model, x = convnet(), images()
    expected = by_pair(peer.GuidedIG(), model, x, x_steps=20, max_dist=max_dist, x_baseline=np.zeros((8, 8, 3)))
    assert error(path.guided_ig(model, x, Y, steps=20, max_dist=max_dist), expected) < 1e-6


def test_blur_integrated_gradients_are_the_limit_of_pair_s():
    peer = pytest.importorskip("saliency.core")
    model, x = convnet(), images()
    expected = by_pair(peer.BlurIG(), model, x, max_sigma=3, steps=600, grad_step=1e-4)
    assert error(path.blur_ig(model, x, Y, max_sigma=3.0, steps=300), expected) < 0.05


def played(model: nn.Module, x: Tensor, y: int):
    """The logit of coalitions of segments (M, 9)."""

    def worth(coalitions: np.ndarray) -> np.ndarray:
        shown = torch.from_numpy(np.asarray(coalitions, dtype=np.float64))[:, GRID]
        with torch.no_grad():
            return model(x * shown.unsqueeze(1))[:, y].numpy()

    return worth


def test_kernel_shap_is_that_of_the_shap_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its import calls deprecated parts of matplotlib
        peer = pytest.importorskip("shap")
        model, x = convnet(), images(1)
        explainer = peer.KernelExplainer(played(model, x, 0), np.zeros((1, 9)))
        values = explainer.shap_values(np.ones((1, 9)), nsamples=2000, l1_reg=0, silent=True)
    found = perturbation.kernel_shap(model, x, Y[:1], samples=2000, count=9)[0, 0] * GRID.flatten().bincount()[GRID]
    torch.testing.assert_close(found, torch.from_numpy(values[0])[GRID], rtol=1e-6, atol=1e-9)


def test_lime_is_that_of_the_lime_package():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        peer = pytest.importorskip("lime.lime_image")
        model, x = convnet(), images(1)

        def classify(pictures):
            with torch.no_grad():
                return model(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).double()).numpy()

        explained = peer.LimeImageExplainer(random_state=0).explain_instance(
            x[0].permute(1, 2, 0).numpy(), classify, labels=(0,), top_labels=None, hide_color=0, num_samples=4000,
            segmentation_fn=lambda picture: GRID.numpy(),
        )  # fmt: skip
    expected = torch.zeros(9, dtype=torch.float64)
    for segment, value in explained.local_exp[0]:
        expected[segment] = value
    torch.manual_seed(0)
    found = perturbation.lime(model, x, Y[:1], samples=4000, ridge=1.0, count=9)[0, 0] * GRID.flatten().bincount()[GRID]
    assert error(found, expected[GRID]) < 0.05  # both draw


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of NumPy, in its code
def test_road_is_that_of_pytorch_grad_cam_but_for_the_noise(monkeypatch):
    """Its sparse systems go to scipy one by one; removed are the shares .2 to .8 of both ends, as its percentiles."""
    torchvision()
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    softmax = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputSoftmaxTarget
    monkeypatch.setattr(road.NoisyLinearImputer.__init__, "__defaults__", (0.0, road.neighbors_weights))
    monkeypatch.setattr(imputers, "NOISE", 0.0)
    model, x, rng = conv_net(3), images().float(), torch.Generator().manual_seed(0)
    drawn = torch.rand(len(x), *x.shape[-2:], generator=rng)
    subject = Subject(model, x, Y)
    expected = road.ROADCombined(percentiles=[20, 40, 60, 80])(x, drawn.numpy(), [softmax(int(y)) for y in Y], model)
    found = registry.get("metrics", "road").measure(Method(name="drawn", explain=lambda *_: drawn), subject, Draw(n=3))
    assert np.abs(expected).max() > 0.02
    np.testing.assert_allclose(found.values[0, 0], expected, atol=imputers.EXACT)
