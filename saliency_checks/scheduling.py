"""Scheduler for pytest-xdist; it reads groups from test ids, as pytest 9.2 loses the marks of ``--dist loadgroup``."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from saliency_checks.plugin import cell_of

LEAST = 2  # units for each worker


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One work unit per method and subject; every test that is not ours is a unit of its own.

    A worker stays with a subject while it can: the controls are measured once per subject and process. Where there are
    fewer than ``LEAST`` units for each worker, as with one method on one's own model, each check is a unit.
    """

    def _split_scope(self, nodeid: str) -> str:
        cell = cell_of(nodeid)
        if cell is None:
            return nodeid
        return "-".join((cell[2], cell[1], *([cell[0]] if self._are_few else [])))

    @cached_property
    def _are_few(self) -> bool:
        cells = map(cell_of, self.collection or ())
        units = {cell[1:] if cell else nodeid for cell, nodeid in zip(cells, self.collection or (), strict=True)}
        return len(units) < LEAST * len(self.nodes)

    def _assign_work_unit(self, node: WorkerController) -> None:
        mine = {_subject(scope) for scope in self.assigned_work.get(node, ())}
        others = {
            _subject(scope) for other, units in self.assigned_work.items() if other is not node for scope in units
        }

        def distance(scope: str) -> tuple[bool, bool]:
            return _subject(scope) not in mine, _subject(scope) in others

        self.workqueue.move_to_end(min(self.workqueue, key=distance), last=False)
        super()._assign_work_unit(node)

    def _reschedule(self, node: WorkerController) -> None:
        """Give a worker work, and enough of it: it starts a test when it knows the next, or that there is none.

        A worker that stands in for a dead one has not collected yet: it gets its tests when it has. The scheduler above
        ends the run where another worker dies in that moment, and waits for ever where a unit has a single test left.
        """
        if node not in self.registered_collections:
            return
        super()._reschedule(node)
        while not node.shutting_down and self._pending_of(self.assigned_work[node]) < 2:
            super()._reschedule(node)

    def remove_node(self, node: WorkerController) -> str | None:
        """Give the unfinished tests of a dead worker to others, but not the one that killed it.

        The scheduler above does hand that one on, until all allowed restarts are used up.
        """
        workload = self.assigned_work.pop(node)
        pending = [(unit, nodeid) for unit in workload.values() for nodeid, done in unit.items() if not done]
        if not pending:
            return None
        unit, killer = pending[0]
        unit[killer] = True
        self._allow_another()
        self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return str(killer)

    def _allow_another(self) -> None:
        """A worker that a test killed costs that test, and none of the restarts that the run has.

        Otherwise a method that kills in every check would end the run for all the others.
        """
        session: Any = self.config.pluginmanager.getplugin("dsession")
        allowed = getattr(session, "_max_worker_restart", None)
        if allowed is not None and self.config.option.maxworkerrestart is None:
            session._max_worker_restart = allowed + 1


def _subject(scope: str) -> str:
    return "" if "::" in scope else scope.partition("-")[0]
