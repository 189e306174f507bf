"""Weights drawn again on nets that train in a moment: who follows the weights falls, who does not stays."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch
from mutants import MUTANTS
from scipy import stats
from torch import nn

from saliency_checks import maps, randomization
from saliency_checks.explain import derive, explain, subject_maps
from saliency_checks.metric import Draw
from saliency_checks.metrics.cascading_randomization import cascading_randomization, require_chance
from saliency_checks.metrics.independent_randomization import independent_randomization
from saliency_checks.run import run
from saliency_checks.subject import Subject, Unqualified

from toys import (
    changed,
    constant,
    conv_net,
    detector,
    gradient,
    made,
    magnitude,
    mlp,
    plain_gradient,
    trained,
    white_noise,
)

BOTH = pytest.mark.parametrize("metric", [cascading_randomization, independent_randomization], ids=lambda m: m.name)


@cache
def subject() -> Subject:
    """A small net that has learned the detector's task."""
    base = detector(96)
    model = trained(conv_net(1), base.inputs, base.targets, steps=40, lr=0.01)
    assert (model(base.inputs).argmax(1) == base.targets).float().mean() > 0.95
    return replace(base, model=model, name="small")


def scores(method, metric=cascading_randomization, n=40, judged=None, **settings):
    return metric.measure(method, judged or subject(), Draw(n=n, **settings))


@BOTH
@pytest.mark.parametrize(
    "method",
    [constant, magnitude, made(lambda m, x, t: plain_gradient(subject().model, x, t), "stale"),
     made(lambda m, x, t: torch.rand(x.shape, generator=torch.Generator().manual_seed(0)), "fixed_noise")],
    ids=lambda m: m.name,
)  # fmt: skip
def test_who_does_not_look_at_the_model_scores_exactly_zero(metric, method):
    assert not scores(method, metric).values.any()


@BOTH
def test_white_noise_does_not_score_although_it_changes_wholly(metric):
    found = scores(white_noise, metric, n=128)
    assert abs(found.values.mean()) < 0.1
    assert abs(found.details["repeat"]) < 0.1
    assert "not repeatable" in found.details["note"]


@BOTH
def test_the_gradient_follows_the_weights(metric):
    found = scores(gradient, metric)
    assert found.values.mean() > metric.bound.value
    assert found.details["repeat"] == 1
    assert found.details["note"] == ""


def test_the_score_is_the_fall_over_all_steps_in_units_of_repeatability():
    """Computed once more by hand, state by state, for a method that repeats itself at about .8."""
    judged, n = subject(), 8
    shaky = made(lambda m, x, t: (g := plain_gradient(m, x, t)) + 0.5 * g.std() * torch.randn_like(g), "shaky")
    found = scores(shaky, n=n, redraws=1)
    original, again = (subject_maps(shaky, judged, 0, n, stream=stream) for stream in ("maps", "repeat"))
    repeated = [stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(original, again, strict=True)]
    assert 0.5 < np.mean(repeated) < 0.95
    assert found.details["repeat"] == pytest.approx(np.mean(repeated))
    rho = np.array(found.details["similarity"])
    assert found.values.mean() == pytest.approx(
        np.mean((np.array(repeated) - rho.mean()) / np.array(repeated)), abs=0.05
    )


def test_the_similarity_of_every_step_is_that_of_its_state():
    judged, n = subject(), 8
    original = subject_maps(gradient, judged, 0, n)
    expected = []
    for _, twin in randomization.cascading(judged.model, judged.inputs, derive("cascading", judged.name, 0, 0)):
        maps = explain(gradient, twin, judged.inputs[:n], judged.targets[:n])
        pairs = zip(original, maps, strict=True)
        expected.append(np.mean([stats.spearmanr(a.flatten(), b.flatten()).statistic for a, b in pairs]))
    found = scores(gradient, n=n, redraws=1)
    np.testing.assert_allclose(found.details["similarity"], expected, atol=1e-6)
    assert found.values.mean() == pytest.approx(1 - np.mean(expected), abs=1e-6)


def test_layers_are_named_from_the_output_down():
    found = scores(gradient)
    assert found.details["layers"] == ["7", "4", "1", "0"]
    assert len(found.details["similarity"]) == 4


def test_every_redraw_has_its_own_scores_and_the_first_do_not_depend_on_how_many_follow():
    three, five = scores(gradient, redraws=3).values, scores(gradient, redraws=5).values
    assert three.shape == (1, 3, 40)
    np.testing.assert_array_equal(three, five[:, :3])
    assert len({round(row.mean(), 6) for row in five[0]}) == 5


