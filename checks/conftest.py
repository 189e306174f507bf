"""Parametrizes every check over method x subject, by name; the test is named after its check.

``test_further.py`` stands for all checks that are not built in: its tests are parametrized over the check, too.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from saliency_checks import judging, registry
from saliency_checks.plugin import FURTHER


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "judge" not in metafunc.fixturenames:
        return
    name = metafunc.function.__name__.removeprefix("test_")
    cells = judging.selection(metafunc.config).cells
    if name != FURTHER:
        found = [(f"{method}-{subject}", name, method, subject) for method, subject in cells(name)]
    else:
        further = (check for check in registry.names("checks") if not registry.is_built_in("metrics", check))
        found = [("-".join((check, *cell)), check, *cell) for check in further for cell in cells(check)]
    metafunc.parametrize(("check", "method", "subject"), [row[1:] for row in found], ids=[row[0] for row in found])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark ours; a check that applies to no cell left one empty test behind: drop that."""
    for item in list(items):
        if isinstance(item, pytest.Function) and "judge" in item.fixturenames:
            item.add_marker("saliency")
            if not isinstance(item.callspec.params["method"], str):
                items.remove(item)


@pytest.fixture
def judge(request: pytest.FixtureRequest, check: str, method: str, subject: str) -> Callable[[], None]:
    """Runs one check on one method and subject."""

    def run() -> None:
        __tracebackhide__ = True
        judging.judge_cell(request.node, check, method, subject)

    return run
