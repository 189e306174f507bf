"""In its loops, over steps and over chunks, nothing waits for the device: a GPU would stand still meanwhile.

On a CPU the operators that would wait are counted; on CUDA its own debug mode raises at the first one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from syncs import counted
from torch import Tensor, nn

from saliency_checks import chunking, explain, maps, registry
from saliency_checks.explain import subject_maps
from saliency_checks.method import Method, as_method
from saliency_checks.methods import deep_lift, full_gradient
from saliency_checks.methods.deep_lift import deep_lift_shap
from saliency_checks.methods.path import guided_ig
from saliency_checks.metric import Draw
from saliency_checks.perturbation import Curve
from saliency_checks.perturbation.engine import Removal, answers, raster
from saliency_checks.subject import Subject

from toys import SIZE, gradient, made, noise

IMAGES, FEW = 4, 16
# What each waits for, once per chunk of passes.
KNOWN = {
    "iba": "Adam counts its steps in a tensor on the host: no device is asked",
    "opti_cam": "Adam counts its steps in a tensor on the host: no device is asked",
}
METHODS = [name for name in registry.names("methods") if not registry.get("methods", name).control]
# Solving the holes looks, on a GPU every fourth iteration, which of them are solved, in every chunk.
LOOKS = {"road"}
CURVES = [
    name
    for name in registry.names("metrics")
    if isinstance(registry.get("metrics", name).settings, Curve) and name not in LOOKS
]
DRAWN = ("sensitivity_n", "infidelity")


def subject() -> Subject:
    return Subject(network(), noise(IMAGES, 3), torch.arange(IMAGES) % 4, name="net")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Flatten(),
        nn.Linear(4 * SIZE * SIZE, 4),
    ).eval()  # fmt: skip


@pytest.fixture
def one_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Methods get all images at once, models so many."""
    monkeypatch.setattr(explain, "LEAST_PER_CALL", IMAGES)

    def set_size(images: int) -> None:
        monkeypatch.setattr(chunking, "ELEMENTS_PER_PASS", images * 3 * SIZE * SIZE)

    return set_size


def waits(run: Callable[[], Any]) -> Counter[str]:
    with counted() as count:
        run()
    return count


@pytest.mark.parametrize("name", [name for name in METHODS if name not in KNOWN])
def test_no_method_waits_longer_where_its_passes_are_cut_into_more(one_call: Callable[[int], None], name: str) -> None:
    found = []
    for size in (2000, FEW):
        one_call(size)
        found.append(waits(lambda: subject_maps(as_method(name), subject(), 0, IMAGES)))
    assert found[0] == found[1]


# What these ask of the device, once for a batch of images.
ASKS = {
    "ablation_cam": "which channels are not all zero",
    "feature_ablation": "how many segments there are",
    "kernel_shap": "how many segments there are",
    "lime": "how many segments there are",
    "lpi": "which references are nearest, cluster by cluster",
    "lrp": "whether the network is finite where everything is 0",
    "recalibrated_lpi": "as lpi",
    "shapley_sampling": "how many segments there are",
    "xrai": "how many regions there are",
}


FEWER = {"guided_ig": as_method(partial(guided_ig, steps=5), needs={"gradient", "baseline"})}  # of 200 steps


def on_meta(method: Method) -> Tensor:
    """Explained on a device whose tensors hold nothing: to ask for a value is an error, to mix them with others too."""
    place = torch.device("meta")
    inputs = torch.rand(IMAGES, 3, SIZE, SIZE, device=place)
    return method(
        network().to(place), inputs, torch.zeros(IMAGES, dtype=torch.long, device=place),
        baseline=torch.zeros(1, 3, 1, 1, device=place), references=torch.rand(5, 3, SIZE, SIZE, device=place),
    )  # fmt: skip


@pytest.mark.parametrize("name", registry.names("methods"))
def test_a_method_stays_on_its_device_and_asks_it_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (deep_lift, full_gradient):  # they ask whether the contributions add up, at the end
        monkeypatch.setattr(module, "check_sum", lambda *_, **__: None)
    if name in ASKS:
        with pytest.raises((RuntimeError, NotImplementedError), match=r"(?i)meta"):
            on_meta(as_method(name))
    else:
        found = on_meta(FEWER.get(name) or as_method(name))
        assert found.device.type == "meta"
        assert found.shape[2:] == (SIZE, SIZE)


LEAVES = {"mixes": lambda x: x + torch.ones(SIZE), "asks": lambda x: x * float(x.sum()), "goes": lambda x: x.cpu()}


@pytest.mark.parametrize("kind", LEAVES)
def test_a_method_that_leaves_its_device_is_noticed(kind: str) -> None:
    with pytest.raises((RuntimeError, NotImplementedError), match="meta"):
        on_meta(made(lambda m, x, t: LEAVES[kind](x), "leaves"))


def test_a_guided_path_is_walked_without_looking_and_a_finer_one_hardly_looks() -> None:
    """Of a tenth of the values at a time, up to ten turns for each of five steps: two looks each."""
    x = noise(IMAGES, 3)
    found = [
        waits(lambda share=share: guided_ig(network(), x, torch.zeros(IMAGES).long(), steps=5, fraction=share))
        for share in (0.25, 0.1)
    ]
    assert not found[0]
    assert 0 < sum(found[1].values()) <= 10


