"""Parametrizes every check over method x subject, by name; the test is named after its check."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saliency_checks import judging


def _check(function: object) -> str:
    return str(getattr(function, "__name__", "")).removeprefix("test_")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "judge" in metafunc.fixturenames:
        cells = judging.selection(metafunc.config).cells(_check(metafunc.function))
        metafunc.parametrize(("method", "subject"), cells, ids=[f"{method}-{subject}" for method, subject in cells])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark ours; a check that applies to no cell left one empty test behind: drop that."""
    for item in list(items):
        if isinstance(item, pytest.Function) and "judge" in item.fixturenames:
            item.add_marker("saliency")
            if not isinstance(item.callspec.params["method"], str):
                items.remove(item)


@pytest.fixture
def judge(request: pytest.FixtureRequest, method: str, subject: str) -> Callable[[], None]:
    """Runs the check that the test is named after on this method and subject."""
    check = _check(request.function)

    def run() -> None:
        __tracebackhide__ = True
        judging.judge_cell(request.node, check, method, subject)

    return run
