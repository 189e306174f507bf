"""Reports as files: written whole, read strictly, merged; Markdown; the command."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import HOSTILE, full, hostile, report, result

from saliency_checks import cli
from saliency_checks.report import BadReport, files, markdown, merged
from saliency_checks.report import json as json_report
from saliency_checks.result import Result, plain


@pytest.mark.parametrize("made", [full(), hostile()])
def test_a_report_comes_back_from_its_file_as_it_was(made: Any, tmp_path: Path) -> None:
    json_report.write(made, tmp_path / "a.json")
    found = json_report.read(tmp_path / "a.json")
    assert json_report.document(found) == json_report.document(made)
    assert found.sorted_rows == made.sorted_rows
    assert [r.status for r in found.sorted_rows] == [r.status for r in made.sorted_rows]


def test_each_result_has_a_line_of_its_own(tmp_path: Path) -> None:
    json_report.write(full(), tmp_path / "a.json")
    lines = (tmp_path / "a.json").read_text().splitlines()
    assert sum(line.startswith('  {"check"') for line in lines) == len(full().rows)


def broken(**changes: Any) -> dict[str, Any]:
    return {**json_report.document(report(result())), **changes}


def changed(**fields: Any) -> dict[str, Any]:
    return broken(results=[{**result().to_dict(), **fields}])


@pytest.mark.parametrize(
    ("document", "words"),
    [
        ([], "schema 1"),
        (broken(schema=2), "schema 1"),
        (broken(environment=[]), "environment"),
        (broken(environment={"a": {}}), "environment"),
        (broken(results={}), "list of results"),
        (broken(results=[1]), "result 0: expected an object"),
        (broken(results=[result().to_dict()] * 2), "there twice"),
        (changed(extra=1), "unknown keys"),
        (changed(score="high"), "score of a result"),
        (changed(n=True), "n of a result"),
        (changed(method=3), "method of a result"),
        (changed(verdict="fine"), "fine"),
        (changed(controls={"a": "b"}), "controls"),
        (changed(scores=[["a"]]), "scores"),
        (changed(fingerprint={"data": 1}), "fingerprint"),
        (changed(details=[]), "details"),
    ],
)
def test_what_is_no_report_is_refused_with_the_reason(document: Any, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(BadReport, match=words):
        json_report.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("text", "words"),
    [(b"{", "no JSON"), (b'{"a": NaN}', "NaN"), (b"[" * 100_000, "nested"), (b"\xff\xfe", "no JSON"), (b"", "no JSON")],
)
def test_what_is_no_json_is_refused(text: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(BadReport, match=words):
        json_report.read(tmp_path / "a.json")


def test_a_file_that_is_too_large_or_missing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(" " * 2**21)
    with pytest.raises(BadReport, match="larger than 1 MiB"):
        json_report.read_json(tmp_path / "a.json", largest=2**20)
    with pytest.raises(BadReport, match="No such file"):
        json_report.read(tmp_path / "none.json")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(values)
def test_whatever_a_metric_keeps_becomes_json(details: Any) -> None:
    found = json.dumps(plain({"a": details}), allow_nan=False)
    assert json.loads(found) == plain({"a": details})


def test_shards_merge_to_the_whole() -> None:
    rows = full().sorted_rows
    parts = [report(*(r.result for r in rows[i::3]), checks=full().checks) for i in range(3)]
    assert json_report.document(merged(parts)) == json_report.document(full())
    parts[1].environment["python"] = "3.12"
    assert merged(parts).environment["python"] == "3.11 | 3.12"
    parts[2].incomplete = "interrupted"
    assert merged(parts).incomplete == "interrupted"


def test_shards_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(BadReport, match="two different results for sign/gradient/tiny"):
        merged([report(result()), report(result(score=0.25))])
    assert len(merged([report(result(seconds=1.0)), report(result(seconds=2.0))]).rows) == 1


def test_the_command_merges_and_says_what_it_cannot_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, made in (("a", result()), ("b", result("complexity"))):
        json_report.write(report(made), tmp_path / f"{name}.json")
    inputs = [str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    assert cli.main(["report", *inputs, "-o", str(tmp_path / "c.json")]) == 0
    assert set(json_report.read(tmp_path / "c.json").rows) == {"sign/gradient/tiny", "complexity/gradient/tiny"}
    assert cli.main(["report", *inputs, "-o", str(tmp_path / "c.pdf")]) == cli.USAGE_ERROR
    assert "ends in .json, .html or .md" in capsys.readouterr().err
    (tmp_path / "b.json").write_text("[")
    assert cli.main(["report", *inputs, "-o", str(tmp_path / "c.json")]) == cli.USAGE_ERROR
    assert "b.json: no JSON" in capsys.readouterr().err


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(report(result()), tmp_path / "a.html")
    before = (tmp_path / "a.html").read_text()

    def full_disk(self: Path, target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full_disk)
    with pytest.raises(BadReport, match="No space left on device"):
        files.write(report(result("complexity")), tmp_path / "a.html")
    assert (tmp_path / "a.html").read_text() == before
    assert list(tmp_path.iterdir()) == [tmp_path / "a.html"]


def test_markdown_holds_the_matrix_and_the_text_of_what_is_red() -> None:
    text = markdown.page(full())
    assert "| gradient | open .50 |" not in text
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    assert lines[0].count("|") == lines[1].count("|") == lines[2].count("|")
    assert "**FAIL .00**" in text
    assert "0.00 breaks" in text
    assert "boom" in text
    assert "tiny offers none" not in text


def test_markdown_of_hostile_names_is_text() -> None:
    text = markdown.page(hostile())
    outside = text.split("```")[::2]
    assert not any("<script" in part or "<img" in part for part in outside)
    made = report(result(verdict="fail", message=f"````\n{HOSTILE}"))
    fence = next(line for line in markdown.page(made).splitlines() if line.endswith("text") and line.startswith("`"))
    assert fence == "`" * 7 + "text" or len(fence) >= len("`````text")


def test_markdown_of_two_runs_says_what_changed() -> None:
    text = markdown.page(report(result(verdict="fail")), against=report(result()))
    assert "| sign/gradient/tiny | pass 0.50 | FAIL 0.50 | pass became FAIL" in text
    assert "Nothing." in markdown.page(report(result()), against=report(result()))


def test_a_result_keeps_what_pictures_and_comparisons_need() -> None:
    made = result(
        scores=[[0.5, 1 / 3]], groups=["a"], fingerprint={"data": "x"}, details={"curve": (1, 2)}, command="c"
    )
    back = Result.from_json(made.to_json())
    assert (back.scores, back.groups, back.command) == ([[0.5, 0.33333]], ["a"], "c")
    assert back.details == {"curve": [1, 2]}
