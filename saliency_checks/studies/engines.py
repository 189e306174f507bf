"""Who makes a study's units: this process, or workers on a Ray cluster. The parts are the same to the last bit.

On a cluster the driver hands out one unit at a time, and commits what comes back: it alone writes into the folder,
so nodes need not share one, and nothing is ever there twice. A worker is a process that keeps its device, the model
and the last shard of images; units that share these go to it one after the other.
"""

from __future__ import annotations

import argparse
import logging
import os
import socket
from collections import deque
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import Any, Protocol, runtime_checkable

from saliency_checks.studies.store import Engine, Made, Mismatch, Unit

ENGINES = ("local", "ray")
MISSING = "--engine ray needs a further package: pip install 'saliency-checks[ray]'"
OBJECT_STORE = 128 << 20  # bytes: units and their columns are small
ANSWER = 10.0  # seconds until a cluster must have answered
WAIT = 10.0  # seconds until the bar says that there are no workers
# Ray prints a page for every worker that dies, and for an image that kills there are many. The bar says it in a line.
# Whoever wants to read them sets the variable to something else; it is read when ray is imported.
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": "^A worker died or was killed"}

Commit = Callable[[Unit, Made], None]
Show = Callable[[str], None]


@runtime_checkable
class Isolating(Protocol):
    """What a unit's ``make`` may offer, so that an image that kills whoever explains it can be found."""

    @property
    def places(self) -> Sequence[int]:
        """The images, by their place in the shard."""

    def probe(self, places: Iterable[int]) -> None:
        """Explain these images only."""

    def variants(self) -> Iterable[Isolating]:
        """The same with other images that stand in for those that are not explained: one may be a killer itself."""

    def skipping(self, reasons: Mapping[int, str], *, like: Isolating) -> Callable[[], Any]:
        """The same without these images, others standing in for them as in that variant."""


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--engine", choices=ENGINES, default="local", help="who measures; default this process")
    parser.add_argument("--address", metavar="HOST:PORT", help="of a Ray cluster; default one on this machine alone")
    parser.add_argument("--workers", type=int, metavar="N", help="on Ray: processes; default as many as there is room")
    parser.add_argument(
        "--gpus-per-worker",
        type=float,
        metavar="F",
        help="on Ray: 0.5 puts two on a GPU; default 1 where there are any",
    )
    parser.add_argument("--retries", type=int, default=2, metavar="N", help="on Ray: when a worker dies; default 2")
    parser.add_argument("--threads", type=int, metavar="N", help="of torch in each process; on Ray default 1")


def of(options: argparse.Namespace) -> Engine:
    """The engine that these options ask for.

    Raises:
        Mismatch: it is not installed.
    """
    if options.engine == "local":
        if options.threads:
            import torch

            torch.set_num_threads(options.threads)
        return here
    _quiet()
    try:
        import ray  # noqa: F401
    except ImportError as error:
        raise Mismatch(MISSING) from error
    return Ray(
        address=options.address, workers=options.workers, gpus=options.gpus_per_worker, retries=options.retries,
        threads=options.threads or 1,
    )  # fmt: skip


def here(units: Sequence[Unit], commit: Commit, show: Show) -> Mapping[str, str]:
    """All units in their order, in this process; one that fails does not end the others."""
    failed: dict[str, str] = {}
    for unit in units:
        show(unit.label)
        try:
            made = Made.by(unit.make)
        except Exception as error:
            failed[unit.label] = f"{type(error).__name__}: {error}"
        else:
            commit(unit, made)
    return failed


def culprits(fails: Callable[[Sequence[int]], bool], places: Sequence[int]) -> list[int]:
    """Those of the images on which it fails, by halving; each fails by itself, or is not found."""
    if not fails(places):
        return []
    if len(places) == 1:
        return list(places)
    half = len(places) // 2
    return culprits(fails, places[:half]) + culprits(fails, places[half:])


@dataclass(eq=False)
class _Job:
    """Units that share everything that is dear, and how many workers died of them."""

    shares: tuple[str, ...]
    units: deque[Unit]
    deaths: int = 0


