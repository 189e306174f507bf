"""The fall of the curve; by segments IROF and IIOF, against closed forms of a model of segments."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.metric import Draw
from saliency_checks.subject import Subject

from toys import against, constant, effect, made, weighted, white_noise

ON = {"segments": "grid", "count": 9}


class Sum(nn.Module):
    """Probability exactly proportional to what is left: logits are logarithms of the sum and of its rest to one."""

    def __init__(self, worth: torch.Tensor) -> None:
        super().__init__()
        self.worth = worth

    def forward(self, x):
        share = (x[:, 0] * self.worth).sum((1, 2)).clamp(1e-12, 1 - 1e-12)
        return torch.stack([share.log(), (1 - share).log()], 1)


def of_segments(worth: list[float]) -> Subject:
    """Nine segments of 2 x 2 pixels, whose worths add up to the probability .9; 0 is absent."""
    grid = torch.tensor(worth, dtype=torch.float64).view(3, 3) * 0.9 / sum(worth)
    model = Sum((grid / 4).repeat_interleave(2, 0).repeat_interleave(2, 1))
    return Subject(model, torch.ones(2, 1, 6, 6, dtype=torch.float64), torch.zeros(2, dtype=torch.long), absent=0.0)


WORTH = [5.0, 1.0, 7.0, 2.0, 9.0, 3.0, 8.0, 4.0, 6.0]
NINTHS = tuple(i / 9 for i in range(10))
oracle = made(lambda m, x, t: m.worth.expand_as(x), "oracle", signed=True)
worst = made(lambda m, x, t: -m.worth.expand_as(x), "worst", signed=True)


def test_irof_and_iiof_are_sums_of_the_segments_worths():
    subject = of_segments(WORTH)
    ordered = np.sort(WORTH)[::-1] / sum(WORTH)
    left = 1 - np.concatenate([[0], ordered.cumsum()])
    irof = sc.get("metrics", "irof").with_settings(fractions=NINTHS, **ON)
    found = irof.measure(oracle, subject, Draw(n=2)).values[0, 0]
    np.testing.assert_allclose(found, 1 - np.trapezoid(left, dx=1 / 9), atol=1e-6)
    shown = np.concatenate([[0], ordered.cumsum()])
    iiof = sc.get("metrics", "iiof").with_settings(fractions=NINTHS, **ON)
    found = iiof.measure(oracle, subject, Draw(n=2)).values[0, 0]
    np.testing.assert_allclose(found, np.trapezoid(shown, dx=1 / 9), atol=1e-6)


def test_no_order_of_the_segments_beats_their_worths_and_the_reverse_is_last():
    subject, noisy = of_segments(WORTH), [made(lambda m, x, t: torch.randn_like(x), f"n{i}") for i in range(20)]
    for name in ("irof", "iiof"):
        metric = sc.get("metrics", name).with_settings(fractions=NINTHS, **ON)
        best, least = (metric.measure(m, subject, Draw(n=2)).values.mean() for m in (oracle, worst))
        others = [metric.measure(m, subject, Draw(n=2)).values.mean() for m in noisy]
        assert least <= min(others) < max(others) <= best
        assert least < best


def test_the_segments_of_an_image_are_ranked_by_their_mean_and_not_by_their_size():
    """SLIC on a picture of one small bright disc: the disc's segment is small, and comes first."""
    image = torch.zeros(1, 1, 24, 24, dtype=torch.float64)
    image[..., 4:8, 4:8] = 1
    model = Sum(image[0, 0] / image.sum() * 0.9)
    subject = Subject(model, image, torch.zeros(1, dtype=torch.long), absent=0.0)
    metric = sc.get("metrics", "irof").with_settings(count=16)
    assert metric.settings.segments == "slic"
    good, bad = (metric.measure(m, subject, Draw(n=1)).values.mean() for m in (oracle, worst))
    assert good > 0.8
    assert bad < 0.3


def test_aopc_is_the_mean_fall():
    subject = weighted()
    shares = tuple(i / 36 for i in range(37))
    metric = sc.get("metrics", "aopc").with_settings(fractions=shares, scale="raw", output="logit")
    parts = (effect.explain(subject.model, subject.inputs, subject.targets)).flatten(1).numpy()
    falls = np.concatenate([np.zeros((12, 1)), -np.sort(-parts, 1).cumsum(1)], 1)
    np.testing.assert_allclose(metric.measure(effect, subject, Draw(n=12)).values[0, 0], falls.mean(1), atol=1e-9)


def test_aopc_ranks_the_effect_first_and_its_negative_last():
    subject = weighted(48)
    found = {
        m.name: sc.get("metrics", "aopc").measure(m, subject, Draw(n=48)).values.mean()
        for m in (effect, white_noise, constant, against)
    }
    assert max(found, key=found.get) == "effect"
    assert min(found, key=found.get) == "against"
