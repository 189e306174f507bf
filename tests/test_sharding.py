"""A run in parts: together they are the whole, each cell once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from saliency_checks import cli
from saliency_checks.report import Report, complete, merged
from saliency_checks.sharding import numbers, part_of

from project import check_in, pytest_in, write

GROUPS = st.lists(st.sampled_from("abcdefghij"), min_size=1, max_size=60)


@given(groups=GROUPS, count=st.integers(1, 12))
def test_every_group_is_in_one_part_and_neighbours_stay_together(groups: list[str], count: int) -> None:
    found = numbers(groups, count)
    assert found.keys() == set(groups)
    assert set(found.values()) <= set(range(1, count + 1))
    in_order = [found[name] for name in sorted(found)]
    assert in_order == sorted(in_order)
    assert numbers(groups[::-1], count) == found  # whatever the order of the tests


@given(groups=GROUPS, count=st.integers(1, 12))
def test_no_part_is_larger_than_its_share_by_more_than_a_group(groups: list[str], count: int) -> None:
    found = numbers(groups, count)
    largest = max(groups.count(name) for name in set(groups))
    for number in range(1, count + 1):
        assert sum(found[name] == number for name in groups) <= len(groups) / count + largest


@pytest.mark.parametrize("text", ["0/2", "3/2", "1", "a/b", "1/0", "-1/2", "1/2/3"])
def test_what_is_no_part_is_refused(text: str) -> None:
    with pytest.raises(pytest.UsageError, match="expected I/N with I from 1 to N"):
        part_of(text)


def rows_of(file: Path) -> dict[str, dict[str, Any]]:
    rows = json.loads(file.read_text())["results"]
    return {f"{r['check']}/{r['method']}/{r['subject']}": r for r in rows}


def without_time(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name != "seconds"}


@pytest.mark.parametrize(
    ("parts", "lacks"),
    [
        (["1/1"], ""), (["2/2", "1/2"], ""), (["1/3", "3/3"], "of 3 parts it lacks 2"), ([], ""), (["x"], ""),
        (["1/2", "2/2", "1/3"], "it holds parts of runs in 2 and in 3 parts"),
        (["7/999999"], "of 999999 parts it lacks 1, 2, 3, 4, 5, 6, 8, 9, 10, 11"),
    ],
)  # fmt: skip
def test_a_report_of_parts_says_which_it_lacks(parts: list[str], lacks: str) -> None:
    made = complete(merged(Report(environment={"seed": 0, "shard": part}) for part in parts))
    assert made.incomplete == lacks
    assert complete(merged([made])).incomplete == lacks  # also joined once more
    interrupted = complete(merged(Report(environment={"shard": p}, incomplete="interrupted") for p in parts))
    assert interrupted.incomplete == ("interrupted" if parts else "")


@pytest.mark.slow
def test_the_parts_joined_are_the_whole_also_on_several_workers(tmp_path: Path) -> None:
    methods, names = ("good", "same", "array"), []
    write(tmp_path)
    whole = check_in(tmp_path, *methods)
    expected, environment = whole.results, json.loads((tmp_path / "out.json").read_text())["environment"]
    keys = expected.keys()
    assert len(keys) == 6
    seen: list[str] = []
    for number in (1, 2):
        names.append(tmp_path / f"{number}.json")
        also = (f"--saliency-shard={number}/2", f"--saliency-report={names[-1]}", *(("-n", "2") if number == 2 else ()))
        part = check_in(tmp_path, *methods, also=also)
        assert part.code in (0, 1), part.output
        found = list(rows_of(names[-1]))
        assert 0 < len(found) < len(keys)
        assert len({key.partition("/")[2] for key in found}) * 2 == len(found)  # both checks of a method together
        seen += found
    assert sorted(seen) == sorted(keys)
    assert cli.main(["report", str(names[0]), "-o", str(tmp_path / "half.json")]) == 0
    assert json.loads((tmp_path / "half.json").read_text())["incomplete"] == "of 2 parts it lacks 2"
    assert cli.main(["report", *map(str, names), "-o", str(tmp_path / "joined.json")]) == 0
    made = json.loads((tmp_path / "joined.json").read_text())
    assert "incomplete" not in made
    assert made["environment"] == environment
    joined = {key: without_time(row) for key, row in rows_of(tmp_path / "joined.json").items()}
    assert joined == {key: without_time(row) for key, row in expected.items()}


@pytest.mark.slow
def test_an_empty_part_is_no_error_and_a_wrong_one_is(tmp_path: Path) -> None:
    write(tmp_path)
    run = check_in(tmp_path, "good", checks="complexity", also=("--saliency-shard=2/5",))
    assert (run.code, run.results) == (0, {})
    assert check_in(tmp_path, "good", checks="complexity", also=("--saliency-shard=6/5",)).code == 4
    (tmp_path / "test_none.py").write_text("")
    assert pytest_in(tmp_path, "test_none.py", "--saliency-shard=1/2").code == 5  # nothing there at all


def test_the_command_hands_the_part_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[str] = []
    monkeypatch.setattr(pytest, "main", lambda arguments: given.extend(arguments) or 0)
    assert cli.main(["run", "gradient", "--shard", "2/4"]) == 0
    assert "--saliency-shard=2/4" in given
