"""From a name to a Subject that is built once per process, fits together and lies on one device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from saliency_checks import device as devices
from saliency_checks import registry
from saliency_checks.explain import evaluating
from saliency_checks.subject import Contrast, Subject, SubjectFactory, Twins

_built: dict[tuple[Any, str], Subject] = {}


class BadSubject(ValueError):
    """Something that is no subject, or one whose model, images and targets do not fit together."""


def build_subject(spec: Any, device: str | None = None) -> Subject:
    """The subject behind a name, ``package.module:attribute``, a factory, a function or a Subject, on its device.

    Built once per process.
    """
    key = (spec if isinstance(spec, str) else id(spec), device or "auto")
    if key not in _built:
        found = registry.get("subjects", spec) if isinstance(spec, str) else spec
        built = found() if callable(found) and not isinstance(found, Subject) else found
        if not isinstance(built, Subject):
            raise BadSubject(
                f"{spec!r} gave {type(built).__name__}, expected a subject: sc.Subject(model, inputs, targets),"
                " a function that returns one, or a registered name"
            )
        if isinstance(spec, str) and ":" in spec and not isinstance(found, SubjectFactory):
            built = replace(built, name=registry.slug(spec.rpartition(":")[2]))
        place = devices.pick(device or "auto")
        devices.prepare(place)
        _built[key] = _with_logits(_on_device(built, place))
        _probe(_built[key])
        _built[(id(spec), "kept")] = spec  # an id stays unique only while its object lives
    return _built[key]


def name_of(spec: Any) -> str:
    """What a subject will be called, before it is built."""
    if isinstance(spec, str) and spec.startswith(registry.GRAFT):
        return f"{name_of(spec.removeprefix(registry.GRAFT))}_graft"
    if isinstance(spec, str):
        return spec if ":" not in spec else registry.slug(spec.rpartition(":")[2])
    return getattr(spec, "name", None) or registry.slug(getattr(spec, "__name__", "subject"))


class Logits(nn.Module):
    """A model whose output holds the logits, as ``.logits`` or as the first of several, reduced to them."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        output = self.model(x)
        if hasattr(output, "logits"):
            return output.logits
        return output[0] if isinstance(output, tuple | list) and output else output


def _probe(subject: Subject) -> None:
    """Run the model twice on two images; whatever does not fit is said now, in the subject's name."""
    given = subject.inputs[:2].clone()
    try:
        with evaluating(subject.model):
            logits, again = (subject.model(given) for _ in range(2))
    except Exception as error:
        raise BadSubject(
            f"subject {subject.name!r}: its model fails on its inputs {tuple(given.shape)}:"
            f" {type(error).__name__}: {error}"
        ) from error
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        got = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise BadSubject(
            f"subject {subject.name!r}: its model returned {got}, expected logits (N, K) of at least two classes;"
            " wrap it in a module that returns them"
        )
    if not torch.equal(given, subject.inputs[:2]):
        raise BadSubject(f"subject {subject.name!r}: its model writes into its input; let it work on x.clone()")
    if not torch.allclose(logits, again, rtol=1e-4, atol=1e-5, equal_nan=True):
        raise BadSubject(
            f"subject {subject.name!r}: in eval mode two calls of its model on the same images differ by up to"
            f" {float((logits - again).abs().max()):.2g}; is there a dropout that is always on, or a state that a"
            " forward pass changes?"
        )
    if len(subject) and not 0 <= int(subject.targets.min()) <= int(subject.targets.max()) < logits.shape[1]:
        raise BadSubject(
            f"subject {subject.name!r}: targets lie in [{int(subject.targets.min())}, {int(subject.targets.max())}],"
            f" expected class indices below {logits.shape[1]}, the model's number of logits"
        )


def _with_logits(subject: Subject) -> Subject:
    """The subject, its model reduced to the logits where it returns more."""
    try:
        with evaluating(subject.model):
            output = subject.model(subject.inputs[:1].clone())
    except Exception:  # _probe says it better
        return subject
    return subject if isinstance(output, Tensor) else replace(subject, model=Logits(subject.model))


def _on_device(subject: Subject, device: torch.device) -> Subject:
    """The subject with all that it holds, now or when built later, on one device.

    Whoever runs the user's model puts it into eval mode, and back: here it is only moved, where it lies elsewhere.
    """

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, nn.Module):
            return value.to(device)
        if isinstance(value, Contrast):
            return Contrast(inputs=move(value.inputs), targets=move(value.targets), sites=move(value.sites))
        if isinstance(value, Twins):
            return Twins(
                same=tuple(move(twin).eval() for twin in value.same),
                permuted=tuple(move(twin).eval() for twin in value.permuted),
                inputs=move(value.inputs), targets=move(value.targets),
            )  # fmt: skip
        return value

    twins, layered, pairs = subject.twins, subject.layered, subject.contrast
    return replace(
        subject,
        model=move(subject.model), inputs=move(subject.inputs), targets=move(subject.targets).long(),
        references=move(subject.references), clean=move(subject.clean),
        truth=move(subject.truth), decoys=move(subject.decoys),
        contrast=(lambda: move(pairs())) if callable(pairs) else move(pairs),
        twins=(lambda: move(twins())) if twins else None,
        layered=partial(_later, layered, device) if layered else None,
        replicas=tuple(partial(_later, build, device) for build in subject.replicas),
    )  # fmt: skip


def _later(build: Callable[[], Subject], device: torch.device) -> Subject:
    built = _on_device(build(), device)
    built.model.eval()
    return built
