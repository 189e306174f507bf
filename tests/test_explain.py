"""One safe call: what a method does to the model, the inputs and the generators is undone; bad maps are named."""

from __future__ import annotations

import copy
import random
import zlib
from collections import deque

import numpy as np
import pytest
import torch
from torch import nn

from saliency_checks.explain import BLOCK, ContractError, derive, explain, model_maps, subject_maps, validated
from saliency_checks.snapshot import HOOKS_OF_A_TENSOR

from toys import constant, conv_net, detector, gradient, made, noise, plain_gradient, subject_of, white_noise

INPUTS, TARGETS = noise(4, 3, seed=5), torch.arange(4)


class Owner(nn.Module):
    """A user's model with something of everything: frozen weights, mixed modes, hooks, gradients, attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.net = conv_net()
        self.note, self.options = "mine", {"temperature": 1.0, "seen": [3]}
        self.calls, self.history, self.classes, self.last = 0, [1, 2], {"cat"}, deque([1], maxlen=1)
        self.register_buffer("unknown", torch.tensor([1.0, float("nan")]))
        self.net[0].weight.requires_grad_(False)
        self.net[1].eval()
        for parameter in list(self.net.parameters())[2:4]:
            parameter.grad = torch.full_like(parameter, 0.25)
        self.handle = self.net[4].register_forward_hook(lambda *_: None)
        self.handle_of_a_tensor = self.net[4].weight.register_hook(lambda g: 2 * g)
        self.net.train()
        self.net[3].eval()

    def forward(self, x):
        return self.net(x) * self.options["temperature"]


def picture(model: nn.Module) -> dict:
    """Everything about a model that can be compared by value."""
    modules = dict(model.named_modules())
    hooks = [key for key in vars(model) if "_hooks" in key]
    return {
        "state": {k: v.clone() for k, v in model.state_dict(keep_vars=False).items()},
        "storage": {k: v.data_ptr() for k, v in model.state_dict(keep_vars=True).items()},
        "dtype": {k: (v.dtype, tuple(v.shape)) for k, v in model.state_dict().items()},
        "grad": {k: None if p.grad is None else p.grad.clone() for k, p in model.named_parameters()},
        "grad identity": {k: id(p.grad) for k, p in model.named_parameters()},
        "requires_grad": {k: p.requires_grad for k, p in model.named_parameters()},
        "identity": {k: id(p) for k, p in [*model.named_parameters(), *model.named_buffers()]},
        "modes": {k: m.training for k, m in modules.items()},
        "hooks": {(k, h): list(vars(m)[h].items()) for k, m in modules.items() for h in hooks},
        "attributes": {
            k: {a: v for a, v in vars(m).items() if isinstance(v, str | int | float)} for k, m in modules.items()
        },
        "contents": {k: copy.deepcopy(getattr(model, k, None)) for k in ("options", "history", "classes", "last")},
        "identities": {k: id(getattr(model, k, None)) for k in ("options", "history", "classes", "last")},
        "hooks of tensors": {
            k: [_content(getattr(p, h)) for h in HOOKS_OF_A_TENSOR] for k, p in model.named_parameters()
        },
        "keys": {k: list(vars(m)) for k, m in modules.items()},
        "modules": {k: id(m) for k, m in modules.items()},
    }


def differences(one: dict, two: dict) -> list[str]:
    return [key for key in one if not _equal(one[key], two[key])]


def _content(hooks) -> tuple:
    return (id(hooks), *hooks.items()) if hooks else ()


def _equal(one, two) -> bool:
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(_equal(one[k], two[k]) for k in one)
    if isinstance(one, torch.Tensor) and isinstance(two, torch.Tensor):
        return one.dtype == two.dtype and one.shape == two.shape and torch.allclose(one, two, 0, 0, equal_nan=True)
    return bool(one == two)


def steps_weights(model, x, t):
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.5)


def forgets_statistics(model, x, t):
    model.net[1].reset_running_stats()


def runs_in_train_mode(model, x, t):
    model.train()
    model(x)


def accumulates_gradients(model, x, t):
    model.requires_grad_(True)
    model(x).sum().backward()


def zeroes_gradients(model, x, t):
    model.zero_grad()


def freezes(model, x, t):
    model.requires_grad_(False)


def leaves_hooks(model, x, t):
    model.net[0].register_forward_hook(lambda *_: None)
    model.net[4].register_full_backward_hook(lambda *_: None)
    model.register_forward_pre_hook(lambda *_: None)


def takes_the_users_hook_away(model, x, t):
    model.handle.remove()


def sets_attributes(model, x, t):
    model.note, model.extra = "theirs", 1
    model.net[0].saved = x
    model.options["temperature"] = 2.0
    del model.calls


def replaces_modules(model, x, t):
    model.net[2] = nn.ReLU()
    model.net.add_module("head", nn.Identity())


def replaces_parameters(model, x, t):
    model.net[4].weight = nn.Parameter(torch.zeros_like(model.net[4].weight))


def changes_precision(model, x, t):
    model.half()


def points_weights_elsewhere(model, x, t):
    for parameter in model.parameters():
        parameter.data = parameter.data[:1] * 0


def patches_the_forward(model, x, t):
    model.net[2].forward = lambda x: x


def edits_what_attributes_hold(model, x, t):
    model.history.append(x)
    model.classes.discard("cat")
    model.last.append(2)
    model.options["seen"].clear()


def hooks_a_tensor(model, x, t):
    model.net[7].weight.register_hook(lambda g: 0 * g)
    model.net[4].bias.register_post_accumulate_grad_hook(lambda p: None)
    model.net[4].weight.register_hook(lambda g: 0 * g)


def takes_the_users_hook_off_a_tensor(model, x, t):
    model.handle_of_a_tensor.remove()


def fills_in_what_is_unknown(model, x, t):
    model.unknown.nan_to_num_(0)


DEEDS = [
    steps_weights, forgets_statistics, runs_in_train_mode, accumulates_gradients, zeroes_gradients, freezes,
    leaves_hooks, takes_the_users_hook_away, sets_attributes, replaces_modules, replaces_parameters,
    changes_precision, points_weights_elsewhere, patches_the_forward, edits_what_attributes_hold, hooks_a_tensor,
    takes_the_users_hook_off_a_tensor, fills_in_what_is_unknown,
]  # fmt: skip


@pytest.mark.parametrize("raises", [False, True], ids=["returns", "raises"])
@pytest.mark.parametrize("deed", DEEDS, ids=lambda deed: deed.__name__)
def test_the_model_is_bit_for_bit_as_before(deed, raises):
    model = Owner()
    before = picture(model)

    def vandal(m, x, t):
        deed(m, x, t)
        assert differences(before, picture(m)), "this deed does nothing, so it tests nothing"
        if raises:
            raise RuntimeError("half way")
        return torch.ones_like(x)

    if raises:
        with pytest.raises(ContractError, match="half way"):
            explain(made(vandal), model, INPUTS, TARGETS)
    else:
        explain(made(vandal), model, INPUTS, TARGETS)
    assert differences(before, picture(model)) == []


@pytest.mark.parametrize("deed", [leaves_hooks, takes_the_users_hook_away], ids=lambda deed: deed.__name__)
def test_the_users_own_handle_still_removes_its_hook(deed):
    model, heard = Owner(), []
    handle = model.net[4].register_forward_hook(lambda *_: heard.append(1))
    explain(made(lambda m, x, t: deed(m, x, t) or x, "deed"), model, INPUTS, TARGETS)
    model(INPUTS)
    assert heard == [1]
    handle.remove()
    model(INPUTS)
    assert heard == [1]


@pytest.mark.parametrize("deed", [hooks_a_tensor, takes_the_users_hook_off_a_tensor], ids=lambda deed: deed.__name__)
def test_the_users_hook_on_a_tensor_acts_and_its_handle_removes_it(deed):
    model = Owner()
    explain(made(lambda m, x, t: deed(m, x, t) or x, "deed"), model, INPUTS, TARGETS)

    def gradient_of_a_weight():
        return torch.autograd.grad(model(INPUTS).sum(), model.net[4].weight)[0]

    model.eval()
    hooked = gradient_of_a_weight()
    model.handle_of_a_tensor.remove()
    torch.testing.assert_close(hooked, 2 * gradient_of_a_weight(), rtol=0, atol=0)


def test_also_an_interrupt_leaves_the_model_and_the_generators_as_before():
    model = Owner()
    before, state = picture(model), torch.get_rng_state()

    def interrupted(m, x, t):
        steps_weights(m, x, t)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explain(made(interrupted), model, INPUTS, TARGETS)
    assert differences(before, picture(model)) == []
    assert torch.equal(torch.get_rng_state(), state)


def test_the_method_sees_eval_mode_autograd_and_the_very_model():
    seen = []

    def look(m, x, t):
        seen.append((m, any(module.training for module in m.modules()), torch.is_grad_enabled()))
        return x

    model = Owner()
    with torch.no_grad():
        explain(made(look), model, INPUTS, TARGETS)
        assert not torch.is_grad_enabled()
    assert seen == [(model, False, True)]


def test_the_method_gets_clones_of_inputs_and_targets():
    inputs, targets = INPUTS.clone().requires_grad_(), TARGETS.clone()

    def edits(m, x, t):
        assert x.is_leaf
        assert not x.requires_grad
        x.zero_()
        t.zero_()
        return torch.rand_like(x)

    explain(made(edits), conv_net(), inputs, targets)
    assert torch.equal(inputs, INPUTS)
    assert torch.equal(targets, TARGETS)


def draw_from_all(m, x, t):
    return x + torch.rand(1) + float(np.random.rand()) + random.random()  # noqa: NPY002


def reseed_all(m, x, t):
    torch.manual_seed(1)
    np.random.seed(1)  # noqa: NPY002
    random.seed(1)
    return x


def raise_after_drawing(m, x, t):
    draw_from_all(m, x, t)
    raise ValueError("after drawing")


@pytest.mark.parametrize("function", [draw_from_all, reseed_all, raise_after_drawing])
def test_the_global_generators_go_on_as_if_nothing_had_happened(function):
    model = conv_net()
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    try:
        explain(made(function), model, INPUTS, TARGETS, seed=3)
    except ContractError:
        assert function is raise_after_drawing
    assert torch.equal(torch.get_rng_state(), state[0])
    assert np.array_equal(np.random.get_state()[1], state[1])  # noqa: NPY002
    assert random.getstate() == state[2]


@pytest.mark.parametrize("library", ["torch", "numpy", "random"])
def test_same_seed_same_map_and_other_seed_other_map(library):
    draw = {"torch": lambda: torch.rand(1), "numpy": np.random.rand, "random": random.random}[library]

    def shaky(m, x, t):
        return x * float(draw())

    one, two, other = (explain(made(shaky), conv_net(), INPUTS, TARGETS, seed=s) for s in (1, 1, 2))
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_seeds_from_keys_are_the_same_in_every_process_and_differ_between_keys():
    assert derive("a", 1) == zlib.crc32(b"a/1")
    assert len({derive("check", i, j) for i in range(50) for j in range(50)}) == 2500


def test_the_map_is_the_signed_sum_of_the_gradient_over_channels():
    subject = detector(8, channels=3)
    expected = torch.zeros(8, 8, 8)
    assert subject.truth is not None
    expected[subject.truth] = 8.0
    torch.testing.assert_close(explain(gradient, subject.model, subject.inputs, subject.targets), expected)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (0, 32), (0, 70), (5, 9), (31, 33), (32, 64), (40, 70), (69, 70)])
@pytest.mark.parametrize("method", [gradient, white_noise], ids=lambda m: m.name)
def test_a_map_does_not_depend_on_the_range_that_is_asked_for(method, start, stop):
    whole = subject_maps(method, subject_of(conv_net(), 3, 70), 0, 70, seed=3)
    part = subject_maps(method, subject_of(conv_net(), 3, 70), start, stop, seed=3)
    assert len(whole) == 70
    assert torch.equal(part, whole[start:stop])


def test_maps_do_not_depend_on_what_was_asked_before_and_are_explained_once():
    calls = []

    def counted(m, x, t):
        calls.append(len(x))
        return torch.rand_like(x)

    method, subject = made(counted, stochastic=True), subject_of(conv_net(), 3, 70)
    last = subject_maps(method, subject, 64, 70)
    whole = subject_maps(method, subject, 0, 70)
    assert torch.equal(whole[64:], last)
    assert sorted(calls) == [6, BLOCK, BLOCK]


def test_blocks_draw_from_streams_of_their_own():
    whole = subject_maps(white_noise, subject_of(conv_net(), 3, 2 * BLOCK), 0, 2 * BLOCK)
    assert len(whole.flatten(1).unique(dim=0)) == 2 * BLOCK


def test_what_absent_means_reaches_the_methods_that_need_it_and_no_others():
    got = []

    def look(m, x, t, baseline=None):
        got.append(baseline)
        return x

    subject = subject_of(conv_net(), 3, 8, absent=(0.1, 0.2, 0.3))
    needing = made(look, "needing", needs=frozenset({"baseline"}))
    other = model_maps(needing, subject, conv_net(seed=1), subject.inputs, subject.targets, 0, 8, stream="other model")
    assert torch.equal(subject_maps(needing, subject, 0, 8), other)
    subject_maps(made(look, "other"), subject, 0, 8)
    assert [None if b is None else b.flatten().tolist() for b in got] == [pytest.approx([0.1, 0.2, 0.3])] * 2 + [None]


def test_streams_seeds_and_methods_of_one_name_do_not_share_maps():
    subject = subject_of(conv_net(), 3, 8)
    variants = [
        subject_maps(white_noise, subject, 0, 8),
        subject_maps(white_noise, subject, 0, 8, seed=1),
        subject_maps(white_noise, subject, 0, 8, stream="repeat"),
        subject_maps(made(plain_gradient, "white_noise"), subject, 0, 8),
        model_maps(gradient, subject, conv_net(seed=9), subject.inputs, subject.targets, 0, 8, stream="other model"),
    ]
    assert all(not torch.equal(a, b) for i, a in enumerate(variants) for b in variants[:i])


def test_a_map_that_was_returned_is_not_changed_by_the_next_call():
    buffer = torch.zeros(4, 8, 8)

    def reuses_its_buffer(m, x, t):
        buffer.add_(1)
        return buffer

    first = explain(made(reuses_its_buffer), conv_net(), INPUTS, TARGETS)
    explain(made(reuses_its_buffer), conv_net(), INPUTS, TARGETS)
    assert torch.equal(first, torch.ones(4, 8, 8))


def test_an_array_that_was_returned_is_not_changed_by_the_next_call():
    buffer = np.zeros((4, 8, 8), dtype=np.float32)

    def reuses_its_array(m, x, t):
        buffer[:] += 1
        return buffer

    first = explain(made(reuses_its_array), conv_net(), INPUTS, TARGETS)
    explain(made(reuses_its_array), conv_net(), INPUTS, TARGETS)
    assert torch.equal(first, torch.ones(4, 8, 8))


X = noise(3, 2, seed=8)
GOOD = {
    "(N, C, H, W)": (X, X.sum(1)),
    "(N, 1, H, W)": (X[:, :1], X[:, 0]),
    "(N, H, W)": (X[:, 1], X[:, 1]),
    "array": (X.numpy(), X.sum(1)),
    "float64": (X.double(), X.sum(1)),
    "float16": (X.half(), X.half().float().sum(1)),
    "integers": (torch.arange(192).view(3, 8, 8), torch.arange(192.0).view(3, 8, 8)),
    "array of integers": (np.arange(192).reshape(3, 8, 8), torch.arange(192.0).view(3, 8, 8)),
    "tuple of one": ((X,), X.sum(1)),
    "list of one": ([X[:, 0]], X[:, 0]),
    "not contiguous": (X.transpose(2, 3).contiguous().transpose(2, 3), X.sum(1)),
    "array with negative strides": (X.numpy()[:, :, ::-1], X.flip(2).sum(1)),
    "array of the other byte order": (X.numpy().astype(">f4"), X.sum(1)),
    "array that may not be written": (np.broadcast_to(X.numpy()[:1], (3, 2, 8, 8)), X[:1].sum(1).expand(3, -1, -1)),
    "requires grad": (X.clone().requires_grad_(), X.sum(1)),
    "nn.Parameter": (nn.Parameter(X.clone()), X.sum(1)),
}


@pytest.mark.parametrize("case", GOOD)
def test_maps_of_every_usual_form_are_taken(case):
    returned, expected = GOOD[case]
    found = validated(returned, X, "mine")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    assert found.dtype == X.dtype
    assert not found.requires_grad


def spoiled(value: float) -> torch.Tensor:
    bad = X.clone()
    bad[1, 0, 2, 3] = value
    return bad


BAD = {
    "NaN": (spoiled(float("nan")), "NaN or infinite.* 1 of 3 images .first: image 1.; guard divisions"),
    "infinity": (spoiled(float("inf")), "NaN or infinite.* 1 of 3 images .first: image 1."),
    "minus infinity": (spoiled(float("-inf")), "first: image 1"),
    "NaN in an array": (spoiled(float("nan")).numpy(), "NaN or infinite"),
    "larger than float32": (X.double() * 1e300, "NaN or infinite values for 3 of 3"),
    "None": (None, "returned NoneType, expected .3, 2, 8, 8., .3, 1, 8, 8. or .3, 8, 8. as a tensor or array"),
    "a list of maps": ([X, X], "returned list, expected"),
    "a pair": ((X, X), "returned tuple, expected"),
    "text": ("map", "returned str, expected"),
    "a number": (1.0, "returned float, expected"),
    "a dictionary": ({"map": X}, "returned dict, expected"),
    "bool": (X > 0.4, "torch.bool, expected real numbers"),
    "bool array": ((X > 0.4).numpy(), "array of bool, expected real numbers"),
    "complex": (X + 1j, "torch.complex64, expected real numbers"),
    "array of objects": (np.array([None, 1]), "array of object, expected real numbers"),
    "array of text": (np.full((3, 8, 8), "a"), "expected real numbers"),
    "a scalar": (X.sum(), r"shape \(\), expected \(3, 2, 8, 8\)"),
    "array scalar": (np.float32(1), "shape .*expected"),
    "channels last": (X.permute(0, 2, 3, 1), r"channels last: permute\(0, 3, 1, 2\)"),
    "one channel last": (X[:, :1].permute(0, 2, 3, 1), r"channels last: permute\(0, 3, 1, 2\)"),
    "small": (X[:, :, :4, :4], r"resize it: torch.nn.functional.interpolate\(maps, size=\(8, 8\)"),
    "small (N, h, w)": (X[:, 0, :4, :4], "resize it"),
    "one map (H, W)": (X[0, 0], "one map came back for a batch: explain every image"),
    "one map (C, H, W)": (X[0], "one map came back for a batch: explain every image"),
    "too few": (X[:2], r"shape \(2, 2, 8, 8\), expected \(3, 2, 8, 8\)"),
    "too many channels": (torch.cat([X, X], 1), r"shape \(3, 4, 8, 8\), expected"),
    "flat": (X.flatten(1), r"shape \(3, 128\), expected"),
    "empty": (X[:0], r"shape \(0, 2, 8, 8\), expected"),
}


@pytest.mark.parametrize("case", BAD)
def test_anything_else_is_refused_with_the_methods_name_and_what_was_expected(case):
    returned, text = BAD[case]
    with pytest.raises(ContractError, match=text) as caught:
        validated(returned, X, "mine")
    assert str(caught.value).startswith("mine returned")


def test_square_ambiguities_are_read_as_the_documented_shapes():
    square = noise(8, 8, seed=3)  # n = c = h = w: every axis order has the right shape
    assert torch.equal(validated(square, square, "mine"), square.sum(1))
    assert torch.equal(validated(square[:, 0], square, "mine"), square[:, 0])


def test_large_images_come_in_smaller_parts_and_never_one_by_one():
    seen = []

    def look(m, x, t):
        seen.append((len(x), t.tolist()))
        return x

    for side, parts in ((16, [9]), (300, [4, 4, 1]), (1100, [4, 4, 1])):
        seen.clear()
        inputs = torch.rand(9, 3, side, side)
        assert torch.equal(explain(made(look), conv_net(), inputs, torch.arange(9)), inputs.sum(1))
        assert [count for count, _ in seen] == parts
        assert [target for _, targets in seen for target in targets] == list(range(9))


def raise_what_cuda_raises():
    raise torch.OutOfMemoryError("out of memory")


@pytest.mark.parametrize(
    "fill", [raise_what_cuda_raises, lambda: torch.empty(1 << 50, dtype=torch.uint8), lambda: np.empty(1 << 50)],
    ids=["CUDA", "the CPU", "numpy"],
)  # fmt: skip
def test_out_of_memory_gets_fewer_images_and_loses_none(caplog, fill):
    def hungry(m, x, t):
        if len(x) > 4:
            fill()
        return x

    inputs = torch.rand(9, 3, 8, 8)
    assert torch.equal(explain(made(hungry), conv_net(), inputs, torch.arange(9)), inputs.sum(1))
    assert "going on with 4 at once" in caplog.text


def test_a_crash_names_the_method_the_error_and_the_call():
    def crashes(m, x, t):
        raise KeyError("lost")

    with pytest.raises(ContractError) as caught:
        explain(made(crashes), conv_net(), INPUTS, TARGETS)
    for part in ("crashes raised KeyError: 'lost'", "Sequential", "(4, 3, 8, 8)", "torch.float32", "(4,) int64"):
        assert part in str(caught.value)
    assert isinstance(caught.value.__cause__, KeyError)


def test_a_method_that_needs_no_model_works_alike():
    found = explain(constant, conv_net(), INPUTS, TARGETS)
    torch.testing.assert_close(found, torch.ones(4, 8, 8))
