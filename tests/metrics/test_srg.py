"""Both curves and their difference: identities on linear models, DiffID's antisymmetry and optimum, ROAD's formula."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import saliency_checks as sc
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.perturbation import IMPUTERS, Curve, curve

from toys import against, constant, conv_net, effect, made, noise, subject_of, weighted, white_noise

FULL = Curve(scale="raw", output="logit", fractions=tuple(i / 12 for i in range(13)))


def values(metric: str, method: Method, subject: sc.Subject, n: int = 12, **changes) -> np.ndarray:
    found = sc.get("metrics", metric)
    found = found.with_settings(**changes) if changes else found
    return found.measure(method, subject, Draw(n=n)).values[0, 0]


def raw(method: Method, subject: sc.Subject, order: str, given: Curve = FULL) -> torch.Tensor:
    return curve(method, subject, 12, 0, given, order).read(given.output)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["absent", "blur", "image_mean", "kept_mean", "noise"]))
def test_inserting_most_relevant_first_is_deleting_least_relevant_first_on_the_full_range(seed, imputer):
    """Insertion by hand, on any map: what ranks first is shown on the fill."""
    subject, given = weighted(seed=seed % 7), replace(FULL, imputer=imputer)
    attributions = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    method = made(lambda m, x, t: attributions, "given", signed=True)
    from saliency_checks.perturbation.imputers import imputer as named
    from saliency_checks.perturbation.units import scene_of

    impute = named(imputer, scene_of(subject, slice(0, 12), 0))
    rank = attributions.flatten(1).argsort(1, descending=True).argsort(1).view(12, 1, 6, 6)
    inserted = []
    for share in given.fractions:
        images = impute(torch.arange(12), rank >= round(36 * share))
        inserted.append(subject.model(images)[torch.arange(12), subject.targets])
    deleted = raw(method, subject, "least", given).flip(1)
    torch.testing.assert_close(torch.stack(inserted, 1).detach(), deleted, atol=1e-9, rtol=0)


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(IMPUTERS))
def test_deleting_by_the_negated_map_is_deleting_from_the_other_end(seed, imputer):
    subject, given = weighted(seed=seed % 7), replace(FULL, imputer=imputer)
    attributions = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one = made(lambda m, x, t: attributions, "one", signed=True)
    other = made(lambda m, x, t: -attributions, "other", signed=True)
    torch.testing.assert_close(raw(other, subject, "most", given), raw(one, subject, "least", given), atol=1e-9, rtol=0)


@settings(max_examples=15)
@given(st.integers(0, 10**6), st.sampled_from([torch.exp, torch.tanh, lambda a: 3 * a - 2, lambda a: a**3]))
def test_an_increasing_transform_changes_no_score_by_pixels(seed, increasing):
    subject = weighted(seed=seed % 5)
    attributions = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one = made(lambda m, x, t: attributions, "one", signed=True)
    other = made(lambda m, x, t: increasing(attributions), "other", signed=True)
    subsets = ("minimal_subset_deletion", "minimal_subset_insertion")
    for metric in ("deletion", "insertion", "srg", "diffid", "aopc", *subsets):
        np.testing.assert_array_equal(values(metric, one, subject), values(metric, other, subject))


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.sampled_from(["absent", "black", "image_mean", "blur", "noise"]))
def test_diffid_of_the_reversed_ranking_is_its_negative(seed, imputer):
    subject = weighted(seed=seed % 7)
    attributions = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    one = made(lambda m, x, t: attributions, "one", signed=True)
    other = made(lambda m, x, t: -attributions, "other", signed=True)
    for metric in ("diffid", "srg"):
        there, back = (values(metric, method, subject, imputer=imputer) for method in (one, other))
        np.testing.assert_allclose(there, -back, atol=1e-9)


@settings(max_examples=15)
@given(st.integers(0, 10**6))
def test_what_each_pixel_adds_has_the_greatest_diffid_that_any_ranking_has(seed):
    """The exchange argument on f = sum w x with nothing in the place of x, x and w not negative."""
    subject = weighted(absent=0.0, seed=seed % 7)
    with torch.no_grad():
        subject.model.weight.abs_()
        subject.model.weight[1:] *= 1e-3
    subject = replace(subject, targets=torch.zeros(12, dtype=torch.long))
    best = made(lambda m, x, t: m.weight[t] * x, "best", signed=True)
    attributions = torch.randn(12, 1, 6, 6, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    other = made(lambda m, x, t: attributions, "other", signed=True)
    for share in (0.1, 0.3, 0.5, 0.9):
        given = {"fractions": (share,), "imputer": "black", "scale": "raw", "output": "logit"}
        assert (values("diffid", best, subject, **given) >= values("diffid", other, subject, **given) - 1e-9).all()


def test_a_random_map_and_a_constant_one_have_diffid_0_on_average():
    subject = weighted(400)
    for method in (white_noise, constant):
        found = values("diffid", method, subject, n=400)
        assert abs(found.mean()) < 4 * found.std() / 20


@pytest.mark.parametrize("metric", ["srg", "diffid", "road", "deletion", "insertion", "aopc"])
def test_the_effect_of_each_pixel_ranks_first_and_its_negative_last(metric):
    subject = weighted(48)
    found = {m.name: values(metric, m, subject, n=48).mean() for m in (effect, white_noise, constant, against)}
    assert max(found, key=found.get) == "effect"
    assert min(found, key=found.get) == "against"


def test_the_diffid_of_the_recalibration_code_by_hand():
    """|map| summed over channels and copied to all; the highest (lowest) share of the entries becomes the mean of those
    that stay; the target's logit over that of the image."""
    subject = weighted(6, channels=3)
    signed = made(lambda m, x, t: x - 0.5, "signed", signed=True)
    rank = (subject.inputs - 0.5).abs().sum(1, keepdim=True).flatten(1).argsort(1)  # pixels, ascending
    rows, total = torch.arange(6), np.zeros(6)
    original = subject.model(subject.inputs)[rows, subject.targets]
    shares = [i / 9 for i in range(1, 9)]  # whole pixels, so that no pixel loses some of its channels by lot
    for share in shares:
        count = round(36 * share)
        scores = []
        for gone in (rank[:, :count], rank[:, 36 - count :]):
            is_gone = (
                torch.zeros(6, 36, dtype=torch.bool).scatter_(1, gone, True).view(6, 1, 6, 6).expand(-1, 3, -1, -1)
            )
            image = subject.inputs.clone()
            for i in rows:
                image[i][is_gone[i]] = subject.inputs[i][~is_gone[i]].mean()
            scores.append(subject.model(image)[rows, subject.targets] / original)
        total += (scores[0] - scores[1]).detach().numpy() / len(shares)
    preset = sc.get("metrics", "diffid@recalibration").with_settings(fractions=tuple(shares))
    np.testing.assert_allclose(preset.measure(signed, subject, Draw(n=6)).values[0, 0], total, atol=1e-9)


