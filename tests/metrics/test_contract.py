"""Each clause of the contract falls to a method that breaks it alone; a sound method keeps them all."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.attr import GuidedBackprop
from mutants import MUTANTS
from torch import nn
from torch.nn import functional as F

from saliency_checks.explain import ContractError
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Draw
from saliency_checks.metrics.contract import CLAUSES, contract
from saliency_checks.run import run
from saliency_checks.subject import Subject

from toys import changed, conv_net, detector, gradient, made, mlp, plain_gradient, subject_of, white_noise

NAMES = {clause.__name__ for clause in CLAUSES}


def breaches(method: Method, subject: Subject) -> dict[str, str]:
    """The clauses that a method breaks, with their texts."""
    scores = contract.measure(method, subject, Draw(n=8))
    note = str(scores.details["note"])
    found = dict(line.split(": ", 1) for line in note.splitlines())
    assert set(found) <= NAMES
    assert scores.values.mean() == pytest.approx(1 - len(found) / len(CLAUSES))
    return found


def net() -> Subject:
    return subject_of(conv_net(), 3)


SOUND = {
    "conv net with batch norm and dropout": lambda: net(),
    "conv net on one channel": lambda: subject_of(conv_net(1), 1),
    "mlp": lambda: subject_of(mlp(1), 1),
    "mlp on three channels": lambda: subject_of(mlp(3), 3),
    "linear": lambda: detector(16),
    "one image": lambda: subject_of(conv_net(), 3, n=1),
    "three images": lambda: subject_of(conv_net(), 3, n=3),
    "one logit": lambda: Subject(mlp(1, classes=1), torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.long)),
    "keeps its activations": lambda: subject_of(Remembers(), 3),
    "a single module": lambda: subject_of(Alone(), 1),
    "a buffer that holds NaN": lambda: subject_of(with_a_buffer(float("nan")), 3),
}


def with_a_buffer(value):
    model = conv_net()
    model.register_buffer("limits", torch.tensor([0.0, value]), persistent=False)
    return model


class Remembers(nn.Module):
    """A model whose own forward leaves attributes and buffers behind."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.calls, self.history = conv_net(), 0, []
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.calls += 1
        self.seen += 1
        self.history.append(len(x))
        self.last = self.net[0](x)
        return self.net(x)


class Alone(nn.Linear):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(64, 4)

    def forward(self, x):
        return super().forward(x.flatten(1)).tanh()


@pytest.mark.parametrize("subject", SOUND)
def test_the_plain_gradient_keeps_every_clause(subject):
    assert breaches(gradient, SOUND[subject]()) == {}


@pytest.mark.parametrize("subject", ["conv net with batch norm and dropout", "mlp"])
def test_a_declared_stochastic_method_with_enough_samples_keeps_every_clause(subject):
    smooth = made(
        lambda m, x, t: sum(plain_gradient(m, x + 0.1 * torch.randn_like(x), t) for _ in range(8)), "smooth",
        stochastic=True,
    )  # fmt: skip
    assert breaches(smooth, SOUND[subject]()) == {}


def test_a_model_that_is_handed_over_in_train_mode_is_no_breach_of_the_method():
    subject = net()
    subject.model.train()
    assert breaches(gradient, subject) == {}
    assert all(module.training for module in subject.model.modules())


def first_image_only(m, x, t):
    """A map for each model, the same for every image; its scale depends on the class."""
    pattern = next(m.parameters()).flatten()[:64].view(8, 8)
    return (pattern * (1 + t[0])).expand(len(x), 8, 8).detach()


def shaky_beginning(m, x, t):
    g = plain_gradient(m, x, t)
    if len(g) == 8:  # the five images that are explained again in a smaller batch stay exact
        g[[2, 5]] = torch.randn_like(g[[2, 5]])
    return g


def less_the_batch(m, x, t):
    g = plain_gradient(m, x, t)
    return g - g.mean(0)


def train_mode(m, x, t):
    m.train()
    try:
        return plain_gradient(m, x, t)
    finally:
        m.eval()


def hooks_without_finally(m, x, t):
    handles = [module.register_forward_hook(lambda *_: None) for module in m.modules()]
    g = plain_gradient(m, x, t)
    for handle in handles:
        handle.remove()
    return g


def edits_its_inputs(m, x, t):
    g = plain_gradient(m, x, t)
    x.detach().mul_(0.5)
    return g


def edits_its_targets(m, x, t):
    g = plain_gradient(m, x, t)
    t.zero_()
    return g


def seeding(seed):
    def explain(m, x, t):
        seed(0)
        return plain_gradient(m, x, t)

    return explain


def on(model, targets=lambda m, x, t: t):
    """The gradient of some model (None: the given one) for some classes."""
    return lambda m, x, t: plain_gradient(model or m, x, targets(m, x, t))


