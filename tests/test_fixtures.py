"""The embedded subjects are what they say: balanced data, exchangeable scenes, repeatable training, proven causes."""

from __future__ import annotations

import dataclasses
import io
import math
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from saliency_checks import cache, fixtures, registry
from saliency_checks.fixtures import (
    DEVELOPMENT, HELD_OUT, data, models, planted, progress, recipes, subjects, training, verification, warming,
)  # fmt: skip
from saliency_checks.fixtures.recipes import Cells, Fashion, Memorised, Recipe, Scenes
from saliency_checks.subject import Unqualified
from scipy import stats
from torch import Generator, Tensor, nn

SEEDS = st.integers(0, 2**40)
ROLES = st.sampled_from(["a", "b"])
TINY = Recipe(
    name="tiny", architecture="mlp_128", task=Memorised(images=(0, 100), test=(0, 100)),
    seed=5, rate=1e-3, batch=32, epochs=3,
)  # fmt: skip


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path


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


# Data


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


def test_the_splits_share_nothing() -> None:
    def disjoint(first: tuple[int, int], second: tuple[int, int]) -> bool:
        return first[1] <= second[0] or second[1] <= first[0]

    assert disjoint(DEVELOPMENT.test, HELD_OUT.test)
    assert disjoint(DEVELOPMENT.memorised, HELD_OUT.memorised)
    assert disjoint(DEVELOPMENT.backgrounds, HELD_OUT.backgrounds)
    seeds = [r.seed for split in (DEVELOPMENT, HELD_OUT) for r in recipes.needed(fixtures.NAMES, "thorough", split)]
    assert len(set(seeds)) == len(seeds)


# Scenes


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


# Networks


@pytest.mark.parametrize("architecture", sorted(models.ARCHITECTURES))
def test_every_activation_runs_once_and_writes_into_nothing(architecture: str) -> None:
    model = models.ARCHITECTURES[architecture]().eval()
    calls: list[nn.Module] = []
    activations = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    for module in activations:
        module.register_forward_hook(lambda module, *_: calls.append(module))
    model(torch.rand(2, 3 if architecture == "planted" else 1, 28, 28))
    assert len(calls) == len(activations) == len(set(calls)) > 0
    assert not any(module.inplace for module in activations)


def test_the_colour_filters_start_as_unit_colours_without_luminance() -> None:
    weight = models.planted()[1].weight.detach().flatten(1)  # type: ignore[index,union-attr,operator]
    torch.testing.assert_close(weight.sum(1), torch.zeros(12), atol=1e-6, rtol=0)
    torch.testing.assert_close(weight.norm(dim=1), torch.ones(12))
    torch.testing.assert_close(weight.sum(0), torch.zeros(3), atol=1e-5, rtol=0)  # they go round the circle


# Training


@contextmanager
def disturbed() -> Iterator[None]:
    """Other global settings than usual."""
    threads = torch.get_num_threads()
    torch.manual_seed(99)
    torch.set_num_threads(2)
    torch.set_default_dtype(torch.float64)
    try:
        with torch.inference_mode(), torch.device("meta"):
            yield
    finally:
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "recipe",
    [
        TINY,
        dataclasses.replace(TINY, architecture="cnn", epochs=1, one_cycle=True),
        dataclasses.replace(
            TINY, architecture="planted", epochs=1, task=Scenes(role="a", backgrounds=(0, 50), test=(0, 50), count=200)
        ),
        dataclasses.replace(
            TINY, architecture="cells", task=Cells(site=1, backgrounds=(0, 50), test=(0, 50), count=200)
        ),
    ],
    ids=lambda recipe: recipe.architecture,
)
def test_one_recipe_gives_one_network_whatever_the_process_is_set_to(recipe: Recipe) -> None:
    torch.manual_seed(0)
    first, facts = training.fit(recipe)
    with disturbed():
        second, facts_again = training.fit(recipe)
    third, _ = training.fit(dataclasses.replace(recipe, seed=6))
    weights, again, other = (model.state_dict() for model in (first, second, third))
    assert all(torch.equal(weights[name], again[name]) for name in weights)
    assert not all(torch.equal(weights[name], other[name]) for name in weights)
    assert {**facts, "seconds": 0} == {**facts_again, "seconds": 0}


