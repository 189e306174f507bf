"""Cells go to workers: together where there are many, check by check where there are few, and past a dead worker."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace
from typing import Any

import pytest

from saliency_checks.scheduling import CellScheduling


def allowing(restarts: str | None) -> Any:
    """What the scheduler asks of pytest's config, in a run with eight restarts, or with so many as the user says."""
    session = SimpleNamespace(_max_worker_restart=8 if restarts is None else int(restarts))
    plugins = SimpleNamespace(getplugin={"dsession": session}.get)
    return SimpleNamespace(option=SimpleNamespace(maxworkerrestart=restarts), pluginmanager=plugins, session=session)


class Worker:
    """What the scheduler asks of a worker."""

    shutting_down = False

    def __init__(self) -> None:
        self.got: list[int] = []

    def send_runtest_some(self, indexes: list[int]) -> None:
        self.got += indexes

    def shutdown(self) -> None:
        self.shutting_down = True


def scheduler(nodeids: list[str], *workers: Worker, config: Any = None) -> CellScheduling:
    made = CellScheduling.__new__(CellScheduling)
    made.log, made.config, made._are_few = lambda *_: None, config or allowing(None), False
    made.collection = nodeids
    made.registered_collections = OrderedDict((worker, nodeids) for worker in workers)
    made.assigned_work = OrderedDict((worker, OrderedDict()) for worker in workers)
    made.workqueue = OrderedDict()
    for nodeid in nodeids:
        made.workqueue.setdefault(made._split_scope(nodeid), OrderedDict())[nodeid] = False
    return made


def test_only_cells_are_grouped() -> None:
    made = scheduler([])
    one, two = "test_sign.py::test_sign[a-b]", "x/test_complexity.py::test_complexity[a-b]"
    assert made._split_scope(one) == made._split_scope(two)
    assert made._split_scope("test_mine.py::test_a") != made._split_scope("test_mine.py::test_b")


@pytest.mark.parametrize(("methods", "few"), [("abc", True), ("abcd", False)])
def test_where_there_are_fewer_than_two_cells_for_each_worker_each_check_is_a_unit(methods: str, few: bool) -> None:
    ids = [f"test_{check}.py::test_{check}[{method}-x]" for check in ("sign", "contract") for method in methods]
    made = scheduler([*ids], Worker(), Worker())
    del made._are_few
    assert len({made._split_scope(nodeid) for nodeid in ids}) == (2 * len(methods) if few else len(methods))


def test_a_worker_stays_with_its_subject_and_leaves_those_of_others() -> None:
    one, two = Worker(), Worker()
    cells = [("a", "x"), ("b", "x"), ("a", "y"), ("b", "y"), ("a", "z")]
    made = scheduler([f"test_sign.py::test_sign[{method}-{subject}]" for method, subject in cells], one, two)
    for worker in (one, two, one, two, two):
        made._assign_work_unit(worker)
    assert (one.got, two.got) == ([0, 1], [2, 3, 4])


def test_the_test_that_killed_a_worker_is_not_given_to_the_next_one() -> None:
    dead, alive = Worker(), Worker()
    ids = [f"test_{check}.py::test_{check}[a-x]" for check in ("complexity", "contract", "sign")]
    made = scheduler(ids, dead, alive)
    made._assign_work_unit(dead)
    made.assigned_work[dead]["x-a"][ids[0]] = True
    assert made.remove_node(dead) == ids[1]
    assert alive.got == [2]


def test_a_worker_that_has_not_collected_yet_gets_its_tests_when_it_has() -> None:
    """Two workers die at once: one that stands in for the first is there when the second one's tests are given away."""
    dead, late = Worker(), Worker()
    ids = [f"test_{check}.py::test_{check}[a-x]" for check in ("complexity", "contract", "sign")]
    made = scheduler(ids, dead, late)
    del made.registered_collections[late]
    made.numnodes = 1
    made._assign_work_unit(dead)
    assert made.remove_node(dead) == ids[0]
    assert (late.got, late.shutting_down) == ([], False)
    made.add_node_collection(late, ids)
    made.schedule()
    assert late.got == [1, 2]


def test_a_worker_is_not_left_with_a_single_test_of_which_it_does_not_know_that_it_is_the_last() -> None:
    worker = Worker()
    made = scheduler([f"test_sign.py::test_sign[{method}-x]" for method in "abc"], worker)
    made._reschedule(worker)
    assert (len(worker.got), worker.shutting_down) == (2, False)
    for nodeid in ("test_sign.py::test_sign[a-x]", "test_sign.py::test_sign[b-x]"):
        made.assigned_work[worker][made._split_scope(nodeid)][nodeid] = True
    made._reschedule(worker)
    assert (len(worker.got), worker.shutting_down) == (3, True)


@pytest.mark.parametrize(("asked", "left"), [(None, 9), ("3", 3), ("0", 0)])
def test_a_test_that_kills_its_worker_takes_no_restart_from_the_others(asked: str | None, left: int) -> None:
    """But for a user who said how many there are; nor does a worker that dies of itself, or it would never end."""
    dead, idle, config = Worker(), Worker(), allowing(asked)
    made = scheduler(["test_sign.py::test_sign[a-x]"], dead, idle, config=config)
    made._assign_work_unit(dead)
    assert made.remove_node(idle) is None
    assert config.session._max_worker_restart == (8 if asked is None else int(asked))
    made.remove_node(dead)
    assert config.session._max_worker_restart == left
