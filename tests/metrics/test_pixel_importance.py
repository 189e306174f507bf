"""Additive and subtractive importance on detectors whose causes are known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import saliency_checks as sc
from saliency_checks.case import applicable
from saliency_checks.decision import needing
from saliency_checks.graft import factory
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.metrics.pixel_importance import additive_importance, subtractive_importance
from saliency_checks.run import run
from saliency_checks.subject import Subject, Unqualified

from toys import (
    CLASSES,
    SITES,
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

BOTH = (additive_importance, subtractive_importance)


def measured(metric, method, subject, n=64):
    return metric.measure(method, subject, Draw(n=n))


def pointing(subject: Subject, masks: torch.Tensor, name: str = "pointing") -> Method:
    """Maps that are one on these masks (N, H, W) and zero elsewhere; images are found again by their values."""

    def explain(model, inputs, targets):
        rows = [int((subject.inputs == x).flatten(1).all(1).nonzero()[0]) for x in inputs]
        return masks[rows].float().unsqueeze(1)

    return made(explain, name, signed=True)


def by_hand(subject: Subject, chosen: torch.Tensor) -> tuple[list[float], list[float]]:
    """Both differences, image by image, as the definition says it."""
    additive, subtractive = [], []
    for x, y, truth, mask in zip(subject.inputs, subject.targets, subject.truth, chosen, strict=True):
        answers = {}
        for name, at in (("planted", truth), ("pointed", mask)):
            only, gone = torch.full_like(x, float(subject.absent)), x.clone()
            only[:, at], gone[:, at] = x[:, at], float(subject.absent)
            answers[name] = [bool(subject.model(edit[None]).argmax() == y) for edit in (only, gone)]
        if bool(subject.model(x[None]).argmax() == y) and not answers["planted"][1]:
            missed = not bool((truth & mask).any())
            additive.append(float(missed and answers["planted"][0] and not answers["pointed"][0]))
            subtractive.append(float(missed and answers["pointed"][1]))
    return additive, subtractive


def test_the_scores_are_those_of_the_definition_image_by_image():
    subject = detector(96)
    elsewhere = subject.decoys[:, 2]
    half = torch.where((torch.arange(96) % 2 == 0).view(-1, 1, 1), subject.truth, elsewhere)
    for chosen in (elsewhere, half, subject.truth):
        expected = by_hand(subject, chosen)
        for metric, values in zip(BOTH, expected, strict=True):
            found = measured(metric, pointing(subject, chosen), subject, 96).values
            assert found.shape == (1, 1, len(values))
            assert found[0, 0].tolist() == values
    assert 0 < np.mean(by_hand(subject, half)[0]) < np.mean(by_hand(subject, elsewhere)[0]) < 1
    assert np.mean(by_hand(subject, elsewhere)[1]) == 1


@pytest.mark.parametrize("metric", BOTH, ids=lambda m: m.name)
def test_a_peak_beside_the_site_points_at_the_strongest_spot_and_as_published_at_a_pixel(metric):
    subject = detector(96)
    spots = subject.decoys.any(1) | subject.truth
    beside = (~spots).flatten(1).float().argmax(1)
    coarse = subject.truth.float() + nn.functional.one_hot(beside, 64).view_as(subject.truth) * 1.5
    method = pointing(subject, coarse, "coarse")
    assert not measured(metric, method, subject).values.any()
    published = metric.with_settings(at="pixels")
    assert published.bound is None
    assert published.measure(method, subject, Draw(n=64)).values.mean() > 0.6


@pytest.mark.parametrize("metric", BOTH, ids=lambda m: m.name)
def test_without_decoys_as_many_of_the_largest_pixels_as_the_cause_has(metric):
    subject = replace(detector(64), decoys=None)
    assert not measured(metric, gradient, subject).values.any()
    assert not measured(metric, pointing(subject, subject.truth), subject).values.any()
    assert measured(metric, pointing(subject, ~subject.truth), subject).values.mean() > 0.6
    # A contribution against the class is no pointing at it; a magnitude has no sign.
    assert measured(metric, negated, subject).values.mean() > 0.6
    assert not measured(metric, replace(negated, signed=False), subject).values.any()


@pytest.mark.parametrize(
    ("method", "verdict"),
    [
        (gradient, "pass"), (negated, "pass"), (inverted, "fail"), (white_noise, "fail"), (constant, "fail"),
        (zero, "fail"),
        (changed(lambda g: g.roll((2, 3), (2, 3)), "shifted"), "fail"),
        (changed(lambda g: g.transpose(2, 3), "transposed"), "fail"),
        (changed(lambda g: g.roll(1, 0), "rolled"), "fail"),
        (made(lambda m, x, t: gradient.explain(m, x, (t + 1) % CLASSES), "other_class"), "fail"),
    ],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_verdicts(method, verdict):
    subject = detector(192)
    for metric in BOTH:
        result = run(metric, method, subject)
        assert result.verdict == verdict, result
        assert result.controls["random"] > 0.5


@pytest.mark.parametrize("method", [constant, white_noise, gradient], ids=lambda m: m.name)
def test_where_the_cause_is_the_cause_it_is_what_recovery_says_also_where_a_lot_decides(method):
    subject = detector(96)
    recovered = sc.measure("pixel_recovery", method, subject, n=96)[needing(subject, 96)]
    assert sc.measure("subtractive_importance", method, subject, n=96).tolist() == (1 - recovered).tolist()


class Default(nn.Module):
    """Class 1 where its pixel is bright, else class 0: one of two classes is taken by default."""

    def forward(self, x):
        z = 8 * (x[:, 0, SITES[1][0], SITES[1][1]] - 0.5)
        return torch.stack([-z, z], dim=1)


def by_default() -> Subject:
    """A bright pixel is declared the cause of class 0, too; the model never looks there."""
    whole = detector(400)
    kept = (whole.targets < 2).nonzero().flatten()
    parts = {name: getattr(whole, name)[kept] for name in ("inputs", "targets", "truth", "decoys")}
    return replace(whole, model=Default().eval(), contrast=None, name="by_default", **parts)


def test_what_a_model_does_not_use_is_held_against_a_map_by_recovery_and_not_by_these():
    """The specification's first trap: a sound method recovers what is declared only where it is the cause."""
    subject = by_default()
    assert run("pixel_recovery", gradient, subject).verdict == "fail"
    for metric in BOTH:
        result = run(metric, gradient, subject)
        assert result.verdict == "pass", result
        assert (result.score, result.n) == (0, 96)
        assert run(metric, white_noise, subject).verdict == "fail"


