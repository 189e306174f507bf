"""The embedded images are balanced and whole; in a planted scene nothing but its hue tells the site from a decoy."""

from __future__ import annotations

import gzip
import math
import runpy
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Generator, Tensor

from saliency_checks import fixtures
from saliency_checks.fixtures import DEVELOPMENT, HELD_OUT, data, planted, recipes, training

SEEDS = st.integers(0, 2**40)
ROLES = st.sampled_from(["a", "b"])


def scene_of(seed: int, role: str = "a", n: int = 64, second: bool = False) -> planted.Scene:
    labels = torch.arange(n) % 4
    other = (labels + 1) % 3 if second else None
    return planted.scenes(
        data.embedded("test")[0][:n], labels, role, Generator().manual_seed(seed), second=other
    )  # fmt: skip


def colours(scene: planted.Scene) -> Tensor:
    """The colour of every spot, (N, S, 3)."""
    flat = scene.inputs.flatten(2)
    return flat.gather(2, scene.places.unsqueeze(1).expand(-1, flat.shape[1], -1)).transpose(1, 2)


def chroma(scene: planted.Scene) -> Tensor:
    found = colours(scene)
    return found - found.mean(2, keepdim=True)


def hues(scene: planted.Scene) -> Tensor:
    """Degrees on the hue circle, (N, S), by the definition of its two axes and independent of the generator's code."""
    red, green, blue = chroma(scene).unbind(2)
    angle = torch.atan2((red + green - 2 * blue) / math.sqrt(6), (red - green) / math.sqrt(2))
    return torch.rad2deg(angle) % 360