@pytest.mark.parametrize("method", [gradient, white_noise], ids=lambda m: m.name)
def test_more_images_do_not_change_the_scores_of_the_first(method):
    fresh = replace(subject(), name="small")
    few, many = (
        scores(method, n=20, judged=fresh).values,
        scores(method, n=70, judged=replace(subject(), name="small")).values,
    )
    np.testing.assert_array_equal(few, many[..., :20])


def test_the_model_is_left_bit_for_bit():
    judged = subject()
    before = {k: v.clone() for k, v in judged.model.state_dict().items()}
    scores(gradient, judged=replace(judged, name="small"))
    assert all(torch.equal(v, before[k]) for k, v in judged.model.state_dict().items())


def test_a_map_that_becomes_constant_under_random_weights_did_change():
    kept = subject().model[7].weight

    def vanishes(m, x, t):
        g = plain_gradient(m, x, t)
        return g if torch.equal(m[7].weight, kept) else torch.zeros_like(g)

    found = scores(made(vanishes, signed=True)).values
    np.testing.assert_array_equal(found, 1)


def test_unsigned_maps_are_compared_where_the_input_is_present():
    """|gradient x input| shares its zeros with any other such map; only the other pixels may speak."""
    base = subject()
    half = base.inputs.clone()
    half[:, :, :, 4:] = 0.4  # absent
    judged = replace(base, inputs=half, name="half", absent=0.4)
    unsigned = made(lambda m, x, t: (plain_gradient(m, x, t) * (x.detach() - 0.4)).abs(), "unsigned")
    plain = [
        maps.spearman(subject_maps(unsigned, judged, 0, 40), explain(unsigned, twin, half[:40], judged.targets[:40]))
        for _, twin in randomization.cascading(judged.model, judged.inputs, 1)
    ]
    assert torch.stack(plain).mean() > 0.5
    assert scores(unsigned, judged=judged).values.mean() > 0.5


class StillRight(nn.Module):
    """What decides lies in a buffer; the layer with weights adds next to nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("decides", detector(1).model.head.weight.detach().clone())
        self.layer = nn.Linear(64, 4)

    def forward(self, x):
        return x.flatten(1) @ self.decides.T + 1e-3 * self.layer(x.flatten(1))


@BOTH
def test_a_net_that_is_still_accurate_when_randomised_does_not_qualify(metric):
    judged = replace(detector(128), model=StillRight().eval(), name="still_right")
    with pytest.raises(Unqualified, match=r"still right on 100% of the images \(chance 25%\)"):
        scores(gradient, metric, judged=judged)
    result = run(metric, gradient, judged)
    assert result.verdict == "skip"
    assert "its layers are not what decides" in result.message


def test_chance_is_the_largest_class_s_share():
    base = replace(detector(128), model=StillRight().eval(), name="one_class")
    only = torch.where(base.targets == 0)[0]
    require_chance(
        replace(base, inputs=base.inputs[only], targets=base.targets[only], truth=None, decoys=None), Draw(n=8)
    )


def test_a_net_without_convolutions_is_judged_alike():
    base = detector(128)
    judged = replace(base, model=trained(mlp(1), base.inputs, base.targets), name="dense")
    assert scores(gradient, judged=judged).values.mean() > 0.5
    assert not scores(magnitude, judged=judged).values.any()


def broken(name: str):
    mutant = next(m for m in MUTANTS if m.name == name)
    return mutant.make(gradient, original=subject().model, unrelated=conv_net(1, seed=9))


@pytest.mark.parametrize(
    ("name", "verdict"),
    [("stale_original", "fail"), ("stale_unrelated", "fail"), ("detached", "fail"),
     ("hashed", "pass"), ("transposed", "pass"), ("negated", "pass")],
)  # fmt: skip
def test_mutants(name, verdict):
    """Blind to where and how the map points, and to noise that is hashed from the weights: other checks see those."""
    assert run("cascading_randomization", broken(name), subject()).verdict == verdict


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(gradient, "pass"), (constant, "fail"), (magnitude, "fail"), (white_noise, "fail"),
     (changed(lambda g: g + 100 * torch.linspace(0, 1, 64).view(8, 8), "drowned"), "fail")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    assert run("cascading_randomization", method, subject()).verdict == verdict
