"""Does the method keep the explain contract? Every other check relies on it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from saliency_checks import maps, randomization
from saliency_checks.explain import call, derive, explain, rng_state, seeded, untouched
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.snapshot import Snapshot
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int

IMAGES = 8
# Five of them in an order that gives each one another neighbour.
FEWER = (6, 1, 4, 0, 3)
# Rounding differs with the batch's size: convolutions choose other algorithms.
SAME = 0.999
LEAST_REPEAT = 0.3
# Eight images tell a method that is constant from one that sometimes is; complexity judges the share.
MOST_CONSTANT = 0.5


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every clause gets: a method, a model, a few images and their maps."""

    method: Method
    model: nn.Module
    inputs: Float[Tensor, "n c h w"]
    targets: Int[Tensor, " n"]
    classes: int
    supplies: Mapping[str, Tensor]
    maps: Float[Tensor, "n h w"]
    seed: int

    def explain(
        self, rows: list[int] | slice = slice(None), *, stream: str = "maps", targets: Tensor | None = None
    ) -> Tensor:
        asked = self.targets if targets is None else targets
        seed = derive("contract", self.method.name, self.seed, stream)
        return explain(self.method, self.model, self.inputs[rows], asked[rows], seed=seed, **self.supplies)


Clause = Callable[[Setting], str]


def not_degenerate(s: Setting) -> str:
    """Maps differ from pixel to pixel."""
    share = float(maps.degenerate(s.maps).double().mean())
    if share <= MOST_CONSTANT:
        return ""
    zero = "all zero" if float(s.maps.abs().max()) == 0 else "constant"
    return f"{share:.0%} of the maps are {zero}: is the gradient detached, or the map normalised away?"


def is_graded(s: Setting) -> str:
    """Maps have more to say than yes and no, unless the method says that they are masks."""
    if "mask" in s.method.claims:
        return ""
    size = s.maps.flatten(1).abs()
    two_valued = ((size == 0) | (size == size.amax(1, keepdim=True))).all(1) & ((size > 0).sum(1) > 1)
    if not_degenerate(s) or float(two_valued.double().mean()) <= MOST_CONSTANT:
        return ""
    return (
        "all values of a map are zero or of one size: was it rounded, thresholded or cast to integers? If it is a mask"
        ' on purpose, say so (@sc.method(claims={"mask"}))'
    )


def depends_on_image(s: Setting) -> str:
    """Different images get different maps."""
    first = s.maps[:1].expand_as(s.maps)
    if len(s.maps) == 1 or not torch.equal(s.maps, first) or not_degenerate(s):
        return ""
    return "all images got the very same map: is only the first image of the batch explained?"


def agreement(s: Setting, first: Float[Tensor, "k h w"], second: Float[Tensor, "k h w"]) -> float:
    """Rank correlation, 1 for two constant maps; for a stochastic method the linear one where that is larger.

    On an image where one pixel matters and all others are noise, the ranks of the noise never repeat.
    """
    if s.method.stochastic and s.method.signed is False:  # a magnitude is read without its sign, which may be a draw's
        first, second = first.abs(), second.abs()
    both_constant = maps.degenerate(first) & maps.degenerate(second)
    ranked = maps.spearman(first, second).masked_fill(both_constant, 1).mean()
    linear = maps.pearson(first.flatten(1).double(), second.flatten(1).double()).masked_fill(both_constant, 1).mean()
    return max(float(ranked), float(linear)) if s.method.stochastic else float(ranked)


def repeatable(s: Setting) -> str:
    """Two calls under different global seeds agree: exactly, or above .3 for a method that says it is stochastic."""
    agree = agreement(s, s.maps, s.explain(stream="other seed"))
    if not_degenerate(s) or agree >= (LEAST_REPEAT if s.method.stochastic else SAME):
        return ""
    if s.method.stochastic:
        return f"two calls agree only {agree:.2f} (correlation; at least {LEAST_REPEAT}): draw more samples"
    return (
        f"two calls under different seeds agree only {agree:.2f}; if the method samples, declare stochastic=True"
        " (@sc.method(stochastic=True)), and draw enough samples; else is the model in train mode?"
    )


