"""The randomisation study from its command line, on a toy network: whole, resumed, and with references that hold."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest
import torch
from pyarrow import parquet
from torch import Tensor, nn
from torch.nn import functional as F

from saliency_checks import Subject, randomization
from saliency_checks.cli import main
from saliency_checks.explain import derive
from saliency_checks.method import as_method
from saliency_checks.randomization import Redraw
from saliency_checks.studies import cascades, published, sanity_networks, sanity_report
from saliency_checks.studies.sanity_checks import INFORMATIONAL, SMOOTH, _informational
from saliency_checks.studies.sanity_figures import layer, spread
from saliency_checks.studies.table import Table
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


class _Transformer(nn.Module):
    """Attention between patches of 4 x 4: many layers, bare parameters, and no convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Linear(16, 8)
        self.position = nn.Parameter(torch.randn(4, 8))
        layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        tokens = F.unfold(x, 4, stride=4).transpose(1, 2)
        return self.head(self.blocks(self.patches(tokens) + self.position).flatten(1)[:, :8])


def transformer() -> Subject:
    torch.manual_seed(0)
    return Subject(_Transformer().eval(), noise(12, 1), torch.arange(12) % CLASSES)


ARGUMENTS = (
    "--network", "test_sanity_checks:network", "--twins", "test_sanity_checks:network", "--method", "gradient",
    "--method", "input_x_gradient", "--images", "6", "--redraws", "2", "--picture", "1", "--device", "cpu",
)  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("study")
    assert main(["study", "sanity-checks", "--out", str(out), *ARGUMENTS]) == 0
    return out


