"""Class activation maps: the last spatial activation, weighted by what its channels mean for the class.

A is the activation (n, k, i, j) and G = d f_c / d A. Maps are enlarged bilinearly and not scaled to [0, 1], which
would hide a map of zeros. Channels that need further passes through the model are weighted in ``cam_perturbation``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.layers import resize_like
from saliency_checks.method import method
from saliency_checks.methods.activation import read

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Map = Float[Tensor, "n 1 h w"]
    Activation = Float[Tensor, "n k i j"]

SITE_IN_A_CELL = {
    "planted_deletion": "the site's cell holds many pixels, which go in no order; pixel_recovery is fair to it",
}
COARSE = {
    "deletion_insertion": "a map of a few cells spreads each over many pixels, so a pixel's rank says little"
    " (Rong et al. 2022); pixel_recovery is fair to it",
    **SITE_IN_A_CELL,
}


def ratio(above: Tensor, below: Tensor) -> Tensor:
    """above / below, 0 where ``below`` is 0."""
    return torch.where(below == 0, 0, above / torch.where(below == 0, 1, below))


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance", "scale"},
    expected_failures={
        **COARSE,
        "label_permutation": "its ReLU leaves more than a tenth of the maps of twins that memorised all zero, and"
        " same-task twins hardly agree on the rest (a gap of .13 +- .07 in our experiments)",
    },
    reference="Selvaraju et al. 2017, Grad-CAM, equations 1 and 2",
)
def grad_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """ReLU(sum over k of mean_ij(G_k) A_k)."""
    a, g = read(model, inputs, targets, layer)
    return resize_like((g.mean((2, 3), keepdim=True) * a).sum(1, keepdim=True).relu(), inputs)


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance"},
    expected_failures={
        **COARSE,
        **{
            f"{check}/fashion_cnn": "its weights are never negative, so the activations' own shape stays; it fails"
            " attribench's randomisation test too (Gevaert et al. 2024)"
            for check in ("cascading_randomization", "independent_randomization")
        },
    },
    profiles={"thorough"},
    reference="Chattopadhay et al. 2018, Grad-CAM++, equations 5, 9 and 19",
)
def grad_cam_plus_plus(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """ReLU(sum of w_k A_k), w_k = sum_ij ReLU(G) G^2 / (2 G^2 + sum_ij(A_k) G^3)."""
    a, g = read(model, inputs, targets, layer)
    alpha = ratio(g**2, 2 * g**2 + a.sum((2, 3), keepdim=True) * g**3)
    weights = (alpha * g.relu()).sum((2, 3), keepdim=True)
    return resize_like((weights * a).sum(1, keepdim=True).relu(), inputs)


@method(
    needs={"gradient", "conv"},
    signed=True,
    claims={"input_shift_invariance", "scale"},
    expected_failures=COARSE,
    profiles={"thorough"},
    reference="Fu et al. 2020, Axiom-based Grad-CAM, equations 1 and 8",
)
def xgrad_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """Sum of w_k A_k, w_k = sum_ij G A_k / sum_ij A_k.

    Without a ReLU, as in the paper: with one, what speaks against the class is lost and its conservation too.
    """
    a, g = read(model, inputs, targets, layer)
    weights = ratio((g * a).sum((2, 3), keepdim=True), a.sum((2, 3), keepdim=True))
    return resize_like((weights * a).sum(1, keepdim=True), inputs)


@method(
    needs={"gradient", "conv"},
    signed=True,
    claims={"input_shift_invariance", "scale"},
    expected_failures=COARSE,
    profiles={"thorough"},
    reference="Draelos and Carin 2020, HiResCAM, equation 4",
)
def hires_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """Sum over k of G_k A_k, place by place; without a ReLU, as in the paper."""
    a, g = read(model, inputs, targets, layer)
    return resize_like((g * a).sum(1, keepdim=True), inputs)


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance", "scale"},
    expected_failures={
        **COARSE,
        "independent_randomization/fashion_cnn": "its weights are never negative, as those of Grad-CAM++;"
        " undecided, .52 [.46, .59]",
    },
    profiles={"thorough"},
    reference="Jiang et al. 2021, LayerCAM, equations 5 to 7",
)
def layer_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Map:
    """ReLU(sum over k of ReLU(G_k) A_k), place by place."""
    a, g = read(model, inputs, targets, layer)
    return resize_like((g.relu() * a).sum(1, keepdim=True).relu(), inputs)


def principal(activation: Activation, centred: bool) -> Activation:
    """Each place's coordinate along the first right singular vector of the places-by-channels matrix, cut at 0.

    A singular vector has no sign of its own: it is turned so that the coordinate grows with the sum over channels.
    """
    places = activation.flatten(2).transpose(1, 2)
    if centred:
        places = places - places.mean(1, keepdim=True)
    direction = torch.linalg.svd(places, full_matrices=False).Vh[:, :1]
    coordinates = (places * direction).sum(2)
    agreement = (coordinates * places.sum(2)).sum(1, keepdim=True)
    maps: Tensor = torch.where(agreement < 0, -coordinates, coordinates).relu()
    return maps.view_as(activation[:, :1])


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance"},
    expected_failures={
        **COARSE,
        "contract": "it reads the activation alone, so that every class gets the same map",
        "class_contrast": "it reads the activation alone, so that every class gets the same map",
        "cascading_randomization/fashion_cnn": "it reads the activation alone, so that layers above do not matter",
        "independent_randomization/fashion_cnn": "for the same reason; undecided, .50 [.37, .64]",
        "label_permutation/fashion_cnn": "what varies most among the activations is no matter of the labels; undecided,"
        " .14 [.09, .20]",
    },
    profiles={"thorough"},
    reference="Muhammad and Yeasin 2020, Eigen-CAM, section III; centred as in pytorch-grad-cam",
)
def eigen_cam(
    model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None, centred: bool = True
) -> Map:
    """The first principal component of A over its places; it sees neither the class nor what lies behind the layer."""
    a, _ = read(model, inputs, targets, layer)
    return resize_like(principal(a, centred), inputs)


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"input_shift_invariance", "scale"},
    expected_failures=COARSE,
    profiles={"thorough"},
    reference="pytorch-grad-cam, EigenGradCAM, after Muhammad and Yeasin 2020",
)
def eigen_grad_cam(
    model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None, centred: bool = True
) -> Map:
    """The first principal component of G A over its places: Eigen-CAM for a class."""
    a, g = read(model, inputs, targets, layer)
    return resize_like(principal(g * a, centred), inputs)
