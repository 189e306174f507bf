"""What is gone and what takes its place: units, orders, imputers; a plan counts the passes that are made."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import saliency_checks as sc
from saliency_checks.metric import Draw, Metric
from saliency_checks.perturbation import (
    IMPUTERS,
    OUTPUTS,
    Answers,
    Curve,
    Perturbation,
    Plan,
    answers,
    imputer,
)
from saliency_checks.perturbation.imputers import Scene, filled
from saliency_checks.perturbation.units import Units, random_turns, turns_of, units_of
from saliency_checks.subject import Subject

from toys import against, constant, effect, made, weighted, white_noise, zero

BLOCK = slice(0, 12)
FAITHFULNESS = (
    "aopc", "average_drop", "average_gain", "average_increase", "deletion", "deletion_black", "diffid", "iiof",
    "infidelity", "insertion", "insertion_black", "irof", "minimal_subset_deletion", "minimal_subset_insertion",
    "monotonicity_correlation", "road", "segment_minimal_subset_deletion", "segment_minimal_subset_insertion",
    "segment_sensitivity_n", "sensitivity_n", "srg",
)  # fmt: skip


def metric(name: str) -> Metric:
    """With a grid for segments: fast, and without scikit-image."""
    found: Metric = sc.get("metrics", name)
    return found.with_settings(segments="grid", count=9) if found.settings.unit == "segment" else found


def scene(inputs: torch.Tensor, everything: torch.Tensor | None = None, seed: int = 0) -> Scene:
    return Scene(
        inputs=inputs, absent=torch.full((1, inputs.shape[1], 1, 1), 0.25, dtype=inputs.dtype),
        everything=inputs if everything is None else everything, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


class Counted(torch.nn.Module):
    """Counts the images that pass."""

    def __init__(self, model: torch.nn.Module) -> None:
        super().__init__()
        self.model, self.images = model, 0

    def forward(self, x):
        self.images += len(x)
        return self.model(x)


def counted() -> tuple[Subject, Counted]:
    subject = weighted(40)
    model = Counted(subject.model)
    return replace(subject, model=model), model


# Methods that never call the model, so that every pass that is counted is the score's.
first = made(lambda m, x, t: x * torch.arange(36.0).view(6, 6), "first", signed=True)
second = made(lambda m, x, t: -x, "second", signed=True)


@pytest.mark.parametrize("name", FAITHFULNESS)
def test_the_passes_are_those_of_the_plan_and_the_second_method_pays_its_own_alone(name):
    subject, model = counted()
    plan = metric(name).settings.plan
    metric(name).measure(first, subject, Draw(n=40))
    assert model.images == plan.passes(40)
    metric(name).measure(second, subject, Draw(n=40))
    assert model.images == plan.passes(40, methods=2)
    metric(name).measure(second, subject, Draw(n=40))
    assert model.images == plan.passes(40, methods=2)


def test_the_family_pays_for_what_is_common_once():
    subject, model = counted()
    family = [metric(name) for name in ("deletion", "insertion", "srg", "aopc", "diffid", "minimal_subset_deletion")]
    joint = Plan(frozenset())
    for one in family:
        joint |= one.settings.plan
    for one in family:
        for method in (first, second):
            one.measure(method, subject, Draw(n=40))
    assert model.images == joint.passes(40, methods=2)
    assert joint.passes(40, methods=2) < sum(one.settings.plan.passes(40, methods=2) for one in family) / 2


def test_the_control_curves_are_shared_between_metrics():
    subject, model = counted()
    sc.run("deletion", first, subject, n=32)
    sc.run("insertion", first, subject, n=32)
    before = model.images
    sc.run("srg", first, subject, n=32)
    sc.run("diffid", first, subject, n=32)
    assert model.images == before


@pytest.mark.parametrize("name", [n for n in FAITHFULNESS if n not in ("deletion_black", "insertion_black")])
def test_the_same_seed_gives_the_same_scores(name):
    one, two = (metric(name).measure(white_noise, weighted(), Draw(n=12)).values for _ in range(2))
    assert np.array_equal(one, two)


@pytest.mark.parametrize("name", FAITHFULNESS)
@pytest.mark.parametrize("method", [zero, constant], ids=lambda m: m.name)
def test_a_map_that_says_nothing_fails_under_any_bound(name, method):
    """However good its score is: all ones have the best average drop, and a zero map moves nothing."""
    given = metric(name)
    given = given.with_settings(draws=2) if hasattr(given.settings, "draws") else given
    blank = made(lambda m, x, t: torch.full_like(x, float(method is constant)), method.name, signed=True)
    bound = ">= -1000" if given.better == "higher" else "<= 1000"
    assert sc.run(given, blank, weighted(), n=12, bound=bound).verdict == "fail"
    assert sc.run(given, effect, weighted(), n=12, bound=bound).verdict == "pass"


def test_the_outputs_are_those_of_the_logits():
    logits, targets = torch.randn(9, 5, dtype=torch.float64), torch.arange(9) % 5
    found = Answers.of(logits, targets)
    target = logits[torch.arange(9), targets]
    p = logits.softmax(1)[torch.arange(9), targets]
    best_other = torch.stack([row[torch.arange(5) != t].max() for row, t in zip(logits, targets, strict=True)])
    expected = {
        "logit": target, "centred": target - logits.mean(1), "probability": p, "log_probability": p.log(),
        "margin": target - best_other, "accuracy": (logits.argmax(1) == targets).double(),
    }  # fmt: skip
    assert set(expected) == set(OUTPUTS)
    for output, values in expected.items():
        torch.testing.assert_close(found.read(output), values)
    assert torch.equal(found.predicted, logits.argmax(1).double())


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("unit", ["pixel", "channel", "segment"])
def test_a_step_removes_so_many_units_and_nothing_else(unit, channels):
    subject, given = weighted(channels=channels), Perturbation(unit=unit, segments="grid", count=9)
    units = units_of(subject, BLOCK, given)
    assert units.size == {"pixel": 36, "channel": 36 * channels, "segment": 9}[unit]
    turn = turns_of(effect, subject, BLOCK, 0, given, units, "most")
    high = torch.tensor([[0, 2, 5]])
    removal = units.removal(turn.unsqueeze(0), high)
    image, step = torch.arange(12).repeat_interleave(3), torch.arange(3).repeat(12)
    gone = removal.gone(torch.zeros_like(image), image, step)
    per_unit = {"pixel": 1, "channel": 1, "segment": 4}[unit]
    assert torch.equal(gone.flatten(1).sum(1), torch.tensor([0, 2, 5]).repeat(12) * per_unit)
    assert gone.shape[1] == (channels if unit == "channel" else 1)


def test_the_least_relevant_first_is_the_most_relevant_first_backwards_with_the_same_ties():
    subject, given = weighted(), Perturbation()
    units = units_of(subject, BLOCK, given)
    for method in (effect, constant):
        most, least = (turns_of(method, subject, BLOCK, 0, given, units, order) for order in ("most", "least"))
        assert torch.equal(most + least, torch.full_like(most, 35))


def test_a_segment_that_an_image_does_not_have_is_never_among_the_first():
    labels = torch.zeros(12, 6, 6, dtype=torch.long)
    labels[0, :, 3:] = 1  # the first image has two, the others six
    labels[1:] = torch.arange(6).view(1, 6, 1)
    subject = weighted()
    units = Units(labels.unsqueeze(1), torch.tensor([2] + [6] * 11), 6)
    for turn in random_turns(subject, BLOCK, 0, 20, units):
        assert sorted(turn[0, :2].tolist()) == [0, 1]
        assert sorted(turn[5].tolist()) == list(range(6))


def test_segments_are_found_once_per_image(monkeypatch):
    from saliency_checks.perturbation import units as room

    calls = []
    monkeypatch.setattr(room, "segmented", lambda inputs, *a: calls.append(len(inputs)) or _grid(inputs))
    subject = weighted()
    for name in ("irof", "iiof", "segment_sensitivity_n", "segment_minimal_subset_deletion"):
        for method in (effect, against):
            metric(name).measure(method, subject, Draw(n=12))
    assert calls == [12]


def _grid(inputs):
    from saliency_checks.perturbation.segments import segmented

    return segmented(inputs, "grid", 9)


@pytest.mark.parametrize("name", IMPUTERS)
def test_what_stays_stays_and_what_goes_is_replaced(name):
    inputs = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gone = torch.zeros(4, 1, 8, 8, dtype=torch.bool)
    gone[:, :, 2:5, 3:7] = True
    found = imputer(name, scene(inputs))(torch.arange(4), gone)
    wide = gone.expand_as(inputs)
    assert torch.equal(found[~wide], inputs[~wide])
    assert bool((found[wide] != inputs[wide]).all())
    assert torch.equal(imputer(name, scene(inputs))(torch.arange(4), torch.zeros_like(gone)), inputs)
    assert bool(imputer(name, scene(inputs))(torch.arange(4), torch.ones_like(gone)).isfinite().all())


def test_fills_hold_the_statistics_that_they_are_named_after():
    everything = torch.rand(50, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    given = scene(everything[:4], everything)
    torch.testing.assert_close(filled("dataset_mean", given)[3, :, 0, 0], everything.mean((0, 2, 3)))
    torch.testing.assert_close(filled("image_mean", given)[3, :, 0, 0], everything[3].mean((1, 2)))
    low, high = everything[3].amin(), everything[3].amax()
    uniform = filled("uniform", given)[3]
    assert low <= uniform.min() < low + 0.1
    assert high - 0.1 < uniform.max() <= high
    many = filled("noise", scene(everything, everything))
    torch.testing.assert_close(many.mean((0, 2, 3)), everything.mean((0, 2, 3)), atol=0.02, rtol=0)
    torch.testing.assert_close(many.std((0, 2, 3)), everything.std((0, 2, 3)), atol=0.02, rtol=0)


def test_the_kept_mean_is_that_of_the_entries_that_stay():
    inputs = torch.rand(1, 2, 3, 3, dtype=torch.float64)
    gone = torch.zeros(1, 2, 3, 3, dtype=torch.bool)
    gone[0, 0, 0], gone[0, 1, 2, 2] = True, True
    found = imputer("kept_mean", scene(inputs))(torch.tensor([0]), gone)
    torch.testing.assert_close(found[gone], inputs[~gone].mean().expand(4))


def test_the_blur_of_rise_is_what_its_own_lines_compute():
    """gkern(11, 5): a point in an 11 x 11 box, scipy's Gaussian filter; then a convolution with zeros around."""
    from scipy.ndimage import gaussian_filter

    inputs, point = torch.rand(2, 3, 16, 16, dtype=torch.float64), np.zeros((11, 11))
    point[5, 5] = 1
    kernel = np.zeros((3, 3, 11, 11))
    for channel in range(3):
        kernel[channel, channel] = gaussian_filter(point, 5)
    expected = torch.nn.functional.conv2d(inputs, torch.from_numpy(kernel), padding=5)
    torch.testing.assert_close(filled("blur_rise", scene(inputs)), expected)
    flat = filled("blur_saliencysense", scene(torch.ones(1, 1, 9, 9, dtype=torch.float64)))
    assert abs(float(flat[0, 0, 4, 4]) - 1) < 1e-9
    assert abs(float(flat[0, 0, 0, 0]) - 9 / 25) < 2e-3  # a 5 x 5 box, to the printed digit of the specification


