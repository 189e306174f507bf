"""A cause grafted onto the user's own model: what it looks like, that it holds, and who finds it."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mutants import MUTANTS
from scipy import stats
from torch import Tensor, nn
from torch.nn import functional as F

import saliency_checks as sc
from saliency_checks import registry
from saliency_checks.cache import VARIABLE
from saliency_checks.case import failure_is_strict, with_grafts
from saliency_checks.fixtures.planted import NONE, SPOTS
from saliency_checks.graft import graft
from saliency_checks.graft.detector import Detector, DetectorRecipe, evidence, fit, train_ahead, trained, without
from saliency_checks.graft.layer import direction_into
from saliency_checks.graft.model import Grafted, LayerGrafted
from saliency_checks.graft.scenes import Canvas, orientations, paint
from saliency_checks.loading import BadSubject, build_subject
from saliency_checks.method import as_method
from saliency_checks.metrics.acuity import EFFECTS, NEVER, TRIAL, thresholds
from saliency_checks.metrics.pixel_recovery import beats_decoys
from saliency_checks.result import FAIL, PASS, SKIP
from saliency_checks.run import run
from saliency_checks.subject import Subject, Unqualified

import project

ig = as_method("integrated_gradients").explain
detector_room = importlib.import_module("saliency_checks.graft.detector")
graft_room = importlib.import_module("saliency_checks.graft")  # the public name is the function
laws = settings(max_examples=40, deadline=None, derandomize=True)
BLIND = ("edges", "input_contrast", "input_magnitude", "laplacian", "center_blob", "random")


def photos(n: int, channels: int, size: int, seed: int = 0) -> Tensor:
    """Smooth pictures, normalised as users do: neither in [0, 1] nor with the same range in every channel."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(n, channels, 6, 6, generator=generator)
    fine = F.interpolate(coarse, size=(size, size), mode="bilinear") + 0.05 * torch.randn(
        n, channels, size, size, generator=generator
    )
    return (fine.clamp(0, 1) - 0.45) / torch.linspace(0.2, 0.4, channels).view(-1, 1, 1)


def scene_on(images: Tensor, labels: Tensor | None = None, role: str = "a", seed: int = 0):
    labels = torch.arange(len(images)) % 3 if labels is None else labels
    return paint(images, labels, role, Canvas.of(images), torch.Generator().manual_seed(seed))


# --- spots ---------------------------------------------------------------------------------------------------------


def test_the_eight_orientations_differ_and_turn_into_each_other():
    eight = orientations()
    assert len({tuple(o.flatten().tolist()) for o in eight}) == 8
    assert {tuple(o.flatten().tolist()) for o in eight} == {tuple(o.rot90().flatten().tolist()) for o in eight}


@pytest.mark.parametrize(("size", "unit"), [(28, 1), (32, 1), (112, 2), (160, 2), (224, 4)])
@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_spots_scale_with_the_image_and_stay_in_its_range(channels, size, unit):
    images = photos(6, channels, size)
    scene = scene_on(images)
    changed = (scene.inputs != images).any(1)
    assert Canvas.of(images).unit == unit
    assert torch.equal(changed, scene.masks.any(1))  # every pixel of a spot, and no other
    assert (scene.masks.flatten(2).sum(2) == scene.extent**2).all()
    assert (scene.masks.sum(1) <= 1).all()  # no two overlap
    low, high = images.amin((0, 2, 3), keepdim=True), images.amax((0, 2, 3), keepdim=True)
    assert ((scene.inputs >= low) & (scene.inputs <= high)).all()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("baseline", ["black", "mean", "grey", "white"])
