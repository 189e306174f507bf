"""Path methods that compare an image with several others, each along a path of its own.

Each method is written as the paths it takes; what it returns is their sum, ``share`` by ``share``. Re-calibration
(recalibrated.py) takes the same paths and adds them up in another way.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from saliency_checks.method import AXIOMS, method
from saliency_checks.methods.gradient import image_range, input_gradient
from saliency_checks.methods.reference_path import (
    Attack,
    Path,
    SquaredPath,
    added,
    anywhere,
    clipped,
    even,
    limits,
    noisy,
    picked,
    reference_images,
    straight,
)

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Ratio = float | Float[Tensor, "n 1 1 1"]

# Local path integration stays this far from both ends (the authors' code).
AWAY = 0.01
ROUNDS = 20  # of Lloyd's algorithm; a few dozen points have long settled by then


@method(
    needs={"gradient"},
    signed=True,
    stochastic=True,
    claims=AXIOMS - {"completeness"},
    reference="Yang et al. 2023, Re-calibrating feature attributions, IG-Uniform; Sturmfels et al. 2020, uniform",
    profiles={"thorough"},
)
@added
def ig_uniform(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    draws: int = 20,
    steps: int = 5,
    bounds: tuple[float, float] | None = None,
) -> Iterator[Path]:
    """Mean of (x - r) * mean of g on the way from r, with every value of r uniform between the ``bounds``.

    These are the image's own smallest and largest value by default. The authors draw 10: then two re-calibrated maps
    of one image agree no better than .3.
    """
    low, high = limits(inputs, bounds)
    for _ in range(draws):
        start = low + (high - low) * torch.rand_like(inputs)
        yield straight(model, inputs, targets, start, even(steps), 1 / draws)


@method(
    needs={"gradient"},
    signed=True,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "linearity", "scale", "symmetry"},
    reference="Yang et al. 2023, Re-calibrating feature attributions, IG-SG",
    profiles={"thorough"},
)
@added
def ig_smoothgrad(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    draws: int = 10,
    steps: int = 5,
    noise: float = 0.15,
    bounds: tuple[float, float] | None = None,
) -> Iterator[Path]:
    """Mean of (x - r) * mean of g on the way from r = x + N(0, s^2), clipped to the ``bounds``.

    Noise makes the references here; smoothgrad_ig puts it on the image and keeps one baseline.
    """
    for _ in range(draws):
        yield straight(model, inputs, targets, noisy(inputs, noise, bounds), even(steps), 1 / draws)


@method(
    needs={"gradient"},
    signed=False,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "symmetry"},
    reference="Yang et al. 2023, Re-calibrating feature attributions, IG-SQ",
    profiles={"thorough"},
)
@added
def ig_squared(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    draws: int = 10,
    steps: int = 5,
    noise: float = 0.15,
    bounds: tuple[float, float] | None = None,
) -> Iterator[Path]:
    """Mean of (x - r) * (mean of g)^2 on the ways of ig_smoothgrad.

    smoothgrad_squared_ig squares the attributions instead.
    """
    for _ in range(draws):
        yield straight(model, inputs, targets, noisy(inputs, noise, bounds), even(steps), 1 / draws, SquaredPath)


@method(
    needs={"gradient", "references"},
    signed=True,
    stochastic=True,
    claims=AXIOMS,
    reference="Erion et al. 2021, Improving performance of deep learning models with axiomatic attribution priors",
    profiles={"thorough"},
)
@added
def expected_gradients(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    references: float | Tensor = 0.0,
    draws: int = 10,
    steps: int = 5,
) -> Iterator[Path]:
    """Mean of (x - r) * g(r + t (x - r)) over references r and places t ~ U(0, 1), both by lot.

    Sums to f(x) minus the mean of f(r) in expectation.
    """
    for _ in range(draws):
        yield straight(model, inputs, targets, picked(inputs, references), anywhere(inputs, steps), 1 / draws)


@method(
    needs={"gradient", "references"},
    signed=True,
    stochastic=True,
    claims=AXIOMS,
    reference="Lundberg and Lee 2017; captum's GradientShap, shap's GradientExplainer",
    profiles={"thorough"},
)
@added
def gradient_shap(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    references: float | Tensor = 0.0,
    samples: int = 20,
    noise: float = 0.0,
) -> Iterator[Path]:
    """Expected gradients of x + N(0, s^2), one place for each reference; s = ``noise`` times the image's range."""
    spread = noise * image_range(inputs)
    for _ in range(samples):
        shaken = inputs + spread * torch.randn_like(inputs)
        yield straight(model, shaken, targets, picked(inputs, references), anywhere(inputs, 1), 1 / samples)


