"""The bundle behind a red result: the worst images as they were, whatever the names in it."""

from __future__ import annotations

import errno
import io
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pages import CURVES, HOSTILE, LAYERS, RECOVERY, example, hostile, result
from PIL import Image

import saliency_checks as sc
from saliency_checks import judging, plugin
from saliency_checks.pictures import ARRAYS
from saliency_checks.report import BadReport, bundle
from saliency_checks.result import Result

from toys import detector, gradient


@pytest.fixture(scope="module")
def judged() -> Result:
    """A result with three worst images of a subject that marks its causes."""
    return sc.run("complexity", gradient, detector(16), n=16, images=3, bound=">= 2")


def test_it_holds_the_worst_images_and_maps_as_they_were(judged: Result, tmp_path: Path) -> None:
    place = bundle.write(judged, tmp_path)
    assert place.parent == tmp_path
    worst = [one for one in judged.examples if one["rank"] == "worst"]
    with np.load(place / "images.npz") as found:
        assert found["index"].tolist() == [one["index"] for one in worst]
        assert np.array_equal(found["inputs"], np.stack([one[ARRAYS]["input"] for one in worst]))
        assert np.array_equal(found["maps"], np.stack([one[ARRAYS]["map"] for one in worst]))
        assert found["score"].tolist() == sorted(found["score"])
    pictures = sorted(place.glob("worst*.png"))
    assert len(pictures) == 2 * 3
    for picture in pictures:
        Image.open(picture).verify()
    assert judged.message in (place / "result.txt").read_text()
    assert Result.from_json((place / "result.json").read_text()) == judged
    assert "<!doctype html>" in (place / "result.html").read_text("utf-8")


def test_the_arrays_are_the_subjects_own_images_and_stay_out_of_json(judged: Result) -> None:
    subject = detector(16)
    for one in judged.examples:
        assert np.array_equal(one[ARRAYS]["input"], subject.inputs[one["index"]].numpy())
    assert all(ARRAYS not in one for one in judged.to_dict()["examples"])


@pytest.mark.parametrize(
    ("details", "lines", "points"), [(CURVES, 2, 3), (LAYERS, 1, 2), (RECOVERY, 1, 4), ({"curves": HOSTILE}, 0, 0)]
)
def test_curves_are_numbers_and_a_picture(details: dict[str, object], lines: int, points: int, tmp_path: Path) -> None:
    place = bundle.write(result(details=details), tmp_path)
    assert (place / "curves.npz").exists() == (place / "curves.png").exists() == bool(lines)
    if lines:
        with np.load(place / "curves.npz") as found:
            assert found["values"].shape == (lines, points)
            assert len(found["axis"]) == points
        drawn = np.asarray(Image.open(place / "curves.png")).reshape(-1, 3)
        assert {tuple(colour) for colour in bundle.COLOURS[:lines]} <= set(map(tuple, drawn.tolist()))


def test_the_first_line_falls_where_its_values_do() -> None:
    drawn = np.asarray(Image.open(io.BytesIO(bundle.png(bundle._plot([np.array([1.0, 0.0])])))))
    rows, columns = np.nonzero((drawn == bundle.COLOURS[0]).all(-1))
    assert rows[columns == 0].min() == 0
    assert rows[columns == drawn.shape[1] - 1].max() == drawn.shape[0] - 1
    assert np.corrcoef(rows, columns)[0, 1] > 0.99


names = st.text(max_size=300) | st.sampled_from(["..", "../..", "/etc/passwd", "a/../../b", ".", "", "con", "a\0b"])


@given(names, names, names)
def test_no_name_leaves_the_folder(check: str, method: str, subject: str) -> None:
    name = bundle.name_of(result(check, method, subject))
    assert Path(name).name == name
    assert name not in ("", ".", "..")
    assert not name.startswith(".")
    assert name.isascii()
    assert len(name) <= bundle.LONGEST_NAME


def test_hostile_results_are_written_below_the_folder_only(tmp_path: Path) -> None:
    made = hostile().sorted_rows[0].result
    made = result(made.check + "/../../x", made.method, made.subject, message=HOSTILE, examples=[example(index=7)])
    inside = tmp_path / "inside"
    place = bundle.write(made, inside)
    assert [path.name for path in tmp_path.iterdir()] == ["inside"]
    assert {path for path in inside.rglob("*") if path.is_file()} == set(place.iterdir())


def test_a_bundle_that_cannot_be_written_hides_no_verdict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    wanted = SimpleNamespace(bundle=tmp_path / "file")
    monkeypatch.setattr(plugin, "settings", lambda config: wanted)
    found = judging._bundled(SimpleNamespace(), result(verdict="fail", message="0.00 breaks"))  # type: ignore[arg-type]
    assert found.verdict == "fail"
    assert found.message.startswith("0.00 breaks\n  bundle   NOT WRITTEN: ")


def test_what_passes_or_says_nothing_has_no_bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugin, "settings", lambda config: SimpleNamespace(bundle=tmp_path))
    for verdict in ("pass", "skip", "reported"):
        made = result(verdict=verdict)
        assert judging._bundled(SimpleNamespace(), made) is made  # type: ignore[arg-type]
    assert not [*tmp_path.iterdir()]


def test_a_full_disk_is_one_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves no half of a bundle behind."""
    whole = Path.write_bytes

    def full(self: Path, content: bytes) -> int:
        whole(self, content[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(BadReport, match="No space left on device"):
        bundle.write(result(), tmp_path)
    assert [*tmp_path.iterdir()] == []