def same_alone_as_in_a_batch(s: Setting) -> str:
    """A map does not depend on which other images are in the batch, nor on their order."""
    rows = [row for row in FEWER if row < len(s.inputs)]
    agree = agreement(s, s.maps[rows], s.explain(rows, stream="alone"))
    if not_degenerate(s) or agree >= (LEAST_REPEAT if s.method.stochastic else SAME):
        return ""
    return (
        f"images explained in a batch of {len(rows)} and in one of {len(s.inputs)} agree only {agree:.2f}: are images"
        " and maps in the same order, and is nothing normalised over the batch?"
    )


def depends_on_target(s: Setting) -> str:
    """Another class gets another map, where there is another."""
    if s.classes == 1:
        return ""
    other = s.explain(targets=(s.targets + 1) % s.classes)
    if not_degenerate(s) or not torch.equal(other, s.maps):
        return ""
    return "every class gets the same map: is the target argument used?"


def rebinds(s: Setting) -> str:
    """Another model gets another map: the method explains the model that it is given."""
    twin = copy.deepcopy(s.model)
    layers = tuple(name for block in randomization.blocks(twin, s.inputs) for name in block)
    randomization.reinitialise(twin, layers, s.inputs, derive("rebind", s.seed))
    seed = derive("contract", s.method.name, s.seed, "maps")
    other = explain(s.method, twin, s.inputs, s.targets, seed=seed, **s.supplies)
    if not_degenerate(s) or not torch.equal(other, s.maps):
        return ""
    return (
        "a model with other weights gets the very same maps: is the explainer bound to one model? Build it inside"
        " the function, or pass a factory: lambda model: IntegratedGradients(model)"
    )


def explains_in_eval_mode(s: Setting) -> str:
    """Dropout and batch norm do not act as in training during the call."""
    modes: list[bool] = []
    with untouched(s.model):
        for module in s.model.modules():
            module.register_forward_pre_hook(lambda m, _: modes.append(m.training))
        with seeded(s.seed):
            call(s.method, s.model, s.inputs, s.targets, **s.supplies)
    return "the model ran in train mode during the call: do not call model.train()" if any(modes) else ""


def leaves_the_model(s: Setting) -> str:
    """Weights, buffers, gradients, flags, modes, hooks and attributes are as before."""
    with untouched(s.model):
        own = _forwards_own_changes(s)
        before = Snapshot.of(s.model)
        with seeded(s.seed):
            call(s.method, s.model, s.inputs, s.targets, **s.supplies)
        changes = [change for change in before.changes(s.model) if change not in own]
        before.restore()
    return f"after the call: {'; '.join(changes)}" if changes else ""


def _forwards_own_changes(s: Setting) -> list[str]:
    """What the model's own forward leaves behind (a counter, kept activations) is not the method's doing."""
    with untouched(s.model) as before:
        s.model(s.inputs)
        return [change for change in before.changes(s.model) if not change.startswith("train/eval")]


class Interrupted(RuntimeError):
    """Raised inside the model by the clause below."""


def leaves_the_model_after_an_error(s: Setting) -> str:
    """Also when the model's forward pass raises in the middle."""

    def interrupt(*_: Any) -> None:
        raise Interrupted("raised on purpose by the contract check")

    with untouched(s.model):
        own = _forwards_own_changes(s)
        leaf = [module for module in s.model.modules() if not list(module.children())][-1]
        leaf.register_forward_hook(interrupt)
        before = Snapshot.of(s.model)
        try:
            with seeded(s.seed):
                s.method(s.model, s.inputs.clone(), s.targets.clone(), **s.supplies)
        except Exception:
            changes = [change for change in before.changes(s.model) if change not in own]
        else:
            changes = []  # it explains something without calling the model; other clauses speak of that
        before.restore()
    return f"after an exception in the model: {'; '.join(changes)} (use try/finally)" if changes else ""


