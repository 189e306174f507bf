"""Maps drawn on purpose against masks drawn on purpose; scikit-learn and scikit-image as second opinion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import measure as skimage_measure
from sklearn.metrics import jaccard_score

from saliency_checks import maps, registry
from saliency_checks.method import as_method
from saliency_checks.methods.oracle import truth_oracle
from saliency_checks.metric import Draw
from saliency_checks.metrics import localisation as place
from saliency_checks.metrics import localisation_error as box
from saliency_checks.run import run
from saliency_checks.subject import Unqualified

import truth
from toys import constant, detector, gradient, inverted, made, white_noise, zero

MEASURES = {
    "pointing_game": place.pointing_game,
    "energy_pointing_game": box.energy_pointing_game,
    "relevance_mass_accuracy": place.relevance_mass_accuracy,
    "relevance_rank_accuracy": place.relevance_rank_accuracy,
    "iou_top_area": place.iou_top_area,
    "iou_above_mean": place.iou_above_mean,
    "localisation_error": box.localisation_error,
    "localisation_error_top1": box.localisation_error_top1,
}
ERRORS = ("localisation_error", "localisation_error_top1")


def block(rows, columns, size=8):
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[rows[0] : rows[1], columns[0] : columns[1]] = True
    return mask


BAR = block((1, 3), (2, 7))  # 2 x 5: lies elsewhere once rows and columns are exchanged


def score(name, drawn, mask=BAR, *, signed=False, **given):
    """Of one map (H, W) and one mask."""
    subject = replace(detector(1), truth=mask[None])
    method = made(lambda m, x, t: drawn[None].to(x), "drawn", signed=signed)
    return float(MEASURES[name].measure(method, subject, Draw(n=1), **given).values.squeeze())


def off(name):
    """The score of a map that is wrong altogether."""
    return 1.0 if name in ERRORS else 0.0


@pytest.mark.parametrize("name", MEASURES)
def test_the_mask_itself_is_first_and_its_complement_last(name):
    assert score(name, BAR.float()) == 1 - off(name)
    assert score(name, (~BAR).float()) == pytest.approx(off(name) if name != "energy_pointing_game" else 0)


@pytest.mark.parametrize("name", MEASURES)
def test_a_transposed_map_misses(name):
    """The bar and its transpose share pixel (2, 2) and no more: 1 of 10."""
    overlaps = {"iou_top_area": 1 / 19, "iou_above_mean": 1 / 19, **dict.fromkeys(ERRORS, 1.0)}
    assert int((BAR & BAR.T).sum()) == 1
    assert score(name, BAR.T.float()) == pytest.approx(overlaps.get(name, 0.1))


@pytest.mark.parametrize("flat", [0.0, 0.1, 7e-9], ids=str)
@pytest.mark.parametrize("name", MEASURES)
def test_a_map_without_evidence_gets_the_share_of_the_mask_or_misses(name, flat):
    share = 10 / 64
    expected = {"iou_top_area": share / (2 - share), "iou_above_mean": 0.0, **dict.fromkeys(ERRORS, 1.0)}
    assert score(name, torch.full((8, 8), flat)) == pytest.approx(expected.get(name, share))


@pytest.mark.parametrize("name", MEASURES)
def test_what_rounding_leaves_on_a_constant_map_is_no_evidence(name):
    rounded = torch.where(BAR, 0.1 * (1 + 2e-7), 0.1)
    assert float(rounded.max()) > float(rounded.min())
    assert score(name, rounded) == score(name, torch.full((8, 8), 0.1))


@pytest.mark.parametrize("name", MEASURES)
def test_evidence_against_the_class_counts_in_magnitudes_only(name):
    assert score(name, -BAR.float(), signed=False) == 1 - off(name)
    if name not in ERRORS:
        assert score(name, -BAR.float(), signed=True) < 0.2
    mixed = BAR.float() - (~BAR).float() * 5
    assert score(name, mixed, signed=True) == 1 - off(name)


@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 63), scale=st.sampled_from([1e-6, 3.0, 1e6]))
@settings(deadline=None, max_examples=25)
def test_scale_changes_nothing_and_scores_stay_between_0_and_1(seed, pixels, scale):
    rng = torch.Generator().manual_seed(seed)
    mask = (torch.randperm(64, generator=rng) < pixels).view(8, 8)
    drawn = torch.randn(8, 8, generator=rng, dtype=torch.float64).float()
    for name in MEASURES:
        found = score(name, drawn, mask)
        assert 0 <= found <= 1
        assert score(name, scale * drawn, mask) == pytest.approx(found, abs=1e-5)


@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 63))
@settings(deadline=None, max_examples=25)
def test_what_knows_no_neighbours_is_blind_to_a_permutation_of_the_pixels(seed, pixels):
    rng = torch.Generator().manual_seed(seed)
    mask, drawn = torch.randperm(64, generator=rng) < pixels, torch.rand(64, generator=rng)
    order = torch.randperm(64, generator=rng)
    for name in (
        "pointing_game",
        "relevance_mass_accuracy",
        "relevance_rank_accuracy",
        "iou_top_area",
        "iou_above_mean",
    ):
        one, two = (score(name, drawn[p].view(8, 8), mask[p].view(8, 8)) for p in (torch.arange(64), order))
        assert one == pytest.approx(two, abs=1e-6)
    ranked = [name for name in MEASURES if name in ("pointing_game", "relevance_rank_accuracy", "iou_top_area")]
    for name in ranked:
        assert score(name, drawn.view(8, 8), mask.view(8, 8)) == score(name, drawn.exp().view(8, 8), mask.view(8, 8))


@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 63), levels=st.integers(1, 6))
@settings(deadline=None, max_examples=40)
def test_expected_hits_are_the_mean_over_all_ways_to_break_ties(seed, pixels, levels):
    """Against many random orders; exact where nothing ties (then all orders agree)."""
    rng = torch.Generator().manual_seed(seed)
    values = torch.randint(levels, (1, 64), generator=rng).float()
    mask = torch.rand(1, 64, generator=rng) < 0.3
    expected = float(maps.top_hits(values, mask, torch.tensor([pixels])))
    orders = maps.strict_order(values.expand(400, 64), rng)[:, :pixels]
    drawn = mask.expand(400, 64).gather(1, orders).sum(1).double()
    assert abs(drawn.mean() - expected) <= 6 * drawn.std() / 20 + 1e-9


@given(seed=st.integers(0, 10**6), pixels=st.integers(1, 63))
@settings(deadline=None, max_examples=25)
def test_overlaps_agree_with_scikit_learn(seed, pixels):
    rng = torch.Generator().manual_seed(seed)
    mask, drawn = (torch.randperm(64, generator=rng) < pixels).view(8, 8), torch.rand(8, 8, generator=rng)
    top = drawn >= drawn.flatten().sort(descending=True).values[pixels - 1]
    above = drawn.double() > drawn.double().mean()
    for name, chosen in (("iou_top_area", top), ("iou_above_mean", above)):
        assert score(name, drawn, mask) == pytest.approx(jaccard_score(mask.flatten(), chosen.flatten()))


@given(seed=st.integers(0, 10**6), share=st.floats(0.05, 0.9))
@settings(deadline=None, max_examples=40)
def test_boxes_agree_with_scikit_image(seed, share):
    rng = np.random.default_rng(seed)
    mask = rng.random((12, 9)) < share
    regions = skimage_measure.regionprops(skimage_measure.label(mask, connectivity=2))
    expected = [(slice(r.bbox[0], r.bbox[2]), slice(r.bbox[1], r.bbox[3])) for r in regions]
    assert sorted(map(str, box.boxes(mask))) == sorted(map(str, expected))
    largest = box.largest_box(mask)
    assert (largest is None) == (not regions)
    if regions:
        area = max(r.area for r in regions)
        assert largest in [e for e, r in zip(expected, regions, strict=True) if r.area == area]


def test_a_box_holds_its_last_row_and_column():
    corner = block((2, 3), (6, 7)).float()  # its lower right pixel
    assert score("energy_pointing_game", corner) == 1
    assert score("energy_pointing_game", block((3, 4), (7, 8)).float()) == 0
    one = block((4, 5), (4, 5))
    assert score("localisation_error", one.float(), one) == 0


def test_the_box_fills_what_the_mask_leaves_open():
    ring = block((1, 6), (1, 6)) & ~block((2, 5), (2, 5))
    inner = block((2, 5), (2, 5)).float()
    assert score("energy_pointing_game", inner, ring) == 1
    assert score("relevance_mass_accuracy", inner, ring) == 0


@pytest.mark.parametrize(("columns", "error"), [((2, 7), 0), ((2, 5), 0), ((2, 4), 1), ((0, 7), 0)])
def test_boxes_match_by_more_than_half_their_union(columns, error):
    """IoU with the truth's five columns: 1, 3/5, 2/5, 5/7."""
    assert score("localisation_error", block((1, 3), columns).float()) == error