def test_road_is_half_the_difference_of_the_probabilities_at_the_four_percentiles():
    """As pytorch-grad-cam combines its two sides; the imputation itself is tested against scipy."""
    subject = subject_of(conv_net().double(), 3, n=4)
    subject = replace(subject, inputs=subject.inputs.double())
    method, given = made(lambda m, x, t: x.sum(1), "sum", signed=True), sc.get("metrics", "road").settings
    sides = [curve(method, subject, 4, 0, given, order).read("probability") for order in ("least", "most")]
    expected = sum((sides[0] - sides[1])[:, k] / 2 for k in range(4)) / 4
    np.testing.assert_allclose(values("road", method, subject, n=4), expected.numpy())
    assert given.fractions == (0.2, 0.4, 0.6, 0.8)


def test_a_model_that_no_pixel_moves_has_no_difference():
    class Deaf(nn.Module):
        def forward(self, x):
            return torch.tensor([[2.0, 1.0]]).expand(len(x), 2)

    subject = replace(weighted(), model=Deaf(), targets=torch.zeros(12, dtype=torch.long))
    given = made(lambda m, x, t: noise(12, size=6), "given")
    for metric in ("srg", "diffid", "road"):
        np.testing.assert_allclose(values(metric, given, subject), 0, atol=1e-6)
