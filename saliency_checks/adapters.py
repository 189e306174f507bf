"""Whatever explains -> ``explain(model, inputs, targets)``: functions, captum classes, factories, NumPy functions."""

from __future__ import annotations

import contextlib
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from torch import Tensor, nn

from saliency_checks import layers

# Names under which functions of the field take the three arguments.
ARGUMENTS = {
    "model": ("model", "net", "network", "classifier", "module", "forward_func", "forward_fn"),
    "inputs": ("inputs", "input", "x", "xs", "images", "image", "input_tensor", "x_batch"),
    "targets": ("targets", "target", "labels", "label", "y", "ys", "y_batch", "class_idx", "classes"),
}
# Given only to methods that say that they need them. What captum calls baselines is either of the two.
SUPPLIED = {
    "baseline": ("baseline", "baselines", "reference", "absent"),
    "references": ("references", "reference_images", "background", "baselines"),
}
# What a class is given beside the model, and the arguments that say that it wraps another explainer.
LAYER_ARGUMENTS = ("layer", "target_layers")
WRAPS_EXPLAINER = ("attribution_method", "explainer", "base_method")

# What captum says on every call of a correct program; a test suite that turns warnings into errors would stop.
CAPTUM_CHATTER = ("Input Tensor .* did not already require gradients", "Setting .*hooks")
EXPECTED = (
    "expected a function (model, inputs, targets) -> attributions, a captum class, or a factory such as"
    " lambda model: IntegratedGradients(model)"
)
Explain = Callable[..., Any]  # (model, inputs, targets), and a baseline or references where a method needs them
Parameter = inspect.Parameter
POSITIONAL = (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD)
VARIABLE = (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)


class BoundInstance(TypeError):
    """An explainer that already holds one model: it would silently go on explaining that one."""


def adapt(spec: Any, *, supplied: Sequence[str] = ()) -> Explain:
    """The explain function of a function (model, inputs, targets), a captum class or a factory.

    Args:
        spec: what explains.
        supplied: what it is given beside the three arguments, from ``SUPPLIED``: the baseline, the value that
            means absent (1, C, 1, 1), which captum's explainers get in the inputs' shape; references (M, C, H, W).

    Raises:
        BoundInstance: for an explainer that was already given its model.
        TypeError: for anything else that cannot explain; the text says what is missing.
    """
    if inspect.isclass(spec):
        return _from_class(spec, supplied)
    holder = _holder(spec)
    if isinstance(holder, nn.Module):
        raise BoundInstance(
            f"this {type(holder).__name__} is a model, not a method that explains any model; pass a function"
            " (model, inputs, targets) -> attributions, or a factory model -> explainer"
        )
    if not inspect.isclass(holder) and callable(getattr(holder, "attribute", None)):
        raise _bound(holder)
    if not callable(spec):
        raise TypeError(f"{spec!r} is no attribution method: {EXPECTED}")
    fixed = (*spec.args, *spec.keywords.values()) if isinstance(spec, functools.partial) else ()
    if any(isinstance(value, nn.Module) for value in fixed):
        raise BoundInstance(f"{spec!r} holds one model and cannot be given others; leave its model argument open")
    if _is_factory(spec):
        return _from_factory(lambda model, inputs: spec(model))
    return _from_function(spec, supplied)


def needs_layer(spec: Any) -> bool:
    """Whether this is a class that is given a convolutional layer beside the model."""
    return inspect.isclass(spec) and any(p.name in LAYER_ARGUMENTS for p in _parameters(spec))


# Binding of arguments ------------------------------------------------------------------------------------------------


def _parameters(function: Callable[..., Any]) -> list[Parameter]:
    try:
        return list(inspect.signature(function).parameters.values())
    except (TypeError, ValueError):  # some callables made in C have none
        return [Parameter("args", Parameter.VAR_POSITIONAL)]


def _role(name: str) -> str | None:
    return next((role for role, known in {**ARGUMENTS, **SUPPLIED}.items() if name in known), None)


def _is_required(parameter: Parameter) -> bool:
    return parameter.default is Parameter.empty and parameter.kind not in VARIABLE


