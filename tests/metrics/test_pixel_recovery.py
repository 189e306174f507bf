"""Recovery on a linear detector whose one relevant pixel is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from saliency_checks.explain import generator
from saliency_checks.metric import Draw
from saliency_checks.metrics.pixel_recovery import beats_decoys, pixel_recovery
from saliency_checks.run import run

from toys import (
    CLASSES,
    changed,
    constant,
    conv_net,
    detector,
    gradient,
    inverted,
    made,
    negated,
    subject_of,
    white_noise,
    zero,
)


def scores(method, subject, n=64, **settings):
    return pixel_recovery.measure(method, subject, Draw(n=n, **settings))


def is_chance(values: np.ndarray, decoys: int) -> bool:
    """Exact binomial test at alpha 1e-4."""
    return stats.binomtest(int(values.sum()), values.size, 1 / (decoys + 1)).pvalue > 1e-4


@pytest.mark.parametrize("channels", [1, 3])
def test_the_truth_scores_one_and_its_inverse_zero(channels):
    subject = detector(64, channels)
    assert scores(gradient, subject).values.tolist() == np.ones((1, 1, 64)).tolist()
    assert not scores(inverted, subject).values.any()


def test_the_sign_does_not_matter():
    assert scores(negated, detector()).values.all()


@pytest.mark.parametrize("method", [constant, zero, white_noise], ids=lambda m: m.name)
@pytest.mark.parametrize("decoys", [1, 3, 7])
def test_who_cannot_tell_the_site_wins_with_chance_one_in_sites(method, decoys):
    values = scores(method, detector(600, decoys=decoys), n=600).values
    assert set(np.unique(values)) == {0.0, 1.0}
    assert is_chance(values, decoys)


def test_ties_between_the_site_and_some_decoys_fall_by_lot_among_them():
    subject = detector(600, decoys=7)
    ahead = subject.decoys[:, 0].float() + subject.truth.float()  # tied with one decoy, above the other six
    won = beats_decoys(ahead, subject, generator("lot"))
    assert is_chance(won, 1)
    behind = subject.decoys[:, 0].float()
    assert not beats_decoys(behind, subject, generator("lot")).any()


def test_masks_of_unequal_size_are_compared_by_their_mean():
    subject = detector(300, decoys=2)
    wide = nn.functional.max_pool2d(subject.decoys.float(), 3, stride=1, padding=1) > 0
    flat = torch.full((300, 8, 8), 0.1)
    assert is_chance(beats_decoys(flat, replace(subject, decoys=wide), generator("wide")), 2)


@pytest.mark.parametrize("increasing", [torch.exp, lambda a: a**3, lambda a: 5 * a], ids=["exp", "cube", "scale"])
def test_an_increasing_transform_of_the_magnitude_changes_nothing(increasing):
    subject = detector(64)
    attributions = torch.randn(64, 8, 8, generator=generator("dense"))
    one, two = (beats_decoys(a, subject, generator("ties")) for a in (attributions, increasing(attributions.abs())))
    assert np.array_equal(one, two)
    assert 0 < one.sum() < 64


def test_the_same_seed_gives_the_same_scores_and_more_images_do_not_change_the_first():
    subject = detector(200)
    few, many, again = (scores(constant, subject, n).values for n in (50, 200, 200))
    assert np.array_equal(many, again)
    assert np.array_equal(few, many[..., :50])
    assert not np.array_equal(many, scores(constant, subject, 200, seed=1).values)


def test_constant_maps_are_counted():
    assert scores(zero, detector()).degenerate == 1
    assert scores(gradient, detector()).degenerate == 0


@pytest.mark.parametrize(
    ("method", "verdict"),
    [
        (gradient, "pass"),
        (negated, "pass"),
        (inverted, "fail"),
        (white_noise, "fail"),
        (constant, "fail"),
        (zero, "fail"),
        (changed(lambda g: g.roll(2, 3), "shifted"), "fail"),
        (changed(lambda g: g.transpose(2, 3), "transposed"), "fail"),
        (changed(lambda g: g.flip(3), "flipped"), "fail"),
        (changed(lambda g: g.roll(1, 0), "rolled"), "fail"),
    ],
    ids=lambda value: getattr(value, "name", value),
)
def test_verdicts(method, verdict):
    result = run("pixel_recovery", method, detector(192))
    assert result.verdict == verdict
    assert result.controls["random"] < 0.4


def test_a_method_that_explains_the_wrong_class_fails():
    other = made(lambda m, x, t: gradient.explain(m, x, (t + 1) % CLASSES), "other_class")
    assert run("pixel_recovery", other, detector(192)).verdict == "fail"


def test_the_worst_replica_is_judged_and_named():
    def blind():
        subject = detector(192, seed=5)
        subject.model.head = nn.Linear(64, CLASSES)
        return subject

    subject = detector(192, replicas=(blind,))
    assert run("pixel_recovery", gradient, subject, profile="quick").verdict == "pass"  # no replicas in quick
    result = run("pixel_recovery", gradient, subject, profile="standard")
    assert result.verdict == "fail"
    assert "replica 1" in result.message


def test_degenerate_maps_fail_whatever_their_luck():
    result = run("pixel_recovery", constant, detector(192), bound=">= 0.0")
    assert result.verdict == "fail"
    assert "100% of the maps are constant" in result.message


def test_a_subject_without_a_truth_is_skipped_with_the_reason():
    result = run("pixel_recovery", gradient, subject_of(conv_net(), 3))
    assert result.verdict == "skip"
    assert "needs truth" in result.message


def test_fourteen_images_are_enough_where_there_are_no_more():
    """All the error is theirs then: 0.025 ** (1 / 14) = .768. A first look of three has a quarter of it: .69."""
    only, of_more = run("pixel_recovery", gradient, detector(14)), run("pixel_recovery", gradient, detector(64), n=14)
    assert (only.verdict, only.n) == ("pass", 14)
    assert only.low == pytest.approx(0.025 ** (1 / 14))
    assert (of_more.verdict, of_more.n) == ("pass", 28)
    assert of_more.low == pytest.approx(0.00625 ** (1 / 28))
