"""The cache gives what the recipe makes or makes it again; never anything else."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from saliency_checks import cache

WEIGHTS = {"a": torch.arange(6.0).view(2, 3), "steps": torch.tensor(7), "mask": torch.tensor([True, False])}
FACTS = {"accuracy": 0.5, "epochs": 3}


@dataclass(frozen=True)
class Recipe:
    seed: int = 0
    rate: float = 0.1
    layers: tuple[int, ...] = (1, 2)


@dataclass(frozen=True)
class OtherRecipe(Recipe):
    pass


class Maker:
    def __init__(self) -> None:
        self.calls = 0
        self.said: list[str] = []

    def __call__(self) -> tuple[cache.Tensors, cache.Facts]:
        self.calls += 1
        return {name: tensor.clone() for name, tensor in WEIGHTS.items()}, dict(FACTS)

    def load(self, recipe: object = Recipe(), data: str = "") -> cache.Stored:
        return cache.load_or_make("net", recipe, self, like=WEIGHTS, data=data, report=self.said.append)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def same(stored: cache.Stored) -> bool:
    return stored.facts == FACTS and all(torch.equal(stored.tensors[name], WEIGHTS[name]) for name in WEIGHTS)


def stored_file() -> Path:
    return cache.path("net", Recipe())


def test_made_once_and_then_read(folder: Path) -> None:
    maker = Maker()
    first, second = maker.load(), maker.load()
    assert (maker.calls, first.fresh, second.fresh, maker.said) == (1, True, False, [])
    assert same(first)
    assert same(second)


@pytest.mark.parametrize(
    "other", [Recipe(seed=1), Recipe(rate=0.2), Recipe(layers=(1, 2, 3)), Recipe(layers=(12,)), OtherRecipe()]
)
def test_another_recipe_has_another_key(other: Recipe) -> None:
    assert cache.key(other) != cache.key(Recipe())


def test_other_data_has_another_key() -> None:
    assert cache.key(Recipe(), "data 1") != cache.key(Recipe(), "data 2")


def test_a_recipe_of_anything_but_plain_values_is_refused() -> None:
    with pytest.raises(TypeError, match="expected numbers, strings, tuples"):
        cache.key(replace(Recipe(), layers=(torch.ones(1),)))  # type: ignore[arg-type]


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_flipped_bit_never_changes_what_is_loaded(folder: Path, place: float, bit: int) -> None:
    Maker().load()
    raw = bytearray(stored_file().read_bytes())
    raw[int(place * len(raw))] ^= 1 << bit
    stored_file().write_bytes(raw)
    maker = Maker()
    assert same(maker.load())
    assert len(maker.said) == maker.calls  # whenever it was made again, that was said
    assert same(Maker().load())


def test_a_flipped_bit_in_a_weight_is_found(folder: Path) -> None:
    Maker().load()
    raw = bytearray(stored_file().read_bytes())
    raw[-1] ^= 1
    stored_file().write_bytes(raw)
    maker = Maker()
    assert maker.load().fresh
    assert "does not match its digest" in maker.said[0]


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_file_is_said_and_made_again(folder: Path, share: float) -> None:
    Maker().load()
    raw = stored_file().read_bytes()
    stored_file().write_bytes(raw[: int(share * len(raw))])
    maker = Maker()
    assert same(maker.load())
    assert maker.calls == 1
    assert maker.said == [f"{stored_file()} is truncated or damaged: it is made again"]
    assert not Maker().load().fresh


def test_the_file_of_another_recipe_under_this_name_is_foreign(folder: Path) -> None:
    maker = Maker()
    maker.load(Recipe(seed=1))
    cache.path("net", Recipe(seed=1)).rename(stored_file())
    assert maker.load().fresh
    assert "belongs to another recipe" in maker.said[0]


def test_other_tensors_than_the_models_are_foreign(folder: Path) -> None:
    Maker().load()
    like = {**WEIGHTS, "a": torch.zeros(3, 2)}
    said: list[str] = []
    stored = cache.load_or_make("net", Recipe(), lambda: (like, {}), like=like, report=said.append)
    assert stored.fresh
    assert "other tensors" in said[0]


def test_a_pickle_in_its_place_is_never_loaded(folder: Path, tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    folder.mkdir()
    stored_file().write_bytes(pickle.dumps(Trap()))
    assert Maker().load().fresh
    assert not (tmp_path / "executed").exists()


def test_an_unusable_folder_is_said_once_and_the_result_made_for_this_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(cache.VARIABLE, str(tmp_path / "file" / "cache"))
    maker = Maker()
    assert same(maker.load())
    assert len(maker.said) == 1
    assert "cannot be written" in maker.said[0]
    assert cache.VARIABLE in maker.said[0]


def test_a_full_disk_is_said_and_leaves_no_half_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    maker = Maker()
    assert same(maker.load())
    assert "No space left on device" in maker.said[0]
    assert [path.suffix for path in folder.iterdir()] == [".lock"]


def test_an_error_while_making_is_the_callers_and_stores_nothing(folder: Path) -> None:
    def fail() -> tuple[cache.Tensors, cache.Facts]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.load_or_make("net", Recipe(), fail, like=WEIGHTS)
    assert Maker().load().fresh


def test_the_folder_follows_the_platform_and_the_variable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(cache.VARIABLE, raising=False)
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.folder() == tmp_path / "saliency_checks"
    monkeypatch.setattr(sys, "platform", "darwin")
    assert cache.folder() == Path.home() / "Library" / "Caches" / "saliency_checks"
    monkeypatch.setenv(cache.VARIABLE, "~/elsewhere")
    assert cache.folder() == Path.home() / "elsewhere"


PROGRAM = textwrap.dedent(
    """
    import sys, time
    from dataclasses import dataclass
    import torch
    from saliency_checks import cache

    @dataclass(frozen=True)
    class Recipe:
        seed: int = 0

    def make():
        print("making", flush=True)
        time.sleep(float(sys.argv[1]))
        return {"w": torch.ones(3)}, {}

    stored = cache.load_or_make("net", Recipe(), make, like={"w": torch.ones(3)})
    print("fresh" if stored.fresh else "read", float(stored.tensors["w"].sum()), flush=True)
    """
)


def start(seconds: float) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(seconds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_of_several_processes_one_makes_it_and_the_others_read_it(folder: Path) -> None:
    processes = [start(1.0) for _ in range(3)]
    outputs = [process.communicate(timeout=120)[0].split("\n") for process in processes]
    assert sorted(lines[-2] for lines in outputs) == ["fresh 3.0", "read 3.0", "read 3.0"]
    assert sum("making" in lines for lines in outputs) == 1


def test_a_process_killed_in_the_middle_blocks_nobody(folder: Path) -> None:
    victim = start(600)
    assert victim.stdout
    assert victim.stdout.readline() == "making\n"
    victim.send_signal(signal.SIGKILL)
    victim.communicate()
    (folder / "net-half-written.tmp").write_bytes(b"half")
    before = time.monotonic()
    output, _ = start(0).communicate(timeout=60)
    assert output == "making\nfresh 3.0\n"
    assert time.monotonic() - before < 60