def test_images_that_do_not_need_their_cause_are_made_up_for_by_later_ones():
    subject = by_default()
    rows = needing(subject, 30)
    assert rows.tolist() == list(range(1, 60, 2))  # classes 0 and 1 in turn, and only 1 needs its pixel
    assert len(needing(subject, 1000)) == 100
    result = run(subtractive_importance, white_noise, subject, n=32, images=2)
    assert result.n == 32
    assert len(result.examples) == 4


@pytest.mark.parametrize("metric", BOTH, ids=lambda m: m.name)
def test_a_model_that_does_not_need_its_cause_is_no_subject(metric):
    subject = detector()
    for broken, told in (
        (replace(subject, clean=subject.inputs), r"right on 100\.0% with the cause .*100\.0% without it \(chance, 25%"),
        (replace(subject, targets=(subject.targets + 1) % CLASSES), r"right on 0\.0% with the cause \(expected 99%"),
        (replace(subject, truth=subject.decoys[:, 0], decoys=subject.decoys[:, 1:]), "with nothing else"),
    ):
        with pytest.raises(Unqualified, match=told):
            measured(metric, zero, broken)
        assert run(metric, gradient, broken).verdict == "skip"
    assert run("pixel_recovery", gradient, broken).verdict == "fail"  # a wrongly declared cause: the method is blamed


def test_the_model_is_asked_once_for_all_methods_and_then_about_misses_only():
    subject = detector()
    subject.model.register_forward_hook(lambda module, args, output: asked.append(len(output)))
    asked: list[int] = []
    measured(additive_importance, pointing(subject, subject.truth), subject)
    assert sum(asked) == 3 * 64  # with the cause, without it, alone
    asked.clear()
    measured(subtractive_importance, pointing(subject, subject.truth, "again"), subject)
    assert not asked
    elsewhere = torch.where((torch.arange(64) < 10).view(-1, 1, 1), subject.decoys[:, 0], subject.truth)
    measured(subtractive_importance, pointing(subject, elsewhere, "ten_misses"), subject)
    assert sum(asked) == 2 * len(needing(subject, 64)[needing(subject, 64) < 10])


def test_the_worst_replica_is_judged_and_all_are_scored_on_equally_many_images():
    subject = replace(by_default(), replicas=(lambda: detector(64, seed=3),))
    scores = measured(subtractive_importance, gradient, subject)
    assert scores.groups == ("replica 0",)  # a draw without replicas
    scores = subtractive_importance.measure(gradient, subject, Draw(n=64, replicas=1))
    counts = len(needing(subject, 64)), len(needing(detector(64, seed=3), 64))
    assert scores.values.shape == (2, 1, min(counts))
    assert counts[0] != counts[1]


def test_the_published_mean_over_misses_is_in_the_note_where_there_are_thirty():
    subject = detector(96)
    chosen = subject.decoys[:, 1]
    details = measured(subtractive_importance, pointing(subject, chosen), subject, 96).details
    needed = sum(1 for _ in by_hand(subject, chosen)[1])
    assert details["missed"] == needed >= 30
    mean, low, high = details["on_misses"]
    assert (mean, high) == (1, 1)
    assert 0.8 < low < 1
    assert "over these alone, as published: 1.00" in details["note"]
    result = run(subtractive_importance, gradient, subject)
    assert f"missed 0 of {needed} images that need their cause: too few" in result.message


def test_only_what_decides_the_class_is_asked_about():
    result = run(additive_importance, gradient, subject_of(conv_net(), 3))
    assert result.verdict == "skip"
    assert "needs decision" in result.message
    # A graft adds to what the model sees itself, and need not decide: not asked there, in any run.
    assert "adds nothing" in applicable("additive_importance", gradient, factory("fashion_cnn"))


def test_an_unknown_way_of_pointing_says_what_there_is():
    with pytest.raises(ValueError, match="expected spots or pixels"):
        additive_importance.with_settings(at="cells")