@method(
    needs={"gradient"},
    signed=True,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "scale", "symmetry"},
    reference="Pan et al. 2021, Explaining deep neural network models with adversarial gradient integration, alg. 1",
    profiles={"thorough"},
)
@added
def agi(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    classes: int = 10,
    steps: int = 5,
    step: float = 0.05,
    bounds: tuple[float, float] | None = None,
) -> Iterator[Attack]:
    """Sum of (x - z) * g(z) over the points z of attacks that would make the image another class.

    The next point of an attack on class t is x + e sign(d f_t / d z), clipped to the ``bounds`` (by default the
    image's own smallest and largest value). On logits, as Yang et al. 2023 do; attacks are not cut short.

    Args:
        model: from images to logits.
        inputs: images.
        targets: classes to explain.
        classes: how many other classes attacks aim at, by lot; all of them where there are fewer.
        steps: points of an attack.
        step: e, as a share of the range of the image.
        bounds: the smallest and the largest value of a pixel.
    """
    reach, (low, high) = step * image_range(inputs), limits(inputs, bounds)
    for aim in _other_classes(model, inputs, targets, classes):
        point, points, gradients = inputs, [], []
        for _ in range(steps):
            point = clipped(inputs + reach * input_gradient(model, point, aim).sign(), low, high)
            points.append(point)
            gradients.append(input_gradient(model, point, targets))
        left = inputs - torch.stack(points)
        yield Attack(way=left[-1], left=left, gradients=torch.stack(gradients))


def _other_classes(
    model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], count: int
) -> Iterable[Int[Tensor, " n"]]:
    """Up to ``count`` classes for each image, never its own and none twice."""
    with torch.no_grad():
        lots = torch.rand_like(model(inputs.clone()))
    own = torch.arange(lots.shape[1], device=lots.device) == targets[:, None]
    order = lots.masked_fill(own, torch.inf).argsort(dim=1)
    return order[:, : min(count, lots.shape[1] - 1)].unbind(1)


@method(
    needs={"gradient", "references"},
    signed=True,
    stochastic=True,
    claims={"dummy", "implementation_invariance", "input_shift_invariance", "saturation", "symmetry"},
    reference="Yang et al. 2023, Local path integration for attribution, section 4",
    profiles={"thorough"},
)
@added
def lpi(
    model: nn.Module,
    inputs: Images,
    targets: Int[Tensor, " n"],
    references: float | Tensor = 0.0,
    centres: int = 1,
    neighbours: int = 20,
    steps: int = 5,
) -> Iterator[Path]:
    """Sum of p_r (x - r) * mean of g on the way from r, over references r that stand for the image's neighbourhood.

    The references are put into ``centres`` neighbourhoods by k-means of their logits, and each of these into
    ``neighbours`` groups; r is the reference nearest to the middle of a group and p_r the group's share of its
    neighbourhood. An image belongs to the neighbourhood whose middle is nearest to its own logits.
    """
    found = reference_images(inputs, references)
    with torch.no_grad():
        logits, own = model(found.clone()), model(inputs.clone())
    middles, belongs = k_means(logits, centres)
    chosen, shares = _representatives(logits, belongs, len(middles), neighbours)
    home = torch.cdist(own, middles).argmin(1)
    for index, share in zip(chosen[home].unbind(1), shares[home].unbind(1), strict=True):
        places = anywhere(inputs, steps, AWAY)
        yield straight(model, inputs, targets, found[index], places, share.view(-1, 1, 1, 1))


def _representatives(
    logits: Float[Tensor, "m k"], belongs: Int[Tensor, " m"], centres: int, neighbours: int
) -> tuple[Int[Tensor, "centres r"], Float[Tensor, "centres r"]]:
    """For each neighbourhood the references that stand for its groups, and their shares; 0 where there are fewer."""
    chosen = belongs.new_zeros(centres, min(neighbours, len(logits)))
    shares = logits.new_zeros(chosen.shape)
    for centre in range(centres):
        members = (belongs == centre).nonzero()[:, 0]
        middles, groups = k_means(logits[members], neighbours)
        nearest = torch.cdist(middles, logits[members]).argmin(1)
        chosen[centre, : len(middles)] = members[nearest]
        shares[centre, : len(middles)] = groups.bincount(minlength=len(middles)).to(logits) / len(members)
    return chosen, shares


def k_means(points: Float[Tensor, "m k"], count: int) -> tuple[Float[Tensor, "g k"], Int[Tensor, " m"]]:
    """Middles of at most ``count`` groups, none of them empty, and the group of each point (Lloyd 1982).

    Begins with points that lie far from each other, so the same points always make the same groups.
    """
    first = (points - points.mean(0)).norm(dim=1).argmin()
    middles = points[first][None]
    while len(middles) < count:
        distance = torch.cdist(points, middles).amin(1)
        if not distance.any():
            break
        middles = torch.cat([middles, points[distance.argmax()][None]])
    for _ in range(ROUNDS):
        groups = torch.cdist(points, middles).argmin(1)
        kept, groups = groups.unique(return_inverse=True)
        middles = torch.zeros_like(middles[: len(kept)]).index_add_(0, groups, points)
        middles = middles / groups.bincount()[:, None]
    return middles, groups