def test_exactly_half_is_no_match_but_another_threshold_may_be_asked():
    half, mask = block((0, 2), (0, 1)), block((0, 2), (0, 2))
    assert score("localisation_error", half.float(), mask) == 1
    assert score("localisation_error", half.float(), mask, settings=box.BoxMatch(overlap=0.4)) == 0


def test_the_largest_part_of_the_map_draws_the_box_and_any_part_of_the_truth_may_match():
    two = block((0, 2), (0, 2)) | block((5, 8), (5, 8))
    assert score("localisation_error", block((0, 2), (0, 2)).float(), two) == 0
    stray = block((5, 8), (5, 8)).float() + 9 * block((1, 2), (2, 3)).float()
    assert score("localisation_error", stray, block((5, 8), (5, 8))) == 0


def test_pixels_that_touch_at_a_corner_are_one_part():
    diagonal = torch.eye(8, dtype=torch.bool)
    assert box.boxes(diagonal.numpy()) == [(slice(0, 8), slice(0, 8))]


@pytest.mark.parametrize(("tolerance", "hit"), [(0, 0), (2.9, 0), (3, 1), (4, 1)])
def test_a_near_miss_counts_within_the_tolerance(tolerance, hit):
    point = block((5, 6), (4, 5)).float()  # three rows below the bar
    assert score("pointing_game", point, settings=place.Pointing(tolerance=tolerance)) == hit


