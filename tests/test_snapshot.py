"""What a model is like: each change has a name, nothing else has, and no model is asked more often for being larger."""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict, deque

import pytest
import torch
from syncs import counted
from torch import nn

from saliency_checks.snapshot import Snapshot, differing

from toys import conv_net

ATTRIBUTES, HOOKS = "attributes added, replaced or edited", "hooks left behind"


def model() -> nn.Module:
    """It holds containers of every kind, one of which is reached in two ways, and one holds itself."""
    made = conv_net()
    made.names, made.seen, made.last = ["cat", "dog"], {1, 2, 3}, deque([1, 2], maxlen=2)
    made.options = {"deep": {"list": made.names}, "counts": defaultdict(int, cat=1), "order": OrderedDict(a=1, b=2)}
    made.options["self"] = made.options
    made.weights = (made.names, [1.0])
    made.register_buffer("unknown", torch.tensor([float("nan"), -0.0]))
    return made


MADE = {
    "script": torch.jit.script, "trace": lambda m: torch.jit.trace(m, torch.rand(2, 3, 8, 8)),
    "compiled": lambda m: torch.compile(m, backend="eager"), "fx": torch.fx.symbolic_trace,
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("how", MADE)
def test_a_model_that_was_compiled_is_seen_and_put_back_too(how: str) -> None:
    held = MADE[how](conv_net()).train()
    before = {name: value.clone() for name, value in held.state_dict().items()}
    snapshot = Snapshot.of(held)
    assert snapshot.changes(held) == []
    held.eval()
    assert snapshot.changes(held) == ["train/eval mode changed"]
    with torch.no_grad():
        next(held.parameters()).add_(1)
    snapshot.restore()
    assert snapshot.changes(held) == []
    assert all(module.training for module in held.modules())
    assert all(torch.equal(before[name], value) for name, value in held.state_dict().items())


EDITS = {
    "appends": lambda m: m.names.append("bird"),
    "replaces one": lambda m: m.names.__setitem__(0, "dog"),
    "reverses": lambda m: m.names.reverse(),
    "adds to a set": lambda m: m.seen.add(4),
    "takes from a set": lambda m: m.seen.clear(),
    "appends to what is full": lambda m: m.last.append(3),
    "sets a key": lambda m: m.options["deep"].update(more=1),
    "reads what was not there": lambda m: m.options["counts"]["bird"],
    "changes an order": lambda m: m.options["order"].move_to_end("a"),
    "a list in a tuple": lambda m: m.weights[1].clear(),
    "takes an attribute away": lambda m: delattr(m, "names"),
    "puts an equal one there": lambda m: setattr(m, "names", list(m.names)),
}


@pytest.mark.parametrize("edit", EDITS)
def test_what_an_attribute_holds_is_seen_and_put_back(edit: str) -> None:
    held = model()
    before, kept = copy.deepcopy(vars(held)), dict(vars(held))
    snapshot = Snapshot.of(held)
    EDITS[edit](held)
    assert snapshot.changes(held) == [ATTRIBUTES]
    snapshot.restore()
    assert snapshot.changes(held) == []
    assert {key: id(value) for key, value in vars(held).items()} == {key: id(value) for key, value in kept.items()}
    for name in ("names", "seen", "last", "weights"):
        assert getattr(held, name) == before[name]
    assert held.options["deep"] == before["options"]["deep"]
    assert list(held.options["order"]) == ["a", "b"]
    assert held.options["counts"] == {"cat": 1}


HOOKED = {
    "a gradient's": lambda m: m[0].weight.register_hook(lambda g: g),
    "of a parameter that is ready": lambda m: m[0].weight.register_post_accumulate_grad_hook(lambda p: None),
    "a second one": lambda m: m[4].weight.register_hook(lambda g: g),
    "the user's taken away": lambda m: m[4].weight._backward_hooks.clear(),
    "a module's": lambda m: m[0].register_full_backward_hook(lambda *_: None),
    "all of a module taken away": lambda m: setattr(m[0], "_forward_hooks", OrderedDict()),
}


@pytest.mark.parametrize("hook", HOOKED)
def test_a_hook_is_seen_wherever_it_is(hook: str) -> None:
    held = model()
    held[4].weight.register_hook(lambda g: g)
    snapshot = Snapshot.of(held)
    HOOKED[hook](held)
    assert snapshot.changes(held) == [HOOKS]
    snapshot.restore()
    assert snapshot.changes(held) == []


def test_a_hook_that_was_put_back_acts_and_one_that_was_taken_off_does_not() -> None:
    held = nn.Linear(1, 1, bias=False)
    held.weight.register_hook(lambda g: 3 * g)
    snapshot = Snapshot.of(held)
    held.weight._backward_hooks = None
    snapshot.restore()
    held.weight.register_hook(lambda g: 0 * g)
    held.weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    snapshot.restore()
    held(torch.ones(1, 1)).backward()
    assert held.weight.grad is not None
    assert float(held.weight.grad) == 3


def test_a_value_that_is_no_number_is_like_itself_and_unlike_another() -> None:
    held = model()
    snapshot = Snapshot.of(held)
    assert snapshot.changes(held) == []
    held.unknown[0] = 0
    assert snapshot.changes(held) == ["weights or buffers changed"]
    snapshot.restore()
    assert held.unknown.isnan().tolist() == [True, False]


TYPES = (
    torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64, torch.complex128, torch.int64,
    torch.int8, torch.bool, torch.float8_e4m3fn,
)  # fmt: skip


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_one_bit_of_a_tensor_is_seen_in_every_type(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    one = (torch.rand(shape, generator=torch.Generator().manual_seed(0)) + 1).to(dtype)
    other = one.clone()
    assert differing([(one, other), (one.t(), other.t())] if len(shape) == 2 else [(one, other)]).count(True) == 0
    if one.numel():
        other.view(-1)[-1:] = 0
        assert differing([(one, one), (one, other), (other, other)]) == [False, True, False]


def test_another_shape_or_type_is_another_tensor() -> None:
    one = torch.ones(2, 3)
    assert differing([(one, torch.ones(3, 2)), (one, one.double()), (one, one)]) == [True, True, False]
    assert differing([]) == []


@pytest.mark.parametrize("layers", [1, 9])
def test_a_model_is_asked_once_however_many_tensors_it_has(layers: int) -> None:
    held = nn.Sequential(*(nn.BatchNorm2d(2) for _ in range(layers)))
    held(torch.rand(2, 2, 3, 3)).sum().backward()
    with counted() as waits:
        snapshot = Snapshot.of(held)
    assert not waits
    held[0].running_mean += 1
    with counted() as waits:
        assert snapshot.changes(held) == ["weights or buffers changed"]
        snapshot.restore()
    assert sum(waits.values()) == 2  # once each
