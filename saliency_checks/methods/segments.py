"""The segments of an image as the players of a game: present, or set to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.methods.masking import masked_scores
from saliency_checks.methods.path import Baseline, baseline_like
from saliency_checks.perturbation.segments import SEGMENTS as SEGMENTS
from saliency_checks.perturbation.segments import Segments as Segments
from saliency_checks.perturbation.segments import grid as grid
from saliency_checks.perturbation.segments import segmented as segmented

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Labels = Int[Tensor, "n h w"]


@dataclass(frozen=True, eq=False)
class Game:
    """Images of equally many segments: the players; the worth of a coalition is the score with only it present."""

    model: nn.Module
    inputs: Images
    targets: Classes
    start: Images
    labels: Labels
    players: int

    def worth(self, coalitions: Bool[Tensor, "m players"]) -> Float[Tensor, "m n"]:
        flat = self.labels.flatten(1)

        def keep(which: Int[Tensor, " b"], image: Int[Tensor, " b"]) -> Bool[Tensor, "b 1 h w"]:
            return coalitions[which].gather(1, flat[image]).view(-1, 1, *self.labels.shape[1:])

        return masked_scores(self.model, self.inputs, self.targets, self.start, len(coalitions), keep)


def explained_by_segment(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline,
    labels: Labels,
    solve: Callable[[Game], Float[Tensor, "players n"]],
) -> Float[Tensor, "n 1 h w"]:
    """Each pixel's equal share of its segment's contribution: a map sums to what the segments do.

    Images of equally many segments are solved together, so that they share their coalitions.
    """
    start, maps = baseline_like(inputs, baseline), torch.zeros_like(inputs[:, 0])
    players = labels.flatten(1).amax(1) + 1
    for count in players.unique().tolist():
        of = players == count
        flat = labels[of].flatten(1)
        found = solve(Game(model, inputs[of], targets[of], start[of], labels[of], count)).T.to(maps.dtype)
        pixels = torch.zeros_like(found).scatter_add_(1, flat, torch.ones_like(flat, dtype=found.dtype))
        maps[of] = (found / pixels).gather(1, flat).view(-1, *maps.shape[1:])
    return maps.unsqueeze(1)