def test_a_spot_is_never_at_a_baseline(channels, baseline):
    images = photos(20, channels, 28)
    scene = scene_on(images)
    low, high = images.amin((0, 2, 3)), images.amax((0, 2, 3))
    value = {"black": low, "white": high, "mean": images.mean((0, 2, 3)), "grey": (low + high) / 2}[baseline]
    apart = ((scene.inputs - value.view(1, -1, 1, 1)).abs() / (high - low).view(1, -1, 1, 1)).amax(1)
    assert float(apart[scene.masks.any(1)].min()) > 0.019


@pytest.mark.parametrize("role", ["a", "b"])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", BLIND)
def test_a_map_that_never_saw_the_detector_finds_the_site_by_chance(name, channels, role):
    images = photos(600, channels, 28, seed=3)
    scene = scene_on(images, role=role, seed=4)
    subject = Subject(nn.Identity(), scene.inputs, scene.labels, truth=scene.masks[:, 0], decoys=scene.masks[:, 1:])
    torch.manual_seed(0)
    maps = as_method(name)(nn.Identity(), scene.inputs, scene.labels).sum(1)
    won = beats_decoys(maps, subject, torch.Generator().manual_seed(0))
    assert stats.binomtest(int(won.sum()), len(won), 1 / SPOTS).pvalue > 1e-4


@pytest.mark.parametrize(
    ("images", "text"),
    [
        (torch.rand(9, 1, 16, 16), "need a shorter side of 21 pixels"),
        (torch.rand(9, 3, 6, 6), "need a shorter side of 7 pixels"),
        (torch.cat([torch.rand(9, 1, 28, 28), torch.zeros(9, 1, 28, 28)], 1), "channel 1 has the same value"),
    ],
)
def test_images_without_room_say_so(images, text):
    with pytest.raises(Unqualified, match=text):
        Canvas.of(images)


# --- the graft -----------------------------------------------------------------------------------------------------


class TinyViT(nn.Module):
    """Patches of 7 x 7, two blocks of attention."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(49, 32)
        self.position = nn.Parameter(0.02 * torch.randn(16, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.unfold(x, 7, stride=7).transpose(1, 2)
        return self.head(self.blocks(self.patches(tokens) + self.position).mean(1))


class Wrapped(nn.Module):
    """A model that returns its logits as ``form`` does."""

    def __init__(self, model: nn.Module, form: str) -> None:
        super().__init__()
        self.model, self.form = model, form

    def forward(self, x: Tensor):
        logits = self.model(x)
        if self.form == "tuple":
            return logits, x
        if self.form == "two classes":
            return logits[:, :2]
        return type("Output", (), {"logits": logits})()


class Residual(nn.Module):
    """Two convolutions with batch norm, around which the input goes as well."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = (nn.Conv2d(width, width, 3, padding=1, bias=False) for _ in range(2))
        self.norm, self.last = nn.BatchNorm2d(width), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.last(self.second(F.relu(self.norm(self.first(x))))))


def tiny_resnet() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 12, 3, stride=2, padding=1), nn.ReLU(), Residual(12), nn.MaxPool2d(2), Residual(12),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 10),
    )  # fmt: skip


def briefly_trained(make: Callable[[], nn.Module]) -> nn.Module:
    """On 8,000 of the embedded images, a few seconds."""
    from saliency_checks.fixtures import data

    images, labels = data.embedded("train")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = make()
        optimiser = torch.optim.Adam(model.parameters(), 3e-3)
        for batch in torch.randperm(len(images))[:8000].split(64):
            optimiser.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimiser.step()
    return model.eval()


MODELS = {
    "vit": lambda: briefly_trained(TinyViT),
    "resnet": lambda: briefly_trained(tiny_resnet),
    "mlp": lambda: nn.Sequential(nn.Flatten(), nn.Linear(784, 32), nn.ReLU(), nn.Linear(32, 10)).eval(),
    "tuple": lambda: Wrapped(build_subject("fashion_cnn").model, "tuple").eval(),
    "logits": lambda: Wrapped(build_subject("fashion_cnn").model, "logits").eval(),
    "two classes": lambda: Wrapped(build_subject("fashion_cnn").model, "two classes").eval(),
}


