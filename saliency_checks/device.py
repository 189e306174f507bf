"""Which device a process runs on, and arithmetic that repeats itself there."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

WORKER, WORKERS = "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT"
PRECISIONS = ("fp32", "tf32", "bf16")


def pick(name: str | None = "auto", *, worker: str | None = None) -> torch.device:
    """The device called ``name``; it must be there.

    Args:
        name: ``cpu``, ``cuda``, ``cuda:1``, ``mps``, or ``auto`` (None) for CUDA, else MPS, else the CPU.
        worker: worker of pytest-xdist, such as ``gw3``; default the one that this process is. Several workers share
            the CUDA devices evenly: gwK takes number K modulo their count, unless ``name`` says which.

    Raises:
        ValueError: no such device here; says what there is.
    """
    wanted = (name or "auto").strip().lower()
    there = available()
    if wanted == "auto":
        wanted = there[0].partition(":")[0]
    if wanted == "cuda" and "cuda:0" in there:
        wanted = f"cuda:{_number(worker) % sum(device.startswith('cuda') for device in there)}"
    if wanted not in there:
        raise ValueError(
            f"device {name!r} is not available: torch {torch.__version__} sees {', '.join(there)} here; take one of"
            " these, or 'auto'"
        )
    return torch.device(wanted)


def available() -> list[str]:
    """Names of the devices of this machine, the fastest kind first."""
    cuda = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def take(name: str | None = "auto", *, threads: int | None = None) -> torch.device:
    """The device called ``name``, prepared, with this process's part of its memory; as :func:`pick` otherwise."""
    device = pick(name)
    prepare(device, threads=threads)
    limit(device, part(name))
    return device


def part(name: str | None = "auto") -> float:
    """The fair part of its device's memory for this process: workers of pytest-xdist on one device share it evenly."""
    mine, workers = pick(name), int(os.environ.get(WORKERS, 1)) if WORKER in os.environ else 1
    return 1 / max(1, sum(pick(name, worker=f"gw{number}") == mine for number in range(workers)))


def limit(device: torch.device, part: float) -> None:
    """Have this process run out of memory at its part of a CUDA device's, before it takes that of its neighbours.

    Then its chunks are halved, see :mod:`saliency_checks.chunking`.
    """
    if device.type == "cuda" and part < 1:
        torch.cuda.set_per_process_memory_fraction(part, device)


def prepare(device: torch.device, *, threads: int | None = None) -> None:
    """Make this process repeat its own numbers on ``device``; call it before the first computation there.

    CUDA: full float32 products (no TF32), deterministic kernels, a fixed cuBLAS workspace. CPU: one thread in a
    worker of pytest-xdist, where the workers already fill the cores.

    Args:
        threads: of torch on the CPU; default 1 in an xdist worker, else as it is.
    """
    if device.type == "cuda":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.backends.cuda.matmul.allow_tf32 = False
        torch.backends.cudnn.allow_tf32 = False
        torch.backends.cudnn.benchmark = False
        torch.backends.cudnn.deterministic = True
        # Warn only: a model of the user's may need a kernel that has no deterministic form.
        torch.use_deterministic_algorithms(True, warn_only=True)
    elif threads is None and WORKER in os.environ:
        threads = 1
    if threads is not None:
        torch.set_num_threads(threads)


@contextmanager
def computing(precision: str, device: torch.device) -> Iterator[None]:
    """Networks compute as ``precision`` says, one of ``PRECISIONS``; verdicts are always in ``fp32``.

    ``tf32``: products of 19 bits where CUDA has them. ``bf16``: PyTorch's automatic mixed precision.
    """
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: expected one of {', '.join(PRECISIONS)}")
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    if precision == "tf32":
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
    try:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bf16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _number(worker: str | None) -> int:
    match = re.fullmatch(r"gw(\d+)", worker or os.environ.get(WORKER, ""))
    return int(match[1]) if match else 0
