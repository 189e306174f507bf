"""Many rows through a function, as many at once as the memory holds."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from jaxtyping import Shaped

# Input elements per forward pass: enough to fill a small model's batch, little enough for memory. An accelerator
# has more to fill; where that is too much, the chunk is halved.
ELEMENTS_PER_PASS, ELEMENTS_PER_PASS_OF_ACCELERATOR = 1 << 20, 1 << 24
# CUDA's allocator has an error of its own; all others say it in words: the CPU's (on Linux, on Windows), MPS's, and
# the libraries that CUDA's kernels come from.
OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "bad_alloc", "ALLOC_FAILED")
LOG = logging.getLogger(__name__)


def chunked(
    function: Callable[[Shaped[Tensor, "b ..."]], Shaped[Tensor, "b ..."]],
    rows: Shaped[Tensor, "n ..."],
    size: int,
) -> Shaped[Tensor, "n ..."]:
    """``function(rows)``, at most ``size`` rows at once; a chunk that does not fit into memory is halved.

    What was found before is kept, and the smaller size with it. A repeated chunk must find the same: draw random
    numbers before, not inside.

    Raises:
        Exception: a single row does not fit, as whoever ran out of memory says it.
    """
    found: list[Tensor] = []
    done, size = 0, min(size, len(rows))
    while done < len(rows) or not found:
        try:
            found.append(function(rows[done : done + size]))
            done += size
            continue
        except Exception as error:
            if size <= 1 or not is_out_of_memory(error):
                raise
        # Outside the handler, where no traceback holds the tensors that did not fit.
        size //= 2
        LOG.warning("out of memory: going on with %d at once", size)
    return torch.cat(found)


def is_out_of_memory(error: Exception) -> bool:
    """Whether less at once may do."""
    said = isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY)
    return said or isinstance(error, torch.OutOfMemoryError | MemoryError)


def per_pass(images: Shaped[Tensor, "n c h w"]) -> int:
    """How many images of this size a forward pass takes."""
    elements = ELEMENTS_PER_PASS if images.device.type == "cpu" else ELEMENTS_PER_PASS_OF_ACCELERATOR
    return max(1, elements // images[0].numel())