def chosen(jobs: Iterable[_Job], *, held: str, taken: Container[str]) -> _Job:
    """The first job on what a worker holds, else on what no other does, else any."""
    return min(jobs, key=lambda job: (_dear(job) != held, _dear(job) in taken))


@dataclass(eq=False)
class _Seat:
    """A worker, and what it is at."""

    actor: Any
    job: _Job | None = None
    held: str = ""


@dataclass(kw_only=True)
class Ray:
    """Units on a Ray cluster.

    Attributes:
        address: of the cluster; None starts one on this machine.
        workers: processes; None: as many as the cluster has room for.
        gpus: share of a GPU that each takes; None: a whole one, where the cluster has any.
        retries: how often a job is given out again when its worker dies. Then its images are tried one by one on
            workers of their own, and those that kill are left out and named.
        threads: of torch in each worker.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    retries: int = 2
    threads: int = 1
    _failed: dict[str, str] = field(default_factory=dict, init=False)

    def __call__(self, units: Sequence[Unit], commit: Commit, show: Show) -> Mapping[str, str]:
        _quiet()
        import ray

        if not units:
            return {}
        mine = not ray.is_initialized()
        if mine:
            own: dict[str, Any] = {"object_store_memory": OBJECT_STORE, "include_dashboard": False}
            own = {"log_to_driver": False, "logging_level": logging.ERROR, **({} if self.address else own)}
            _require_answer(self.address)
            ray.init(address=self.address or "local", **own)
        try:
            jobs = deque(_Job(key, deque(of)) for key, of in groupby(units, lambda unit: unit.shares))
            for job in self._work(jobs, commit, show):
                self._isolate(job, commit, show)
            return self._failed
        finally:
            if mine:
                ray.shutdown()

    def _work(self, jobs: deque[_Job], commit: Commit, show: Show) -> list[_Job]:
        """Every job but those of which too many workers died; these are returned."""
        import ray

        suspects: list[_Job] = []
        wanted = min(len(jobs), self.workers or self._room())
        busy: dict[Any, _Seat] = {}
        stillborn = 0
        while jobs or any(seat.job for seat in busy.values()):
            for _ in range(wanted - len(busy)):
                seat = _Seat(self._hire())
                busy[seat.actor.ready.remote()] = seat
            done, _ = ray.wait(list(busy), timeout=WAIT)
            if not done and not any(seat.job for seat in busy.values()):
                show(f"waiting for the cluster to start a worker ({self._needs()})")
            for answer in done:
                seat = busy.pop(answer)
                if self._receive(answer, seat, commit):
                    if (call := self._next(seat, jobs, busy.values(), show)) is not None:
                        busy[call] = seat
                    else:
                        wanted -= 1  # there is nothing left for it
                elif seat.job is None:
                    stillborn += 1
                    if stillborn > wanted + self.retries:
                        raise Mismatch("the cluster's workers die when they start: is saliency-checks installed there?")
                else:
                    show(f"{seat.job.units[0].label}: its worker died, and another gets it")
                    seat.job.deaths += 1
                    (suspects if seat.job.deaths > self.retries else jobs).append(seat.job)
                    wanted = max(wanted, min(len(jobs), 1))
        for seat in busy.values():
            ray.kill(seat.actor)
        return suspects

    def _receive(self, answer: Any, seat: _Seat, commit: Commit) -> bool:
        """Commit what a worker made; whether it is still alive. A unit that raises has failed, the others go on."""
        import ray

        try:
            made = ray.get(answer)
        except ray.exceptions.RayActorError:
            return False
        except ray.exceptions.RayTaskError as error:
            assert seat.job is not None
            unit = seat.job.units.popleft()
            self._failed[unit.label] = f"{type(error.cause).__name__}: {error.cause}"
            return True
        if seat.job is not None:
            commit(seat.job.units.popleft(), made)
        return True

    def _next(self, seat: _Seat, jobs: deque[_Job], others: Iterable[_Seat], show: Show) -> Any:
        """The worker's next unit: of its own job, else of the job that shares most with what it holds."""
        if seat.job is None or not seat.job.units:
            seat.job = None
            if not jobs:
                return None
            seat.job = chosen(jobs, held=seat.held, taken={other.held for other in others})
            jobs.remove(seat.job)
            seat.held = _dear(seat.job)
        unit = seat.job.units[0]
        show(unit.label)
        return seat.actor.make.remote(unit)

    def _isolate(self, job: _Job, commit: Commit, show: Show) -> None:
        """Find the images of which workers die, leave them out, and make the job's units without them."""
        make: object = job.units[0].make
        died = f"its explanation ends the process that makes it ({self.retries + 1} workers died)"
        if not isinstance(make, Isolating):
            self._failed |= {unit.label: "every worker that makes it dies" for unit in job.units}
            return
        show(f"looking for the image that kills {job.units[0].label}")
        prober: list[Any] = []
        safe = next((some for some in make.variants() if not self._dies(prober, some, ())), None)
        if safe is None:
            self._failed |= {unit.label: "every worker that makes it dies, whatever the image" for unit in job.units}
            return
        found = culprits(lambda places: self._dies(prober, safe, places), make.places)
        prober.clear()  # its resources are the next worker's
        for i, unit in enumerate(job.units):
            other: object = unit.make
            if found and isinstance(other, Isolating):
                job.units[i] = replace(unit, make=other.skipping(dict.fromkeys(found, died), like=safe))
        job.deaths = self.retries  # once more, and no other search
        for left in self._work(deque([job]), commit, show):
            self._failed |= {unit.label: "every worker that makes it dies" for unit in left.units}

    def _dies(self, prober: list[Any], make: Isolating, places: Sequence[int]) -> bool:
        """Whether the worker of these probes dies of them; the next ones then get another."""
        import ray

        prober[:] = prober or [self._hire()]
        try:
            ray.get(prober[0].probe.remote(make, places))
        except ray.exceptions.RayActorError:
            prober.clear()
            return True
        except ray.exceptions.RayTaskError:
            pass  # that is no death: the unit itself will say it
        return False

    def _hire(self) -> Any:
        import ray

        gpus = self._gpus()
        resources: dict[str, Any] = {"num_cpus": self.threads, "num_gpus": gpus, "max_restarts": 0}
        return ray.remote(**resources)(_Worker).remote(self.threads, gpus)

    def _gpus(self) -> float:
        return self.gpus if self.gpus is not None else float(_resources().get("GPU", 0) > 0)

    def _room(self) -> int:
        there, each = _resources(), {"CPU": float(self.threads), "GPU": self._gpus()}
        return max(1, min(int(there.get(kind, 0) / amount + 1e-9) for kind, amount in each.items() if amount))

    def _needs(self) -> str:
        return f"{self.threads} CPU, {self._gpus():g} GPU each"


def _quiet() -> None:
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)


def _require_answer(address: str | None) -> None:
    """Ray itself tries for six minutes before it says that nothing is there."""
    host, _, port = (address or "").rpartition(":")
    if not port.isdecimal() or "/" in host:
        return  # "auto", or a client's address
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER).close()
    except OSError as error:
        raise Mismatch(f"no Ray cluster answers at {address}: {error.strerror or error}") from error


def _resources() -> Mapping[str, float]:
    import ray

    found: Mapping[str, float] = ray.cluster_resources()  # type: ignore[no-untyped-call]
    return found


def _dear(job: _Job) -> str:
    return job.shares[0] if job.shares else ""


class _Worker:
    """A process on the cluster: it sees the GPU that it shares, and no other."""

    def __init__(self, threads: int, gpus: float) -> None:
        import torch

        from saliency_checks import device as devices

        torch.set_num_threads(threads)
        if gpus:
            devices.limit(devices.pick(), gpus)

    def ready(self) -> None:
        """Answered when it runs."""

    def make(self, unit: Unit) -> Made:
        return Made.by(unit.make)

    def probe(self, make: Isolating, places: Sequence[int]) -> None:
        make.probe(places)