def _places(parameters: list[Parameter], roles: Iterable[str], *, by_name: bool) -> dict[str, Parameter]:
    """The parameter of each role: the one of a known name, and for the others what is left over, in order.

    With ``by_name``, names and positions are not mixed: a parameter of unknown name beside known ones is
    something else.
    """
    known: dict[str, Parameter] = {}
    for role in roles:
        names = {**ARGUMENTS, **SUPPLIED}[role]
        candidates = [p for p in parameters if p.name in names and p not in known.values()]
        if candidates:
            known[role] = next(filter(_is_required, candidates), candidates[0])
    left = [p for p in parameters if _is_required(p) and p.kind in POSITIONAL and p not in known.values()]
    others = [role for role in roles if role not in known]
    if len(left) < len(others) or (by_name and known):
        return known
    return known | dict(zip(others, left, strict=False))


def _bind(
    parameters: list[Parameter], name: str, values: dict[str, Any], *, by_name: bool = False
) -> tuple[list[Any], dict[str, Any]]:
    """Positional and keyword arguments; unknown keywords are never injected.

    Args:
        parameters: of the function to be called.
        name: what to call it in an error.
        values: by role, in their usual order.
        by_name: see :func:`_places`.

    Raises:
        TypeError: a value has no place, or a required argument no value.
    """
    kinds = {p.kind for p in parameters}
    if Parameter.VAR_POSITIONAL in kinds:
        return list(values.values()), {}
    places = _places(parameters, values, by_name=by_name)
    homeless = [role for role in values if role not in places]
    if homeless and Parameter.VAR_KEYWORD not in kinds:
        given = ", ".join(map(str, parameters))
        raise TypeError(f"{name} takes ({given}), which leaves no place for {' and '.join(homeless)}")
    if missing := [p.name for p in parameters if _is_required(p) and p not in places.values()]:
        wanted = {_role(other) for other in missing}
        hint = f"; needs={wanted} supplies it" if wanted <= set(SUPPLIED) else ""
        raise TypeError(f"{name} also requires {', '.join(map(repr, missing))}{hint}")
    positional = [role for role, p in places.items() if p.kind is Parameter.POSITIONAL_ONLY]
    positional.sort(key=lambda role: parameters.index(places[role]))
    keywords = {
        places[role].name if role in places else role: values[role] for role in values if role not in positional
    }
    return [values[role] for role in positional], keywords


def _call(function: Callable[..., Any], args: list[Any], kwargs: dict[str, Any]) -> Any:
    """Call with tensors; a function that was written for arrays (the Quantus contract) gets arrays."""
    with warnings.catch_warnings():
        for chatter in CAPTUM_CHATTER:
            warnings.filterwarnings("ignore", message=chatter)
        try:
            return function(*args, **kwargs)
        except (TypeError, AttributeError):
            arrays = [_as_array(value) for value in args]
            with contextlib.suppress(Exception):  # the first error is the one that speaks of what the user wrote
                return function(*arrays, **{name: _as_array(value) for name, value in kwargs.items()})
            raise


def _as_array(value: Any) -> Any:
    return value.detach().cpu().numpy() if isinstance(value, Tensor) else value


def _name(spec: Any) -> str:
    return getattr(spec, "__name__", type(spec).__name__)


# What explains -------------------------------------------------------------------------------------------------------


def _is_factory(spec: Callable[..., Any]) -> bool:
    """One required argument, a model, and none for the inputs."""
    parameters = _parameters(spec)
    required = [p for p in parameters if _is_required(p)]
    return (
        len(required) == 1
        and _role(required[0].name) in (None, "model")
        and not any(p.kind is Parameter.VAR_POSITIONAL or _role(p.name) == "inputs" for p in parameters)
    )


def _from_function(function: Callable[..., Any], supplied: Sequence[str]) -> Explain:
    name, parameters = _name(function), _parameters(function)
    try:
        _bind(parameters, name, dict.fromkeys([*ARGUMENTS, *supplied]))
    except TypeError as error:
        if _places(parameters, ARGUMENTS, by_name=False).keys() == {"inputs", "targets"}:
            raise _bound(_holder(function)) from None
        raise TypeError(f"{error}: {EXPECTED} (fix further arguments with functools.partial)") from None

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor, **given: Tensor) -> Any:
        args, kwargs = _bind(parameters, name, {"model": model, "inputs": inputs, "targets": targets, **given})
        return _call(function, args, kwargs)

    return explain


def _holder(spec: Any) -> Any:
    """The object behind a bound method or a partial."""
    while isinstance(spec, functools.partial):
        spec = spec.func
    owner = getattr(spec, "__self__", spec)
    return spec if inspect.ismodule(owner) else owner