def test_the_embedded_data_is_balanced_in_every_slice_and_small() -> None:
    for part, n in (("train", 10_000), ("test", 2_000)):
        images, labels = data.embedded(part)
        assert images.shape == (n, 1, 28, 28)
        assert (float(images.min()), float(images.max())) == (0.0, 1.0)
        assert torch.bincount(labels).tolist() == [n // 10] * 10
        assert torch.bincount(labels[330:780]).tolist() == [45] * 10
    files = list(data.DATA.iterdir())
    assert sum(path.stat().st_size for path in files) < 6e6
    assert "Zalando SE" in (data.DATA / "LICENSE-Fashion-MNIST").read_text(encoding="utf-8")


def test_the_embedded_images_fit_their_labels() -> None:
    # Class means of the training part classify the test part far above chance only if no image or label is misplaced.
    images, labels = data.embedded("train")
    means = torch.stack([images[labels == c].mean(0) for c in range(10)]).flatten(1)
    test, true = data.embedded("test")
    assert (torch.cdist(test.flatten(1), means).argmin(1) == true).double().mean() > 0.6
    assert float(images.mean()) == pytest.approx(data.MEAN, abs=0.005)
    assert float(images.std()) == pytest.approx(data.STD, abs=0.005)


def test_no_image_is_in_both_parts_or_twice() -> None:
    rows = torch.cat([data.embedded(part)[0] for part in ("train", "test")]).flatten(1).numpy()
    assert len({row.tobytes() for row in rows}) > len(rows) - 5  # the complete set itself holds a few duplicates


def test_the_script_takes_the_first_images_of_each_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A complete set in which each image holds its class and its number within the class.
    for part, per_class in (("train", 9), ("t10k", 7)):
        labels = np.tile(np.arange(10, dtype=np.uint8)[::-1], per_class)
        images = np.zeros((len(labels), 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1] = labels, np.arange(len(labels)) // 10
        for kind, header, content in (("images-idx3", 16, images), ("labels-idx1", 8, labels)):
            (tmp_path / f"{part}-{kind}-ubyte.gz").write_bytes(gzip.compress(bytes(header) + content.tobytes(), 1))
        monkeypatch.setitem(data.PER_CLASS, "test" if part == "t10k" else part, per_class - 3)
    script = Path(__file__).parent.parent / "scripts" / "make_fashion_subset.py"
    monkeypatch.setattr(sys, "argv", [str(script), str(tmp_path), "--out", str(tmp_path / "out")])
    runpy.run_path(str(script), run_name="__main__")
    monkeypatch.setattr(data, "DATA", tmp_path / "out")
    for part in ("train", "test"):
        images, labels = data.embedded.__wrapped__(part)
        label, number = (images[:, 0, 0, :2] * 255).round().long().unbind(1)
        assert torch.equal(label, labels)
        assert torch.equal(number, torch.arange(10 * data.PER_CLASS[part]) // 10)


def test_the_splits_share_nothing() -> None:
    def disjoint(first: tuple[int, int], second: tuple[int, int]) -> bool:
        return first[1] <= second[0] or second[1] <= first[0]

    assert disjoint(DEVELOPMENT.test, HELD_OUT.test)
    assert disjoint(DEVELOPMENT.memorised, HELD_OUT.memorised)
    assert disjoint(DEVELOPMENT.backgrounds, HELD_OUT.backgrounds)
    seeds = [r.seed for split in (DEVELOPMENT, HELD_OUT) for r in recipes.needed(fixtures.NAMES, "thorough", split)]
    assert len(set(seeds)) == len(seeds)


@settings(deadline=None, max_examples=25)
@given(SEEDS, ROLES)
def test_eight_spots_in_distinct_cells_and_everything_in_range(seed: int, role: str) -> None:
    scene = scene_of(seed, role)
    row, column = scene.places // 28, scene.places % 28
    cells = (row // 4) * 7 + column // 4
    assert all(len(set(image.tolist())) == 8 for image in cells)
    assert (scene.masks.flatten(2).sum(2) == 1).all()
    assert (scene.masks.flatten(2).long().argmax(2) == scene.places).all()
    assert scene.inputs.min() >= 0.02
    assert scene.inputs.max() <= 0.98
    painted = (scene.inputs - (0.2 + 0.6 * data.embedded("test")[0][:64])).abs().amax(1) > 1e-6
    assert not (painted & ~scene.masks.any(1)).any()


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_the_site_has_its_classs_hue_and_a_decoy_never_has(seed: int) -> None:
    scene = scene_of(seed)
    turned = (hues(scene) + 20) % 360 - 20  # around 0, not around 360
    classes = torch.tensor([0.0, 120.0, 240.0])
    with_site = scene.labels < 3
    assert (turned[with_site, 0] - classes[scene.labels[with_site]]).abs().max() < 15  # clipping turns a hue a little
    decoys = torch.cat([turned[:, 1:].flatten(), turned[~with_site, 0]])
    assert ((decoys - 60) % 120 - 0).min() >= 0
    assert (((decoys + 60) % 120 - 60).abs() > 45).all()  # as far from every class hue as the circle allows


@settings(deadline=None, max_examples=25)
@given(SEEDS)
def test_the_roles_exchange_the_hues_of_classes_and_decoys_and_nothing_else(seed: int) -> None:
    a, b = scene_of(seed, "a"), scene_of(seed, "b")
    assert torch.equal(a.places, b.places)
    turn = (hues(b) - hues(a) + 180) % 360 - 180
    assert (turn - 60).abs().max() < 25
    assert turn.median() == pytest.approx(60, abs=0.5)


def test_a_second_class_takes_the_place_of_one_decoy() -> None:
    one, two = scene_of(3), scene_of(3, second=True)
    assert torch.equal(one.places, two.places)
    turned = (hues(two) + 20) % 360 - 20
    assert (turned[:, 1] - 120.0 * ((two.labels + 1) % 3)).abs().max() < 15
    others = [0, *range(2, 8)]
    torch.testing.assert_close(colours(one)[:, others], colours(two)[:, others])


def test_the_same_seed_paints_the_same_scenes_and_the_global_generator_is_not_used() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = scene_of(11)
    torch.manual_seed(2)
    again, other = scene_of(11), scene_of(12)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(first.inputs, again.inputs)
    assert not torch.equal(first.inputs, other.inputs)


@pytest.mark.parametrize("role", ["a", "b"])
def test_site_and_decoys_differ_in_nothing_but_hue(role: str) -> None:
    pool = data.embedded("train")[0]
    scene = planted.draw_scenes(pool, 8000, role, Generator().manual_seed(0))
    sited = scene.labels < 3
    cells = (scene.places // 28 // 4) * 7 + scene.places % 28 // 4
    site_counts = torch.bincount(cells[sited, 0], minlength=49)
    decoy_counts = torch.bincount(cells[sited, 1:].flatten(), minlength=49)
    assert stats.chi2_contingency(torch.stack([site_counts, decoy_counts]).numpy()).pvalue > 1e-3
    luminance = colours(scene).mean(2)
    amplitude = chroma(scene).norm(dim=2)
    for value in (luminance, amplitude):
        site, decoy = value[sited, 0].numpy(), value[sited, 1].numpy()
        assert stats.ks_2samp(site, decoy).pvalue > 1e-3
    assert (torch.bincount(scene.labels, minlength=4) > 1800).all()


@settings(deadline=None, max_examples=25)
@given(SEEDS, SEEDS)
def test_the_first_cells_value_is_the_class_and_the_others_are_independent(site: int, seed: int) -> None:
    scene = planted.cells(data.embedded("test")[0][:400], site, Generator().manual_seed(seed))
    places = scene.places[0]
    assert (scene.places == places).all()
    assert len({(p // 28 // 4, p % 28 // 4) for p in places.tolist()}) == 16
    values = scene.inputs.flatten(1)[:, places]
    torch.testing.assert_close(values, torch.where(values > 0.75, 0.95, 0.55))
    assert torch.equal((values[:, 0] > 0.75).long(), scene.labels)
    correlation = np.corrcoef(values.numpy().T)[0, 1:]
    assert np.abs(correlation).max() < 0.3  # 400 independent ones: sd .05
    assert scene.inputs.min() >= 0.02
    assert scene.inputs.max() <= 0.98


def test_flipping_a_cell_twice_is_nothing_and_once_changes_that_pixel_alone() -> None:
    scene = planted.cells(data.embedded("test")[0][:20], 1, Generator().manual_seed(1))
    place = int(scene.places[0, 3])
    once = planted.flip_cell(scene.inputs, place)
    changed = (once != scene.inputs).flatten(1)
    assert changed.sum(1).tolist() == [1] * 20
    assert changed[:, place].all()
    torch.testing.assert_close(planted.flip_cell(once, place), scene.inputs)


def test_masking_leaves_a_third_of_the_images_and_blots_pixels_and_blocks() -> None:
    images = torch.full((6000, 1, 28, 28), 0.9)
    masked = training.mask_to_mean(images, Generator().manual_seed(0))
    blotted = masked != images
    assert torch.equal(masked[blotted], torch.full_like(masked[blotted], data.MEAN))
    share = blotted.flatten(1).double().mean(1)
    assert (share == 0).double().mean() == pytest.approx(1 / 3, abs=0.04)
    assert share[share > 0].mean() == pytest.approx(0.5, abs=0.03)
    tiles = blotted.view(-1, 7, 4, 7, 4).transpose(2, 3).flatten(3).double().mean(3)  # share of each 4x4 block
    in_blocks = ((tiles == 0) | (tiles == 1)).flatten(1).all(1)[(share > 0.1) & (share < 0.9)]
    assert in_blocks.double().mean() == pytest.approx(0.5, abs=0.05)
