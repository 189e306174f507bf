"""Parts of a study are keyed by this program's source, the user's file and the subject; what changed is made again."""

from __future__ import annotations

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saliency_checks.methods.gradient import gradient
from saliency_checks.studies import provenance, store
from saliency_checks.studies.provenance import code, digest_of, program, sha_of, source_digest
from saliency_checks.studies.store import Store, Unit

from toys import detector, effect


def tree(root: Path) -> Path:
    for name in ("methods/gradient.py", "maps.py", "studies/cascades.py", "studies/sanity_report.py", "report/html.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"# {name}\n")
    return root


@pytest.mark.parametrize("changed", ["methods/gradient.py", "maps.py", "studies/cascades.py"])
def test_a_program_is_another_one_where_a_file_that_measures_is_changed(tmp_path, changed):
    before = source_digest([tree(tmp_path)])
    (tmp_path / changed).write_text("# better\n")
    assert source_digest([tmp_path]) != before


def test_a_file_that_is_moved_or_new_counts(tmp_path):
    before = source_digest([tree(tmp_path)])
    (tmp_path / "maps.py").rename(tmp_path / "pairs.py")
    moved = source_digest([tmp_path])
    (tmp_path / "new.py").write_text("")
    assert len({before, moved, source_digest([tmp_path])}) == 3


@pytest.mark.parametrize("changed", ["studies/sanity_report.py", "report/html.py"])
def test_what_only_writes_of_it_may_change(tmp_path, changed):
    before = source_digest([tree(tmp_path)])
    (tmp_path / changed).write_text("# prettier\n")
    assert source_digest([tmp_path]) == before


def test_every_pattern_of_what_only_writes_fits_a_file_of_this_program():
    found = [file.relative_to(folder).as_posix() for folder in provenance.folders() for file in folder.rglob("*.py")]
    inside = ("checks/*", "fixtures/*")  # in a wheel
    for pattern in set(provenance.WRITING) - set(inside):
        assert any(provenance.fnmatchcase(name, pattern) for name in found), pattern
    measuring = {"explain.py", "maps.py", "methods/gradient.py", "studies/cascades.py", "recipes.py"}
    assert measuring <= {name for name in found if not provenance.only_writes(name)}


def test_a_part_of_another_program_is_made_again_and_one_of_this_is_kept(tmp_path, monkeypatch):
    calls = []

    def make():
        calls.append(1)
        return {"score": [1.0]}

    unit = Unit(columns={"method": "mine"}, recipe={}, make=make)
    Store(tmp_path, "toy").run([unit])
    Store(tmp_path, "toy").run([unit])
    assert len(calls) == 1
    monkeypatch.setattr(store, "program", lambda: "another")
    Store(tmp_path, "toy").run([unit])
    Store(tmp_path, "toy").run([unit])
    assert len(calls) == 2
    assert len(Store(tmp_path, "toy").table()) == 1


def test_the_users_own_code_is_known_by_its_file_and_this_programs_by_the_program():
    own = sha_of(Path(__file__).with_name("toys.py"))
    assert code(effect.explain) == own
    assert code(functools.partial(effect.explain)) == own
    assert code(gradient) == ""
    assert len(program()) == 16


def test_a_subject_is_known_by_its_weights_images_and_classes():
    subject = detector(8)
    other = detector(8)
    assert digest_of(subject) == digest_of(other)
    with torch.no_grad():
        other.model.head.bias[0] += 1
    changed = [
        replace(subject, model=other.model), replace(subject, inputs=subject.inputs + 1),
        replace(subject, targets=subject.targets.flip(0)),
    ]  # fmt: skip
    assert digest_of(subject) not in {digest_of(one) for one in changed}