def some_constant(m, x, t):
    return plain_gradient(m, x, t) * (t == 0).view(-1, 1, 1, 1)


def top(g):
    """The quarter of the pixels with the largest values."""
    values = g.sum(1).flatten(1)
    return (values >= values.quantile(0.75, dim=1, keepdim=True)).float().view(g.shape[0], *g.shape[2:])


ALONE = {
    "zero": ("not_degenerate", "all zero", changed(torch.zeros_like, "zero")),
    "constant": ("not_degenerate", "constant", changed(torch.ones_like, "ones")),
    "six of eight constant": ("not_degenerate", "75% of the maps", made(some_constant)),
    "few levels": ("is_graded", "of one size", changed(lambda g: g.sum(1).sign(), "signs")),
    "a mask of which nothing was said": ("is_graded", "on purpose", changed(lambda g: top(g), "mask")),
    "the first image's map for all": ("depends_on_image", "only the first image", made(first_image_only)),
    "undeclared noise": ("repeatable", "stochastic=True", made(shaky_beginning)),
    "rolled": ("same_alone_as_in_a_batch", "same order", changed(lambda g: g.roll(1, 0), "rolled")),
    "neighbour": ("same_alone_as_in_a_batch", "agree only", made(on(None, lambda m, x, t: t.roll(1)), "neighbour")),
    "normed over the batch": ("same_alone_as_in_a_batch", "normalised over the batch", made(less_the_batch)),
    "fixed class": ("depends_on_target", "target", made(on(None, lambda m, x, t: 0 * t), "fixed")),
    "predicted class": ("depends_on_target", "target", made(on(None, lambda m, x, t: m(x).argmax(1)), "predicted")),
    "bound to an equal model": ("rebinds", "lambda model:", made(on(conv_net(seed=0)), "stale")),
    "bound to an unrelated model": ("rebinds", "bound to one model", made(on(conv_net(seed=5)), "unrelated")),
    "hooks stay after an error": (
        "leaves_the_model_after_an_error",
        "hooks left.*finally",
        made(hooks_without_finally),
    ),
    "edits inputs": ("leaves_the_inputs", "clone them", made(edits_its_inputs)),
    "edits targets": ("leaves_the_inputs", "clone them", made(edits_its_targets)),
    "seeds torch": ("leaves_the_random_generators", "of torch was", made(seeding(torch.manual_seed), "seeds")),
    "seeds numpy": ("leaves_the_random_generators", "of numpy was", made(seeding(np.random.seed), "seeds")),
    "seeds random": ("leaves_the_random_generators", "of random was", made(seeding(random.seed), "seeds")),
    "no backward rule": ("backward_rule_acts", "F.relu", replace(gradient, claims=frozenset({"backward_rule"}))),
}


@pytest.mark.parametrize("case", ALONE)
def test_each_clause_falls_alone(case):
    clause, text, method = ALONE[case]
    found = breaches(method, net())
    assert set(found) == {clause}
    assert re.search(text, found[clause])


@pytest.mark.parametrize("image", range(8))
def test_one_constant_map_among_eight_breaks_no_clause(image):
    """A class activation map is all zero where nothing speaks for the class."""
    subject = net()

    def sometimes_zero(m, x, t):
        is_blank = (x.detach() == subject.inputs[image]).flatten(1).all(1)
        return plain_gradient(m, x, t) * ~is_blank.view(-1, 1, 1, 1)

    assert breaches(made(sometimes_zero), subject) == {}


def test_a_mask_that_is_said_to_be_one_breaks_no_clause():
    mask = ALONE["a mask of which nothing was said"][2]
    assert breaches(replace(mask, claims=frozenset({"mask"})), net()) == {}


def test_a_neighbours_class_is_seen_also_where_many_neighbours_share_theirs():
    subject = net()
    two = replace(subject, targets=torch.tensor([0, 0, 0, 0, 0, 0, 1, 0] * 2))
    assert set(breaches(ALONE["neighbour"][2], two)) == {"same_alone_as_in_a_batch"}


def test_train_mode_is_seen_where_no_map_shows_it():
    assert set(breaches(made(train_mode), subject_of(mlp(), 1))) == {"explains_in_eval_mode"}


def test_train_mode_is_seen_behind_a_declared_randomness():
    found = breaches(made(train_mode, stochastic=True), net())
    assert "explains_in_eval_mode" in found
    assert "leaves_the_model" in found, "batch norm took new statistics"


def leaves_gradients(m):
    m.zero_grad()
    m(torch.rand(1, 3, 8, 8)).sum().backward()