@cache
def base(name: str) -> Subject:
    """Other models on the same images, so that the detectors are trained once."""
    if name == "fashion_cnn":
        return build_subject(name)
    images = build_subject("fashion_cnn").inputs
    return Subject(MODELS[name](), images, torch.arange(len(images)) % 2, name=name.replace(" ", "_"))


@cache
def grafted(name: str = "fashion_cnn", effect: float = 4.0) -> Subject:
    return build_subject(graft(base(name), effect))


@pytest.mark.parametrize("name", ["fashion_cnn", *MODELS])
def test_the_logit_falls_by_the_stated_effect_without_the_site_and_not_without_a_decoy(name):
    subject = grafted(name)
    assert isinstance(subject.model, Grafted)
    plain = subject.model.at(0.0)
    n = 96
    inputs, clean, targets = subject.inputs[:n], subject.clean[:n], subject.targets[:n].unsqueeze(1)

    def gained(images):  # what the graft adds to the target's logit
        with torch.no_grad():
            return (subject.model(images) - plain(images)).gather(1, targets).squeeze(1)

    without_site = torch.where(subject.truth[:n].unsqueeze(1), clean, inputs)
    without_decoy = torch.where(subject.decoys[:n, :1], clean, inputs)
    fall = gained(inputs) - gained(without_site)
    wanted = subject.facts["effect"] * subject.facts["spread"]
    assert float(fall.mean()) == pytest.approx(wanted, rel=0.1)
    assert float(fall.min()) > 0
    assert float((gained(inputs) - gained(without_decoy)).abs().mean()) < 0.05 * wanted
    assert float(gained(clean).abs().mean()) < 0.05 * wanted


def test_an_effect_of_zero_is_the_users_own_model_bit_for_bit():
    subject = grafted()
    inputs = subject.inputs[:32]
    with torch.no_grad():
        assert torch.equal(subject.model.at(0.0)(inputs), base("fashion_cnn").model(inputs))
        assert not torch.equal(subject.model.at(0.5)(inputs), base("fashion_cnn").model(inputs))


def test_the_users_model_is_left_as_it_was():
    own = base("fashion_cnn")
    model = copy.deepcopy(own.model)
    model.train()
    model[3].eval()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    subject = graft(replace(own, model=model))
    assert [module.training for module in model.modules()] == modes
    run("pixel_recovery", "grad_cam", subject, profile="quick")
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert subject.model.model is model


def test_two_classes_and_more_have_their_own_causes():
    for name in ("two classes", "fashion_cnn"):
        subject = grafted(name)
        count = 2 if name == "two classes" else 3
        assert len(set(subject.targets.tolist())) == count
        contrast = subject.pairs
        assert (contrast.targets[:, 0] != contrast.targets[:, 1]).all()


def test_the_three_detectors_have_both_roles_and_count_in_every_profile():
    members = grafted().members(0)
    assert [member.facts["role"] for member in members] == ["a", "b", "a"]
    assert all(member.facts["graft_verified"] >= 0.6 for member in members)


def test_evidence_is_zero_where_there_is_no_spot():
    subject = grafted()
    none = paint(
        subject.clean[:64], torch.full((64,), NONE), "a", Canvas.of(base("fashion_cnn").inputs),
        torch.Generator().manual_seed(7),
    )  # fmt: skip
    assert float((evidence(subject.model.detector, none.inputs).amax(1) == 0).double().mean()) > 0.9


def test_a_spot_taken_away_leaves_the_images_own_pixels():
    images = photos(3, 3, 28)
    scene = scene_on(images)
    assert torch.equal(without(scene, images, *range(SPOTS)), images)


# --- layers --------------------------------------------------------------------------------------------------------


