"""Which device a process takes."""

from __future__ import annotations

import pytest
import torch

from saliency_checks import device
from saliency_checks.chunking import chunked
from saliency_checks.studies import engines


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ["cuda:0", "cuda:1", "cuda:2", "cpu"])
    monkeypatch.delenv(device.WORKER, raising=False)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("name", "worker", "expected"),
    [
        ("auto", None, "cuda:0"), (None, None, "cuda:0"), ("cuda", "gw1", "cuda:1"), ("auto", "gw4", "cuda:1"),
        ("cuda", "master", "cuda:0"), ("cuda:2", "gw0", "cuda:2"), ("cpu", "gw1", "cpu"),
    ],
)  # fmt: skip
def test_workers_share_the_devices_evenly(name: str | None, worker: str | None, expected: str) -> None:
    assert device.pick(name, worker=worker) == torch.device(expected)


def test_the_environment_names_the_worker(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(device.WORKER, "gw5")
    assert device.pick("auto") == torch.device("cuda:2")


@pytest.fixture
def limited(three_gpus: None, monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, str]]:
    """What is said to CUDA of the memory."""
    found: list[tuple[float, str]] = []
    monkeypatch.setattr(
        torch.cuda, "set_per_process_memory_fraction", lambda part, place: found.append((part, str(place)))
    )
    monkeypatch.setattr(device, "prepare", lambda place, threads=None: None)
    return found


@pytest.mark.parametrize("name", ["auto", "cuda", "cuda:2", "cpu", None])
@pytest.mark.parametrize("workers", [1, 2, 3, 4, 7])
def test_the_parts_of_the_workers_on_a_device_are_equal_and_make_one(
    limited: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch, name: str | None, workers: int
) -> None:
    monkeypatch.setenv(device.WORKERS, str(workers))
    parts: dict[torch.device, list[float]] = {}
    for number in range(workers):
        monkeypatch.setenv(device.WORKER, f"gw{number}")
        parts.setdefault(device.take(name), []).append(device.part(name))
    assert all(len(set(of)) == 1 and sum(of) == pytest.approx(1) for of in parts.values())
    assert sorted(limited) == sorted(
        (part, str(place)) for place, of in parts.items() for part in of if part < 1 and place.type == "cuda"
    )


def test_a_process_without_neighbours_takes_all_the_memory(
    limited: list[tuple[float, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(device.WORKERS, "4")  # the controller's, which is no worker
    device.take("cuda")
    monkeypatch.setenv(device.WORKER, "gw2")
    device.take("cuda")  # the third GPU is its own
    assert limited == []


def test_a_worker_on_ray_takes_its_share_of_the_gpu_that_it_sees(limited: list[tuple[float, str]]) -> None:
    threads = torch.get_num_threads()
    for gpus in (0.25, 1.0, 2.0, 0.0):
        engines._Worker(threads, gpus)
    assert limited == [(0.25, "cuda:0")]


@pytest.mark.gpu
def test_a_worker_runs_out_of_memory_at_its_part_and_goes_on_with_less(monkeypatch: pytest.MonkeyPatch) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    monkeypatch.setenv(device.WORKERS, str(4 * torch.cuda.device_count()))
    monkeypatch.setenv(device.WORKER, "gw0")
    place, sizes = device.take("cuda"), []
    row = torch.cuda.get_device_properties(place).total_memory // 16

    def hungry(rows: torch.Tensor) -> torch.Tensor:
        torch.empty(len(rows) * row, dtype=torch.uint8, device=place)
        sizes.append(len(rows))
        return rows

    try:
        assert torch.equal(chunked(hungry, torch.arange(8), 8), torch.arange(8))
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0, place)
    assert max(sizes) < 8  # a quarter of the memory has room for less than half of them


@pytest.mark.parametrize("name", ["cuda", "cuda:7", "mps", "tpu"])
def test_a_device_that_is_not_there_is_an_error_that_says_what_is(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "available", lambda: ["cpu"])
    with pytest.raises(ValueError, match=rf"'{name}' is not available: .* sees cpu"):
        device.pick(name)


def test_auto_is_a_device_of_this_machine() -> None:
    torch.ones(1, device=device.pick("auto"))


def test_one_thread_in_an_xdist_worker_and_else_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.delenv(device.WORKER, raising=False)
    device.prepare(torch.device("cpu"))
    assert asked == []
    monkeypatch.setenv(device.WORKER, "gw0")
    device.prepare(torch.device("cpu"))
    device.prepare(torch.device("cpu"), threads=3)
    assert asked == [1, 3]


def test_cuda_is_made_repeatable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.are_deterministic_algorithms_enabled(), torch.backends.cuda.matmul.allow_tf32
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", True)
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", False)
    try:
        device.prepare(torch.device("cuda:0"))
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.backends.cudnn.deterministic
        assert not torch.backends.cudnn.benchmark
        assert not torch.backends.cudnn.allow_tf32
        assert not torch.backends.cuda.matmul.allow_tf32
    finally:
        torch.use_deterministic_algorithms(before[0])
        torch.backends.cuda.matmul.allow_tf32 = before[1]


def test_precision_holds_inside_and_is_as_it_was_afterwards() -> None:
    flags = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [flag.allow_tf32 for flag in flags]
    with device.computing("tf32", torch.device("cpu")):
        assert all(flag.allow_tf32 for flag in flags)
    assert [flag.allow_tf32 for flag in flags] == before
    layer, inputs = torch.nn.Linear(64, 64), torch.randn(8, 64, generator=torch.Generator().manual_seed(0))
    exact = layer(inputs)
    with device.computing("fp32", torch.device("cpu")):
        assert torch.equal(layer(inputs), exact)
    with device.computing("bf16", torch.device("cpu")):
        assert layer(inputs).dtype == torch.bfloat16
        torch.testing.assert_close(layer(inputs).float(), exact, rtol=2**-7, atol=2**-7)
    assert torch.equal(layer(inputs), exact)
    with (
        pytest.raises(ValueError, match="expected one of fp32, tf32, bf16"),
        device.computing("fp8", torch.device("cpu")),
    ):
        pass
