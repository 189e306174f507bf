"""Class activation maps: the last spatial activation, weighted by what its channels mean for the class."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from saliency_checks.layers import resize_like
from saliency_checks.method import method
from saliency_checks.methods.gradient import class_scores

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class LastActivation(TorchFunctionMode):
    """Remembers the last spatial activation at or behind a convolution, whatever made it (see ``layers``).

    A hook on the convolution would miss the ReLU behind it; a hook on the ReLU needs a module of its own,
    which ``F.relu`` in a ``forward`` is not. The tensor itself is kept, so a later in-place operation is seen.
    """

    found: Tensor | None = None

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        if not isinstance(output, Tensor) or output.ndim != 4 or not output.requires_grad:
            return output
        is_behind = self.found is not None or getattr(func, "__name__", "") == "conv2d"
        if is_behind and output.shape[-2:].numel() > 1:
            self.found = output
        return output


@method(
    needs={"gradient", "conv"},
    signed=False,
    expected_failures={
        "deletion_insertion": "a map of a few cells spreads each over many pixels, so a pixel's rank says little"
        " (Rong et al. 2022); pixel_recovery is fair to it",
        "planted_deletion": "the site's cell holds many pixels, which go in no order; pixel_recovery is fair to it",
        "label_permutation": "its ReLU leaves more than a tenth of the maps of twins that memorised all zero, and"
        " same-task twins hardly agree on the rest (a gap of .13 +- .07 in our experiments)",
    },
    reference="Selvaraju et al. 2017, Grad-CAM, equations 1 and 2",
)
def grad_cam(
    model: nn.Module, inputs: Float[Tensor, "n c h w"], targets: Int[Tensor, " n"]
) -> Float[Tensor, "n 1 h w"]:
    """ReLU(sum over k of mean_ij(d f_c / d A_k,ij) A_k), A the last spatial activation, at or behind a convolution.

    Enlarged bilinearly; not scaled to [0, 1], which would hide a map of zeros.
    """
    with torch.enable_grad():
        with LastActivation() as last:
            scores = class_scores(model, inputs.detach().clone().requires_grad_() * 1, targets)
        if last.found is None:
            raise ValueError("this model has no convolution with a spatial output, so it has no class activation map")
        slope = torch.autograd.grad(scores.sum(), last.found)[0]
    weights = slope.mean((2, 3), keepdim=True)
    maps: Tensor = resize_like((weights * last.found.detach()).sum(1, keepdim=True).relu(), inputs)
    return maps
