"""Two later forms of the randomisation test. Informational: neither is gated.

The benchmark of Hedstrom et al. calls none of the three forms reliable (meta-consistency .52 to .74), and the sign of
eMPRT differs between networks for one method.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks import comparison, maps, randomization
from saliency_checks.explain import derive, explain, model_maps, seeded, subject_maps
from saliency_checks.method import Method
from saliency_checks.methods.gradient import image_range
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.metrics.cascading_randomization import drawn
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float

BINS = 100
SOURCE = "Hedstrom et al. 2024, Sanity checks revisited"


def histogram_entropy(attributions: Float[Tensor, "n h w"], bins: int = BINS) -> Float[Tensor, " n"]:
    """Entropy in nats of each map's histogram over its own range; 0 for a constant map."""
    unit = comparison.unit_range(attributions).flatten(1)
    places = (unit * bins).long().clamp(max=bins - 1)
    counts = torch.zeros(len(unit), bins, dtype=torch.float64, device=unit.device)
    share = counts.scatter_add_(1, places, torch.ones_like(unit)) / unit.shape[1]
    entropy: Tensor = torch.special.entr(share).sum(1)
    return entropy


@metric(
    alone=True,
    needs={"randomization"}, reference=f"{SOURCE}, eMPRT",
    meaning="the map of random weights is no more complex than that of the trained ones",
)  # fmt: skip
def efficient_mprt(method: Method, subject: Subject, draw: Draw) -> Scores:
    """(H(random) - H(trained)) / H(trained), H the entropy of the map's histogram; 0 for a method that never looks.

    A constant map of the trained network has no entropy to compare with: 0, and it counts as degenerate.
    """
    n = min(draw.n, len(subject))
    original = subject_maps(method, subject, 0, n, seed=draw.seed)
    before = histogram_entropy(original)
    values = []
    for redraw in range(draw.redraws):
        ((_, model),) = drawn(randomization.complete, subject, derive("complete", subject.name, draw.seed, redraw))
        changed = model_maps(
            method, subject, model, subject.inputs, subject.targets, 0, n, seed=draw.seed, stream=f"complete {redraw}"
        )
        after = histogram_entropy(changed)
        values.append(torch.where(before > 0, (after - before) / before.where(before > 0, 1.0), 0.0))
    return Scores(
        values=torch.stack(values).cpu().numpy()[None], degenerate=float(maps.degenerate(original).double().mean())
    )


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """Noisy copies whose maps are averaged, and the noise's spread as a share of the image's range."""

    samples: int = 50
    noise: float = 0.1


DEFAULT = Smoothing()


@metric(better="lower", n=16, needs={"randomization"}, reference=f"{SOURCE}, sMPRT")
def smooth_mprt(method: Method, subject: Subject, draw: Draw, settings: Smoothing = DEFAULT) -> Scores:
    """Signed rank correlation of maps averaged over noisy inputs, mean over all steps from the input up."""
    n = min(draw.n, len(subject))

    def smooth(model: nn.Module) -> Float[Tensor, "n h w"]:
        # The same noise for every network: only the weights may differ.
        inputs, targets = subject.inputs[:n], subject.targets[:n]
        total = torch.zeros_like(inputs[:, 0])
        for sample in range(settings.samples):
            with seeded(derive("smooth mprt", subject.name, draw.seed, sample)):
                noisy = inputs + settings.noise * image_range(inputs) * torch.randn(inputs.shape).to(inputs)
            seed = derive(method.name, subject.name, draw.seed, "smooth mprt", sample)
            total += explain(method, model, noisy, targets, seed=seed, **subject.supplies)
        return total / settings.samples

    original = smooth(subject.model)
    values = []
    for redraw in range(draw.redraws):
        seed = derive("bottom_up", subject.name, draw.seed, redraw)
        states = drawn(randomization.bottom_up, subject, seed)
        values.append(torch.stack([maps.spearman(original, smooth(model)) for _, model in states]).mean(0))
    return Scores(
        values=torch.stack(values).cpu().numpy()[None], degenerate=float(maps.degenerate(original).double().mean())
    )
