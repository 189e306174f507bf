"""What a study keeps: a part is whole or not there, its own or made again, and never there twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from saliency_checks.studies.store import Mismatch, Store, Unit

CALLS: list[str] = []


def unit(method: str, *, recipe: Any = 0, metric: str = "deletion", n: int = 5) -> Unit:
    """Values that depend on the name and the recipe; making them is counted."""

    def make() -> dict[str, Any]:
        CALLS.append(method)
        return {"image": np.arange(n), "score": np.linspace(0, 1, n) * len(method) + recipe}

    return Unit(columns={"subject": "toy", "method": method, "metric": metric}, recipe={"of": recipe}, make=make)


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    CALLS.clear()


def test_a_part_is_made_once_and_then_read(tmp_path: Path) -> None:
    first = Store(tmp_path, "toy").part(unit("mine"))
    again = Store(tmp_path, "toy").part(unit("mine"))
    assert CALLS == ["mine"]
    assert first.to_pydict() == again.to_pydict()
    assert first.column_names == ["subject", "method", "metric", "image", "score"]


def test_another_recipe_of_the_same_name_replaces_the_part(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy")
    store.part(unit("mine", recipe=0))
    store.part(unit("mine", recipe=1))
    assert CALLS == ["mine", "mine"]
    assert len(store.table()) == 5
    assert store.table()["score"].to_pylist() == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("damage", ["cut", "empty", "flipped", "foreign", "gone"])
def test_a_part_that_is_not_whole_is_made_again(tmp_path: Path, damage: str) -> None:
    store = Store(tmp_path, "toy")
    whole = store.part(unit("mine", n=200)).to_pydict()
    file = store.parts / unit("mine").file
    raw = file.read_bytes()
    changed = {
        "cut": raw[: len(raw) // 2],
        "empty": b"",
        "flipped": raw[:60] + bytes([raw[60] ^ 1]) + raw[61:],
    }
    if damage in changed:
        file.write_bytes(changed[damage])
    elif damage == "foreign":
        parquet.write_table(pa.table({"score": [1.0]}), file)
    else:
        file.unlink()
    assert store.part(unit("mine", n=200)).to_pydict() == whole
    assert CALLS == ["mine", "mine"]


def test_a_further_method_makes_only_its_own_parts(tmp_path: Path) -> None:
    Store(tmp_path, "toy").run([unit("a"), unit("b")])
    CALLS.clear()
    Store(tmp_path, "toy").run([unit("a"), unit("c"), unit("b")])
    assert CALLS == ["c"]
    assert sorted(set(Store(tmp_path, "toy").table()["method"].to_pylist())) == ["a", "b", "c"]


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read."""
    found: list[str] = []

    class Counted(parquet.ParquetFile):  # type: ignore[misc]
        def __init__(self, source: Path, **options: Any) -> None:
            found.append(source.name)
            super().__init__(source, **options)

    monkeypatch.setattr(parquet, "ParquetFile", Counted)
    return found


def test_a_part_is_read_for_its_rows_and_not_again_for_what_it_says(tmp_path: Path, reads: list[str]) -> None:
    names = ["a", "b", "c"]
    store = Store(tmp_path, "toy")
    store.run([unit(name) for name in names])
    store.table()
    store.finish(seconds=1, seed=0)
    assert sorted(reads) == sorted(unit(name).file for name in names)
    reads.clear()
    later = Store(tmp_path, "toy")
    later.forget(lambda part: part.columns["method"] == "b")
    later.run([unit(name) for name in names])
    assert sorted(reads) == sorted(unit(name).file for name in names)
    assert CALLS == ["a", "b", "c", "b"]
    parts = list(later.made())
    reads.clear()
    assert later.table(parts).equals(store.table())
    later.finish(seconds=1, seed=0)
    assert sorted(reads) == sorted(unit(name).file for name in names)  # by the other store
    assert len(later.manifest["parts"]) == 3


def test_a_part_that_was_written_since_is_read_again(tmp_path: Path) -> None:
    store, other = Store(tmp_path, "toy"), Store(tmp_path, "toy")
    store.run([unit("a")])
    assert store.holds(unit("a"))
    other.part(unit("a", recipe=1))
    assert not store.holds(unit("a"))
    assert store.holds(unit("a", recipe=1))
    (store.parts / unit("a").file).write_bytes(b"")
    assert not store.holds(unit("a", recipe=1))
    store.finish(seconds=1, seed=0)
    assert store.manifest["parts"] == {}


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(order=st.permutations(["a", "bb", "a_b", "a-b", "ccc"]))
def test_the_table_is_the_same_bytes_in_whatever_order_its_parts_were_made(
    tmp_path_factory: pytest.TempPathFactory, order: list[str]
) -> None:
    tables = []
    for i, names in enumerate((sorted(order), order)):
        store = Store(tmp_path_factory.mktemp(str(i)), "toy")
        store.run([unit(name) for name in names])
        store.save("scores.parquet", store.table())
        tables.append((store.out / "scores.parquet").read_bytes())
    assert tables[0] == tables[1]


def test_names_that_read_alike_on_disk_stay_apart(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy")
    for metric in ("a/b", "a:b", "a_b", "a" * 300):
        store.part(unit("mine", metric=metric))
    assert sorted(set(store.table()["metric"].to_pylist())) == sorted(["a/b", "a:b", "a_b", "a" * 300])


def test_a_folder_of_another_study_or_setup_is_refused(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy")
    store.setup(images=64)
    store.setup(images=64)
    with pytest.raises(Mismatch, match="images 64, and this run asks for 128"):
        store.setup(images=128)
    with pytest.raises(Mismatch, match="holds the study toy"):
        Store(tmp_path, "another")


def test_nothing_to_report_is_said(tmp_path: Path) -> None:
    with pytest.raises(Mismatch, match="holds no results yet"):
        Store(tmp_path, "toy").table()


def test_columns_of_different_length_or_of_the_units_own_name_are_refused(tmp_path: Path) -> None:
    for columns, text in (({"a": [1, 2], "b": [1]}, "as many in each"), ({"method": ["x"]}, "name the unit")):
        bad = Unit(columns={"method": "mine"}, recipe={}, make=lambda columns=columns: columns)
        with pytest.raises(ValueError, match=text):
            Store(tmp_path, "toy").part(bad)
    assert list((tmp_path / "parts").iterdir()) == []


def test_the_manifest_says_what_was_made_with_what(tmp_path: Path) -> None:
    store = Store(tmp_path, "toy")
    store.run([unit("mine", recipe=3)])
    store.save("scores.parquet", store.table())
    store.finish(seconds=1, seed=7)
    said = json.loads((tmp_path / "manifest.json").read_text())
    assert said["seed"] == 7
    assert {"python", "torch", "saliency-checks"} <= set(said["versions"])
    [part] = said["parts"].values()
    assert part["columns"]["method"] == "mine"
    assert part["recipe"] == {"of": 3}
    assert len(said["sha256"]["scores.parquet"]) == 64


def test_pandas_reads_the_table(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")  # statsmodels brings it
    store = Store(tmp_path, "toy")
    store.run([unit("a"), unit("b")])
    store.save("scores.parquet", store.table())
    assert pandas.read_parquet(tmp_path / "scores.parquet").groupby("method").size().to_dict() == {"a": 5, "b": 5}
