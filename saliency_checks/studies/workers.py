"""Parts of a study made by several processes of this machine, one torch thread each: the same to the last bit.

The process that was started alone writes into the study's folder. One that dies takes the others' pending parts with
it: what was made before is kept, and the same command makes the rest.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from saliency_checks.fixtures import progress
from saliency_checks.studies.store import Made, Unit


@contextmanager
def pool(count: int) -> Iterator[Pool]:
    """New processes, not forks: a fork of a process with threads or a GPU hangs. None of them outlives the block.

    They are started when first needed. What they are asked to do must be importable there.
    """
    before = set(multiprocessing.active_children())
    executor = ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn"), initializer=_begin)
    try:
        yield Pool(executor, count)
    except BaseException:
        for child in set(multiprocessing.active_children()) - before:
            child.kill()
        raise
    finally:
        executor.shutdown(cancel_futures=True)


@dataclass(frozen=True)
class Pool:
    """The processes; as a study's engine they make units, and one that fails does not end the others."""

    executor: Executor
    count: int

    def __call__(
        self, units: Sequence[Unit], commit: Callable[[Unit, Made], None], show: Callable[[str], None]
    ) -> Mapping[str, str]:
        failed: dict[str, str] = {}
        futures = {self.executor.submit(Made.by, unit.make): unit for unit in units}
        show(f"{min(self.count, len(units))} processes")
        for future in as_completed(futures):
            unit, error = futures[future], future.exception()
            if error is None:
                commit(unit, future.result())
                show(unit.label)
            else:
                failed[unit.label] = f"{type(error).__name__}: {error}"
        return failed

    def each(self, function: Callable[..., Any], items: Iterable[Any]) -> Iterator[BaseException | None]:
        """``function(item)`` for all items; yields what each raised, or None, as it ends."""
        for future in as_completed([self.executor.submit(function, item) for item in items]):
            yield future.exception()


def _begin() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # Ctrl-C ends it without a word: the process that was started has it
    torch.set_num_threads(1)
    progress.silence()
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """A killed study leaves nobody behind that goes on computing."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)
