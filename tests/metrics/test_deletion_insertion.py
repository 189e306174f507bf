"""Deletion and insertion on an additive model, where every curve is a cumulative sum of contributions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from saliency_checks.explain import generator
from saliency_checks.maps import random_orders
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.metrics.deletion import deletion, deletion_black
from saliency_checks.metrics.deletion_insertion import BOTH, advantages, deletion_insertion, zero_area
from saliency_checks.metrics.insertion import insertion, insertion_black
from saliency_checks.perturbation import area, curve, scaled
from saliency_checks.run import run
from saliency_checks.subject import Subject, Unqualified

from toys import constant, made, magnitude, white_noise

ABSENT = 0.1
GRID = [round(f * 64) for f in BOTH.fractions]


class Additive(nn.Module):
    """Two opposite logits, +-sum of w (x - absent): the mean of the logits is zero and the fill contributes nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.exp(torch.randn(64, generator=generator("weights"))).view(1, 8, 8))

    def forward(self, x):
        score = ((x - ABSENT) * self.weight).sum((1, 2, 3))
        return torch.stack([score, -score], dim=1)


def curve_of(subject: Subject, order: torch.Tensor, fill: str = "absent") -> torch.Tensor:
    """The curve of one order of all images."""
    values = torch.empty(order.shape).scatter_(1, order, -torch.arange(64.0).expand_as(order))
    method = Method(name="given", signed=True, explain=lambda m, x, t: values.view_as(x))
    subject, settings = replace(subject), replace(BOTH, imputer=fill)
    return scaled(curve(method, subject, len(order), 0, settings, "most"), subject, settings)


def random_area(subject: Subject, n: int, fill: str = "absent") -> torch.Tensor:
    return zero_area(subject, n, 0, replace(BOTH, imputer=fill))


def additive(n: int = 48, **fields) -> Subject:
    inputs = ABSENT + 0.2 + 0.6 * torch.rand(n, 1, 8, 8, generator=generator("images"))
    return Subject(
        Additive(), inputs, torch.zeros(n, dtype=torch.long), absent=ABSENT, **{"name": "additive", **fields}
    )


def shares(subject: Subject) -> np.ndarray:
    """Each pixel's share of the image's logit."""
    parts = ((subject.inputs - ABSENT) * subject.model.weight).flatten(1).detach().double().numpy()
    return parts / parts.sum(1, keepdims=True)


def remaining(parts: np.ndarray, order: np.ndarray) -> np.ndarray:
    """What is left of the logit after the first pixels of an order, at each fraction."""
    gone = np.cumsum(np.take_along_axis(parts, order, 1), 1)
    return 1 - np.concatenate([np.zeros((len(parts), 1)), gone], 1)[:, GRID]


def under(curves: np.ndarray) -> np.ndarray:
    return np.trapezoid(curves, dx=0.1, axis=1)


contributions = Method(
    name="contributions", signed=True, explain=lambda m, x, t: (x - ABSENT) * m.weight * (1 - 2 * t.view(-1, 1, 1, 1))
)
reversed_map = replace(
    contributions, name="reversed_map", explain=lambda m, x, t: -contributions.explain(m, x, t)
)  # fmt: skip


def test_the_curve_of_any_order_is_a_cumulative_sum():
    subject, order = additive(8), random_orders(8, 64, generator=generator("order"))
    np.testing.assert_allclose(curve_of(subject, order).numpy(), remaining(shares(subject), order.numpy()), atol=1e-5)


def test_it_starts_at_one_and_ends_at_the_fill():
    subject, order = additive(8), random_orders(8, 64, generator=generator("order"))
    found = curve_of(subject, order)
    torch.testing.assert_close(found[:, 0], torch.ones(8))
    torch.testing.assert_close(found[:, -1], torch.zeros(8), atol=1e-5, rtol=0)
    with torch.no_grad():
        whole, empty = (subject.model(x)[:, 0] for x in (subject.inputs, torch.zeros_like(subject.inputs)))
    torch.testing.assert_close(curve_of(subject, order, "black")[:, -1], empty / whole, atol=1e-5, rtol=1e-5)


def test_a_shift_common_to_all_logits_and_their_scale_do_not_count():
    class Shifted(Additive):
        def forward(self, x):
            return 5 * super().forward(x) + 1000 * x.mean((1, 2, 3)).unsqueeze(1)

    subject, order = additive(8), random_orders(8, 64, generator=generator("order"))
    shifted = replace(subject, model=Shifted())
    torch.testing.assert_close(curve_of(shifted, order), curve_of(subject, order), atol=1e-3, rtol=0)


def test_the_area_is_the_trapezoid_rule():
    curves = torch.rand(5, len(BOTH.fractions), generator=generator("area"), dtype=torch.float64)
    np.testing.assert_allclose(area(curves, BOTH).numpy(), under(curves.numpy()))


def test_true_contributions_gain_on_both_sides_what_sorting_them_gains():
    subject = additive()
    parts, random = shares(subject), random_area(subject, 48).numpy()
    gains, curves = advantages(contributions, subject, 48, 0)
    most = np.argsort(-parts, 1)
    np.testing.assert_allclose(curves[0].numpy(), remaining(parts, most), atol=1e-5)
    np.testing.assert_allclose(curves[1].numpy(), remaining(parts, most[:, ::-1]), atol=1e-5)
    np.testing.assert_allclose(gains[0].numpy(), random - under(remaining(parts, most)), atol=1e-5)
    np.testing.assert_allclose(gains[1].numpy(), under(remaining(parts, most[:, ::-1])) - random, atol=1e-5)
    assert (gains > 0).all()


