"""What a model is like now, and how to make it so again: what a method did to it can be said, and undone."""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

# What every module has; all else are attributes of the user's.
OWN = frozenset(vars(nn.Module()))
CONTAINERS = (dict, list, set, deque)
HOOKS_OF_A_TENSOR = ("_backward_hooks", "_post_accumulate_grad_hooks")
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}  # an integer of so many bytes


class Held(NamedTuple):
    """What a container holds. It is filled again in place, because others may refer to it (handles of hooks do)."""

    container: Any
    items: list[Any]

    @property
    def is_edited(self) -> bool:
        if not self.items or not self.container:  # nearly all of them
            return bool(self.items or self.container)
        now = _items(self.container)
        return len(now) != len(self.items) or any(map(operator.is_not, now, self.items))

    def restore(self) -> None:
        if not self.is_edited:
            return
        self.container.clear()
        if isinstance(self.container, dict):
            half = len(self.items) // 2
            self.container.update(zip(self.items[:half], self.items[half:], strict=True))
        elif isinstance(self.container, set):
            self.container.update(self.items)
        else:
            self.container.extend(self.items)


def _items(container: Any) -> list[Any]:
    return [*container, *container.values()] if isinstance(container, dict) else list(container)


def _held(values: Iterable[Any]) -> dict[int, Held]:
    """All containers among these, and those in them, by their identity."""
    found: dict[int, Held] = {}
    left = [*values]
    while left:
        one = left.pop()
        if isinstance(one, tuple):
            left += one
        elif isinstance(one, CONTAINERS) and id(one) not in found:
            found[id(one)] = held = Held(one, _items(one) if one else [])
            left += held.items
    return found


@dataclass(frozen=True, eq=False)
class Kept:
    """One parameter, buffer or gradient: its storage (``.data`` may be pointed elsewhere), values, flag, hooks."""

    tensor: Tensor
    data: Tensor
    value: Tensor
    requires_grad: bool
    hooks: dict[str, Any]
    grad: Kept | None

    @classmethod
    def of(cls, tensor: Tensor) -> Kept:
        grad = None if tensor.grad is None else cls.of(tensor.grad)
        hooks = {name: getattr(tensor, name) for name in HOOKS_OF_A_TENSOR}
        return cls(tensor, tensor.data, tensor.detach().clone(), tensor.requires_grad, hooks, grad)

    def all(self) -> Iterator[Kept]:
        """Its gradient first: a tensor takes none of another type."""
        if self.grad is not None:
            yield from self.grad.all()
        yield self

    @property
    def has_other_grad(self) -> bool:
        return self.tensor.grad is not (None if self.grad is None else self.grad.tensor)

    @property
    def has_other_hooks(self) -> bool:
        return any(getattr(self.tensor, name) is not hooks for name, hooks in self.hooks.items())

    def restore(self, *, value: bool) -> None:
        """All but what is in the hooks' dictionaries; the values where they are not the same."""
        if value or self.tensor.data_ptr() != self.data.data_ptr():
            self.tensor.data = self.data
            self.data.copy_(self.value)
        self.tensor.requires_grad_(self.requires_grad)
        self.tensor.grad = None if self.grad is None else self.grad.tensor
        for name, hooks in self.hooks.items():
            if (now := getattr(self.tensor, name)) is not hooks:
                if now:  # autograd may hold on to the dictionary
                    now.clear()
                setattr(self.tensor, name, hooks)


def differing(pairs: Sequence[tuple[Tensor, Tensor]]) -> list[bool]:
    """Of each pair, whether its two tensors differ in a bit: a NaN is the same as itself.

    All are compared on their device, and each device is asked once: asking is waiting for it.
    """
    found = [(a.shape, a.dtype, a.device) != (b.shape, b.dtype, b.device) for a, b in pairs]
    flags: dict[torch.device, dict[int, Tensor]] = {}
    for i, (one, other) in enumerate(pairs):
        if not found[i]:
            flags.setdefault(one.device, {})[i] = (_bits(one) != _bits(other)).any()
    for asked in flags.values():
        for i, answer in zip(asked, torch.stack([*asked.values()]).tolist(), strict=True):
            found[i] = answer
    return found


