"""Drop, increase and gain behind the map as a mask: all ones change nothing, Fake-CAM fools the drop."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.metric import Draw
from saliency_checks.metrics.average_drop import mask
from saliency_checks.subject import Subject

from toys import conv_net, made, subject_of, weighted

NAMES = ("average_drop", "average_increase", "average_gain")
ones = made(lambda m, x, t: torch.ones_like(x), "ones", signed=False)
nothing = made(lambda m, x, t: torch.zeros_like(x), "nothing", signed=False)


def measured(name, method, subject, n=12, **changes):
    metric = sc.get("metrics", name)
    metric = metric.with_settings(**changes) if changes else metric
    return metric.measure(method, subject, Draw(n=n)).values[0, 0]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("imputer", ["absent", "black", "blur", "noise"])
def test_a_map_of_ones_changes_nothing(name, imputer):
    subject = subject_of(conv_net(), 3)
    assert np.array_equal(measured(name, ones, subject, 16, imputer=imputer), np.zeros(16))


class Probability(nn.Module):
    """The probability of class 0 is the mean of the image."""

    def forward(self, x):
        p = x.mean((1, 2, 3)).clamp(1e-9, 1 - 1e-9)
        return torch.stack([p.log(), (1 - p).log()], 1)


def judged(left: float, right: float) -> Subject:
    """Left and right half of two different values."""
    inputs = torch.full((2, 1, 4, 4), left, dtype=torch.float64)
    inputs[..., 2:] = right
    return Subject(Probability().eval(), inputs, torch.zeros(2, dtype=torch.long), absent=0.5)


def showing(part: slice):
    def explain(m, x, t):
        shown = torch.zeros_like(x)
        shown[..., part] = 4.0
        return shown

    return made(explain, f"showing_{part.start}", signed=False)


def test_the_three_scores_of_a_mask_that_hides_one_half():
    """p = .6 with halves .9 and .3; absent is .5. Left shown: .7. Right shown: .4."""
    subject = judged(0.9, 0.3)
    left, right = showing(slice(0, 2)), showing(slice(2, 4))
    expected = {
        "average_drop": (0, 0.2 / 0.6), "average_increase": (1, 0), "average_gain": (0.1 / 0.4, 0),
    }  # fmt: skip
    for name, (of_left, of_right) in expected.items():
        np.testing.assert_allclose(measured(name, left, subject, 2), of_left, atol=1e-9)
        np.testing.assert_allclose(measured(name, right, subject, 2), of_right, atol=1e-9)


def test_a_half_transparent_mask_lets_half_of_the_image_through():
    subject = judged(0.9, 0.3)
    half = made(lambda m, x, t: torch.where(x > 0.5, 2.0, 1.0).double(), "half", signed=False)
    p = (0.9 + (0.5 + 0.5 * (0.3 - 0.5))) / 2
    np.testing.assert_allclose(measured("average_gain", half, subject, 2), (p - 0.6) / 0.4, atol=1e-9)


def test_a_mask_is_a_map_over_its_maximum_or_from_its_least_value_on():
    maps = torch.tensor([[-2.0, 0.0, 1.0, 4.0], [1.0, 1.0, 1.0, 1.0], [0.0, 0.0, 0.0, 0.0], [-3.0, -1.0, -1.0, -2.0]])
    torch.testing.assert_close(mask(maps, "maximum")[:3], torch.tensor([[0, 0, 0.25, 1], [1, 1, 1, 1], [0, 0, 0, 0.0]]))
    torch.testing.assert_close(mask(maps, "range")[0], torch.tensor([0, 2, 3, 6]) / 6)
    assert not mask(maps, "range")[1:3].any()
    assert not mask(maps, "maximum")[3].any()


def test_a_map_of_zeros_shows_nothing_and_loses_what_the_image_is_above_an_absent_one():
    np.testing.assert_allclose(measured("average_drop", nothing, judged(0.9, 0.3), 2), 0.1 / 0.6, atol=1e-9)


def test_fake_cam_is_fooled_by_drop_but_not_by_gain():
    """Zhang et al. 2025, table 1: next to no drop, no gain; what shows the evidence alone gains."""
    subject = weighted(64, size=14)
    fake = sc.get("methods", "fake_cam")
    evidence = made(lambda m, x, t: (m.weight[t].detach() * (x - 0.3)).clamp(min=0) ** 0.1, "evidence", signed=False)
    reverse = made(lambda m, x, t: (-m.weight[t].detach() * (x - 0.3)).clamp(min=0) ** 0.1, "reverse", signed=False)
    drop, gain = (
        {m.name: measured(name, m, subject, 64).mean() for m in (fake, evidence, reverse)}
        for name in ("average_drop", "average_gain")
    )
    assert drop["fake_cam"] < 0.05
    assert gain["fake_cam"] < 0.25 < 0.8 < gain["evidence"]
    assert max(drop, key=drop.get) == "reverse"
    assert min(gain, key=gain.get) == "reverse"


@pytest.mark.parametrize("name", NAMES)
def test_an_imputer_that_depends_on_the_mask_is_refused(name):
    with pytest.raises(ValueError, match="imputer 'noisy_linear': expected one of"):
        sc.get("metrics", name).with_settings(imputer="noisy_linear")


def test_the_increase_is_drop_and_gain_told_apart():
    subject = replace(subject_of(conv_net(seed=3), 3, n=32), absent=0.4)
    some = made(lambda m, x, t: x.mean(1), "some", signed=False)
    drop, increase, gain = (measured(name, some, subject, 32) for name in NAMES)
    assert set(increase) == {0.0, 1.0}
    assert ((gain > 0) == (increase == 1)).all()
    assert ((drop > 0) <= (increase == 0)).all()