def leaves_the_inputs(s: Setting) -> str:
    """Inputs and targets are not edited in place."""
    inputs, targets = s.inputs.clone(), s.targets.clone()
    with untouched(s.model), seeded(s.seed):
        s.method(s.model, inputs, targets, **s.supplies)
    if torch.equal(inputs, s.inputs) and torch.equal(targets, s.targets):
        return ""
    return "inputs or targets were edited in place: clone them first"


def leaves_the_random_generators(s: Setting) -> str:
    """The method does not seed the global generators."""
    after = []
    for seed in (s.seed + 1, s.seed + 2):
        with untouched(s.model), seeded(seed):
            call(s.method, s.model, s.inputs, s.targets, **s.supplies)
            after.append(rng_state())
    names = ("torch", "torch.cuda", "numpy", "random")
    pairs = [*zip(names, *after, strict=True)]
    seeded_ones = [name for name, one, two in pairs if name != "torch.cuda" and _equal(one, two)]
    return (
        f"the global generator of {', '.join(seeded_ones)} was seeded inside: draw from an own generator"
        if seeded_ones
        else ""
    )


def _equal(one: Any, two: Any) -> bool:
    if isinstance(one, tuple):
        return len(one) == len(two) and all(_equal(a, b) for a, b in zip(one, two, strict=True))
    return bool(np.array_equal(one, two))


def backward_rule_acts(s: Setting) -> str:
    """A method that replaces gradients differs from the plain gradient."""
    if "backward_rule" not in s.method.claims:
        return ""
    with untouched(s.model):
        x = s.inputs.clone().requires_grad_()
        score = s.model(x).gather(1, s.targets.view(-1, 1)).sum()
        plain = maps.reduce_channels(torch.autograd.grad(score, x)[0])
    scale = plain.abs().amax() + torch.finfo(plain.dtype).tiny
    if float((plain - s.maps).abs().amax() / scale) > 1e-5:
        return ""
    return (
        "the maps equal the plain gradient: the backward rule never acted. Functional or unknown activations"
        " (F.relu, ReLU6) have no module to hook; give every activation its own nn.ReLU module"
    )


CLAUSES: tuple[Clause, ...] = (
    not_degenerate,
    is_graded,
    depends_on_image,
    repeatable,
    same_alone_as_in_a_batch,
    depends_on_target,
    rebinds,
    explains_in_eval_mode,
    leaves_the_model,
    leaves_the_model_after_an_error,
    leaves_the_inputs,
    leaves_the_random_generators,
    backward_rule_acts,
)


@metric(
    bound=">= 1",
    exact=True,
    n=IMAGES,
    extra=lambda draw: 20,  # two clauses explain every image alone
    reference="the explain contract of this project",
    meaning="the method is not a function of the model, the image and the class that it is given, or leaves traces",
    if_fails=("each line below names one clause and its fix",),
)
def contract(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of the contract's clauses that hold; a call that raises or returns no map is an error."""
    inputs, targets = subject.inputs[:IMAGES], subject.targets[:IMAGES]
    with torch.no_grad(), untouched(subject.model):
        classes = subject.model(inputs[:1]).shape[-1]
    seed = derive("contract", method.name, draw.seed, "maps")
    original = explain(method, subject.model, inputs, targets, seed=seed, **subject.supplies)
    setting = Setting(
        method=method, model=subject.model, inputs=inputs, targets=targets, classes=classes, supplies=subject.supplies,
        maps=original, seed=draw.seed,
    )  # fmt: skip
    breaches = [f"{clause.__name__}: {text}" for clause in CLAUSES if (text := clause(setting))]
    kept = np.ones(len(CLAUSES))
    kept[: len(breaches)] = 0
    return Scores(values=kept[None, None], details={"note": "\n".join(breaches)})