def test_where_nothing_stays_noisy_linear_imputation_leaves_the_absent_value_and_noise():
    inputs = torch.rand(1, 1, 30, 30, dtype=torch.float64)
    found = imputer("noisy_linear", scene(inputs))(torch.tensor([0]), torch.ones(1, 1, 30, 30, dtype=torch.bool))
    assert abs(float(found.mean()) - 0.25) < 0.002
    assert abs(float(found.std()) - 0.01) < 0.001


@pytest.mark.parametrize(
    ("field", "value"),
    [("imputer", "gray"), ("unit", "voxel"), ("output", "loss"), ("reading", "abs"), ("scale", "log"), ("rule", "max")],
)
def test_an_unknown_name_in_a_setting_is_refused_with_the_known_ones(field, value):
    with pytest.raises(ValueError, match=f"{field} '{value}': expected one of "):
        Curve(**{field: value})


@pytest.mark.parametrize("fractions", [(), (0.5, 0.1), (0.0, 1.2), (0.3, 0.3)])
def test_fractions_ascend_from_0_to_1(fractions):
    with pytest.raises(ValueError, match="ascending"):
        Curve(fractions=fractions)


def test_what_an_imputer_draws_is_the_same_for_every_method():
    seen = []

    class Watched(torch.nn.Module):
        def forward(self, x):
            seen.append(x.clone())
            return torch.stack([x.sum((1, 2, 3)), -x.sum((1, 2, 3))], 1)

    subject = replace(weighted(4), model=Watched(), targets=torch.zeros(4, dtype=torch.long))
    one = sc.get("metrics", "deletion").with_settings(imputer="noise", fractions=(0.5,), against="nothing", scale="raw")
    one.measure(first, subject, Draw(n=4))
    one.measure(second, subject, Draw(n=4))
    changed = [images != subject.inputs for images in seen]
    both = changed[0] & changed[1]
    assert both.any()
    assert torch.equal(seen[0][both], seen[1][both])


