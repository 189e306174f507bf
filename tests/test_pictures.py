"""Images in reports: true PNG files, true colours, the right images; fingerprints."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image
from torch import nn

import saliency_checks as sc
from saliency_checks.fingerprint import fingerprint
from saliency_checks.metric import Draw, Scores, own_images, same_images
from saliency_checks.pictures import SIDE, examples, heat, picture, png

from toys import CLASSES, constant, detector, gradient, mlp, noise, subject_of

CHECKS_WITH_IMAGES = ("pixel_recovery", "planted_deletion", "class_contrast", "sign", "complexity")


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 9), st.integers(1, 9), st.just(3))))
def test_pillow_reads_the_pixels_that_were_written(pixels: Any) -> None:
    with Image.open(io.BytesIO(png(pixels))) as found:
        assert (found.format, found.mode) == ("PNG", "RGB")
        assert np.array_equal(np.asarray(found), pixels)


def test_a_map_is_red_for_blue_against_and_white_where_it_is_zero() -> None:
    attributions = torch.zeros(10, 10)
    attributions[0], attributions[1] = 1.0, -1.0
    found = heat(attributions).astype(int)
    assert (found[2:] == 255).all()
    assert (found[0, :, 0] > found[0, :, 2] + 100).all()
    assert (found[1, :, 2] > found[1, :, 0] + 100).all()
    assert np.array_equal(heat(attributions), heat(1e-30 * attributions))
    assert (heat(torch.zeros(4, 4)) == 255).all()


def test_a_single_hot_pixel_is_seen_and_the_rest_stays_white() -> None:
    attributions = torch.zeros(28, 28)
    attributions[3, 4] = 5.0
    found = heat(attributions)
    assert (found[3, 4] != 255).any()
    found[3, 4] = 255
    assert (found == 255).all()


def test_an_input_uses_the_whole_range_and_keeps_its_colours() -> None:
    image = torch.tensor([-2.0, 0.0, 2.0]).view(3, 1, 1).expand(3, 4, 4).clone()
    assert picture(image)[0, 0].tolist() == [0, 128, 255]
    assert (picture(torch.rand(1, 5, 5))[..., 0] == picture(torch.rand(1, 5, 5))[..., 0]).shape == (5, 5)
    grey = picture(noise(1)[0])
    assert (grey.min(), grey.max()) == (0, 255)
    assert np.array_equal(grey[..., 0], grey[..., 2])


def test_a_large_image_is_averaged_down_in_its_proportions() -> None:
    assert picture(torch.rand(3, 4 * SIDE, 2 * SIDE)).shape == (SIDE, SIDE // 2, 3)
    assert heat(torch.rand(2 * SIDE, 4 * SIDE)).shape == (SIDE // 2, SIDE, 3)


@pytest.mark.parametrize("check", CHECKS_WITH_IMAGES)
def test_a_check_shows_worst_and_best_with_their_own_scores(check: str) -> None:
    subject = detector()
    result = sc.run(check, gradient, subject, images=2)
    assert [e["rank"] for e in result.examples] == ["worst"] * 2 + ["best"] * 2
    row = min(result.scores, key=lambda scores: sum(scores))
    for example in result.examples:
        assert example["score"] == pytest.approx(row[example["index"]], rel=1e-4)
    assert result.examples[0]["score"] == pytest.approx(min(row), rel=1e-4)
    assert result.examples[-1]["score"] <= result.examples[2]["score"]
    assert sc.run(check, gradient, detector()).examples == []


def test_the_picture_is_of_the_image_and_the_frame_is_around_the_cause() -> None:
    subject = detector()
    found = sc.run("pixel_recovery", gradient, subject, images=1).examples[0]
    with Image.open(io.BytesIO(base64.b64decode(found["input"]))) as shown:
        assert np.array_equal(np.asarray(shown), picture(subject.inputs[found["index"]]))
    assert subject.truth is not None
    row, column = subject.truth[found["index"]].nonzero()[0].tolist()
    assert found["cause"] == [column / 8, row / 8, (column + 1) / 8, (row + 1) / 8]


def test_lower_scores_come_last_where_lower_is_better() -> None:
    metric = sc.Metric(name="x", measure=None, better="lower", shows=same_images)  # type: ignore[arg-type]
    subject, values = detector(n=8), np.arange(8.0)
    scores = Scores(values=values[None, None])
    found = examples(metric, gradient, subject, Draw(n=8), scores, 0, 2)
    assert [e["index"] for e in found] == [7, 6, 0, 1]


def test_the_images_are_those_of_the_replica_that_was_worst() -> None:
    other = detector(seed=5, name="other")
    subject = detector(replicas=(lambda: other,))
    shown = own_images(constant, subject, Draw(n=8, replicas=1), 1)
    assert torch.equal(shown.inputs, other.inputs[:8])
    assert torch.equal(same_images(constant, subject, Draw(n=8, replicas=1), 1).inputs, subject.inputs[:8])


def test_a_fingerprint_tells_other_images_and_other_weights_apart() -> None:
    first, again = fingerprint(detector()), fingerprint(detector())
    assert first == again
    assert fingerprint(detector(seed=1))["data"] != first["data"]
    assert fingerprint(detector(seed=1))["model"] == first["model"]
    assert fingerprint(detector(n=60))["data"] != first["data"]
    assert fingerprint(subject_of(mlp(seed=1), 1))["model"] != fingerprint(subject_of(mlp(seed=2), 1))["model"]


def test_a_fingerprint_takes_every_kind_of_number() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("halves", torch.ones(3, dtype=torch.bfloat16))
            self.register_buffer("count", torch.tensor(3))
            self.register_buffer("none", torch.zeros(0))
            self.register_buffer("flags", torch.ones(2, dtype=torch.bool))
            self.register_buffer("sparse", torch.eye(3).to_sparse())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1)[:, :CLASSES]

    found = fingerprint(subject_of(Odd(), 1))
    assert set(found) == {"data", "model"}
    assert all(len(text) == 12 for text in found.values())
