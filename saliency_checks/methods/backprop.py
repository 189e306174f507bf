"""Methods that keep only the positive gradient behind a ReLU."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks.method import method
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.rules import Call, Rules, scores_under

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]

HEDGED = frozenset({"celu", "elu", "gelu", "hardswish", "leaky_relu", "mish", "prelu", "rrelu", "selu", "silu"})
IMAGE_NOT_MODEL = {
    "cascading_randomization": "it recovers the image more than the model: where negative gradients are dropped,"
    " the map converges to one that hardly depends on the upper layers (Adebayo et al. 2018; Sixt et al. 2020)",
    "independent_randomization": "for the same reason it hardly moves when one upper layer is drawn again"
    " (Adebayo et al. 2018, Figure 4)",
}


class Guided(Rules):
    """Backward through a ReLU: 1[z > 0] ReLU(G) in place of 1[z > 0] G.

    Attributes:
        met: ReLUs.
        hedged: functions much like a ReLU, for which the papers have no rule.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met = 0
        self.hedged: set[str] = set()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        call = Call.of(func, args, kwargs or {})
        if not call.places or not torch.is_grad_enabled():
            return call.own()
        if not _is_relu(call):
            self.hedged |= {call.name} & HEDGED
            return call.own()
        self.met += 1
        output = self.backward(call)
        output.register_hook(torch.relu)
        return output

    def backward(self, call: Call) -> Tensor:
        output: Tensor = call.own()
        return output


class Deconvolved(Guided):
    """Backward through a ReLU: ReLU(G), whether or not the unit was active."""

    def backward(self, call: Call) -> Tensor:
        output, is_in_place = call.apart()
        point = call.traced[0]
        passed_on = output + (point - point.detach())
        return point.copy_(passed_on) if is_in_place else passed_on


def _is_relu(call: Call) -> bool:
    """A ReLU, cut off above or not; a clamp is one if it begins at 0."""
    if call.name in ("hardtanh", "clamp", "clamp_min", "clip"):
        args, kwargs = call.arguments
        lower = args[1] if len(args) > 1 else kwargs.get("min_val", kwargs.get("min"))
        return not isinstance(lower, Tensor) and lower == 0
    return call.name in ("relu", "relu6")


def _gradient_under(rules: Guided, what: str, model: nn.Module, inputs: Images, targets: Classes) -> Images:
    leaf = inputs.detach().requires_grad_()
    with torch.enable_grad():
        scores = scores_under(rules, model, leaf * 1, targets)  # no leaf: the first layer may work in place
        gradient: Tensor = torch.autograd.grad(scores.sum(), leaf)[0]
    if not rules.met:
        warnings.warn(f"{what} met no ReLU in this model: its map is the plain gradient", stacklevel=3)
    elif rules.hedged:
        names = ", ".join(sorted(rules.hedged))
        warnings.warn(f"{what} has a rule for ReLU alone: through {names} it is the plain gradient", stacklevel=3)
    return gradient


@method(
    needs={"gradient"},
    signed=False,
    claims={"backward_rule", "input_shift_invariance", "scale", "symmetry"},
    expected_failures=IMAGE_NOT_MODEL,
    reference="Springenberg et al. 2015, Striving for simplicity, section 3.4",
)
def guided_backprop(model: nn.Module, inputs: Images, targets: Classes) -> Images:
    """The gradient, with the negative part dropped behind every ReLU.

    A model without a ReLU gets the plain gradient and a warning; so does the part of it that calls a GELU, say.
    """
    return _gradient_under(Guided(), "guided_backprop", model, inputs, targets)


@method(
    needs={"gradient"},
    signed=False,
    claims={"backward_rule", "input_shift_invariance", "scale", "symmetry"},
    expected_failures={f"{check}/fashion_cnn": reason for check, reason in IMAGE_NOT_MODEL.items()},
    profiles={"thorough"},
    reference="Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 2.1",
)
def deconvolution(model: nn.Module, inputs: Images, targets: Classes) -> Images:
    """The gradient, with every ReLU's derivative replaced by a ReLU of what comes back.

    Without max pooling, whose places it keeps, it does not depend on the image.
    """
    return _gradient_under(Deconvolved(), "deconvolution", model, inputs, targets)


@method(
    needs={"gradient", "conv"},
    signed=False,
    claims={"backward_rule"},
    expected_failures={
        **{f"{check}/fashion_cnn": f"as guided backpropagation, {reason}" for check, reason in IMAGE_NOT_MODEL.items()},
        "label_permutation": "as in Grad-CAM, its ReLU leaves more than a tenth of the twins' maps all zero",
    },
    profiles={"thorough"},
    reference="Selvaraju et al. 2017, Grad-CAM, section 3.2",
)
def guided_grad_cam(model: nn.Module, inputs: Images, targets: Classes, layer: str | None = None) -> Images:
    """Guided backpropagation times Grad-CAM; ``layer`` as for grad_cam."""
    cam: Tensor = grad_cam(model, inputs, targets, layer=layer)
    return _gradient_under(Guided(), "guided_grad_cam", model, inputs, targets) * cam