def test_a_layers_hook_sees_the_cause_and_the_graft_leaves_no_hook():
    subject = grafted().layered()
    model = subject.model
    assert isinstance(model, LayerGrafted)
    seen = []
    handle = model.layer.register_forward_hook(lambda module, args, output: seen.append(output.detach()))
    with torch.no_grad():
        model(subject.inputs[:4])
        model.at(0.0)(subject.inputs[:4])
    handle.remove()
    assert not torch.equal(seen[0], seen[1])
    assert not model.layer._forward_hooks


def test_into_a_layer_the_logit_falls_by_the_stated_effect_too():
    subject = grafted().layered()
    plain = subject.model.at(0.0)
    inputs, targets = subject.inputs[:32], subject.targets[:32].unsqueeze(1)
    with torch.no_grad():
        gained, left = (
            (subject.model(images) - plain(images)).gather(1, targets) for images in (inputs, subject.clean[:32])
        )
    assert float((gained - left).mean()) == pytest.approx(subject.facts["effect"] * subject.facts["spread"], rel=0.15)


@pytest.mark.slow
def test_a_head_that_weighs_each_place_on_its_own_is_lost_on_averaged_gradients_only():
    """Draelos and Carin 2020, HiResCAM: Grad-CAM shows places that such a model does not use."""
    assert run("pixel_recovery", "hires_cam", grafted(), profile="quick").verdict == PASS
    assert run("pixel_recovery", "grad_cam", grafted(), profile="quick").verdict == FAIL


def test_a_model_without_such_a_layer_is_skipped_with_the_reason():
    result = run("pixel_recovery", as_method("grad_cam"), grafted("mlp"), profile="quick")
    assert result.verdict == SKIP
    assert "no convolution" in result.message


