"""Entry points: what other installed packages register, and every way in which that can go wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from saliency_checks import cli, registry
from saliency_checks.case import default_methods
from saliency_checks.method import Method, as_method
from saliency_checks.subject import SubjectFactory

MODULE = '''
import saliency_checks as sc
from saliency_checks.metric import Scores

def plain(model, inputs, targets):
    return inputs

@sc.method(signed=True, profiles={"quick"})
def decorated(model, inputs, targets):
    return inputs

def build():
    raise RuntimeError("built")

@sc.subject(offers={"gradient"})
def made():
    raise RuntimeError("built")

@sc.metric(bound=">= 0.5")
def judged(method, subject, draw):
    """A summary."""
'''
Install = Callable[..., None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Puts a package with entry points (group and name -> attribute) where Python looks for packages."""
    for kind in ("methods", "metrics", "subjects"):
        registry.names(kind)
    before = {kind: dict(entries) for kind, entries in registry._entries.items()}
    (tmp_path / "saliency_third.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "saliency_third", raising=False)

    def install(package: str = "third", **points: str) -> None:
        info = tmp_path / f"{package}-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n")
        lines = []
        for point, attribute in points.items():
            kind, _, name = point.partition("_")
            lines += [f"[saliency_checks.{kind}]", f"{name} = saliency_third:{attribute}"]
        (info / "entry_points.txt").write_text("\n".join(lines))

    yield install
    for kind, entries in before.items():
        registry._entries[kind].clear()
        registry._entries[kind].update(entries)


def test_a_plain_function_is_a_method_or_builds_a_subject(install: Install) -> None:
    install(methods_further="plain", subjects_theirs="build")
    assert {"further"} <= set(registry.names("methods"))
    found = registry.get("methods", "further")
    assert isinstance(found, Method)
    assert found.name == "further"
    assert as_method("further") is found
    subject = registry.get("subjects", "theirs")
    assert isinstance(subject, SubjectFactory)
    with pytest.raises(RuntimeError, match="built"):
        subject()


def test_what_a_decorator_declared_is_kept(install: Install) -> None:
    install(methods_decorated="decorated", subjects_made="made", metrics_judged="judged")
    assert registry.get("methods", "decorated").signed is True
    assert registry.get("methods", "decorated") is registry.get("methods", "decorated")
    assert registry.get("subjects", "made").offers == {"gradient"}
    assert "judged" in registry.names("checks")
    assert not registry.is_built_in("metrics", "judged")


def test_an_entry_point_may_give_another_name(install: Install) -> None:
    install(methods_renamed="decorated", subjects_other="made", metrics_third="judged")
    assert registry.get("methods", "renamed").name == "renamed"
    assert registry.get("methods", "renamed").signed is True
    assert registry.get("subjects", "other").name == "other"
    assert registry.get("metrics", "third").name == "third"


def test_an_installed_method_is_one_of_the_defaults_and_not_the_only_one(install: Install) -> None:
    """Before it is loaded and after, or two processes of one run would judge different methods."""
    before = default_methods("quick")
    install(methods_decorated="decorated", methods_renamed="decorated")
    first = default_methods("quick")
    assert set(first) == {*before, "decorated", "renamed"}
    assert default_methods("quick") == first


def test_a_package_that_cannot_be_imported_is_named(install: Install, capsys: pytest.CaptureFixture[str]) -> None:
    install(methods_missing="nothing")
    with pytest.raises(registry.UnknownName, match="method 'missing' of the package third: saliency_third:nothing"):
        registry.get("methods", "missing")
    assert cli.main(["list", "methods"]) == cli.USAGE_ERROR
    assert "uninstall that package" in capsys.readouterr().err


def test_what_is_no_metric_is_refused(install: Install) -> None:
    install(metrics_plain="plain")
    with pytest.raises(TypeError, match="metric 'plain' of an entry point is function"):
        registry.get("metrics", "plain")


@pytest.mark.parametrize("kind", ["methods", "metrics", "subjects"])
def test_a_built_in_name_cannot_be_taken(kind: str, install: Install) -> None:
    name = {"methods": "gradient", "metrics": "deletion", "subjects": "fashion_cnn"}[kind]
    install(**{f"{kind}_{name}": "plain"})
    with pytest.raises(registry.DuplicateName, match=f"{name!r} of the package third is a built-in name"):
        registry.names(kind)


def test_two_packages_cannot_have_one_name(install: Install) -> None:
    install(methods_one="plain")
    install("fourth", methods_one="decorated")
    with pytest.raises(registry.DuplicateName, match=r"by the package (third|fourth) and by the package"):
        registry.names("methods")
