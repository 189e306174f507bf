"""The user's model, untouched, with the detector's evidence added to a few of its own logits."""

from __future__ import annotations

import copy
from itertools import count
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.graft.detector import Detector

if TYPE_CHECKING:
    from jaxtyping import Float, Int


class Grafted(nn.Module):
    """f(x), plus ``effect`` x ``spread`` x evidence(x) on the logits of ``classes``.

    Attributes:
        model: the user's own.
        effect: size of the cause, in units of the spread of the model's own logits.
        scale: logits of each class for one unit of effect and one of evidence.
    """

    classes: Tensor
    scale: Tensor

    def __init__(
        self,
        model: nn.Module,
        detector: Detector,
        classes: Int[Tensor, " k"],
        scale: Float[Tensor, " k"],
        effect: float,
    ) -> None:
        super().__init__()
        self.model, self.detector, self.effect = model, detector, effect
        self.register_buffer("classes", classes)
        self.register_buffer("scale", scale)

    def cause(self) -> nn.Module:
        """What the graft adds to the logits, alone."""
        return Cause(self)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        # The detector first: class activation maps read the last convolution that runs, which is the model's own.
        evidence = self.detector(x)[:, : len(self.classes)]
        logits: Tensor = self.model(x)
        return logits.index_add(1, self.classes, (self.effect * self.scale * evidence).to(logits.dtype))

    def at(self, effect: float) -> Grafted:
        """The same cause at another size; shares everything else."""
        other = copy.copy(self)
        other._modules, other._buffers = dict(self._modules), dict(self._buffers)
        other.effect = effect
        return other


class Cause(nn.Module):
    """The evidence as logits; 0 for the classes without a cause."""

    def __init__(self, graft: Grafted) -> None:
        super().__init__()
        self.detector, self.classes = graft.detector, graft.classes
        self.size = graft.effect * graft.scale

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        evidence = self.detector(x)[:, : len(self.classes)]
        logits = evidence.new_zeros(len(x), int(self.classes.max()) + 1)
        added: Tensor = logits.index_add(1, self.classes, self.size * evidence)
        return added


class LayerGrafted(Grafted):
    """The evidence goes into the activations of one layer, along the direction that raises the class's logit.

    For methods that read a layer: a cause that bypasses it they cannot see.

    Attributes:
        layer: the layer, a part of ``model``.
        call: which of the layer's calls takes it, from 0 (an activation may be used many times).
        direction: by class and place, what raises the class's logit by one (K, C, I, J).
    """

    direction: Tensor

    def __init__(self, *parts: Any, layer: nn.Module, call: int, direction: Float[Tensor, "k c i j"]) -> None:
        super().__init__(*parts)
        self.layer, self.call = layer, call
        self.register_buffer("direction", direction)

    def forward(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n k"]:
        places = self.detector.places(x)[:, : len(self.classes)]
        places = F.adaptive_max_pool2d(places, self.direction.shape[-2:])
        pushes = torch.einsum("nkij,kcij->ncij", places * (self.effect * self.scale).view(-1, 1, 1), self.direction)

        calls = count()

        def push(module: nn.Module, args: Any, output: Tensor) -> Tensor | None:
            return output + pushes.to(output.dtype) if next(calls) == self.call else None

        # Ahead of the hooks that are there already, so that a method's own hook sees the activations with the cause.
        handle = self.layer.register_forward_hook(push, prepend=True)
        try:
            logits: Tensor = self.model(x)
        finally:
            handle.remove()
        return logits