def _bits(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.is_complex():
        tensor = torch.view_as_real(tensor.resolve_conj())
    return tensor.view(BITS[tensor.element_size()])


@dataclass(frozen=True)
class Snapshot:
    """All that a method may change on a model: attributes, what is in them, tensors, gradients, flags and hooks.

    An attribute that is an object of the user's, or a tensor that is no buffer, is put back, and not looked into.
    """

    attributes: dict[nn.Module, dict[str, Any]]
    modes: dict[nn.Module, bool]  # of what TorchScript or a compiler made they are no attributes
    contents: dict[int, Held]
    tensors: dict[str, Kept]

    @classmethod
    def of(cls, model: nn.Module) -> Snapshot:
        attributes = {module: dict(vars(module)) for module in model.modules()}
        named = [*model.named_parameters(), *model.named_buffers()]
        tensors = {name: Kept.of(tensor) for name, tensor in named}
        values = [value for held in attributes.values() for value in held.values()]
        hooks = [hooks for one in _every(tensors) for hooks in one.hooks.values()]
        modes = {module: module.training for module in attributes}
        return cls(attributes, modes, _held([*values, *hooks]), tensors)

    def changes(self, model: nn.Module) -> list[str]:
        """What is different now, in words; empty where nothing is."""
        now = dict([*model.named_parameters(), *model.named_buffers()])
        kept, every = list(self.tensors.values()), list(_every(self.tensors))
        modules, edited = set(model.modules()), self._edited()
        edited_grads = [one.grad is not None and any(id(g) in edited for g in one.grad.all()) for one in kept]
        pairs = [(self.attributes[m], vars(m)) for m in modules & set(self.attributes)]
        own = {id(v) for attributes in self.attributes.values() for k, v in attributes.items() if k in OWN}
        hooks = {id(v) for attributes in self.attributes.values() for k, v in attributes.items() if _is_hooks(k)}
        hooks |= {id(v) for one in every for v in one.hooks.values()}
        refilled = {key for key, held in self.contents.items() if held.is_edited}
        differences = {
            "parameters or buffers replaced": set(now) != set(self.tensors)
            or any(now[name] is not one.tensor for name, one in self.tensors.items()),
            "weights or buffers changed": any(id(one) in edited for one in kept),
            ".grad left on parameters (use torch.autograd.grad on the inputs)": any(edited_grads)
            or any(one.has_other_grad for one in every),
            "requires_grad changed": any(one.tensor.requires_grad != one.requires_grad for one in kept),
            "submodules added or replaced": modules != set(self.attributes),
            "train/eval mode changed": any(self.modes[m] != m.training for m in modules & set(self.modes)),
            "hooks left behind": bool(refilled & hooks)
            or any(one.has_other_hooks for one in every)
            or any(before[k] is not after.get(k) for before, after in pairs for k in before if _is_hooks(k)),
            "attributes added, replaced or edited": bool(refilled - own - hooks)
            or any(_others(before) != _others(after) for before, after in pairs),
        }
        return [label for label, is_different in differences.items() if is_different]

    def restore(self) -> None:
        """Put everything back."""
        for module, attributes in self.attributes.items():
            vars(module).clear()
            vars(module).update(attributes)
            if module.training != self.modes[module]:
                module.training = self.modes[module]
        for held in self.contents.values():
            held.restore()
        edited = self._edited()
        with torch.no_grad():
            for one in _every(self.tensors):
                one.restore(value=id(one) in edited)

    def _edited(self) -> set[int]:
        """The tensors whose values are not the same, by the identity of what is kept of them."""
        every = list(_every(self.tensors))
        answers = differing([(one.tensor, one.value) for one in every])
        return {id(one) for one, is_other in zip(every, answers, strict=True) if is_other}


def _every(tensors: dict[str, Kept]) -> Iterator[Kept]:
    """And their gradients."""
    for one in tensors.values():
        yield from one.all()


def _is_hooks(key: str) -> bool:
    return key in OWN and key.endswith("_hooks")


def _others(attributes: dict[str, Any]) -> dict[str, int]:
    """Attributes of the user's: equal where each is the very same object."""
    return {key: id(value) for key, value in attributes.items() if key not in OWN}
