"""The re-calibration study: its values are the metric's own, and the command leaves whole results."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from torch import nn

import saliency_checks as sc
from saliency_checks.cli import main
from saliency_checks.explain import seeded
from saliency_checks.method import as_method
from saliency_checks.studies.recalibration import PATHS, PRESETS, curves, per_image, positive
from saliency_checks.studies.table import Table

from toys import effect, subject_of, weighted, white_noise


def network() -> sc.Subject:
    """A convolution, so that class activation maps apply."""
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(64, 4)
    )
    return subject_of(model.eval(), 1, n=6, absent=0.4)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_mean_over_the_shares_is_the_metric_s_score(preset):
    subject = weighted(n=8)
    found = curves(effect, subject, preset, 8, 0)
    own = np.array(found["diffid"]).reshape(9, 8).mean(0)
    np.testing.assert_allclose(own, sc.measure(f"diffid@{preset}", effect, subject, n=8), atol=1e-6)


def test_the_difference_is_that_of_the_two_curves_and_noise_has_none():
    found = {name: np.array(values) for name, values in curves(effect, weighted(n=8), PRESETS[0], 8, 0).items()}
    np.testing.assert_allclose(found["diffid"], found["lowest_removed"] - found["highest_removed"], atol=1e-6)
    assert list(np.unique(found["share"])) == pytest.approx([0.1 * i for i in range(1, 10)])
    many = weighted(n=96)
    noise, own = (np.mean(curves(m, many, PRESETS[1], 96, 0)["diffid"]) for m in (white_noise, effect))
    assert abs(noise) < 0.07
    assert own > noise + 0.07


def test_the_positive_part_is_that_of_the_same_method_with_what_it_is_given():
    subject = weighted(n=4)
    plain, alone = as_method("expected_gradients"), positive(as_method("expected_gradients"))
    with seeded(3):
        found = plain(subject.model, subject.inputs, subject.targets, **subject.supplies)
    with seeded(3):
        kept = alone(subject.model, subject.inputs, subject.targets, **subject.supplies)
    assert (found < 0).any()
    assert torch.equal(kept, torch.where(found > 0, found, 0.0))


@pytest.mark.slow
def test_the_command_leaves_table_curves_panels_and_summary(tmp_path: Path):
    arguments = ["--subject", "test_recalibration_study:network", "--images", "4", "--picture", "1", "--device", "cpu"]
    assert main(["study", "recalibration", "--out", str(tmp_path), *arguments]) == 0
    names = {file.name for file in tmp_path.iterdir()}
    assert names >= {"values.parquet", "summary.md", "manifest.json", "diffid_network.png", "panels_network.png"}
    table = Table(parquet.read_table(tmp_path / "values.parquet"))
    for base in PATHS:
        for name in (as_method(base).name, f"recalibrated_{base}", f"positive_{base}"):
            assert per_image(table.where(method=name, metric=PRESETS[0])).shape == (4,)
