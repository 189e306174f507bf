"""An embedded subject is what it claims, proven by intervention, or it does not qualify."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Generator, Tensor, nn

from saliency_checks import cache, fixtures, registry
from saliency_checks.fixtures import (
    DEVELOPMENT,
    HELD_OUT,
    data,
    models,
    planted,
    recipes,
    subjects,
    training,
    verification,
)  # fmt: skip
from saliency_checks.fixtures.recipes import Fashion, Recipe
from saliency_checks.subject import Unqualified


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path


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
        subjects.memorised_twins("mlp", DEVELOPMENT)
    monkeypatch.setattr(
        subjects, "trained", lambda recipe: (nn.Identity(), {"train_accuracy": 1.0, "test_accuracy": 0.3})
    )
    with pytest.raises(Unqualified, match=r"right on 30\.0% of the test images"):
        subjects.memorised_twins("mlp", DEVELOPMENT)


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