def test_a_wrong_prediction_is_an_error_of_the_top1_form_only():
    subject = detector(8)
    wrong = replace(subject, targets=torch.zeros(8, dtype=torch.long))
    exact = made(lambda m, x, t: subject.truth[: len(x)].to(x), "exact", signed=True)
    assert not box.localisation_error.measure(exact, wrong, Draw(n=8)).values.any()
    found = box.localisation_error_top1.measure(exact, wrong, Draw(n=8)).values.squeeze()
    assert found.tolist() == [0, 1, 1, 1, 0, 1, 1, 1]


def test_images_without_truth_are_left_out():
    subject = detector(8)
    some = subject.truth.clone()
    some[::2] = False
    found = place.relevance_mass_accuracy.measure(gradient, replace(subject, truth=some), Draw(n=8))
    assert found.n == 4
    with pytest.raises(Unqualified, match="empty"):
        place.pointing_game.measure(gradient, replace(subject, truth=0 * some > 1), Draw(n=8))


def test_a_mask_alone_is_enough_and_without_one_nothing_is_measured():
    assert run("pointing_game", gradient, detector(8, decoys=7)).verdict == "reported"
    assert run("pointing_game", gradient, replace(detector(8), decoys=None)).score == 1
    assert run("pointing_game", gradient, replace(detector(8), truth=None)).verdict == "skip"


@pytest.mark.parametrize("name", MEASURES)
def test_on_a_known_detector_the_gradient_is_first_and_its_inverse_last(name):
    def mean(method):
        found = float(MEASURES[name].measure(method, detector(64), Draw(n=64)).values.mean())
        return -found if name in ERRORS else found

    others = [mean(method) for method in (white_noise, constant, zero)]
    assert mean(gradient) > max(others)
    assert mean(inverted) <= min(others) + 1e-9


def test_a_method_that_does_not_say_what_its_sign_means_is_read_both_ways():
    unsaid = made(lambda m, x, t: -gradient.explain(m, x, t), "unsaid")
    result = run("pointing_game", unsaid, detector(32))
    assert (result.score, "magnitude" in result.message) == (1, True)


@pytest.mark.parametrize("name", MEASURES)
def test_on_planted_pixels_the_truth_is_first_and_every_control_behind_integrated_gradients(name):
    subject = truth.subject("planted_pixel_a", "held_out")

    def mean(method):
        found = float(MEASURES[name].measure(method, subject, Draw(n=32)).values.mean())
        return -found if name in ERRORS else found

    controls = [as_method(control) for control in registry.names("methods") if as_method(control).control]
    best = max(mean(control) for control in controls if not control.needs)
    assert mean(truth_oracle(subject)) == (0 if name in ERRORS else 1)
    if name not in ERRORS:  # a box of one pixel is out of reach for a map that has any noise
        assert best < mean(as_method("integrated_gradients")) <= 1