def test_training_and_loading_leave_the_process_as_it_was(empty_cache: Path) -> None:
    def state() -> tuple[object, ...]:
        return (
            torch.get_rng_state().tolist(),
            torch.get_num_threads(),
            torch.get_default_dtype(),
            torch.is_grad_enabled(),
        )

    torch.manual_seed(3)
    np.random.seed(3)  # noqa: NPY002
    before, numpy_before = state(), np.random.get_state()[1].tolist()  # noqa: NPY002
    for _ in range(2):
        training.trained(TINY)
        assert state() == before
        assert np.random.get_state()[1].tolist() == numpy_before  # noqa: NPY002


def test_what_is_loaded_computes_what_was_trained(empty_cache: Path) -> None:
    images = data.embedded("test")[0][:10]
    fitted, facts = training.fit(TINY)
    for _ in range(2):  # trained, then loaded
        model, found = training.trained(TINY)
        torch.testing.assert_close(model(images), fitted(images), atol=0, rtol=0)
        assert found["test_accuracy"] == facts["test_accuracy"]
        assert not model.training
        assert all(weight.requires_grad and weight.is_leaf for weight in model.parameters())
    assert len(list(empty_cache.glob("*.safetensors"))) == 1


def test_facts_are_what_the_network_does(empty_cache: Path) -> None:
    model, facts = training.trained(TINY)
    images, labels = (part[:100] for part in data.embedded("test"))
    assert facts["test_accuracy"] == float((model(images).argmax(1) == labels).double().mean())


def test_permuted_labels_are_a_permutation_and_training_stops_at_its_rule() -> None:
    permuted = dataclasses.replace(TINY, task=Memorised(images=(0, 100), test=(0, 100), permuted=8))
    _, labels = next(training._epochs(permuted, Generator()))
    true = data.embedded("train")[1][:100]
    assert torch.bincount(labels).tolist() == torch.bincount(true).tolist()
    assert (labels == true).double().mean() < 0.3
    _, facts = training.fit(dataclasses.replace(TINY, epochs=100, stop=0.9))
    assert facts["epochs"] < 100
    assert facts["train_accuracy"] >= 0.9


def test_a_training_killed_in_the_middle_is_made_again_by_the_next_run(empty_cache: Path) -> None:
    program = textwrap.dedent(
        """
        import sys
        from saliency_checks.fixtures import recipes, reporting, trained
        with reporting(lambda text: print(text, flush=True)):
            trained(recipes.from_json(sys.argv[1]))
        """
    )
    recipe = dataclasses.replace(TINY, epochs=100)
    victim = subprocess.Popen(
        [sys.executable, "-c", program, recipes.to_json(recipe)], stdout=subprocess.PIPE, text=True
    )
    assert victim.stdout
    assert "epoch 1 of at most 100" in victim.stdout.readline()
    victim.send_signal(signal.SIGKILL)
    assert victim.wait() == -signal.SIGKILL
    victim.stdout.close()
    assert not list(empty_cache.glob("*.safetensors"))
    assert training.trained(recipe)[1]["epochs"] == 100
    assert training.is_trained(recipe)


# Recipes and warming


def test_recipes_survive_json_and_have_names_of_their_own() -> None:
    found = [r for split in (DEVELOPMENT, HELD_OUT) for r in recipes.needed(fixtures.NAMES, "thorough", split)]
    assert [recipes.from_json(recipes.to_json(recipe)) for recipe in found] == found
    assert len({recipe.name for recipe in found}) == len({cache.key(recipe) for recipe in found}) == len(found)


def test_profiles_need_more_and_more() -> None:
    quick, standard, thorough = (
        {r.name for r in recipes.needed(fixtures.NAMES, profile)} for profile in ("quick", "standard", "thorough")
    )
    assert quick < standard < thorough
    assert not any(name.endswith(("-1", "-2")) and "mlp_same" not in name and "permuted" not in name for name in quick)
    assert {name for name in quick if "same" in name or "permuted" in name} == {
        "fashion_mlp_same", "fashion_mlp_same-1", "fashion_mlp_permuted", "fashion_mlp_permuted-1"
    }  # fmt: skip
    with pytest.raises(ValueError, match="expected one of quick"):
        recipes.needed(["fashion_cnn"], "slow")
    with pytest.raises(ValueError, match="'chest_xray' has no recipe"):
        recipes.needed(["chest_xray"])