@pytest.fixture(scope="module")
def deep(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A transformer, layer by layer."""
    out = tmp_path_factory.mktemp("deep")
    methods = ("--method", "gradient", "--method", "grad_cam", "--order", "bottom_up")
    few = ("--images", "2", "--redraws", "1", "--device", "cpu", "--steps", "0", "--twins", "none")
    network = ("--network", "test_sanity_checks:transformer")
    assert main(["study", "sanity-checks", "--out", str(out), *network, *methods, *few]) == 0
    return out


@pytest.fixture(scope="module")
def table(folder: Path) -> Table:
    return Table(parquet.read_table(folder / "values.parquet"))


def test_tables_figures_summary_and_manifest_are_there(folder):
    figures = {f"{kind}_network.png" for kind in ("cascade", "independent", "maps")}
    tables = {"values.parquet", "summary.md", "manifest.json"}
    assert {file.name for file in folder.iterdir()} >= {*tables, *figures, "permuted_labels.png"}
    summary = (folder / "summary.md").read_text()
    for method in ("Gradient", "Input x gradient", "Input x noise (null)"):
        assert method in summary
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["device"] == "cpu"
    assert manifest["program"]


def test_what_says_nothing_of_a_network_is_named_with_its_reason_and_the_rest_goes_on(deep):
    assert "Grad-CAM on transformer: grad_cam needs conv; transformer offers none" in (deep / "summary.md").read_text()
    found = Table(parquet.read_table(deep / "values.parquet"))
    assert found.distinct("method") == ["input_x_noise", "gradient"]


def test_of_many_layers_the_table_has_the_values_and_the_summary_what_can_be_read(deep):
    states = Table(parquet.read_table(deep / "values.parquet")).where(order="bottom_up").states()
    assert len(states) == 9
    assert "8 of 9 steps" in (deep / "summary.md").read_text()
    shown = spread(states, 8)
    assert (shown[0], shown[-1], len(shown)) == (states[0], states[-1], 8)
    assert spread(states, 9) == states


SHOWN = {
    "softmax_linear": "softmax_linear",
    "_blocks.3._bn2": "_blocks.3",
    "layer4.1.bn2": "layer4",
    "Mixed_7c.branch3x3dbl_3b.bn": "Mixed_7c",
    "1.layer4.1.conv2": "1.layer4",
    "5": "5",
    "4.main.0": "4.main.0",
    "encoder.layers.encoder_layer_11.mlp.0": "~.encoder_layer_11",
    "head.out.weights": "head.out",
    "": "bare parameters",
}


@pytest.mark.parametrize(("state", "shown"), SHOWN.items())
def test_a_layer_is_named_by_its_block_in_figures(state, shown):
    assert layer(state) == shown


def test_orders_that_were_not_asked_for_are_neither_measured_nor_drawn(deep):
    assert "independent" not in Table(parquet.read_table(deep / "values.parquet")).distinct("order")
    assert {file.name for file in deep.glob("*.png")} == {"cascade_transformer.png", "maps_transformer.png"}
    assert "independent" not in (deep / "summary.md").read_text()


def test_smooth_mprt_and_the_other_metrics_are_measured_beside(table):
    for name in INFORMATIONAL:
        scores = table.where(network="network", method="gradient", order=name).rows["score"].to_numpy()
        assert len(scores) == 6
        assert abs(scores).max() <= 2
    smooth = table.where(network="network", method="gradient", order=SMOOTH).rows["score"].to_numpy()
    assert smooth.mean() < 0.5
    assert set(sanity_report.INFORMATIONAL) == set(INFORMATIONAL)


def test_the_dear_methods_have_no_smooth_copies():
    asked = {name: _informational(as_method(name)) for name in ("gradient", "smoothgrad", "smoothgrad_ig")}
    assert asked["gradient"] == list(INFORMATIONAL)
    assert asked["smoothgrad"] == [name for name in INFORMATIONAL if name != SMOOTH]
    assert asked["smoothgrad_ig"] == []


def test_the_accuracy_of_each_state_is_that_of_its_network(table):
    subject = network()
    rows = table.where(network="network", order="accuracy")
    (seen,) = {rows.where(state=s).rows["redraw"].to_numpy().tolist()[-1] for s in rows.states()}
    assert seen == 1
    first = rows.where(redraw=0, state=rows.states()[0])
    seed = derive("sanity", "top_down", "network", 0, 0)
    _, model = next(randomization.cascading(subject.model, subject.inputs, seed, Redraw(most=None)))
    right = (model(subject.inputs).argmax(1) == subject.targets).double()
    assert first.rows["score"].to_pylist() == right.tolist()


def test_there_is_one_value_per_image_redraw_and_step(table):
    table = table.where(network="network")
    for order in ("top_down", "bottom_up", "independent"):
        rows = table.where(order=order, method="gradient")
        assert len(rows.rows) == 6 * 2 * 3  # images, redraws, layers with weights
    assert table.where(order="top_down").states() == table.where(order="bottom_up").states()[::-1]


def test_abs_similarity_of_input_x_gradient_is_the_null_s_and_the_signed_one_is_not_high(table):
    table = table.where(network="network", order="top_down")
    last = table.states()[-1]
    found, null = (
        table.where(method=m, state=last).mean("abs_spearman")[0] for m in ("input_x_gradient", "input_x_noise")
    )
    assert found == pytest.approx(null, abs=0.12)
    assert null > 0.5
    assert abs(table.where(method="input_x_noise", state=last).mean("spearman")[0]) < 0.15


def test_the_picture_is_the_map_of_the_image_that_was_asked_for():
    subject = network()
    found = cascades.pictured(cascades.Asked(as_method("gradient"), subject, 6), 3, Redraw(most=None))
    assert found["state"] == ["image", "trained", "5", "3", "0"]
    x = subject.inputs[3:4].clone().requires_grad_()
    subject.model(x)[0, subject.targets[3]].backward()
    torch.testing.assert_close(torch.tensor(found["picture"][0]), subject.inputs[3, 0])
    torch.testing.assert_close(torch.tensor(found["picture"][1]), x.grad[0, 0])


def test_a_deterministic_method_repeats_itself_and_its_shuffled_map_does_not(table):
    table = table.where(network="network", order="references", method="gradient")
    assert table.where(state="repeated").mean("spearman")[0] == pytest.approx(1)
    assert abs(table.where(state="shuffled").mean("spearman")[0]) < 0.2


def test_a_run_that_was_cut_off_goes_on_to_the_same_table(folder, monkeypatch):
    for kind in ("curves", "boxes", "grid", "bars"):  # drawn once already
        monkeypatch.setattr(sanity_report.sanity_figures, kind, lambda *_: None)
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


@pytest.mark.parametrize("wrong", ["--network", "--method"])
def test_an_unknown_name_is_said_in_one_line(tmp_path, capsys, wrong):
    assert main(["study", "sanity-checks", "--out", str(tmp_path), "--device", "cpu", wrong, "gradiant"]) == 1
    assert "saliency-checks: unknown" in capsys.readouterr().err


def test_published_curves_have_four_layers_and_belong_to_known_networks():
    for known in (published.CASCADE_ABS, published.CASCADE_SIGNED, published.INDEPENDENT_ABS):
        assert set(known) <= set(sanity_networks.CLOTHES)
        assert all(len(curve) == 4 for curves in known.values() for curve in curves.values())


def test_numbers_stand_beside_the_published_ones_of_their_network_and_data():
    """MNIST's beside clothes and beside digits; a value that could not be read off leaves ours alone."""
    values = pa.table({
        "order": ["paper", "paper", "independent", "independent"], "method": ["gradient"] * 4, "step": [1, 2, 1, 2],
        "state": ["fc1", "hidden2"] * 2, "redraw": [0] * 4, "image": [0] * 4, "paper_abs": [0.5, 0.25, 0.75, 1.0],
        "paper_signed": [0.5, 0.25, 0.75, 1.0],
    })  # fmt: skip
    for name in ("adebayo_cnn", "adebayo_cnn_digits"):
        beside = sanity_report._beside_published(Table(values), name)
        assert "| Gradient | 0.50 / 0.60 | 0.25 / 0.40 |" in beside
        assert "| Gradient | 0.50 / 0.28 | 0.25 / 0.06 |" in beside
    assert "| Gradient | 0.50 | 0.25 |" in sanity_report._beside_published(Table(values), "mine")
    known = {"adebayo_cnn": {"gradient": (0.61, 0.38)}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(published, "INDEPENDENT_ABS", known)
        assert "| Gradient | 0.75 / 0.61 | 1.00 / 0.38 |" in sanity_report._alone(Table(values), "adebayo_cnn_digits")
        assert sanity_report._alone(Table(values), "mine") == []