def _bound(holder: Any) -> BoundInstance:
    """Randomisation checks rebind a method to other models; one that holds its own would explain the old one."""
    if inspect.isroutine(holder):
        return BoundInstance(
            f"{_name(holder)} takes no model, so it explains only one; make the model its first argument"
        )
    kind = type(holder).__name__
    return BoundInstance(
        f"this {kind} is bound to one model and cannot be given others; pass lambda model: {kind}(model)"
    )


def _from_class(cls: type, supplied: Sequence[str]) -> Explain:
    """``cls(model)`` or ``cls(model, layer)``, then as a factory; what is missing is said at once."""
    parameters, name = _parameters(cls), cls.__name__
    calls = [vars(base)["__call__"] for base in cls.__mro__ if "__call__" in vars(base)]
    call = getattr(cls, "attribute", None) or next(iter(calls), None)
    if call is None:
        raise TypeError(f"class {name} has neither .attribute nor a call, so it explains nothing")
    if wrapped := [p.name for p in parameters if _is_required(p) and p.name in WRAPS_EXPLAINER]:
        line = f"lambda model: {name}(IntegratedGradients(model))"
        raise TypeError(f"{name} wraps another explainer ({wrapped[0]}); pass {line}")
    layer = [p for p in parameters if p.name in LAYER_ARGUMENTS]
    plain = [p for p in parameters if p not in layer]
    line = f"lambda model, inputs, targets: {name}(model{', layer' if layer else ''})"
    try:
        _bind(plain, name, {"model": None})
        roles = dict.fromkeys(["inputs", "targets", *supplied])
        _bind(_parameters(call)[1:], f"{name}.attribute", roles, by_name=True)
    except TypeError as error:
        raise TypeError(f"{error}; pass {line}.attribute(inputs, target=targets, ...) with it filled in") from None

    def build(model: nn.Module, inputs: Tensor) -> Any:
        args, kwargs = _bind(plain, name, {"model": model})
        if layer:
            found = layers.activation_layer(model, inputs)
            kwargs[layer[0].name] = found if layer[0].name == "layer" else [found]
        return cls(*args, **kwargs)

    return _from_factory(build)


class ClassScore:
    """Target of pytorch-grad-cam: picks one class of one image's output."""

    def __init__(self, category: int) -> None:
        self.category = category

    def __call__(self, output: Tensor) -> Tensor:
        return output[..., self.category]


def _from_factory(build: Callable[[nn.Module, Tensor], Any]) -> Explain:
    def explain(model: nn.Module, inputs: Tensor, targets: Tensor, **given: Tensor) -> Any:
        explainer = build(model, inputs)
        try:
            return _attributions(explainer, inputs, targets, given)
        finally:  # pytorch-grad-cam's hooks live as long as its object, and a traceback keeps that alive
            if callable(release := getattr(getattr(explainer, "activations_and_grads", None), "release", None)):
                release()

    return explain


def _attributions(explainer: Any, inputs: Tensor, targets: Tensor, given: dict[str, Tensor]) -> Any:
    call = getattr(explainer, "attribute", explainer)
    kind = type(explainer).__name__
    if not callable(call):
        raise TypeError(f"the factory returned {kind}, expected an object with .attribute or a call")
    parameters = _parameters(call)
    values: dict[str, Any] = {"inputs": inputs, "targets": targets}
    values |= {role: value.expand_as(inputs) if role == "baseline" else value for role, value in given.items()}
    if any(p.name == "input_tensor" for p in parameters):  # pytorch-grad-cam takes one callable per image
        values["targets"] = [ClassScore(int(target)) for target in targets]
    args, kwargs = _bind(parameters, f"{kind}.attribute" if call is not explainer else kind, values, by_name=True)
    if "targets" in kwargs and not any(p.name == "targets" for p in parameters):
        kwargs["target"] = kwargs.pop("targets")  # captum's NoiseTunnel hands **kwargs on to what it wraps
    maps = _call(call, args, kwargs)
    maps = maps[0] if isinstance(maps, tuple) and len(maps) == 1 else maps
    is_layer_map = hasattr(explainer, "layer") and isinstance(maps, Tensor) and maps.ndim == 4
    if is_layer_map and maps.shape[-2:] != inputs.shape[-2:]:
        return layers.resize_like(maps.sum(1, keepdim=True), inputs)
    return maps
