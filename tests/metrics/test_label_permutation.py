"""Twins whose weights are set by hand: two that agree, and others that have learned something else."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mutants import MUTANTS
from scipy import stats
from torch import nn

from saliency_checks.explain import generator
from saliency_checks.metric import Draw
from saliency_checks.metrics.label_permutation import label_permutation
from saliency_checks.run import run
from saliency_checks.subject import Subject, Twins

from toys import constant, gradient, made, magnitude, noise, white_noise


def linear(weight: torch.Tensor) -> nn.Sequential:
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    with torch.no_grad():
        model[1].weight.copy_(weight)
    return model.eval()


def weights(name: str) -> torch.Tensor:
    return torch.randn(4, 64, generator=generator(name))


TASK = weights("task")


def twins_of(permuted: tuple[str, ...] = ("p0", "p1"), same: tuple[str, ...] = ("s0", "s1"), n: int = 96) -> Subject:
    """Same-task twins differ by some noise, permuted ones wholly; "task" among the permuted is one that is not."""
    held = Twins(
        same=tuple(linear(TASK + 0.5 * weights(name)) for name in same),
        permuted=tuple(linear(TASK if name == "task" else weights(name)) for name in permuted),
        inputs=noise(n, seed=3), targets=torch.arange(n) % 4,
    )  # fmt: skip
    return Subject(held.same[0], held.inputs, held.targets, twins=lambda: held, absent=0.0, name="twins")


def values(method, subject=None, n=96):
    return label_permutation.measure(method, subject or twins_of(), Draw(n=n)).values


def rho(one: torch.Tensor, two: torch.Tensor) -> float:
    return stats.spearmanr(one.numpy(), two.numpy()).statistic


def test_the_gap_of_a_linear_model_is_that_of_its_weights():
    first, second = TASK + 0.5 * weights("s0"), TASK + 0.5 * weights("s1")
    found = values(gradient, n=4)
    for group, name in enumerate(("p0", "p1")):
        expected = [rho(first[k], second[k]) - rho(first[k], weights(name)[k]) for k in range(4)]
        np.testing.assert_allclose(found[group, 0], expected, atol=1e-9)


def test_the_ceiling_is_the_mean_over_all_same_task_twins():
    three = twins_of(same=("s0", "s1", "s2"))
    one, two = twins_of(), twins_of(same=("s0", "s2"))
    np.testing.assert_allclose(values(gradient, three), (values(gradient, one) + values(gradient, two)) / 2, atol=1e-9)


@pytest.mark.parametrize("method", [constant, magnitude], ids=lambda m: m.name)
def test_who_never_looks_at_the_model_has_no_gap_at_all(method):
    assert not values(method).any()


def test_the_explained_class_is_the_true_one_for_every_twin():
    asked = []
    values(made(lambda m, x, t: asked.append(t.clone()) or torch.rand_like(x), "look"), n=32)
    assert len(asked) == 4
    assert all(torch.equal(t, torch.arange(32) % 4) for t in asked)


def test_twins_are_built_once():
    built, base = [], twins_of()
    subject = Subject(
        base.model, base.inputs, base.targets, twins=lambda: built.append(1) or base.twins(), absent=0.0
    )  # fmt: skip
    values(gradient, subject)
    values(constant, subject)
    assert built == [1]


def test_twins_are_explained_in_eval_mode_and_each_keeps_its_own():
    seen, subject = [], twins_of()
    held = subject.twins()
    models = [*held.same, *held.permuted]
    for model in models:
        model.train()
        model[1].eval()
    look = made(lambda m, x, t: seen.append(any(one.training for one in m.modules())) or torch.rand_like(x), "look")
    run("label_permutation", look, subject, profile="quick")
    assert len(seen) >= len(models)
    assert not any(seen)
    assert all([one.training for one in model] == [True, False] for model in models)
    assert all(model.training for model in models)


def broken(name: str):
    mutant = next(m for m in MUTANTS if m.name == name)
    return mutant.make(gradient, original=twins_of().model, unrelated=linear(weights("unrelated")))


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(gradient, "pass"), (constant, "fail"), (magnitude, "fail"), (white_noise, "fail"), (broken("hashed"), "fail"),
     (broken("stale_original"), "fail"), (broken("stale_unrelated"), "fail"),
     (broken("negated"), "pass")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    """A reversed sign passes: the twins agree on it too. class_contrast and sign see it."""
    assert run("label_permutation", method, twins_of()).verdict == verdict


def test_the_worst_permuted_twin_is_judged_and_named():
    result = run("label_permutation", gradient, twins_of(permuted=("p0", "task")))
    assert result.verdict == "fail"
    assert "permuted twin 1" in result.message


def test_same_task_twins_that_disagree_leave_no_gap():
    held = Twins(
        same=(linear(weights("a")), linear(weights("b"))), permuted=(linear(weights("p0")),), inputs=noise(96),
        targets=torch.arange(96) % 4,
    )  # fmt: skip
    subject = Subject(held.same[0], held.inputs, held.targets, twins=lambda: held, name="strangers")
    assert run("label_permutation", gradient, subject).verdict == "fail"
