"""Counts what makes a host wait for its device, on any device: a stand-in for CUDA's own sync debug mode."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

# A number or a shape that only the device knows.
OPERATORS = {
    "_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "_unique2", "unique_dim",
    "unique_consecutive", "unique_dim_consecutive", "bincount",
}  # fmt: skip
# Values that leave the device, which no operator shows on a CPU.
CALLS = {"tolist", "numpy", "cpu", "__array__"}


class _Operators(TorchDispatchMode):
    def __init__(self, count: Counter[str]) -> None:
        super().__init__()
        self.count = count

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func._schema.name.partition("::")[2]
        masked = name in ("index", "index_put", "index_put_") and any(
            isinstance(one, Tensor) and one.dtype in (torch.bool, torch.uint8) for one in tree_leaves(args[1])
        )
        if name in OPERATORS or masked:
            self.count[f"{name} with a mask" if masked else name] += 1
        return func(*args, **(kwargs or {}))


class _Calls(TorchFunctionMode):
    def __init__(self, count: Counter[str]) -> None:
        super().__init__()
        self.count = count

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if getattr(func, "__name__", "") in CALLS:
            self.count[func.__name__] += 1
        return func(*args, **(kwargs or {}))


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Waits inside, by what waits."""
    count: Counter[str] = Counter()
    with ExitStack() as stack:
        stack.enter_context(_Operators(count))
        stack.enter_context(_Calls(count))
        yield count
