"""Does a method ask the output at all, or do its rules converge to one map of the input? Informational, not gated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.explain import derive, explain_channels, seeded
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float


@dataclass(frozen=True, kw_only=True)
class Directions:
    """How many random directions of the output are explained."""

    count: int = 4


FEW = Directions()


class _Projected(nn.Module):
    """The network with random mixtures of its logits for outputs."""

    def __init__(self, model: nn.Module, weights: Float[Tensor, "k d"]) -> None:
        super().__init__()
        self.model, self.weights = model, weights

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(self.model(x), self.weights)


@metric(better="lower", n=16, needs={"gradient"}, reference="Sixt et al. 2020, section 5.3, from output to input")
def cosine_convergence(method: Method, subject: Subject, draw: Draw, settings: Directions = FEW) -> Scores:
    """Cosine similarity of the maps of random directions of the output; 1: whatever is asked gets one map."""
    n = min(draw.n, len(subject))
    inputs = subject.inputs[:n]
    with torch.no_grad():
        classes = subject.model(inputs[:1]).shape[1]
    with seeded(derive("directions", subject.name, draw.seed)):
        weights = torch.randn(settings.count, classes).to(inputs)
    model = _Projected(subject.model, weights).eval()
    found = []
    for i in range(settings.count):
        seed = derive(method.name, subject.name, draw.seed, "direction", i)
        asked = torch.full((n,), i, device=inputs.device)
        found.append(explain_channels(method, model, inputs, asked, seed, **subject.supplies).flatten(1))
    units = F.normalize(torch.stack(found, dim=1).double(), dim=2)
    among = units @ units.transpose(1, 2)
    off = ~torch.eye(settings.count, dtype=torch.bool, device=inputs.device)
    return Scores(values=among[:, off].mean(1).cpu().numpy()[None, None], degenerate=_share_of_zero(units))


def _share_of_zero(units: Float[Tensor, "n k p"]) -> float:
    return float(np.mean((units == 0).all(2).any(1).cpu().numpy()))
