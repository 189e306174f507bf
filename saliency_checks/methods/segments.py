"""Images cut into segments, which methods take for the players of a game: present, or set to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from saliency_checks.methods.masking import masked_scores
from saliency_checks.methods.path import Baseline, baseline_like

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Labels = Int[Tensor, "n h w"]

Segments = Literal["grid", "slic"] | Tensor
# About as many as the benchmarks take (Gevaert et al. 2022: 50).
SEGMENTS = 49


def segmented(inputs: Images, segments: Segments = "grid", count: int = SEGMENTS) -> Labels:
    """The segment of each pixel: 0, 1, ... in each image.

    Args:
        inputs: images.
        segments: ``"grid"``: rectangles; ``"slic"``: superpixels of each image, from scikit-image; or labels
            (H, W) or (N, H, W).
        count: about how many.
    """
    if isinstance(segments, Tensor):
        labels = segments.to(inputs.device).long().expand(len(inputs), *inputs.shape[-2:])
        return torch.stack([_numbered(one) for one in labels])
    if segments == "grid":
        height, width = inputs.shape[-2:]
        return grid(height, width, count).to(inputs.device).expand(len(inputs), -1, -1)
    if segments == "slic":
        return torch.stack([_superpixels(image, count) for image in inputs])
    raise ValueError(f"segments {segments!r}: expected 'grid', 'slic' or labels (H, W) or (N, H, W)")


def grid(height: int, width: int, count: int) -> Int[Tensor, "h w"]:
    """Rectangles, as near to squares as the pixels allow."""
    rows = min(height, count, max(1, round((count * height / width) ** 0.5)))
    columns = min(width, max(1, round(count / rows)))
    down, across = torch.arange(height) * rows // height, torch.arange(width) * columns // width
    labels: Tensor = down[:, None] * columns + across
    return labels


def _numbered(labels: Int[Tensor, "h w"]) -> Int[Tensor, "h w"]:
    numbers: Tensor = torch.unique(labels, return_inverse=True)[1]
    return numbers


def _superpixels(image: Float[Tensor, "c h w"], count: int) -> Int[Tensor, "h w"]:
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        message = "segments='slic' needs scikit-image: pip install 'saliency-checks[segments]', or take 'grid'"
        raise ImportError(message) from error
    low, high = image.amin(), image.amax()
    scaled = ((image - low) / torch.where(high > low, high - low, 1)).permute(1, 2, 0).double().cpu().numpy()
    return _numbered(torch.from_numpy(slic(scaled, n_segments=count, slic_zero=True, start_label=0)).to(image.device))


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