def test_a_random_order_has_area_one_half_on_average():
    found = random_area(additive(400), 400).numpy()
    assert abs(found.mean() - 0.5) < 4 * found.std() / 20


def test_a_reversed_map_loses_what_the_map_gains():
    subject = additive()
    right, wrong = (advantages(method, subject, 48, 0)[0] for method in (contributions, reversed_map))
    torch.testing.assert_close(wrong, -right.flip(0), atol=1e-5, rtol=0)


def test_who_knows_nothing_gains_nothing():
    for method in (constant, white_noise):
        gains = advantages(method, additive(400), 400, 0)[0].numpy()
        assert (np.abs(gains.mean(1)) < 4 * gains.std(1) / 20).all()


def test_where_all_pixels_count_alike_no_order_gains():
    subject = additive(8)
    with torch.no_grad():
        subject.model.weight.fill_(1)
        subject.inputs.fill_(0.6)
    for method in (contributions, white_noise):
        torch.testing.assert_close(advantages(method, subject, 8, 0)[0], torch.zeros(2, 8), atol=1e-5, rtol=0)


@pytest.mark.parametrize("increasing", [torch.exp, torch.sqrt, lambda a: 2 * a - 7], ids=["exp", "sqrt", "affine"])
def test_an_increasing_transform_changes_nothing(increasing):
    def transformed(m, x, t):
        return increasing(contributions.explain(m, x, t))

    subject = additive()
    one, two = (advantages(m, subject, 48, 0)[0] for m in (contributions, made(transformed, signed=True)))
    assert torch.equal(one, two)


@pytest.mark.parametrize(("metric", "fill"), [(insertion, ABSENT), (insertion_black, 0.0)])
def test_insertion_is_the_area_of_the_curve_that_shows_the_most_relevant_first(metric, fill):
    subject = additive(12)
    name = "black" if metric is insertion_black else "absent"
    attributions = contributions.explain(subject.model, subject.inputs, subject.targets).flatten(1)
    most = attributions.argsort(dim=1, descending=True)
    steps = []
    with torch.no_grad():
        original = subject.model(subject.inputs)[:, 0]
        for count in GRID:
            shown = torch.full_like(subject.inputs, fill).flatten(2)
            chosen = most[:, :count].unsqueeze(1)
            shown.scatter_(2, chosen, subject.inputs.flatten(2).gather(2, chosen))
            steps.append(subject.model(shown.view_as(subject.inputs))[:, 0] / original)
    expected = under(torch.stack(steps, 1).double().numpy()) - random_area(subject, 12, name).numpy()
    np.testing.assert_allclose(metric.measure(contributions, subject, Draw(n=12)).values[0, 0], expected, atol=1e-5)


@pytest.mark.parametrize(("metric", "fill"), [(deletion, "absent"), (deletion_black, "black")])
def test_deletion_is_its_own_side_of_the_pair(metric, fill):
    subject = additive(12)
    expected = advantages(contributions, subject, 12, 0, replace(BOTH, imputer=fill))[0][0]
    assert np.array_equal(metric.measure(contributions, subject, Draw(n=12)).values[0, 0], expected.double().numpy())


def test_a_magnitude_is_read_without_its_sign():
    subject = additive()
    read = [
        advantages(replace(reversed_map, signed=signed), subject, 48, 0)[0].mean().item() for signed in (True, False)
    ]
    assert read[0] < 0 < read[1]


def test_targets_that_the_model_does_not_predict_do_not_qualify():
    subject = additive(8)
    wrong = replace(subject, targets=1 - subject.targets)
    with pytest.raises(Unqualified, match="targets that the model predicts"):
        advantages(contributions, wrong, 8, 0)
    assert run("deletion_insertion", contributions, wrong).verdict == "skip"


def test_an_image_without_a_logit_of_its_own_does_not_count_without_limit():
    subject, order = additive(8), random_orders(8, 64, generator=generator("order"))
    with torch.no_grad():
        subject.inputs[0] = ABSENT + 1e-6
    assert curve_of(subject, order)[0].abs().max() < 1e-3


def test_the_three_groups_are_both_sides_and_the_best_control():
    scores = deletion_insertion.measure(contributions, additive(), Draw(n=48))
    assert scores.values.shape == (3, 1, 48)
    gains = advantages(contributions, additive(), 48, 0)[0].double().numpy()
    np.testing.assert_allclose(scores.values[:2, 0], gains, atol=1e-6)
    assert 0 < scores.values[2].mean() < gains.min(0).mean()


@pytest.mark.parametrize(
    ("method", "verdict"),
    [(contributions, "pass"), (reversed_map, "fail"), (white_noise, "fail"), (constant, "fail"),
     (magnitude, "inconclusive")],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    """The magnitude is itself the best control here: it sits on the bound, and so does not pass."""
    assert run("deletion_insertion", method, additive(400)).verdict == verdict
