"""Methods that mask images against enumeration, closed forms of linear models and small games, and captum."""

from __future__ import annotations

import itertools
import math
import sys

import captum.attr
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks.methods.masking import masked_scores
from saliency_checks.methods.path import baseline_like, integrated_gradients
from saliency_checks.methods.perturbation import (
    feature_ablation,
    kernel_shap,
    lime,
    occlusion,
    rise,
    shapley_kernel,
    shapley_sampling,
)
from saliency_checks.methods.regions import ranked_regions, xrai
from saliency_checks.methods.segments import Game, grid, segmented

from convnets import Cramped, convnet, images, linear, randomised

laws = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
Y = torch.tensor([0, 1, 2])
BY_SEGMENT = [feature_ablation, shapley_sampling, kernel_shap, lime]
FAMILY = [occlusion, rise, *BY_SEGMENT]


def named(methods):
    return pytest.mark.parametrize("method", methods, ids=lambda method: method.__name__)


def weights(model: nn.Module, x: torch.Tensor, y: torch.Tensor = Y) -> torch.Tensor:
    return model[1].weight[y].view_as(x).detach()


def per_segment(values: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """(n, 1, h, w) summed over each pixel's segment and shared by its pixels."""
    flat, found = labels.flatten(1), torch.zeros_like(values.flatten(1))
    for image, (row, segment) in enumerate(zip(values.flatten(1), flat, strict=True)):
        for label in segment.unique():
            found[image, segment == label] = row[segment == label].mean()
    return found.view_as(values)


# Linear models: each segment's contribution is known -----------------------------------------------------------------


@named(BY_SEGMENT)
@pytest.mark.parametrize("baseline", [0.0, 0.7, "mean", torch.tensor([0.1, 0.2, 0.9]).view(3, 1, 1)])
@pytest.mark.parametrize("count", [1, 9, 25])
def test_a_segment_of_a_linear_model_contributes_its_weights_times_its_distance(method, baseline, count):
    model, x = linear(), images()
    effect = (weights(model, x) * (x - baseline_like(x, baseline))).sum(1, keepdim=True)
    expected = per_segment(effect, segmented(x, "grid", count))
    torch.testing.assert_close(method(model, x, Y, baseline=baseline, count=count), expected)


@named([feature_ablation, shapley_sampling, kernel_shap])
def test_with_a_pixel_per_segment_it_is_weight_times_distance(method):
    model, x = linear(), images()
    expected = (weights(model, x) * x).sum(1, keepdim=True)
    torch.testing.assert_close(method(model, x, Y, count=64), expected)


def test_ridge_shrinks_what_lime_finds():
    model, x = linear(), images()
    plain, shrunk = (lime(model, x, Y, ridge=ridge, count=9) for ridge in (0.0, 30.0))
    assert shrunk.abs().mean() < 0.8 * plain.abs().mean()


def test_lime_is_the_weighted_regression_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.linear_model")
    model, x, ridge, width = convnet(), images(1), 0.7, 0.4
    torch.manual_seed(0)
    found = lime(model, x, Y[:1], samples=200, kernel_width=width, ridge=ridge, count=9)
    torch.manual_seed(0)
    on = torch.rand(200, 9) < 0.5
    on[0] = True
    labels = grid(8, 8, 9)
    with torch.no_grad():
        worth = model(x * on.double()[:, labels][:, None])[:, 0]
    z = on.numpy().astype(float)
    cosine = z.sum(1) / np.maximum(np.linalg.norm(z, axis=1) * 3, 1e-9)
    near = np.exp(-((1 - cosine) ** 2) / (2 * width**2))
    fit = sklearn.Ridge(alpha=ridge).fit(z, worth.numpy(), sample_weight=near)
    expected = torch.from_numpy(fit.coef_)[labels] / labels.flatten().bincount()[labels]
    torch.testing.assert_close(found[0, 0], expected)


# Games: exact Shapley values by enumeration --------------------------------------------------------------------------


def shapley_by_enumeration(model: nn.Module, x: torch.Tensor, y: int, labels: torch.Tensor) -> torch.Tensor:
    """Mean over all orders of what a player adds."""
    players = int(labels.max()) + 1
    coalitions = torch.tensor(list(itertools.product([0.0, 1.0], repeat=players)), dtype=torch.float64)
    with torch.no_grad():
        worth = model(coalitions[:, labels][:, None] * x)[:, y]
    index = {tuple(map(int, row)): i for i, row in enumerate(coalitions)}
    total = torch.zeros(players, dtype=torch.float64)
    for order in itertools.permutations(range(players)):
        present = [0] * players
        for player in order:
            before = worth[index[tuple(present)]]
            present[player] = 1
            total[player] += worth[index[tuple(present)]] - before
    return total / math.factorial(players)


@laws
@given(seed=seeds)
def test_kernel_shap_is_exact_where_it_may_ask_for_all_coalitions(seed):
    model, x, labels = convnet(seed=seed), images(1, seed=seed), grid(8, 8, 6)
    players = int(labels.max()) + 1
    exact = shapley_by_enumeration(model, x, 0, labels)
    found = kernel_shap(model, x, Y[:1], count=6)[0, 0] * labels.flatten().bincount()[labels]
    torch.testing.assert_close(found, exact[labels])
    assert players == 6


def test_sampled_shapley_values_come_near_the_exact_ones():
    model, x, labels = convnet(), images(1), grid(8, 8, 6)
    sizes = labels.flatten().bincount()[labels]
    exact = shapley_by_enumeration(model, x, 0, labels)
    torch.manual_seed(0)
    for found in (
        shapley_sampling(model, x, Y[:1], permutations=400, count=6),
        kernel_shap(model, x, Y[:1], 0.0, 60, count=6),
    ):
        error = (found[0, 0] * sizes - exact[labels]).abs().max()
        assert error < 0.1 * exact.abs().max()


@pytest.mark.parametrize("players", [1, 2, 3, 7])
def test_shapley_s_kernel_enumerates_each_coalition_once_with_its_weight(players):
    coalitions, found = shapley_kernel(players, 10**4)
    assert len({tuple(row.tolist()) for row in coalitions}) == len(coalitions) == 2**players - 2
    for row, weight in zip(coalitions, found, strict=True):
        size = int(row.sum())
        assert weight.item() == pytest.approx(
            (players - 1) / (math.comb(players, size) * size * (players - size)), rel=1e-12
        )


def test_drawn_coalitions_have_the_kernel_s_sizes_and_come_with_their_complements():
    torch.manual_seed(0)
    coalitions, found = shapley_kernel(12, 4000)
    half = len(coalitions) // 2
    assert torch.equal(coalitions[half:], ~coalitions[:half])
    assert len(found.unique()) == 1
    sizes = torch.arange(1, 12, dtype=torch.float64)
    expected = 1 / (sizes * (12 - sizes))
    shares = coalitions.sum(1).bincount(minlength=12)[1:] / len(coalitions)
    torch.testing.assert_close(shares.double(), expected / expected.sum(), atol=0.03, rtol=0)
    assert (coalitions.double().mean(0) - 0.5).abs().max() < 1e-12


@named([shapley_sampling, kernel_shap])
@laws
@given(seed=seeds)
def test_shapley_values_are_complete_however_few_are_drawn(method, seed):
    model, x = convnet(seed=seed), images(seed=seed)
    few = {"permutations": 1} if method is shapley_sampling else {"samples": 70}
    found = method(model, x, Y, baseline=0.3, **few).sum((1, 2, 3))
    change = (model(x) - model(torch.full_like(x, 0.3))).gather(1, Y[:, None]).squeeze(1).detach()
    torch.testing.assert_close(found, change)


@named(BY_SEGMENT)
def test_a_segment_that_is_at_the_baseline_contributes_nothing(method):
    x = images()
    x[:, :, :4] = 0
    found = method(convnet(), x, Y, count=4)
    exact = method in (feature_ablation, shapley_sampling)
    assert found[:, :, :4].abs().max() <= (0 if exact else 0.02) + 1e-12
    assert (found[:, :, 4:].flatten(1) != 0).any(1).all()


# captum side by side -------------------------------------------------------------------------------------------------


def test_captum_agrees_on_feature_ablation():
    model, x, labels = convnet(), images(), grid(8, 8, 9)
    theirs = captum.attr.FeatureAblation(model).attribute(x, target=Y, feature_mask=labels.repeat(1, 3, 1, 1))
    ours = feature_ablation(model, x, Y, count=9) * labels.flatten().bincount()[labels]
    torch.testing.assert_close(ours, theirs[:, :1].double(), rtol=1e-5, atol=1e-6)


def test_captum_agrees_on_exact_shapley_values():
    model, x, labels = convnet(), images(1), grid(8, 8, 6)
    theirs = captum.attr.ShapleyValues(model).attribute(x, target=0, feature_mask=labels.repeat(1, 3, 1, 1))
    ours = kernel_shap(model, x, Y[:1], count=6) * labels.flatten().bincount()[labels]
    torch.testing.assert_close(ours, theirs[:, :1].double(), rtol=1e-4, atol=1e-5)


def test_captum_s_kernel_shap_comes_near_what_ours_finds_exactly():
    pytest.importorskip("sklearn")
    model, x, labels = convnet(), images(1), grid(8, 8, 6)
    torch.manual_seed(0)
    theirs = captum.attr.KernelShap(model).attribute(x, target=0, feature_mask=labels.repeat(1, 3, 1, 1), n_samples=300)
    ours = kernel_shap(model, x, Y[:1], count=6) * labels.flatten().bincount()[labels]
    assert (ours - theirs[:, :1]).abs().max() < 0.3 * ours.abs().max()


# RISE ----------------------------------------------------------------------------------------------------------------


def test_rise_of_a_linear_model_has_a_closed_form():
    """c + sum_j w_j x_j E[m_i m_j] / p; E[m_i m_j] = p^2 + p (1 - p) times the cells that i and j have in common.

    With a cell per pixel and no enlargement this is c + p sum_j w_j x_j + (1 - p) w_i x_i. Less the mean score only
    the last term is left: p^2 goes, and c.
    """
    model, x, p, n = linear(), images(), 0.3, 20_000
    torch.manual_seed(0)
    found = rise(model, x, Y, samples=n, cells=4, probability=p, centred=False)
    cells = torch.eye(16, dtype=torch.float64).view(16, 1, 4, 4)
    large = F.interpolate(cells, size=(10, 10), mode="bilinear")[:, 0]
    cut = torch.stack([large[:, i : i + 8, j : j + 8].flatten(1) for i in (0, 1) for j in (0, 1)])
    common = torch.einsum("sci,scj->ij", cut, cut) / 4
    effect = (weights(model, x) * x).sum(1).flatten(1)
    constant = model[1].bias[Y].detach()[:, None]
    expected = constant + (effect @ (p**2 + p * (1 - p) * common)) / p
    assert (found.flatten(1) - expected).abs().max() < 0.05 * expected.abs().max()
    torch.manual_seed(0)
    found = rise(model, x, Y, samples=n, cells=4, probability=p)
    expected = effect @ ((1 - p) * common)
    assert (found.flatten(1) - expected).abs().max() < 0.1 * expected.abs().max()


def test_rise_of_a_constant_model_is_the_constant():
    model, x = linear(), images()
    with torch.no_grad():
        model[1].weight.zero_()
    torch.manual_seed(0)
    found = rise(model, x, Y, samples=4000, centred=False)
    constant = model[1].bias[Y].detach().view(-1, 1, 1, 1)
    assert (found / constant - 1).abs().max() < 0.1
    assert rise(model, x, Y).abs().max() < 1e-12  # nothing, less the mean


@pytest.mark.parametrize(("height", "width"), [(28, 28), (8, 8), (30, 17), (5, 5), (3, 3)])
def test_masks_of_rise_are_cells_enlarged_and_cut_at_random(height, width):
    seen = []
    model = nn.Sequential(nn.Flatten(), nn.Linear(height * width, 2)).double()
    model.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    torch.manual_seed(0)
    rise(model, torch.ones(1, 1, height, width, dtype=torch.float64), torch.tensor([0]), samples=600, probability=0.3)
    masks = torch.cat(seen)[:, 0]
    assert masks.shape == (600, height, width)
    assert masks.min() >= 0
    assert masks.max() <= 1 + 1e-9
    assert (masks.mean(0) - 0.3).abs().max() < 0.1  # everywhere alike, borders too
    neighbours = (masks[:, 1:] - masks[:, :-1]).abs().max()
    assert neighbours <= 1 / -(-height // 7) + 1e-9  # as steep as bilinear enlargement


@pytest.mark.parametrize("limit", [1, 7, 100])
def test_the_masks_of_rise_do_not_depend_on_how_many_fit_into_a_pass(limit, monkeypatch):
    model, x = convnet(), images()
    torch.manual_seed(0)
    whole = rise(model, x, Y, samples=60)
    monkeypatch.setattr("saliency_checks.chunking.ELEMENTS_PER_PASS", limit * x[0].numel())
    torch.manual_seed(0)
    torch.testing.assert_close(rise(model, x, Y, samples=60), whole)


def test_all_images_of_a_batch_get_the_same_draws():
    model, x = convnet(), images()
    for method in (rise, lime, kernel_shap, shapley_sampling):
        torch.manual_seed(5)
        whole = method(model, x, Y)
        torch.manual_seed(5)
        torch.testing.assert_close(method(model, x[1:2], Y[1:2]), whole[1:2])


# XRAI ----------------------------------------------------------------------------------------------------------------


def ranked_by_hand(contributions: list[float], regions: list[set[int]]) -> list[float]:
    left, found = set(range(len(contributions))), [0.0] * len(contributions)
    while left:
        mean, best = max(
            (sum(contributions[p] for p in r & left) / len(r & left), -i) for i, r in enumerate(regions) if r & left
        )
        for pixel in regions[-best] & left:
            found[pixel] = mean
        left -= regions[-best]
    return found


@laws
@given(seed=seeds)
def test_regions_are_ranked_like_in_a_loop_over_sets(seed):
    rng = torch.Generator().manual_seed(seed)
    contributions = torch.randn(2, 12, dtype=torch.float64, generator=rng)
    labels = torch.stack([torch.arange(12) // 6, 2 + torch.arange(12) // 3, 6 + torch.arange(12) % 4]).expand(2, -1, -1)
    found = ranked_regions(contributions, labels)
    for values, row in zip(contributions, found, strict=True):
        regions = [set((labels[0] == k).any(0).nonzero().flatten().tolist()) for k in range(10)]
        assert row.tolist() == pytest.approx(ranked_by_hand(values.tolist(), regions))


def test_xrai_with_a_region_per_pixel_is_the_mean_of_two_integrated_gradients():
    model, x = convnet(), images()
    ends = x.amin((1, 2, 3), keepdim=True), x.amax((1, 2, 3), keepdim=True)
    paths = [integrated_gradients(model, x, Y, baseline=end) for end in ends]
    expected = torch.stack(paths).mean(0).sum(1, keepdim=True)
    torch.testing.assert_close(xrai(model, x, Y, counts=(64,)), expected)
    torch.testing.assert_close(xrai(model, x, Y).sum(), expected.sum())  # a mean in place of each value


def test_xrai_gives_the_region_of_the_cause_the_highest_value():
    model, x = linear(), images()
    with torch.no_grad():
        model[1].weight.zero_().view(4, 3, 8, 8)[:, :, 2, 5] = 1.0
    x[:, :, 2, 5] = 0.9
    found = xrai(model, x, Y)
    assert (found.flatten(1).argmax(1) == 2 * 8 + 5).all()


# Segments ------------------------------------------------------------------------------------------------------------


@laws
@given(height=st.integers(1, 40), width=st.integers(1, 40), count=st.integers(1, 80))
def test_a_grid_is_made_of_rectangles_of_nearly_one_size(height, width, count):
    labels = grid(height, width, count)
    sizes = labels.flatten().bincount()
    assert sizes.min() >= 1
    assert len(sizes) <= height * width
    for label in range(len(sizes)):
        rows, columns = (labels == label).nonzero().T
        assert len(rows) == (rows.max() - rows.min() + 1) * (columns.max() - columns.min() + 1)
    if count <= min(height, width):
        assert abs(len(sizes) - count) <= max(1, count / 3)
        assert (len(sizes) == 1) == (count == 1)


@named(BY_SEGMENT)
def test_own_segments_are_taken_whatever_their_labels(method):
    model, x = linear(), images()
    labels = torch.where(torch.arange(8) < 3, 40, -7).expand(8, 8)
    expected = per_segment((weights(model, x) * x).sum(1, keepdim=True), (labels == 40).long().expand(3, 8, 8))
    torch.testing.assert_close(method(model, x, Y, segments=labels), expected)


@named([*BY_SEGMENT, xrai])
def test_superpixels_are_each_image_s_own(method):
    pytest.importorskip("skimage")
    model, x = linear(), images(size=8)
    labels = segmented(x, "slic", 9)
    assert not torch.equal(labels[0], labels[1])
    torch.manual_seed(0)
    found = method(model, x, Y, segments="slic", **({"counts": (9, 16)} if method is xrai else {"count": 9}))
    if method is not xrai:
        start = torch.zeros_like(x)
        torch.testing.assert_close(found, per_segment((weights(model, x) * (x - start)).sum(1, keepdim=True), labels))
    assert found.shape == (3, 1, 8, 8)


def test_superpixels_without_scikit_image_say_how_to_get_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage.segmentation", None)
    with pytest.raises(ImportError, match=r"needs scikit-image: pip install 'saliency-checks\[segments\]'"):
        segmented(images(), "slic")


def test_a_kind_of_segments_that_is_unknown_is_refused():
    with pytest.raises(ValueError, match="expected 'grid', 'slic' or labels"):
        segmented(images(), "voronoi")


# Memory --------------------------------------------------------------------------------------------------------------


@named(FAMILY)
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_loses_nothing(method, caplog):
    model, x = convnet(), images()
    found = []
    for room in (10**9, 2):
        torch.manual_seed(0)
        found.append(method(Cramped(model, room), x, Y))
    torch.testing.assert_close(found[1], found[0])
    assert "out of memory: going on with 2 at once" in caplog.text or "with 1 at once" in caplog.text


def test_masked_scores_keep_the_image_where_the_mask_is_one_and_the_baseline_elsewhere():
    model, x = linear(), images()
    start = torch.full_like(x, 0.25)
    game = Game(model, x, Y, start, grid(8, 8, 4).expand(3, -1, -1), 4)
    ends = game.worth(torch.tensor([[True] * 4, [False] * 4]))
    torch.testing.assert_close(ends, torch.stack([model(z).gather(1, Y[:, None])[:, 0] for z in (x, start)]).detach())
    half = masked_scores(model, x, Y, start, 1, lambda which, image: torch.full_like(x[image, :1], 0.5))
    torch.testing.assert_close(half, ends.mean(0, keepdim=True))


def test_randomised_models_are_not_all_alike():
    """The oracles above would hold for a model that ignores its input."""
    assert convnet()(images()).std(0).min() > 0
    assert randomised(nn.Sequential(nn.Flatten(), nn.Linear(192, 4)))(images()).std(0).min() > 0