def test_a_batch_that_does_not_fit_is_halved_and_the_scores_stay():
    class Cramped(torch.nn.Module):
        def __init__(self, model, room):
            super().__init__()
            self.model, self.room = model, room

        def forward(self, x):
            if len(x) > self.room:
                raise torch.OutOfMemoryError("no room")
            return self.model(x)

    subject = weighted()
    expected = sc.get("metrics", "srg").measure(effect, subject, Draw(n=12)).values
    cramped = replace(subject, model=Cramped(subject.model, 5))
    aware = made(lambda m, x, t: effect.explain(m.model, x, t), "aware", signed=True)
    np.testing.assert_allclose(sc.get("metrics", "srg").measure(aware, cramped, Draw(n=12)).values, expected, atol=1e-9)


def test_answers_have_an_order_an_image_and_a_step():
    subject = weighted(3)
    units = units_of(subject, slice(0, 3), Perturbation())
    turn = torch.stack([torch.randperm(36).expand(3, 36) for _ in range(2)])
    high = torch.tensor([[0, 7, 20, 36]])
    removal = units.removal(turn, high)
    found = answers(subject.model, subject.inputs, subject.targets, removal, imputer("black", scene(subject.inputs)))
    assert found.values.shape == (2, 3, 4, 5)
    for order, image, step in np.ndindex(2, 3, 4):
        kept = (turn[order, image] >= high[0, step]).view(1, 6, 6)
        expected = subject.model((subject.inputs[image] * kept).unsqueeze(0))[0, subject.targets[image]]
        torch.testing.assert_close(found.read("logit")[order, image, step], expected.detach())
