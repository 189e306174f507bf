"""Method: a named callable ``explain(model, inputs, targets) -> attributions``, whatever it was written as."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, overload

from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.adapters import SUPPLIED, BoundInstance, Explain, adapt, needs_layer

__all__ = ["CLAIMS", "NEEDS", "BoundInstance", "Explain", "Method", "as_method", "method"]

NEEDS = {
    "gradient": "a model that autograd can differentiate",
    "baseline": "the value that means absent, as its argument ``baseline`` (1, C, 1, 1)",
    "references": "other images to compare with, as its argument ``references`` (M, C, H, W)",
    "conv": "convolutional layers",
}
CLAIMS = {
    "completeness": "the contributions sum to f(x) - f(baseline), or f(x) - the mean of f over the references",
    "dummy": "a pixel that the function does not depend on gets 0",
    "implementation_invariance": "networks that compute the same function get the same map",
    "input_shift_invariance": "images that are moved, with what counts as absent, and undone by the network: same map",
    "linearity": "the map of a f + b g is a times the map of f plus b times that of g",
    "saturation": "a pixel that changed the output gets its share where the gradient is 0",
    "scale": "the map of c f is c times the map of f, for c above 0",
    "symmetry": "two pixels that hold one value and play the same part get the same",
    "backward_rule": "it replaces derivatives by a rule of its own, so it differs from the plain gradient",
    "mask": "its map says of each pixel whether it counts, and no more, so that two values are enough",
}
AXIOMS = frozenset(CLAIMS) - {"backward_rule", "mask"}
Decorated = TypeVar("Decorated", bound=Callable[..., Any])


@dataclass(frozen=True, kw_only=True, eq=False)
class Method:
    """An attribution method.

    Attributes:
        name: lower-case identifier; part of the result's key.
        explain: ``(model, inputs (N, C, H, W), targets (N,)) -> (N, C, H, W), (N, 1, H, W) or (N, H, W)``,
            tensor or array.
        needs: what it needs of the model or of the subject, from ``NEEDS``.
        signed: True for contributions (the sign means for or against the class), False for magnitudes or
            sensitivities, None where the method does not say: then both readings are measured.
        stochastic: two calls differ beyond rounding unless they are seeded alike.
        control: it never looks at the model, so no check may pass it.
        claims: axioms it is said to fulfil, and what else it says of itself, from ``CLAIMS``.
        expected_failures: check, or check/subject -> why this method is known to fail it; an unexpected pass is an
            error.
        reference: the paper.
        profiles: the profiles that judge it where no method is named: the quick one has a few, or it would not be.
        source: what it was made from, so that the same object finds its registered entry.
    """

    name: str
    explain: Explain = field(repr=False)
    needs: frozenset[str] = frozenset()
    signed: bool | None = None
    stochastic: bool = False
    control: bool = False
    claims: frozenset[str] = frozenset()
    expected_failures: Mapping[str, str] = field(default_factory=dict, repr=False)
    reference: str = field(default="", repr=False)
    profiles: frozenset[str] = frozenset({"quick", "standard", "thorough"})
    source: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        registry.check_name(self.name)
        for kind, given, known in (("needs", self.needs, NEEDS), ("claims", self.claims, CLAIMS)):
            if unknown := set(given) - set(known):
                raise ValueError(f"method {self.name!r} {kind} {sorted(unknown)}: expected names from {sorted(known)}")
        for check, reason in self.expected_failures.items():
            if not reason.strip():
                raise ValueError(f"method {self.name!r}: the expected failure of {check!r} has no reason; give one")

    def known_failure(self, check: str, subject: str) -> str:
        """Why it is known to fail this check on this subject, or ""."""
        return self.expected_failures.get(f"{check}/{subject}") or self.expected_failures.get(check, "")

    def __call__(
        self,
        model: nn.Module,
        inputs: Tensor,
        targets: Tensor,
        baseline: Tensor | None = None,
        references: Tensor | None = None,
    ) -> Any:
        """Explain; ``baseline`` and ``references`` reach only a method that says that it needs them."""
        supplied = {"baseline": baseline, "references": references}
        given = {name: value for name, value in supplied.items() if value is not None and name in self.needs}
        return self.explain(model, inputs, targets, **given)


@overload
def method(function: Decorated, /) -> Decorated: ...
@overload
def method(
    *,
    name: str | None = None,
    needs: Iterable[str] = (),
    signed: bool | None = None,
    stochastic: bool = False,
    control: bool = False,
    claims: Iterable[str] = (),
    expected_failures: Mapping[str, str] | None = None,
    reference: str = "",
    profiles: Iterable[str] | None = None,
) -> Callable[[Decorated], Decorated]: ...
def method(function: Callable[..., Any] | None = None, /, **fields: Any) -> Any:
    """Register an attribution method; the decorated function stays an ordinary function.

    Takes the fields of :class:`Method`; the name defaults to the function's own. A function, a captum
    class, or a factory ``model -> explainer`` may be decorated alike.
    """
    _check_fields(fields)

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        made = _made(function, fields)
        inner = inspect.unwrap(function)
        module, qualname = getattr(inner, "__module__", ""), getattr(inner, "__qualname__", made.name)
        registry.register("methods", made.name, made, origin=f"{module}:{qualname}")
        return function

    return register if function is None else register(function)


def as_method(spec: Any, **fields: Any) -> Method:
    """A :class:`Method` from anything that explains.

    Args:
        spec: a Method, a registered name or ``package.module:attribute``, a function of (model, inputs,
            targets), a captum class, or a factory ``model -> explainer``. What ``@sc.method`` decorated keeps
            the fields that were declared there.
        fields: override the fields of :class:`Method`.

    Raises:
        BoundInstance: for an explainer that was already given its model.
        TypeError: for anything else that cannot explain, and for unknown fields.
    """
    _check_fields(fields)
    found = registry.get("methods", spec) if isinstance(spec, str) else spec
    known = found if isinstance(found, Method) else _registered_as(found)
    if known is not None:
        return replace(known, **_normal(fields)) if fields else known
    if isinstance(spec, str):  # an attribute has a better name than the lambda behind it
        fields = {"name": registry.slug(spec.rpartition(":")[2])} | fields
    return _made(found, fields)


def _made(spec: Any, fields: Mapping[str, Any]) -> Method:
    defaults: dict[str, Any] = {"name": _name(spec), "source": spec}
    if needs_layer(spec):
        defaults["needs"] = frozenset({"conv"})
    made = defaults | _normal(fields)
    return Method(explain=adapt(spec, supplied=[name for name in SUPPLIED if name in made.get("needs", ())]), **made)


def _normal(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields as :class:`Method` holds them; None means "not given", but for ``signed``."""
    given = {key: value for key, value in fields.items() if value is not None or key == "signed"}
    return given | {key: frozenset(given[key]) for key in ("needs", "claims", "profiles") if key in given}


def _check_fields(fields: Mapping[str, Any]) -> None:
    known = [f.name for f in dataclasses.fields(Method) if f.name not in ("explain", "source")]
    for key in fields:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
            raise TypeError(f"a method has no field {key!r}; {hint}")


def _registered_as(spec: Any) -> Method | None:
    """The entry that ``@sc.method`` made of this very object."""
    entries = registry.entries("methods").values()
    return next((entry for entry in entries if isinstance(entry, Method) and entry.source is spec), None)


def _name(spec: Any) -> str:
    """A name for what has none: a partial's function; the class that a lambda builds."""
    while isinstance(spec, functools.partial):
        spec = spec.func
    name = getattr(spec, "__name__", type(spec).__name__)
    if name != "<lambda>":
        return registry.slug(name)
    return next((registry.slug(used) for used in spec.__code__.co_names if used[:1].isupper()), "unnamed")
