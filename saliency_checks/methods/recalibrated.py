"""Re-calibration of path methods: a reference counts for a feature only where it lies on the side of lower logits.

Where (x - point) g is negative, the path comes from the wrong side. The methods let that cancel what the right side
says; re-calibration leaves it out, feature by feature, so that a path ends where the sign of the gradient changes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from inspect import isgeneratorfunction, unwrap
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.method import Method, as_method
from saliency_checks.methods.reference_path import Path
from saliency_checks.methods.references import agi, expected_gradients, ig_smoothgrad, ig_squared, ig_uniform, lpi

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]

Estimate = Literal["valid_ip", "valid_ref", "vanilla"]
PATH_METHODS = (ig_uniform, ig_smoothgrad, ig_squared, expected_gradients, agi, lpi)


def recalibrate(inputs: Images, paths: Iterable[Path], estimate: Estimate = "valid_ip") -> Images:
    """Mean of the products that are not negative: over as many, for each feature, as there are of them.

    Args:
        inputs: the images that are explained.
        paths: what a method sees on the way from each reference.
        estimate: ``valid_ip`` judges each interpolation point by (x - point) g / k, ``valid_ref`` each reference by
            (x - r) times the mean of g; ``vanilla`` judges nothing and is the method itself.

    Raises:
        ValueError: for another estimate.
    """
    if estimate not in ("valid_ip", "valid_ref", "vanilla"):
        raise ValueError(f"estimate {estimate!r}: expected valid_ip, valid_ref or vanilla")
    total, count = torch.zeros_like(inputs), torch.zeros_like(inputs)
    for path in paths:
        if estimate == "vanilla":
            total += path.attribution()
            continue
        products = path.points() if estimate == "valid_ip" else path.whole()[None]
        total += path.share * products.clamp(min=0).sum(0)
        count += path.share * (products >= 0).to(products).sum(0)
    return total / torch.where(count > 0, count, 1)


def recalibrated(method: Any, estimate: Estimate = "valid_ip", **fields: Any) -> Method:
    """The re-calibrated form of a path method: never negative, neither complete nor linear.

    Args:
        method: a method of ``references.py`` or its name, or a generator function (model, inputs, targets, ...) of
            :class:`~saliency_checks.methods.reference_path.Path`.
        estimate: see :func:`recalibrate`.
        fields: of the path method, where it is not registered; see :func:`~saliency_checks.method.as_method`.

    Raises:
        TypeError: for a method that is not written as its paths.
    """
    base = as_method(method, **fields)
    paths: Callable[..., Iterator[Path]] = unwrap(base.source)
    if not isgeneratorfunction(paths):
        raise TypeError(f"{base.name} is not written as paths from references, so there is nothing to re-calibrate")

    def explain(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"], **settings: Any) -> Images:
        """The mean of what speaks for the class, of a path method."""
        return recalibrate(inputs, paths(model, inputs, targets, **settings), estimate)

    return Method(
        name=f"recalibrated_{base.name}",
        explain=explain,
        needs=base.needs,
        signed=False,
        stochastic=base.stochastic,
        claims=base.claims - {"completeness", "linearity", "saturation"},
        reference="Yang et al. 2023, Re-calibrating feature attributions for model interpretation, section 4",
        profiles=frozenset({"thorough"}),
        source=explain,
    )


for _base in PATH_METHODS:
    _made = recalibrated(_base)
    registry.register("methods", _made.name, _made, origin=f"{__name__}:{_made.name}")
