"""A large set is scored in shards: no score may depend on where it is cut."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from saliency_checks import registry
from saliency_checks.metric import Draw, Metric
from saliency_checks.metrics import impact_coverage
from saliency_checks.metrics.impact_coverage import Attacked, attacked
from saliency_checks.perturbation import Curve, whole
from saliency_checks.perturbation.curves import LEAST_OUTPUT
from saliency_checks.subject import Subject, Unqualified

from toys import SIZE, made, noise, plain_gradient, site_masks, trained

IMAGES = 72  # not a whole number of blocks
NOISY = made(lambda m, x, t: plain_gradient(m, x, t) + 0.1 * torch.randn_like(x), "noisy", signed=True, stochastic=True)
ALONE = [name for name in registry.names("metrics") if registry.get("metrics", name).alone]
FEWER = {"draws": 3, "count": 9}


@pytest.fixture(scope="module")
def subject() -> Subject:
    """A small network that was trained a little; from image to image there is more light, and more of the class."""
    inputs, targets = noise(IMAGES, 1), torch.arange(IMAGES) % 4
    truth, rising = site_masks()[targets], torch.linspace(0, 1, IMAGES).view(-1, 1, 1, 1)
    inputs += 0.2 * rising + truth.unsqueeze(1) * rising
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.Tanh(), torch.nn.Flatten(), torch.nn.Linear(4 * SIZE * SIZE, 4)
    )
    return Subject(trained(model, inputs, targets), inputs, targets, name="halves", truth=truth)


def cheaper(name: str) -> Metric:
    """The metric with fewer draws, and segments that need no other package."""
    metric = registry.get("metrics", name)
    changes = {key: value for key, value in FEWER.items() if hasattr(metric.settings, key)}
    if hasattr(metric.settings, "segments"):
        changes["segments"] = "grid"
    return metric.with_settings(**changes) if changes else metric


@pytest.mark.parametrize("name", ALONE)
def test_no_score_depends_on_where_the_set_is_cut(subject: Subject, name: str) -> None:
    metric = cheaper(name)
    if name == "impact_coverage":  # else these few images need a patch each
        metric = replace(metric, measure=registry.get("metrics", name).with_settings(least_success=0.01).measure)
    every = replace(subject)  # with nothing measured yet
    draw = Draw(n=IMAGES, redraws=1)
    expected = metric.measure(NOISY, every, draw)
    found, images = [], []
    for first, stop in ((64, IMAGES), (0, 32), (32, 64)):
        shard = every.cut(first, stop, IMAGES)
        scores = metric.measure(NOISY, shard, Draw(n=stop - first, redraws=1))
        found.append(scores.values)
        images += [first + i for i in scores.images or range(scores.n)]
    order = np.argsort(images)
    assert sorted(images) == list(expected.images or range(IMAGES))
    np.testing.assert_array_equal(np.concatenate(found, 2)[..., order], expected.values)


def test_small_outputs_are_guarded_by_the_mean_of_all(subject: Subject) -> None:
    """Among the first images alone the guard would be another: the law above sees it."""
    settings = Curve()
    of_all = whole(subject, IMAGES).read(settings.output)
    own, mean = of_all[:32].mean(), of_all.mean()
    assert (of_all[:32] < LEAST_OUTPUT * mean).any()
    assert own < 0.7 * mean


def test_whether_enough_images_are_turned_is_asked_of_all(subject: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    metric = registry.get("metrics", "impact_coverage").with_settings(least_success=0.25)
    found = attacked(subject, IMAGES, 0, metric.settings)

    def half(asked: Subject, n: int, seed: int, settings: object) -> Attacked:
        rows = slice(asked.first, asked.first + n)
        return Attacked(found.inputs[rows], found.masks[rows], found.targets[rows], torch.arange(IMAGES)[rows] >= 32)

    monkeypatch.setattr(impact_coverage, "attacked", half)
    with pytest.raises(Unqualified, match="turn none of these 32 images"):
        metric.measure(NOISY, subject.cut(0, 32, IMAGES), Draw(n=32))
    monkeypatch.setattr(impact_coverage, "attacked", lambda *asked: of_the_last(half(*asked)))
    with pytest.raises(Unqualified, match="turn only"):  # few of all, although all of this shard
        metric.measure(NOISY, subject.cut(64, IMAGES, IMAGES), Draw(n=8))


def of_the_last(found: Attacked) -> Attacked:
    """None turned but those of the last shard."""
    turned = torch.zeros_like(found.turned) if len(found.turned) > 8 else found.turned
    return replace(found, turned=turned)


def test_a_metric_that_compares_images_is_not_cut() -> None:
    """The law above says something: it fails for the mean over a shard's own images in the place of all."""
    for name in ("deletion_insertion", "mixup_agreement", "pixel_recovery", "class_contrast", "contract"):
        assert not registry.get("metrics", name).alone


def test_statistics_are_those_of_the_whole_and_draws_are_keyed_by_the_images_number(subject: Subject) -> None:
    shard = subject.cut(32, 64, IMAGES)
    assert torch.equal(shard.inputs, subject.inputs[32:64])
    assert torch.equal(shard.absent_value, subject.absent_value)
    assert torch.equal(shard.supplies["references"], subject.supplies["references"])
    own = Subject(subject.model, shard.inputs, shard.targets, name=subject.name)
    assert not torch.equal(own.absent_value, subject.absent_value)
    metric = registry.get("metrics", "deletion")
    cut, alone = (metric.measure(NOISY, part, Draw(n=32)).values for part in (shard, own))
    assert not np.allclose(cut, alone)
