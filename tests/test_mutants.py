"""The mutants are what they are called: they change the maps of a sound method and nothing else of it."""

from __future__ import annotations

import pytest
import torch
from mutants import MUTANTS

from saliency_checks import registry
from saliency_checks.explain import explain

from toys import conv_net, gradient, noise

INPUTS, TARGETS = noise(6, 3, seed=2), torch.tensor([1, 2, 3, 1, 2, 3])
NET, OTHER = conv_net(seed=0), conv_net(seed=1)


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_a_mutant_gives_valid_maps_that_differ_from_the_base(mutant):
    broken = mutant.make(gradient, original=NET, unrelated=OTHER)
    judged = conv_net(seed=2)  # another model than the one that stale methods hold
    sound, mutated = (explain(method, judged, INPUTS, TARGETS) for method in (gradient, broken))
    assert mutated.shape == sound.shape
    assert not torch.equal(sound, mutated)
    assert (broken.name, broken.signed, broken.needs) == (f"gradient_{mutant.name}", gradient.signed, gradient.needs)


def test_names_are_unique_and_killers_are_checks():
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) == 16
    assert all(mutant.killers for mutant in MUTANTS)
    assert {killer for mutant in MUTANTS for killer in mutant.killers} <= set(registry.names("checks"))


def test_stale_methods_explain_their_own_model():
    for mutant, held in (("stale_original", NET), ("stale_unrelated", OTHER)):
        broken = next(m for m in MUTANTS if m.name == mutant).make(gradient, original=NET, unrelated=OTHER)
        expected = explain(gradient, held, INPUTS, TARGETS)
        assert torch.equal(explain(broken, conv_net(seed=2), INPUTS, TARGETS), expected)


def test_hashed_noise_is_the_same_for_the_same_weights_image_and_class_only():
    broken = next(m for m in MUTANTS if m.name == "hashed").make(gradient, original=NET, unrelated=OTHER)
    base = explain(broken, NET, INPUTS, TARGETS)
    assert torch.equal(base[2:4], explain(broken, NET, INPUTS[2:4], TARGETS[2:4], seed=1))
    others = [
        explain(broken, OTHER, INPUTS, TARGETS),
        explain(broken, NET, INPUTS, TARGETS - 1),
        explain(broken, NET, INPUTS + 1e-3, TARGETS),
    ]
    assert all(not torch.equal(base[i], other[i]) for other in others for i in range(6))


def test_few_levels_are_at_most_three_a_map():
    broken = next(m for m in MUTANTS if m.name == "few_levels").make(gradient, original=NET, unrelated=OTHER)
    maps = explain(broken, NET, INPUTS, TARGETS)
    assert max(len(row.unique()) for row in maps) <= 3
