"""The randomisation study from its command line, on a toy network: whole, resumed, and with references that hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pyarrow import parquet
from torch import nn

from saliency_checks import Subject
from saliency_checks.cli import main
from saliency_checks.studies import published
from saliency_checks.studies.sanity_report import Table, resampled
from saliency_checks.subject import Twins

from toys import CLASSES, noise


def _net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 12), nn.ReLU(),
        nn.Linear(12, CLASSES),
    ).eval()  # fmt: skip


def network() -> Subject:
    """Half of each image is absent."""
    images = noise(12, 1)
    images[..., :4] = 0
    targets = torch.arange(12) % CLASSES

    def twins() -> Twins:
        return Twins(same=(_net(1), _net(2)), permuted=(_net(3),), inputs=images, targets=targets)

    return Subject(_net(0), images, targets, absent=0.0, twins=twins)


ARGUMENTS = (
    "--network", "test_sanity_checks:network", "--twins", "test_sanity_checks:network", "--method", "gradient",
    "--method", "input_x_gradient", "--images", "6", "--redraws", "2", "--picture", "1", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert main(["study", "sanity-checks", "--out", str(out), *ARGUMENTS]) == 0
    return out


def test_tables_figures_summary_and_manifest_are_there(folder):
    assert {file.name for file in folder.iterdir()} >= {
        "values.parquet", "summary.md", "manifest.json", "permuted_labels.png",
    } | {f"{kind}_network.png" for kind in ("cascade", "independent", "maps")}  # fmt: skip
    summary = (folder / "summary.md").read_text()
    for method in ("Gradient", "Input x gradient", "Input x noise (null)"):
        assert method in summary


def test_there_is_one_value_per_image_redraw_and_step(folder):
    table = Table(parquet.read_table(folder / "values.parquet"))
    for order in ("top_down", "bottom_up", "independent"):
        rows = table.where(order=order, method="gradient")
        assert len(rows.rows) == 6 * 2 * 3  # images, redraws, layers with weights
    assert table.where(order="top_down").states() == table.where(order="bottom_up").states()[::-1]


def test_abs_similarity_of_input_x_gradient_is_the_null_s_and_the_signed_one_is_not_high(folder):
    table = Table(parquet.read_table(folder / "values.parquet")).where(order="top_down")
    last = table.states()[-1]
    found, null = (
        table.where(method=m, state=last).mean("abs_spearman")[0] for m in ("input_x_gradient", "input_x_noise")
    )
    assert found == pytest.approx(null, abs=0.12)
    assert null > 0.5
    assert abs(table.where(method="input_x_noise", state=last).mean("spearman")[0]) < 0.15


def test_a_deterministic_method_repeats_itself_and_its_shuffled_map_does_not(folder):
    table = Table(parquet.read_table(folder / "values.parquet")).where(order="references", method="gradient")
    assert table.where(state="repeated").mean("spearman")[0] == pytest.approx(1)
    assert abs(table.where(state="shuffled").mean("spearman")[0]) < 0.2


def test_a_run_that_was_cut_off_goes_on_to_the_same_table(folder):
    before = parquet.read_table(folder / "values.parquet")
    parts = sorted((folder / "parts").iterdir())
    kept = parts[0].stat().st_mtime_ns
    parts[-1].unlink()
    parts[len(parts) // 2].write_bytes(b"half a fi")
    assert main(["study", "sanity-checks", "--out", str(folder), *ARGUMENTS]) == 0
    assert parts[0].stat().st_mtime_ns == kept
    assert parquet.read_table(folder / "values.parquet").equals(before)


def test_another_setup_is_refused_and_says_which(folder, capsys):
    assert main(["study", "sanity-checks", "--out", str(folder), *ARGUMENTS, "--images", "5"]) == 1
    assert "was made with images 6, and this run asks for 5" in capsys.readouterr().err


def test_the_interval_is_that_of_a_mean_and_as_wide_as_the_redraws_differ():
    rng = np.random.default_rng(0)
    images = rng.normal(size=(1, 400))
    mean, low, high = resampled(images)
    assert mean == pytest.approx(images.mean())
    assert (high - low) / 2 == pytest.approx(1.96 * images.std() / 20, rel=0.15)
    apart = np.repeat([[0.0], [1.0], [2.0]], 50, axis=1)
    _, low, high = resampled(apart)
    assert high - low > 1


def test_published_curves_have_four_layers_and_belong_to_known_networks():
    for table in (published.CASCADE_ABS, published.CASCADE_SIGNED):
        assert set(table) == {"adebayo_cnn", "adebayo_mlp"}
        assert all(len(curve) == 4 for curves in table.values() for curve in curves.values())
