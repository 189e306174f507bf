"""Methods that change the image and watch the logit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks.chunking import per_pass
from saliency_checks.method import method
from saliency_checks.methods.masking import masked_scores, whole_scores
from saliency_checks.methods.path import Baseline, baseline_like
from saliency_checks.methods.segments import SEGMENTS, Game, Segments, explained_by_segment, segmented

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    Images = Float[Tensor, "n c h w"]
    Classes = Int[Tensor, " n"]
    Map = Float[Tensor, "n 1 h w"]

SITE_IN_A_SEGMENT = {
    "planted_deletion": "the site's segment holds many pixels, which go in no order; pixel_recovery is fair to it"
}


def _starts(size: int, window: int, stride: int) -> list[int]:
    """Where windows begin; the last one ends at the border."""
    return sorted({*range(0, size - window, stride), size - window})


def _windows(height: int, width: int, window: int, stride: int, device: torch.device) -> Bool[Tensor, "k h w"]:
    rows, columns = torch.arange(height, device=device), torch.arange(width, device=device)
    tops = torch.tensor(_starts(height, window, stride), device=device)[:, None]
    lefts = torch.tensor(_starts(width, window, stride), device=device)[:, None]
    in_rows = (rows >= tops) & (rows < tops + window)
    in_columns = (columns >= lefts) & (columns < lefts + window)
    return (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(0, 1)


@method(
    needs={"baseline"},
    signed=True,
    claims={"implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    reference="Zeiler and Fergus 2014, Visualizing and understanding convolutional networks, section 4.2",
)
@torch.no_grad()
def occlusion(
    model: nn.Module,
    inputs: Float[Tensor, "n c h w"],
    targets: Int[Tensor, " n"],
    baseline: Baseline = 0.0,
    window: int | None = None,
    stride: int | None = None,
) -> Float[Tensor, "n 1 h w"]:
    """f(x) - f(x with a window set to the baseline), averaged over the windows that cover a pixel.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: what an occluded pixel holds; see :func:`~saliency_checks.methods.path.baseline_like`.
        window: side in pixels; default a ninth of the image's shorter side, at least 3, which makes about
            two hundred windows for an image of any size.
        stride: default two thirds of the window.
    """
    height, width = inputs.shape[-2:]
    side = min(window or max(3, min(height, width) // 9), height, width)
    step = min(stride or max(1, round(side * 2 / 3)), side)  # no pixel stays uncovered
    windows = _windows(height, width, side, step, inputs.device)
    start = baseline_like(inputs, baseline)
    whole = whole_scores(model, inputs, targets)
    occluded = masked_scores(model, inputs, targets, start, len(windows), lambda which, image: ~windows[which, None])
    total = torch.einsum("kn,khw->nhw", whole - occluded, windows.to(whole.dtype))
    return (total / windows.sum(0)).unsqueeze(1)


@method(
    needs={"baseline"},
    signed=True,
    stochastic=True,
    claims={"implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    profiles={"thorough"},
    reference="Petsiuk et al. 2018, RISE, equation 6 and section 3.2",
)
def rise(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    samples: int = 500,
    cells: int = 7,
    probability: float = 0.5,
    centred: bool = True,
) -> Map:
    """Mean of (f(x masked by m) - its mean) m / p over masks m: few random cells, enlarged and shifted.

    That is E[f | the pixel stays] - E[f]. The paper's map is the first term alone: the same order of pixels, but a
    constant that is far larger than what differs, and hides the sign. All images get the same masks.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: what a masked pixel holds; the paper multiplies the image by the mask, which is 0.
        samples: masks; the paper takes 4000 to 8000.
        cells: of a mask's side.
        probability: p, that a cell stays.
        centred: False for the paper's map.
    """
    height, width = inputs.shape[-2:]
    on = (torch.rand(samples, cells, cells) < probability).to(inputs)
    enlarge = [_enlargement(size, cells).to(inputs) for size in (height, width)]
    shifts = [torch.randint(len(each) // (cells + 1), (samples,)) for each in enlarge]
    start, mean = baseline_like(inputs, baseline), inputs.new_zeros(len(inputs), 1, 1)
    total, coverage = torch.zeros_like(inputs[:, 0]), torch.zeros_like(inputs[0, 0])
    for some in torch.arange(samples).split(max(1, per_pass(inputs) // len(inputs))):
        down, across = (
            each[shift[some, None] + torch.arange(size)]
            for each, shift, size in zip(enlarge, shifts, (height, width), strict=True)
        )
        masks = torch.einsum("bhi,bij,bwj->bhw", down, on[some], across)
        scores = masked_scores(model, inputs, targets, start, len(some), lambda which, image: masks[which, None])  # noqa: B023
        total += torch.einsum("bn,bhw->nhw", scores, masks)
        coverage += masks.sum(0)
        mean += scores.sum(0).view_as(mean) / samples
    if centred:
        total -= mean * coverage
    return (total / (samples * probability)).unsqueeze(1)


def _enlargement(size: int, cells: int) -> Float[Tensor, "l cells"]:
    """Bilinear weights of the cells in a line that is one cell longer than the image, which is cut out at random."""
    cell = -(-size // cells)
    one_each = torch.eye(cells, dtype=torch.float64)[None]
    return F.interpolate(one_each, size=(cells + 1) * cell, mode="linear", align_corners=False)[0].T


@method(
    needs={"baseline"},
    signed=True,
    claims={"implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    expected_failures=SITE_IN_A_SEGMENT,
    profiles={"thorough"},
    reference="Zeiler and Fergus 2014, section 4.2, on segments; captum, FeatureAblation",
)
def feature_ablation(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    segments: Segments = "grid",
    count: int = SEGMENTS,
) -> Map:
    """f(x) - f(x without the segment), shared by the segment's pixels.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes.
        baseline: what an absent pixel holds.
        segments: see :func:`~saliency_checks.methods.segments.segmented`.
        count: about how many segments.
    """

    def drops(game: Game) -> Float[Tensor, "players n"]:
        one_less = ~torch.eye(game.players, dtype=torch.bool, device=inputs.device)
        worth = game.worth(torch.cat([torch.ones_like(one_less[:1]), one_less]))
        return worth[0] - worth[1:]

    return explained_by_segment(model, inputs, targets, baseline, segmented(inputs, segments, count), drops)


@method(
    needs={"baseline"},
    signed=True,
    stochastic=True,
    claims={"completeness", "implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    expected_failures=SITE_IN_A_SEGMENT,
    profiles={"thorough"},
    reference="Castro et al. 2009, Polynomial calculation of the Shapley value based on sampling; Strumbelj 2010",
)
def shapley_sampling(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    permutations: int = 10,
    segments: Segments = "grid",
    count: int = SEGMENTS,
) -> Map:
    """Mean over orders of what a segment adds when it joins those before it: unbiased, and complete for each order.

    Takes the arguments of :func:`feature_ablation`.
    """

    def marginal(game: Game) -> Float[Tensor, "players n"]:
        total = inputs.new_zeros(game.players, len(game.inputs))
        for _ in range(permutations):
            order = torch.randperm(game.players).to(inputs.device)
            joined = torch.arange(game.players + 1, device=inputs.device)[:, None] > order.argsort()
            total[order] += game.worth(joined).diff(dim=0)
        return total / permutations

    return explained_by_segment(model, inputs, targets, baseline, segmented(inputs, segments, count), marginal)


@method(
    needs={"baseline"},
    signed=True,
    stochastic=True,
    claims={"completeness", "implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    expected_failures=SITE_IN_A_SEGMENT,
    profiles={"thorough"},
    reference="Lundberg and Lee 2017, A unified approach to interpreting model predictions, theorem 2",
)
def kernel_shap(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    samples: int = 300,
    segments: Segments = "grid",
    count: int = SEGMENTS,
) -> Map:
    """The additive game nearest to f under Shapley's kernel, among those that are complete.

    Exact where there are no more coalitions than samples; else pairs of a coalition and its complement are drawn
    with the kernel's weights. Takes the arguments of :func:`feature_ablation`.
    """

    def nearest(game: Game) -> Float[Tensor, "players n"]:
        coalitions, weights = shapley_kernel(game.players, samples)
        ends = torch.tensor([[False], [True]]).expand(-1, game.players)
        worth = game.worth(torch.cat([ends, coalitions]).to(inputs.device)).double()
        even = (worth[1] - worth[0]) / game.players  # an equal share for all; what is added to it sums to zero
        zero_sum = torch.eye(game.players, dtype=torch.float64) - 1 / game.players
        root = weights.sqrt()[:, None]
        solver = torch.linalg.pinv(root * coalitions.double() @ zero_sum) * root.T
        rest = worth[2:] - worth[0] - coalitions.sum(1).to(even)[:, None] * even
        values: Tensor = even + (zero_sum @ solver).to(rest) @ rest
        return values

    return explained_by_segment(model, inputs, targets, baseline, segmented(inputs, segments, count), nearest)


def shapley_kernel(players: int, samples: int) -> tuple[Bool[Tensor, "m players"], Float[Tensor, " m"]]:
    """Coalitions that are neither empty nor whole, and their weights: (d - 1) / (C(d, s) s (d - s)) for size s of d."""
    sizes = torch.arange(1, players, dtype=torch.float64)
    if 2**players - 2 <= samples:
        coalitions = torch.arange(1, 2**players - 1)[:, None] >> torch.arange(players) & 1 == 1
        inside = coalitions.sum(1)
        kernel = [(players - 1) / (math.comb(players, s) * s * (players - s)) for s in range(1, players)]
        return coalitions, torch.tensor(kernel, dtype=torch.float64)[inside - 1]
    drawn = 1 + torch.multinomial(1 / (sizes * (players - sizes)), -(-samples // 2), replacement=True)
    coalitions = torch.rand(len(drawn), players).argsort(1).argsort(1) < drawn[:, None]
    return torch.cat([coalitions, ~coalitions]), torch.ones(2 * len(drawn), dtype=torch.float64)


@method(
    needs={"baseline"},
    signed=True,
    stochastic=True,
    claims={"implementation_invariance", "input_shift_invariance", "linearity", "saturation", "scale"},
    expected_failures=SITE_IN_A_SEGMENT,
    profiles={"thorough"},
    reference="Ribeiro et al. 2016, Why should I trust you?, equation 2 and section 3.4",
)
def lime(
    model: nn.Module,
    inputs: Images,
    targets: Classes,
    baseline: Baseline = 0.0,
    samples: int = 300,
    kernel_width: float = 0.25,
    ridge: float = 0.0,
    segments: Segments = "grid",
    count: int = SEGMENTS,
) -> Map:
    """Coefficients of a linear fit to f on random halves of the segments, weighted by their nearness to the image.

    Args:
        samples: random images; the first of them is the image itself.
        kernel_width: nearness is exp(-d^2 / (2 width^2)), d the cosine distance to all segments present, as in the
            lime package.
        ridge: penalty on the squared coefficients (the lime package takes 1); without one, nothing is shrunk.

    Takes the other arguments of :func:`feature_ablation`.
    """

    def fitted(game: Game) -> Float[Tensor, "players n"]:
        coalitions = torch.rand(samples, game.players) < 0.5
        coalitions[0] = True
        worth = game.worth(coalitions.to(inputs.device)).double()
        present = coalitions.double()
        distance = 1 - present.mean(1).sqrt()  # the cosine of z and (1, ..., 1) is |z| / sqrt(|z| d), |z| present
        root = torch.exp(-((distance / kernel_width) ** 2) / 4)[:, None]  # of the weight
        design = root * torch.cat([torch.ones(samples, 1), present], 1)
        penalty = (ridge**0.5 * torch.eye(game.players + 1, dtype=torch.float64))[1:]
        solver = torch.linalg.pinv(torch.cat([design, penalty]))[1:, :samples] * root.T
        coefficients: Tensor = solver.to(worth) @ (worth - worth[0])
        return coefficients

    return explained_by_segment(model, inputs, targets, baseline, segmented(inputs, segments, count), fitted)
