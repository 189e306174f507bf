"""The regression gate: what is a regression and what is noise; the file; a run against it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pages import report, result

import saliency_checks as sc
from saliency_checks import baseline, cli, collector
from saliency_checks.baseline import Baseline, accepted, gated, standing
from saliency_checks.compare import LEVEL, TOLERANCE, compare
from saliency_checks.report import BadReport
from saliency_checks.report import json as json_report
from saliency_checks.result import Result
from saliency_checks.verdict import quantile_of

import project
from toys import changed as changed_maps
from toys import detector, gradient

DATA = {"data": "a", "model": "m"}


def scored(values: Any, check: str = "sign", **fields: Any) -> Result:
    """A result whose scores per image are these: (groups, images), or images."""
    groups = np.atleast_2d(np.asarray(values, dtype=float))
    worst = groups.mean(1).min() if fields.get("better", "higher") == "higher" else groups.mean(1).max()
    given = {"score": float(worst), "low": float(worst) - 0.2, "high": float(worst) + 0.2, "n": groups.shape[1]}
    return result(
        check, **{**given, "scores": groups.tolist(), "groups": ["g"] * len(groups), "fingerprint": DATA, **fields}
    )  # fmt: skip


def noise(seed: int, n: int = 64, spread: float = 0.3) -> Any:
    return np.random.default_rng(seed).normal(0.5, spread, n)


def test_the_same_scores_are_no_move_at_all() -> None:
    found = compare(scored(noise(0)), scored(noise(0)))
    assert found is not None
    assert (found.mean, found.low, found.high, found.is_regression) == (0, 0, 0, False)


def test_pairing_sees_what_two_intervals_do_not() -> None:
    """Images differ by .3, all of them fell by .03 or so: the intervals overlap almost wholly."""
    before = noise(0)
    after = before - 0.03 + 0.01 * noise(1)
    found = compare(scored(before), scored(after))
    apart = compare(scored(before), scored(after, fingerprint={"data": "b"}))
    assert found is not None
    assert apart is not None
    assert found.is_regression
    assert found.paired
    assert not apart.is_regression
    assert apart.why_not_paired == "other images"


def test_the_paired_limits_are_the_normal_ones_for_many_images() -> None:
    before, move = noise(0, 2000), noise(1, 2000, spread=0.1) - 0.5
    found = compare(scored(before), scored(before + move))
    assert found is not None
    error = 3 * move.std(ddof=1) / np.sqrt(2000)  # LEVEL is that of three standard errors
    assert pytest.approx(0.00135, rel=0.01) == LEVEL
    assert found.mean == pytest.approx(move.mean())
    assert found.low == pytest.approx(move.mean() - error, abs=0.25 * error)
    assert found.high == pytest.approx(move.mean() + error, abs=0.25 * error)


def test_noise_around_the_same_mean_is_hardly_ever_a_regression() -> None:
    wrong = 0
    for seed in range(300):
        moves = np.random.default_rng(seed).normal(0, 0.1, 32)
        found = compare(scored(noise(seed, 32)), scored(noise(seed, 32) + moves))
        assert found is not None
        wrong += found.is_regression
    assert wrong <= 6  # binomial: 300 runs at a level of .5 % exceed this once in a thousand times


def test_a_move_within_the_tolerance_is_none_however_sure() -> None:
    found = compare(scored(noise(0)), scored(noise(0) - 0.9 * TOLERANCE))
    assert found is not None
    assert found.high < 0
    assert not found.is_regression
    assert compare(scored(noise(0)), scored(noise(0) - 1.1 * TOLERANCE)).is_regression  # type: ignore[union-attr]


@settings(max_examples=20)
@given(st.floats(0.05, 0.5), st.sampled_from(["higher", "lower"]))
def test_worse_is_the_other_way_round_where_lower_is_better(move: float, better: str) -> None:
    sign = 1 if better == "higher" else -1
    down = compare(scored(noise(0), better=better), scored(noise(0) - sign * move, better=better))
    up = compare(scored(noise(0), better=better), scored(noise(0) + sign * move, better=better))
    assert down is not None
    assert up is not None
    assert (down.is_regression, up.is_regression) == (True, False)
    assert (down.mean, up.mean) == (pytest.approx(-move), pytest.approx(move))


def test_the_worst_group_is_compared_even_when_it_is_another_one() -> None:
    good, bad = noise(0) + 0.4, noise(0)
    found = compare(scored([good, bad]), scored([bad - 0.1, good]))
    assert found is not None
    assert found.mean == pytest.approx(-0.1)
    assert found.is_regression
    assert not compare(scored([good, bad]), scored([good - 0.2, bad])).is_regression  # type: ignore[union-attr]


def test_a_quantile_is_compared_as_a_quantile() -> None:
    """All images at 1; then three of ten at 8, so that three of four no longer hold 1."""
    before, few, many = ([1.0] * (64 - n) + [8.0] * n for n in (0, 14, 44))
    found, less = (
        compare(scored(before, better="lower"), scored(after, better="lower"), quantile=0.75) for after in (many, few)
    )
    assert found is not None
    assert less is not None
    assert (found.mean, found.is_regression) == (-7, True)
    assert (less.mean, less.is_regression) == (0, False)


@given(st.lists(st.integers(0, 9), min_size=3, max_size=20), st.floats(0.05, 0.95))
def test_the_quantile_is_the_judged_one(values: list[int], quantile: float) -> None:
    before, after = np.zeros(len(values)), np.asarray(values, dtype=float)
    found = compare(scored(before, better="lower", low=0.0), scored(after, better="lower"), quantile=quantile)
    assert found is not None
    assert found.mean == -quantile_of(after, quantile)


def test_more_images_are_compared_on_those_that_both_looked_at() -> None:
    found = compare(scored(noise(0)), scored(np.concatenate([noise(0), np.zeros(64)])))
    assert found is not None
    assert (found.n, found.mean) == (64, 0)


@pytest.mark.parametrize(
    ("fields", "why"),
    [({"seed": 1}, "another seed"), ({"scores": []}, "no scores per image"), ({"scores": [[1.0]] * 2}, "other groups")],
)
def test_what_cannot_be_paired_is_compared_by_its_intervals(fields: Any, why: str) -> None:
    old = scored(noise(0), score=0.5, low=0.4, high=0.6)
    for score, is_regression in ((0.3, True), (0.35, False), (0.9, False)):
        new = scored(noise(0), **{"score": score, "low": score - 0.08, "high": score + 0.08, **fields})
        found = compare(old, new)
        assert found is not None
        assert why in found.why_not_paired
        assert found.is_regression is is_regression


def test_an_exact_score_may_not_lose_a_clause() -> None:
    old = scored([1.0] * 12, low=1.0, high=1.0)
    new = scored([1.0] * 11 + [0.0], score=11 / 12, low=11 / 12, high=11 / 12)
    assert compare(old, new).is_regression  # type: ignore[union-attr]


def test_what_was_not_measured_cannot_be_compared() -> None:
    assert compare(scored(noise(0)), result(verdict="skip", score=None)) is None


def known(*results: Result, **environment: Any) -> Baseline:
    return Baseline(entries={one.key: one for one in results}, environment=environment)


def test_a_regression_fails_and_says_by_how_much_although_the_bound_holds() -> None:
    new = scored(noise(0) - 0.2, message="0.30 holds >= 0.1  sign", fingerprint={"data": "a", "model": "other"})
    found = gated(known(scored(noise(0))), new, quantile=None, source="b.json")
    assert found.verdict == "fail"
    assert found.message.startswith(f"{new.score:.2f} was {scored(noise(0)).score:.2f}: 0.20 worse (between 0.20 and")
    assert "other weights" in found.message
    assert "saliency-checks baseline b.json --from RESULTS.json --accept sign/gradient/tiny" in found.message
    assert "0.30 holds >= 0.1" in found.message
    assert gated(known(new), scored(noise(0)), quantile=None, source="") == scored(noise(0))
    assert gated(known(), new, quantile=None, source="") is new


def test_new_and_stale_entries_of_a_run() -> None:
    old = known(scored([1, 0]), scored([1, 0], "complexity"), scored([1, 0], "sign", method="other"))
    run = report(scored([1, 0]), scored([1, 0], "deletion"), result("complexity", verdict="skip", score=None))
    found = standing(old, run, whole=True, selected=False)
    assert found.new == ("deletion/gradient/tiny",)
    assert found.stale == ("complexity/gradient/tiny", "sign/other/tiny")
    assert standing(old, run, whole=True, selected=True).stale == ("complexity/gradient/tiny",)
    assert standing(old, run, whole=False, selected=False).stale == ()


@pytest.mark.parametrize(
    ("flag", "value", "stale"),
    [
        ("keyword", "", 1), ("keyword", "sign", 0), ("markexpr", "x", 0), ("deselect", ["x"], 0), ("lf", True, 0),
        ("args", ["saliency_checks.checks.test_sign"], 0), ("args", ["checks/test_sign.py"], 0),
        ("args", ["checks"], 1),
    ],
    ids=range(8),
)  # fmt: skip
def test_a_part_of_the_checks_calls_nothing_stale(
    flag: str, value: Any, stale: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    option = SimpleNamespace(**{"keyword": "", "markexpr": "", flag: value})
    args = value if flag == "args" else ["saliency_checks.checks"]
    config: Any = SimpleNamespace(option=option, args=args, getoption=lambda name: None)
    monkeypatch.setattr(collector, "baseline", lambda config: known(scored([1, 0]), scored([1, 0], "complexity")))
    found = collector._standing(config, report(scored([1, 0])))
    assert found is not None
    assert len(found.stale) == stale


def test_only_what_is_accepted_moves() -> None:
    old = known(scored([1, 0]), scored([1, 0], "complexity"), torch="1")
    run = report(scored([1, 1]), scored([1, 1], "complexity"), scored([1, 1], "deletion"))
    run.environment = {"torch": "2"}
    made, moved = accepted(old, run, ["sign/*"])
    assert moved == ["sign/gradient/tiny"]
    assert {key: r.score for key, r in made.entries.items()} == {
        "sign/gradient/tiny": 1.0,
        "complexity/gradient/tiny": 0.5,
    }
    assert made.environment == {"torch": "1 | 2"}
    everything, moved = accepted(old, run, ["*"])
    assert len(everything.entries) == len(moved) == 3
    assert everything.environment == {"torch": "2"}
    pruned, moved = accepted(old, report(scored([1, 0])), [], prune=True)
    assert (list(pruned.entries), moved) == (["sign/gradient/tiny"], ["complexity/gradient/tiny"])
    with pytest.raises(BadReport, match="no result with a score"):
        accepted(old, report(result(verdict="skip", score=None)), ["sign/*"])


def test_the_file_is_sorted_has_a_line_for_each_result_and_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    made = known(scored(noise(0)), scored([1, 0, 1], "complexity"), torch="2")
    baseline.write(made, path)
    lines = [line for line in path.read_text().splitlines() if line.startswith('  {"check"')]
    assert [json.loads(line.rstrip(","))["check"] for line in lines] == ["complexity", "sign"]
    assert '"scores": [[1, 0, 1]]' in lines[0]
    back = baseline.read(path)
    baseline.write(back, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == path.read_bytes()
    found = compare(back.entries["sign/gradient/tiny"], scored(noise(0)))
    assert found is not None
    assert abs(found.mean) < 1e-4
    assert not found.is_regression


def changed(**fields: Any) -> Any:
    def change(document: Any) -> None:
        document["results"][0].update(fields)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: d.update(schema=2), "no baseline of schema 1"),
        (lambda d: d.update(kind="x"), "no baseline of schema 1"),
        (lambda d: d.update(more=1), "more"),
        (lambda d: d.update(results={}), "list of results"),
        (lambda d: d.update(environment={"a": []}), "environment"),
        (lambda d: d["results"].append(d["results"][0]), "there twice"),
        (lambda d: d["results"][0].pop("seed"), "expected exactly"),
        (changed(extra=1), "expected exactly"),
        (changed(score=None), "expected a score"),
        (changed(score="x"), "score of a result"),
        (changed(better="sideways"), "higher or lower"),
        (changed(scores=[["x"]]), "scores of a result"),
        (changed(scores=[[]]), "scores of a result"),
    ],
    ids=range(13),
)
def test_a_file_that_is_no_baseline_is_refused(change: Any, words: str, tmp_path: Path) -> None:
    baseline.write(known(scored([1, 0])), tmp_path / "b.json")
    document = json.loads((tmp_path / "b.json").read_text())
    change(document)
    (tmp_path / "b.json").write_text(json.dumps(document))
    with pytest.raises(BadReport, match=words):
        baseline.read(tmp_path / "b.json")


def test_the_command_shows_what_moved_and_writes_only_what_is_accepted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results, file = tmp_path / "r.json", tmp_path / "b.json"
    json_report.write(report(scored(noise(0)), scored([1, 0], "complexity")), results)
    assert cli.main(["baseline", str(file), "--from", str(results)]) == 0
    assert "new        sign/gradient/tiny" in capsys.readouterr().out
    assert not file.exists()
    assert cli.main(["baseline", str(file), "--from", str(results), "--accept", "*"]) == 0
    assert len(baseline.read(file).entries) == 2
    json_report.write(report(scored(noise(0) - 0.3)), results)
    before = file.read_bytes()
    assert cli.main(["baseline", str(file), "--from", str(results)]) == 0
    out = capsys.readouterr().out
    assert "REGRESSED  sign/gradient/tiny" in out
    assert "stale      complexity/gradient/tiny" in out
    assert file.read_bytes() == before
    assert cli.main(["baseline", str(file), "--from", str(results), "--accept", "sgn/*"]) == cli.USAGE_ERROR
    assert "--accept sgn/*: no result" in capsys.readouterr().err
    assert file.read_bytes() == before
    json_report.write(report(scored(noise(0)), incomplete="interrupted"), results)
    assert cli.main(["baseline", str(file), "--from", str(results), "--accept", "*"]) == cli.USAGE_ERROR


def test_a_method_that_got_worse_is_found_on_the_same_images(tmp_path: Path) -> None:
    """From a real result through the file to a real result: paired, and red although the bound of .7 may hold."""
    rng = torch.Generator().manual_seed(0)
    broken = changed_maps(lambda g: g * (torch.rand(len(g), 1, 1, 1, generator=rng) > 0.15), "gradient")
    first, again, worse = (
        sc.run("planted_deletion", method, detector(64)) for method in (gradient, gradient, broken)
    )  # fmt: skip
    baseline.write(known(first), tmp_path / "b.json")
    old = baseline.read(tmp_path / "b.json")
    assert gated(old, again, quantile=None, source="b.json") is again
    found = gated(old, worse, quantile=None, source="b.json")
    assert found.verdict == "fail"
    assert "paired over 64 images" in found.message


def test_a_run_is_red_where_it_fell_behind_and_names_what_is_new(tmp_path: Path) -> None:
    """The bound of complexity holds all the time."""
    old = result("complexity", "good", score=1.5, low=1.4, high=1.6, seed=0, scores=[], fingerprint={"data": "other"})
    baseline.write(known(old, torch="1.0", profile="quick"), tmp_path / "base.json")
    before = (tmp_path / "base.json").read_bytes()
    project.write(tmp_path)
    run = project.check_in(tmp_path, "good", also=("--saliency-baseline=base.json", "--saliency-baseline-strict"))
    assert run.code == pytest.ExitCode.TESTS_FAILED, run.output
    assert run.verdicts == {"complexity/good/tiny": "fail", "contract/good/tiny": "pass"}
    assert "1.00 was 1.50: 0.50 worse (between 0.40 and" in run.output
    assert "WARNING: measured with another torch" in run.output
    assert "another profile" not in run.output
    assert "not in the baseline (this fails the run): contract/good/tiny" in " ".join(run.output.split())
    assert (tmp_path / "base.json").read_bytes() == before