DEEDS = {
    ".grad left": leaves_gradients,
    "requires_grad changed": lambda m: m.requires_grad_(False),
    "weights or buffers changed": lambda m: m[1].running_mean.add_(1),
    "train/eval mode changed": lambda m: m[3].train(),
    "hooks left behind": lambda m: m[0].register_forward_hook(lambda *_: None),
    "attributes added, replaced or edited": lambda m: setattr(m[0], "kept", 1),
    "submodules added or replaced": lambda m: m.add_module("more", nn.Identity()),
    "parameters or buffers replaced": lambda m: setattr(m[0], "bias", nn.Parameter(m[0].bias.detach().clone())),
}


def with_hooks(m, x, t):
    """As guided backpropagation is usually written."""
    handles = [module.register_full_backward_hook(lambda *_: None) for module in m.modules()]
    try:
        return plain_gradient(m, x, t)
    finally:
        for handle in handles:
            handle.remove()


def test_hooks_that_are_taken_away_leave_no_trace():
    assert breaches(made(with_hooks), net()) == {}


@pytest.mark.parametrize("trace", DEEDS)
def test_whatever_is_left_on_the_model_is_named(trace):
    def explain(m, x, t):
        g = plain_gradient(m, x, t)
        DEEDS[trace](m)
        return g

    found = breaches(made(explain), net())
    assert set(found) == {"leaves_the_model"}
    assert trace in found["leaves_the_model"]


def test_a_buffer_that_holds_nan_does_not_hide_what_the_method_leaves():
    def explain(m, x, t):
        g = plain_gradient(m, x, t)
        m[1].running_mean.add_(1)
        return g

    found = breaches(made(explain), subject_of(with_a_buffer(float("nan")), 3))
    assert found == {"leaves_the_model": "after the call: weights or buffers changed"}


def test_what_the_forward_keeps_does_not_hide_what_the_method_leaves():
    def explain(m, x, t):
        g = plain_gradient(m, x, t)
        m.net[0].register_forward_hook(lambda *_: None)
        return g

    found = breaches(made(explain), subject_of(Remembers(), 3))
    assert found == {"leaves_the_model": "after the call: hooks left behind"}


def test_noise_breaks_repeatability_whether_declared_or_not():
    declared = breaches(white_noise, net())
    assert set(declared) == {"repeatable", "same_alone_as_in_a_batch", "depends_on_target", "rebinds"}
    assert "draw more samples" in declared["repeatable"]


class Functional(nn.Module):
    """ReLU as a function: there is no module to hook."""

    def __init__(self, as_module: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8 * 64, 4)
        self.relu = nn.ReLU() if as_module else F.relu

    def forward(self, x):
        return self.head(self.relu(self.conv(x - 0.4)).flatten(1))


@pytest.mark.filterwarnings("ignore:Setting")
@pytest.mark.parametrize("as_module", [True, False])
def test_a_hooked_backward_rule_that_never_acts_is_found_out(as_module):
    guided = as_method(GuidedBackprop, claims={"backward_rule"})
    found = breaches(guided, subject_of(Functional(as_module).eval(), 3))
    assert ("backward_rule_acts" in found) == (not as_module)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_the_contract_kills_the_mutants_that_break_it_and_no_others(mutant):
    subject = net()
    broken = mutant.make(gradient, original=subject.model, unrelated=conv_net(seed=5))
    assert bool(breaches(broken, subject)) == ("contract" in mutant.killers)


def test_the_verdict_lists_the_broken_clauses_with_their_fixes():
    result = run("contract", ALONE["fixed class"][2], net())
    assert (result.verdict, result.bound) == ("fail", ">= 1")
    assert result.score == pytest.approx(1 - 1 / len(CLAUSES))
    assert "depends_on_target: every class gets the same map: is the target argument used?" in result.message
    assert run("contract", gradient, net()).verdict == "pass"


def test_a_call_that_raises_or_gives_no_map_is_an_error_and_no_list_of_clauses():
    with pytest.raises(ContractError, match="crashes raised ZeroDivisionError"):
        breaches(made(lambda m, x, t: 1 / 0, "crashes"), net())
    result = run("contract", made(lambda m, x, t: x.flatten(1), "flat"), net())
    assert result.verdict == "error"
    assert result.message.startswith("contract: flat returned shape (8, 192)")


def test_a_method_that_fails_on_some_calls_only_is_an_error_too():
    def needs_eight(m, x, t):
        return plain_gradient(m, x.view(8, 3, 8, 8), t)

    assert run("contract", made(needs_eight), net()).verdict == "error"


def test_a_stochastic_magnitude_is_read_without_the_sign_of_its_draws():
    def random_sign(model, inputs, targets):
        signs = torch.randn(len(inputs), 1, *inputs.shape[2:]).sign()
        return signs * plain_gradient(model, inputs, targets).sum(1, keepdim=True)

    broken = {s: breaches(made(random_sign, stochastic=True, signed=s), net()) for s in (True, False)}
    assert {"repeatable", "same_alone_as_in_a_batch"} & set(broken[True])
    assert broken[False] == {}
