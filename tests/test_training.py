"""One recipe gives one network, once, whatever the process is set to and whoever is killed meanwhile."""

from __future__ import annotations

import dataclasses
import io
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
from torch import Generator, Tensor, nn

from saliency_checks import cache, fixtures
from saliency_checks.fixtures import DEVELOPMENT, HELD_OUT, data, models, progress, recipes, training, warming
from saliency_checks.fixtures.recipes import Cells, Digits, Memorised, Recipe, Scenes

TINY = Recipe(
    name="tiny", architecture="mlp_128", task=Memorised(images=(0, 100), test=(0, 100)),
    seed=5, rate=1e-3, batch=32, epochs=3,
)  # fmt: skip


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path))
    return tmp_path


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


def test_the_penalty_is_half_the_sum_of_squares_of_all_weights_but_the_last_layer_s() -> None:
    recipe = dataclasses.replace(TINY, task=Digits(penalty=0.3))
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(12, 5), nn.Linear(5, 2)
    ).double()
    groups = training._parameters(model, recipe)
    assert sorted(map(id, model.parameters())) == sorted(id(p) for group in groups for p in group["params"])

    def loss() -> Tensor:
        return model(torch.ones(2, 1, 4, 4, dtype=torch.float64) * torch.arange(2).view(2, 1, 1, 1)).square().sum()

    weights = [model[0].weight, model[3].weight]
    whole = loss() + 0.3 / 2 * sum(weight.square().sum() for weight in weights)
    expected = torch.autograd.grad(whole, list(model.parameters()))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimiser = torch.optim.SGD(groups, lr=1.0)  # its step is the gradient
    loss().backward()
    optimiser.step()
    for parameter, start, due in zip(model.parameters(), before, expected, strict=True):
        torch.testing.assert_close(start - parameter.detach(), due)


def test_the_digits_are_laid_out_as_mnist_is_and_nobody_is_tested_on_what_is_trained() -> None:
    (images, labels), (other, _) = data.digits("train"), data.digits("test")
    assert (images.shape, len(other)) == ((1500, 1, 28, 28), 297)
    assert labels.bincount().min() > 140
    assert images.min() == 0
    assert images.max() == 1
    inside = torch.zeros(28, 28, dtype=torch.bool)
    inside[4:-4, 4:-4] = True
    assert not images[..., ~inside].any()
    assert (images > 0).double().mean() == pytest.approx(0.19, abs=0.01)  # MNIST's
    assert images.mean() == pytest.approx(0.131, abs=0.01)
    seen = {image.numpy().tobytes() for image in images}
    assert not seen & {image.numpy().tobytes() for image in other}


def test_a_network_of_digits_is_keyed_by_the_digits() -> None:
    cnn = recipes.adebayo_digits("cnn", DEVELOPMENT)
    assert training._digest(cnn) != training._digest(TINY) == data.digest()
    assert recipes.from_json(recipes.to_json(cnn)) == cnn


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
    images, labels = (part[:100] for part in data.embedded("train"))
    assert facts["train_accuracy"] == float((model(images).argmax(1) == labels).double().mean())


def test_permuted_labels_are_a_permutation_and_training_stops_at_its_rule() -> None:
    def labels_of(permutation: int) -> Tensor:
        task = Memorised(images=(0, 100), test=(0, 100), permutation=permutation)
        return next(training._epochs(dataclasses.replace(TINY, task=task), Generator()))[1]

    labels = labels_of(8)
    true = data.embedded("train")[1][:100]
    # Each of the ten images of a class has another label: a permutation that says nothing about the class.
    assert sorted((10 * true + labels).tolist()) == list(range(100))
    assert torch.equal(labels_of(8), labels)
    assert (labels_of(9) == labels).double().mean() < 0.3
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
