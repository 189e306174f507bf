"""Which axioms does a method fulfil? The smallest counterexample to each that it does not."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from random import Random
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from saliency_checks.explain import ContractError, derive
from saliency_checks.method import Method
from saliency_checks.subject import Unqualified

if TYPE_CHECKING:
    from saliency_checks.axioms.drawing import Example, Setup

Size = tuple[int, int, int]
SHRINKS, FEW_SHRINKS = 150, 10  # looks at smaller examples, once one was found
CHEAP, LEAST_NETWORKS = 50, 8  # forward passes for one map; networks for each axiom


def workable(method: Method) -> tuple[tuple[Size, ...], int]:
    """The sizes (C, H, W) of images that the method explains, the smallest first, and its passes for one of them.

    Raises:
        Unqualified: there is none; says what the method raised.
    """
    from saliency_checks.axioms.drawing import SIZES, probe

    passes, reason = {}, ""
    for size in SIZES:
        try:
            passes[size] = probe(method, size)
        except ContractError as error:
            reason = str(error)
    if not passes:
        raise Unqualified(f"{method.name} explains none of the small networks on which axioms are tested: {reason}")
    return tuple(passes), max(passes.values())


def affordable(networks: int, passes: int) -> int:
    """Fewer networks for a method that calls the model very often: by its calls, so it is the same everywhere."""
    return max(LEAST_NETWORKS, min(networks, networks * CHEAP // max(1, passes)))


def smallest(
    method: Method, axiom: str, sizes: Sequence[Size], *, networks: int, seed: int = 0, thorough: bool = True
) -> Example | None:
    """The smallest network and image found on which the axiom does not hold; None where it held on all of them.

    Args:
        sizes: (C, H, W) of images, the smallest first; they share the ``networks``.
        seed: of the networks and of the method's draws.
        thorough: spend time on making the example small.
    """
    from saliency_checks.axioms.drawing import Setup

    for size in sizes:
        setup = Setup(method=method, needs=method.needs, size=size, seed=seed)
        if found := _smallest(setup, axiom, -(-networks // len(sizes)), SHRINKS if thorough else FEW_SHRINKS):
            return found
    return None


class _Enough(BaseException):
    """Ends the search for smaller examples; Hypothesis lets through what is no Exception."""


@dataclass
class _Search:
    """What Hypothesis asks of each example, and the smallest one that violates so far."""

    shrinks: int
    found: Example | None = None
    seen: set[str] = field(default_factory=set)

    def violates(self, example: Example) -> bool:
        text = example.code
        if self.found is not None and text == self.found.code:
            return True
        if text in self.seen:
            return False
        self.seen.add(text)
        if self.found is not None:
            self.shrinks -= 1
            if self.shrinks < 0:
                raise _Enough
        if example.look().holds:
            return False
        self.found = example
        return True


@contextmanager
def _nothing_stored() -> Iterator[None]:
    """Hypothesis keeps its files (with no database these are constants that it read in source code) elsewhere."""
    from hypothesis import configuration

    before = vars(configuration).get("__hypothesis_home_directory")
    with TemporaryDirectory() as elsewhere:
        configuration.set_hypothesis_home_dir(elsewhere)
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)


def _smallest(setup: Setup, axiom: str, networks: int, shrinks: int) -> Example | None:
    from hypothesis import Phase, find, settings
    from hypothesis.errors import NoSuchExample

    from saliency_checks.axioms.drawing import DRAWN

    quiet = settings(
        max_examples=networks, database=None, deadline=None, print_blob=False, phases=(Phase.generate, Phase.shrink)
    )
    draws = Random(derive("axioms", axiom, setup.seed))  # not of the method: all methods meet the same networks
    search = _Search(shrinks)
    with suppress(NoSuchExample, _Enough), _nothing_stored():
        find(DRAWN[axiom](setup), search.violates, settings=quiet, random=draws)
    return search.found