def test_a_layer_on_which_no_logit_depends_says_so():
    class Deaf(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(784, 3)

        def forward(self, x):
            self.conv(x)
            return self.head(x.flatten(1)) + 0 * self.conv(x).sum((1, 2, 3)).unsqueeze(1)

    images = torch.rand(8, 1, 28, 28)
    parts = (Deaf(), Detector(Canvas.of(images)), torch.arange(3), torch.ones(3), 1.0)
    with pytest.raises(Unqualified, match="no logit depends on them"):
        direction_into(parts[0], parts, images, images, torch.zeros(8, dtype=torch.long))


def test_a_layer_of_four_places_cannot_tell_eight_spots_apart():
    images = torch.rand(8, 1, 28, 28)
    model = nn.Sequential(nn.Conv2d(1, 3, 14, stride=14), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    parts = (model, Detector(Canvas.of(images)), torch.arange(3), torch.ones(3), 1.0)
    with pytest.raises(Unqualified, match="2 x 2 places, too few"):
        direction_into(model, parts, images, images, torch.zeros(8, dtype=torch.long))


# --- acuity --------------------------------------------------------------------------------------------------------


@laws
@given(st.lists(st.booleans(), min_size=len(EFFECTS), max_size=len(EFFECTS)))
def test_the_threshold_is_the_step_with_the_fewest_exceptions(hits):
    found = float(thresholds(np.array(hits)[:, None])[0])
    exceptions = [sum(hits[:step]) + sum(not hit for hit in hits[step:]) for step in range(len(hits) + 1)]
    best = max(step for step, count in enumerate(exceptions) if count == min(exceptions))
    assert found == [*EFFECTS, NEVER][best]


def test_the_effect_that_all_checks_of_a_graft_share_is_explained_once():
    explained = []

    def counting(model, inputs, targets):
        explained.append(len(inputs))
        return inputs

    method, subject = as_method(counting, name="counting"), replace(grafted())
    run("pixel_recovery", method, subject, n=32, bound=">= 0")
    once = sum(explained)
    run("acuity", method, subject, n=32, bound="<= 100")
    assert sum(explained) == once * len(EFFECTS) + TRIAL


SOUND = ("gradient", "input_x_gradient", "integrated_gradients", "smoothgrad")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion_cnn", "vit", "resnet"])
@pytest.mark.parametrize("method", SOUND)
def test_sound_methods_find_a_small_cause(method, name):
    result = run("acuity", method, grafted(name), profile="quick")
    assert result.verdict == PASS, result.message
    assert all(score == NEVER for score in result.controls.values())


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fashion_cnn", "vit"])
@pytest.mark.parametrize("check", ["pixel_recovery", "class_contrast"])
def test_sound_methods_pass_on_a_graft(check, name):
    for method in ("gradient", "integrated_gradients"):  # a sensitivity and a contribution
        result = run(check, method, grafted(name), profile="quick")
        assert result.verdict == PASS, result.message


@pytest.mark.slow
def test_a_contribution_to_a_graft_has_the_right_sign():
    assert run("sign", "integrated_gradients", grafted(), profile="quick").verdict == PASS
    negated = replace(as_method("integrated_gradients"), explain=lambda m, x, t, **given: -ig(m, x, t, **given))
    assert run("sign", negated, grafted(), profile="quick").verdict == FAIL


def test_a_pattern_goes_with_any_of_its_pixels_so_that_deletion_is_skipped():
    result = run("planted_deletion", "gradient", grafted(), profile="quick")
    assert result.verdict == SKIP
    assert "needs deletion" in result.message


@pytest.mark.slow
@pytest.mark.parametrize("method", ["random", "edges", "chroma", "laplacian", "center_blob"])
def test_no_control_finds_it(method):
    for check in ("pixel_recovery", "acuity", "class_contrast"):
        assert run(check, replace(as_method(method), control=False), grafted(), profile="quick").verdict == FAIL


ON_A_GRAFT = {"pixel_recovery", "class_contrast", "sign"}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", [m for m in MUTANTS if ON_A_GRAFT & set(m.killers)], ids=lambda mutant: mutant.name)
def test_a_graft_kills_the_mutants_that_recovery_kills(mutant):
    killers = ON_A_GRAFT & set(mutant.killers)
    subject = grafted()
    unrelated = Grafted(
        base("vit").model, subject.model.detector, subject.model.classes, 0 * subject.model.scale, 0.0
    ).eval()
    broken = mutant.make(as_method("input_x_gradient"), original=unrelated, unrelated=unrelated)
    if mutant.name == "shifted":  # by two pixels it stays within a pattern of three: by four
        broken = mutant.make(broken, original=unrelated, unrelated=unrelated)
    assert any(run(check, broken, subject, profile="quick").verdict == FAIL for check in killers)


# --- hostile models and the user's door ------------------------------------------------------------------------------


class Hostile(nn.Module):
    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind, self.head, self.calls = kind, nn.Linear(784, 3), 0

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "always drops":
            x = F.dropout(x, 0.5, training=True)
        if self.kind == "writes":
            x.mul_(0.5)
        if self.kind == "counts":
            self.calls += 1
            return self.head(x.flatten(1)) + self.calls
        return self.head(x.flatten(1))


@pytest.mark.parametrize(
    ("kind", "text"),
    [("always drops", "differ by up to"), ("counts", "differ by up to"), ("writes", "writes into its input")],
)
def test_a_hostile_model_is_refused_with_a_sentence(kind, text):
    images = torch.rand(16, 1, 28, 28)
    with pytest.raises(BadSubject, match=text):
        graft(Subject(Hostile(kind), images, torch.zeros(16, dtype=torch.long)))


def test_too_few_images_say_so():
    with pytest.raises(Unqualified, match="at least 8"):
        graft(Subject(Hostile("none"), torch.rand(3, 1, 28, 28), torch.zeros(3, dtype=torch.long)))


def test_a_detector_that_learned_nothing_is_a_skip_with_its_numbers_after_a_second_try(monkeypatch):
    seeds = []

    def untrained(images, recipe):
        seeds.append(recipe.seed)
        return Detector(recipe.canvas).eval()

    monkeypatch.setattr(graft_room, "trained", untrained)
    monkeypatch.setattr(graft_room, "train_ahead", lambda images, recipes: None)
    images = torch.rand(32, 1, 28, 28)
    model = nn.Sequential(nn.Flatten(), nn.Linear(784, 3))
    result = run("acuity", "gradient", lambda: graft(Subject(model, images, torch.zeros(32, dtype=torch.long))))
    assert result.verdict == SKIP
    assert "the graft does not hold" in result.message
    assert "the second try" in result.message
    assert len(set(seeds)) == 2


def test_detectors_that_are_trained_at_once_are_those_trained_one_by_one(monkeypatch, tmp_path):
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    images = torch.rand(16, 3, 28, 28)
    canvas = Canvas.of(images)
    recipes = [DetectorRecipe(canvas=canvas, role="ab"[i % 2], seed=i, scenes=256, epochs=2) for i in range(3)]
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    train_ahead(images, recipes)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    for recipe in recipes:
        together, alone = trained(images, recipe).state_dict(), fit(images, recipe).state_dict()
        assert all(torch.equal(together[name], alone[name]) for name in alone)


def test_detectors_are_trained_once_also_where_no_file_can_be_written(monkeypatch, tmp_path):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(VARIABLE, str(tmp_path / "file" / "cache"))
    trainings = []
    monkeypatch.setattr(
        detector_room, "fit", lambda images, recipe, say: trainings.append(recipe) or fit(images, recipe)
    )
    images = torch.rand(16, 3, 28, 28, generator=torch.Generator().manual_seed(3))
    recipe = DetectorRecipe(canvas=Canvas.of(images), role="a", seed=0, scenes=64, epochs=1)
    train_ahead(images, [recipe])
    trained(images, recipe)
    assert trainings == [recipe]


def test_a_graft_is_not_grafted_upon():
    subject = grafted()
    assert with_grafts([subject, "graft:fashion_cnn", "fashion_cnn"]) == [subject, "graft:fashion_cnn", "fashion_cnn"]
    assert [getattr(found, "name", "") for found in with_grafts([base("mlp")])] == ["mlp", "mlp_graft"]


def test_a_known_failure_is_strict_where_it_was_measured():
    assert failure_is_strict(as_method("grad_cam"), "fashion_cnn")
    assert not failure_is_strict(as_method("grad_cam"), "somebodys")
    assert failure_is_strict(as_method(lambda model, inputs, targets: inputs, name="mine"), "somebodys")


def test_a_graft_of_a_named_subject_is_a_subject():
    factory = registry.get("subjects", "graft:fashion_cnn")
    assert factory.name == "fashion_cnn_graft"
    assert sc.graft is graft


OWN = """
import torch, saliency_checks as sc
from torch import nn

def mine_too():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    return sc.Subject(model, torch.rand(16, 1, 8, 8), torch.zeros(16, dtype=torch.long))

@sc.subject(graft=False)
def plain():
    return mine_too()
"""


@pytest.mark.slow
def test_every_subject_that_a_user_brings_is_grafted_unless_it_says_no(tmp_path: Path):
    folder = project.write(tmp_path, {"own.py": OWN})
    flags = ("--pyargs", "saliency_checks.checks", "--saliency-method=mine:good", "--saliency-report=out.json")
    done = project.pytest_in(folder, *flags, "--saliency-subject=own:mine_too", "--saliency-subject=own:plain", "-rs")
    grafts = {key: verdict for key, verdict in done.verdicts.items() if key.endswith("_graft")}
    assert "acuity/good/mine_too" not in done.verdicts
    assert grafts == {
        f"{check}/good/mine_too_graft": SKIP
        for check in ("acuity", "class_contrast", "pixel_recovery", "planted_deletion", "sign")
    }
    assert "no room for eight spots" in done.output