def test_deep_shap_looks_once_at_what_its_contributions_sum_to() -> None:
    x = noise(IMAGES, 3)
    found = [
        waits(lambda count=count: deep_lift_shap(network(), x[:count], torch.zeros(count).long(), references=x))
        for count in (1, IMAGES)
    ]
    assert found[0] == found[1]
    assert sum(found[0].values()) == 1


def measure(name: str, **settings: Any) -> Callable[[], Any]:
    metric = registry.get("metrics", name)
    if hasattr(metric.settings, "segments"):
        settings["segments"] = "grid"
    metric = metric.with_settings(**settings) if settings else metric
    return lambda: metric.measure(gradient, subject(), Draw(n=IMAGES, redraws=1))


@pytest.mark.parametrize("name", [*CURVES, *DRAWN, "average_drop", "monotonicity_correlation"])
def test_no_score_waits_longer_where_its_passes_are_cut_into_more(one_call: Callable[[int], None], name: str) -> None:
    found = []
    for size in (2000, FEW):
        one_call(size)
        found.append(waits(measure(name, **({"draws": 10} if name in DRAWN else {}))))
    assert found[0] == found[1]


FINE = tuple(i / 40 for i in range(41))


@pytest.mark.parametrize(
    ("name", "few", "many"),
    [
        *((name, {"fractions": FINE[::10]}, {"fractions": FINE}) for name in CURVES),
        ("sensitivity_n", {"draws": 5}, {"draws": 50}),
        ("infidelity", {"draws": 5}, {"draws": 50}),
        ("monotonicity_correlation", {"draws": 1}, {"draws": 5}),
        ("monotonicity_correlation", {"groups": 4}, {"groups": 16}),
    ],
)  # fmt: skip
def test_no_score_waits_longer_for_more_steps(name: str, few: dict[str, Any], many: dict[str, Any]) -> None:
    assert waits(measure(name, **few)) == waits(measure(name, **many))


def test_comparing_maps_does_not_wait() -> None:
    first, second = noise(IMAGES)[:, 0] - 0.4, noise(IMAGES, seed=1)[:, 0]
    first[::2] += 1
    with counted() as count:
        maps.similarity(first, second, first > 0.1)
    assert not count


WAITS: dict[str, tuple[Callable[[Tensor], Any], str]] = {
    "number": (lambda x: float(x.sum()), "_local_scalar_dense"),
    "branch": (lambda x: bool((x > 0).any()), "_local_scalar_dense"),
    "mask": (lambda x: x[x > 0], "index with a mask"),
    "places": (lambda x: x.nonzero(), "nonzero"),
    "list": (lambda x: x.sum(0).tolist(), "tolist"),
    "host": (lambda x: x.detach().cpu(), "cpu"),
    "unique": (lambda x: x.unique(), "_unique2"),
}


@pytest.mark.parametrize("kind", WAITS)
def test_a_wait_in_a_loop_is_noticed(kind: str) -> None:
    wait, name = WAITS[kind]

    def count(steps: int) -> int:
        def explained(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
            for _ in range(steps):
                wait(inputs)
            return inputs

        return waits(lambda: subject_maps(made(explained, "waiting"), subject(), 0, IMAGES))[name]

    assert count(9) - count(3) == 6


@contextmanager
def no_waits() -> Iterator[None]:
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture
def device() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device("cuda:0")


@pytest.mark.gpu
def test_the_engine_does_not_wait_on_cuda(device: torch.device, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chunking, "ELEMENTS_PER_PASS_OF_ACCELERATOR", 4 * 3 * SIZE * SIZE)
    model, inputs = network().to(device), noise(IMAGES, 3).to(device)
    targets, fill = torch.arange(IMAGES, device=device) % 4, torch.zeros_like(inputs)
    turn = torch.rand(2, IMAGES, SIZE * SIZE, device=device).argsort(2).argsort(2)
    high = torch.arange(0, 64, 8, device=device).unsqueeze(0)
    removal = Removal(
        turn=turn, low=torch.zeros_like(high), high=high, cells=raster(1, SIZE, SIZE, device), is_raster=True
    )

    def impute(image: Tensor, gone: Tensor) -> Tensor:
        return torch.where(gone, fill[image], inputs[image])

    answers(model, inputs, targets, removal, impute)  # cuDNN chooses its kernels
    with no_waits():
        answers(model, inputs, targets, removal, impute)
        maps.similarity(inputs[:, 0], fill[:, 0], inputs[:, 0] > 0.4)
        maps.ranks(inputs[:, 0].flatten(1))


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["gradient", "input_x_gradient", "integrated_gradients", "grad_cam", "deletion"])
def test_scores_on_cuda_are_those_of_the_cpu(device: torch.device, name: str) -> None:
    on_cpu = subject()
    on_cuda = replace(
        on_cpu, model=network().to(device), inputs=on_cpu.inputs.to(device), targets=on_cpu.targets.to(device)
    )
    if name == "deletion":
        metric = registry.get("metrics", name)
        one, other = (torch.from_numpy(metric.measure(gradient, s, Draw(n=IMAGES)).values) for s in (on_cpu, on_cuda))
    else:
        one, other = (subject_maps(as_method(name), s, 0, IMAGES).cpu() for s in (on_cpu, on_cuda))
    torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)
