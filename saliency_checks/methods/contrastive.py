"""Contrasts: what speaks for the class rather than for the others, as wrappers over any method.

A contrast is sum_s c_s phi^s, where phi^s is the base method's map of logit s and the weights c, 1 for the class t
itself, are constants of each image. Wang and Wang 2022, "Why not other classes?", section 4.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.explain import seeded
from saliency_checks.method import Method, as_method
from saliency_checks.methods.gradient import gradient
from saliency_checks.methods.path import integrated_gradients

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]
    Logits = Float[Tensor, "n k"]

# From the logits, -inf in place of the class's own, to the share that is taken off for each of the others.
Shares = Callable[[Tensor], Tensor]
# Who else counts, or how much, depends on the logits.
LOST = {"max": {"linearity"}, "weighted": {"linearity", "scale"}}
REFERENCE = "Wang and Wang 2022, Why not other classes? Towards class-contrastive back-propagation explanations, sec. 4"


def mean_contrast(method: Any) -> Method:
    """phi^t - 1 / (K - 1) sum_{s != t} phi^s."""
    return contrasted(method, lambda others: others.isfinite().to(others) / max(1, others.shape[1] - 1), "mean")


def max_contrast(method: Any) -> Method:
    """phi^t - phi^s, s = argmax_{s != t} y_s."""
    return contrasted(method, lambda others: _one_hot(others.argmax(1), others) * others.isfinite(), "max")


def weighted_contrast(method: Any) -> Method:
    """phi^t - sum_{s != t} a_s phi^s, a = softmax of the other logits; of gradients, grad log p_t / (1 - p_t)."""
    return contrasted(method, lambda others: others.softmax(1).nan_to_num(0), "weighted")


def contrasted(method: Any, shares: Shares, name: str) -> Method:
    """The map of the class minus those of the others, ``shares`` of them.

    A method that claims linearity explains sum_s c_s f_s at once; any other one explains every class that counts,
    always with the same random draws.

    Args:
        method: anything that explains; see :func:`~saliency_checks.method.as_method`.
        shares: (N, K) to (N, K): from the logits, -inf in place of the class's own, to what is taken off of each.
        name: of this contrast; ``gradient`` becomes ``gradient_<name>_contrast``.
    """
    base = as_method(method)
    is_linear = "linearity" in base.claims
    lost = {"completeness", "backward_rule"} | LOST.get(name, set())

    def explain(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], **given: Tensor) -> Any:
        """The map of the class minus those of the others."""
        weights = _weights(model, inputs, targets, shares)
        if is_linear:
            return base(Combined(model, weights), inputs, torch.arange(len(inputs), device=inputs.device), **given)
        return _class_by_class(base, model, inputs, weights, given)

    return Method(
        name=f"{base.name}_{name}_contrast",
        explain=explain,
        needs=base.needs,
        signed=base.signed,
        stochastic=base.stochastic,
        control=base.control,
        claims=base.claims - lost,
        reference=REFERENCE,
        profiles=frozenset({"thorough"}),
        source=explain,
    )


class Combined(nn.Module):
    """A model whose i-th output is image i's own combination of the logits, of whatever images it is given."""

    def __init__(self, model: nn.Module, weights: Logits) -> None:
        super().__init__()
        self.model, self.weights, self.training = model, weights, model.training

    def forward(self, inputs: Images) -> Float[Tensor, "m n"]:
        logits: Tensor = self.model(inputs)
        return logits @ self.weights.T


def _weights(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], shares: Shares) -> Logits:
    with torch.no_grad():
        logits = model(inputs.clone())
    own = _one_hot(targets, logits)
    return own - shares(logits.masked_fill(own.bool(), -torch.inf))


def _one_hot(classes: Int[Tensor, " n"], like: Logits) -> Logits:
    return torch.zeros_like(like).scatter(1, classes[:, None], 1)


def _class_by_class(base: Method, model: nn.Module, inputs: Images, weights: Logits, given: dict[str, Tensor]) -> Any:
    """Each image's own classes in the order of their weights, until no image has one that counts."""
    seed = int(torch.randint(2**31, ()))
    terms = []
    for classes in weights.abs().argsort(dim=1, descending=True, stable=True).unbind(1):
        weight = weights.gather(1, classes[:, None])[:, 0]
        if not weight.any():
            break
        with seeded(seed):
            found = base(model, inputs.clone(), classes, **given)
        found = torch.as_tensor(found).to(inputs)
        terms.append(weight.view(-1, *[1] * (found.ndim - 1)) * found)
    return torch.stack(terms).sum(0)


for _made in [
    make(base) for base in (gradient, integrated_gradients) for make in (mean_contrast, max_contrast, weighted_contrast)
]:
    registry.register("methods", _made.name, _made, origin=f"{__name__}:{_made.name}")