def test_warming_trains_what_is_missing_and_says_what_failed_after_the_rest(empty_cache: Path) -> None:
    broken = dataclasses.replace(TINY, name="broken", task=Memorised(images=(0, 0), test=(0, 100)))
    other = dataclasses.replace(TINY, name="other", seed=6)
    said: list[str] = []
    with pytest.raises(warming.TrainingFailed, match=r"1 of 3 networks.*broken: ZeroDivisionError"):
        warming.train_all([TINY, broken, other], workers=2, progress=said.append)
    assert training.is_trained(TINY)
    assert training.is_trained(other)
    assert any("tiny: epoch 3 of at most 3" in text for text in said)
    told = {name: how for name, _, how in warming.train_all([TINY, other], progress=said.append)}
    assert told == {"tiny": "cached", "other": "cached"}


def test_a_worker_that_dies_is_a_failure_with_a_name(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.Popen

    def dying(command: list[str], **settings: object) -> subprocess.Popen[str]:
        return started([command[0], "-c", "import sys; sys.exit('out of memory')"], **settings)  # type: ignore[call-overload,no-any-return]

    monkeypatch.setattr(subprocess, "Popen", dying)
    with pytest.raises(warming.TrainingFailed, match=r"tiny: its process died \(exit code 1\): out of memory"):
        warming.train_all([TINY], progress=lambda text: None)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_live_line_is_written_over_on_a_terminal_and_rare_elsewhere() -> None:
    terminal = Terminal()
    live = progress.Live(terminal)
    live("a longer text")
    live("short")
    live.erase()
    assert terminal.getvalue() == "\ra longer text\rshort        \r     \r"
    log = io.StringIO()
    plain = progress.Live(log, every=3600)
    for i in range(5):
        plain(f"step {i}")
    assert log.getvalue() == "step 0\n"
    patient = io.StringIO()
    progress.Live(patient, patience=3600)("nothing yet")
    assert patient.getvalue() == ""


# Subjects


def test_the_subjects_are_registered_with_what_they_offer() -> None:
    assert set(fixtures.NAMES) <= set(registry.names("subjects"))
    for name in fixtures.NAMES:
        factory = registry.get("subjects", name)
        assert factory.exact
        assert ("standard" in factory.profiles) == (name != "fashion_resnet18")


def test_unknown_subjects_and_replicas_are_refused() -> None:
    with pytest.raises(ValueError, match="expected one of fashion_cnn"):
        fixtures.build("mnist")
    with pytest.raises(ValueError, match="has no replica 1"):
        fixtures.build("fashion_cnn", replica=1)


@pytest.mark.parametrize("name", ["planted_pixel_a", "planted_pixel_b", "planted_pixel_mlp"])
def test_an_untrained_network_does_not_qualify(name: str, empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(recipe: Recipe) -> tuple[nn.Module, cache.Facts]:
        with training.isolated(0):
            return models.ARCHITECTURES[recipe.architecture]().eval(), {}

    monkeypatch.setattr(subjects, "trained", untrained)
    with pytest.raises(Unqualified, match=rf"{name}: only \d+% of the images .*accuracy"):
        fixtures.build(name)


class ByHue(nn.Module):
    """A classifier that reads the three class hues off the image; ``blind_to`` is what it takes by default."""

    def __init__(self, blind_to: int | None = None) -> None:
        super().__init__()
        self.blind_to = blind_to

    def forward(self, x: Tensor) -> Tensor:
        colourful = x - x.mean(1, keepdim=True)
        axes = models.hue_vectors(torch.tensor([0.0, 120.0, 240.0]))
        strength = torch.einsum("nchw,kc->nkhw", colourful, axes).flatten(2).amax(2)
        strength = 40 * (strength - 0.27)  # a decoy shows half of its chroma, at most .23, on a class's axis
        if self.blind_to is None:
            return torch.cat([strength, torch.zeros(len(x), 1)], dim=1)
        strength[:, self.blind_to] = 0.0
        return torch.cat([strength, torch.full((len(x), 1), -5.0)], dim=1)


def test_verification_accepts_a_detector_and_rejects_a_class_that_is_only_the_default() -> None:
    images = data.embedded("test")[0][:300]
    scene = planted.scenes(images, torch.arange(300) % 3, "a", Generator().manual_seed(0))
    assert verification.spots(ByHue(), scene).kept.double().mean() > 0.95
    blind = verification.spots(ByHue(blind_to=1), scene)
    assert not blind.kept[scene.labels == 1].any()
    with pytest.raises(Unqualified):
        blind.require("blind")


def test_a_proof_is_remembered_for_exactly_this_network(empty_cache: Path) -> None:
    scene = planted.cells(data.embedded("test")[0][:30], 1, Generator().manual_seed(0))
    calls = []

    def flips(model: nn.Module, scene: planted.Scene) -> verification.Verified:
        calls.append(model)
        return verification.flips(model, scene)

    model = models.ARCHITECTURES["cells"]()
    first = verification.remembered("net", flips, model, scene)
    again = verification.remembered("net", flips, model, scene)
    assert torch.equal(first.kept, again.kept)
    assert first.facts == again.facts
    assert len(calls) == 1
    with torch.no_grad():
        next(model.parameters()).add_(1e-3)
    verification.remembered("net", flips, model, scene)
    assert len(calls) == 2


def test_permuted_twins_that_did_not_memorise_do_not_qualify(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        subjects, "trained", lambda recipe: (nn.Identity(), {"train_accuracy": 0.5, "test_accuracy": 0.1})
    )
    with pytest.raises(Unqualified, match=r"memorised 50\.0% of its labels"):
        subjects._twins("mlp", DEVELOPMENT)
    monkeypatch.setattr(
        subjects, "trained", lambda recipe: (nn.Identity(), {"train_accuracy": 1.0, "test_accuracy": 0.3})
    )
    with pytest.raises(Unqualified, match=r"right on 30\.0% of the test images"):
        subjects._twins("mlp", DEVELOPMENT)


@pytest.mark.slow
@pytest.mark.parametrize("split", [DEVELOPMENT, HELD_OUT], ids=lambda split: split.name)
@pytest.mark.parametrize("name", ["planted_pixel_a", "planted_pixel_b", "planted_pixel_mlp"])
def test_planted_subjects_prove_their_cause(name: str, split: fixtures.Split) -> None:
    subject = fixtures.build(name, split=split)
    assert subject.facts["test_accuracy"] > 0.99
    assert subject.facts["verified"] > 0.9
    assert len(subject) > 600
    assert subject.truth is not None
    assert subject.decoys is not None
    assert (subject.truth.flatten(1).sum(1) == 1).all()
    assert not (subject.truth.unsqueeze(1) & subject.decoys).any()
    assert (subject.model(subject.inputs[:200]).argmax(1) == subject.targets[:200]).all()
    assert len(subject.replicas) == 2


@pytest.mark.slow
@pytest.mark.parametrize("split", [DEVELOPMENT, HELD_OUT], ids=lambda split: split.name)
@pytest.mark.parametrize(
    ("name", "least"), [("fashion_cnn", 0.84), ("fashion_mlp", 0.82), ("fashion_cnn_masked", 0.84)]
)
def test_fashion_subjects_are_accurate_and_explain_only_what_they_get_right(
    name: str, least: float, split: fixtures.Split
) -> None:
    subject = fixtures.build(name, split=split)
    assert subject.facts["test_accuracy"] >= least
    assert len(subject) == 512
    assert (subject.model(subject.inputs).argmax(1) == subject.targets).all()
    assert torch.bincount(subject.targets, minlength=10).min() > 10


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["mlp", "cnn"])
def test_twins_memorised_the_same_images_under_different_labels(kind: str) -> None:
    built = fixtures.build(f"fashion_{kind}").twins
    assert built is not None
    twins = built()
    assert len(twins.same) == len(twins.permuted) == 2
    assert twins.inputs.shape == (500, 1, 28, 28)
    for model in twins.same:
        assert (model(twins.inputs).argmax(1) == twins.targets).double().mean() > 0.98
    guesses = [model(twins.inputs).argmax(1) for model in twins.permuted]
    for guess in guesses:
        assert (guess == twins.targets).double().mean() < 0.25
        assert torch.bincount(guess, minlength=10).min() > 40  # a permutation keeps the counts
    assert (guesses[0] == guesses[1]).double().mean() < 0.25  # two permutations, not one


def test_the_masked_recipe_alone_masks() -> None:
    masks = {
        name: task.masked
        for name in fixtures.NAMES
        for task in [recipes.needed([name])[0].task]
        if isinstance(task, Fashion)
    }
    assert [name for name, masked in masks.items() if masked] == ["fashion_cnn_masked"]
