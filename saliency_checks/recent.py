"""What was made last and can be made again, up to a number of bytes: memory stays flat as images grow."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

# Maps and segments of a shard of 256 colour images of 224 pixels: what a method's scores read again and again. Small
# problems never reach it.
MOST_BYTES = 256 << 20


class Recent:
    """Tensors by key; those that were used longest ago go first.

    Attributes:
        held: bytes that are kept now.
    """

    def __init__(self, most: int | None = None) -> None:
        self._most, self.held = most, 0
        self._found: OrderedDict[Hashable, Tensor] = OrderedDict()

    @property
    def most(self) -> int:
        """Bytes that are kept at most."""
        return MOST_BYTES if self._most is None else self._most

    def get(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What is kept under ``key``, or is made now; something larger than all that may be kept is not kept."""
        if key in self._found:
            self._found.move_to_end(key)
            return self._found[key]
        made = make()
        if made.nbytes <= self.most:
            self._found[key], self.held = made, self.held + made.nbytes
        while self.held > self.most:
            self.held -= self._found.popitem(last=False)[1].nbytes
        return made
