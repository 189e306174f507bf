"""Scheduler for pytest-xdist; it reads groups from test ids, as pytest 9.2 loses the marks of ``--dist loadgroup``."""

from __future__ import annotations

from xdist.scheduler import LoadScopeScheduling
from xdist.workermanage import WorkerController

from saliency_checks.plugin import cell_of


class CellScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """One work unit per method and subject; every test that is not ours is a unit of its own."""

    def _split_scope(self, nodeid: str) -> str:
        cell = cell_of(nodeid)
        return f"{cell[2]}-{cell[1]}" if cell else nodeid

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
        self.workqueue.update({scope: unit for scope, unit in workload.items() if not all(unit.values())})
        for other in self.assigned_work:
            self._reschedule(other)
        return str(killer)
