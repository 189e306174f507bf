"""One cell of the matrix, check x method x subject: which there are, and the door for an own test file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from saliency_checks import registry
from saliency_checks.loading import name_of
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Metric
from saliency_checks.profile import PROFILES
from saliency_checks.result import CheckFailed, Result
from saliency_checks.run import run
from saliency_checks.subject import SubjectFactory


def applicable(check: str, method: Method, factory: SubjectFactory, profile: str = "standard") -> str:
    """Why a cell is left out, from what the subject declares alone; "" where it applies or only building can tell."""
    metric: Metric = registry.get("metrics", check)
    if factory.serves and not metric.needs & factory.serves:
        return f"{factory.name} adds nothing that {check} needs"
    if (check, factory.name) in PROFILES[profile].without:
        return f"{check} on {factory.name} is not in the {profile} profile"
    if "networks" in metric.needs - factory.offers:
        return f"{check} draws its networks itself"
    if not factory.exact:
        return ""
    return metric.inapplicable(method, factory.offers, factory.name)


@dataclass(frozen=True, kw_only=True)
class Case:
    """One cell: a check, a method and a subject, not yet run."""

    check: str
    method: Method
    subject: Any
    profile: str = "standard"

    @property
    def id(self) -> str:
        name = self.subject if isinstance(self.subject, str) else getattr(self.subject, "name", "subject")
        return f"{self.check}-{self.method.name}-{name}"

    def run(self, **settings: Any) -> Result:
        return run(self.check, self.method, self.subject, **{"profile": self.profile, **settings})

    def require(self, **settings: Any) -> Result:
        """Run it; raise CheckFailed unless the verdict is a pass or there was nothing to judge.

        Under pytest a subject that does not qualify is a skip with its reason.
        """
        return self.run(**settings).require()


def cases(
    methods: Sequence[Any] | None = None,
    subjects: Sequence[Any] | None = None,
    checks: Sequence[str] | None = None,
    profile: str = "standard",
) -> list[Case]:
    """All applicable cells, sorted by check, method and subject.

    Args:
        methods: default the user's own registered ones, else the built-in ones that are no controls.
        subjects: default the built-in ones of the profile and the user's own.
        checks: default all.
    """
    chosen = [as_method(spec) for spec in (methods if methods is not None else default_methods(profile))]
    repeated = sorted({m.name for m in chosen if [other.name for other in chosen].count(m.name) > 1})
    if repeated:
        raise registry.DuplicateName(
            f"two methods are named {', '.join(repeated)}; give one another: @sc.method(name=...)"
        )
    found = []
    for spec in with_grafts(subjects if subjects is not None else default_subjects(profile)):
        factory = registry.get("subjects", spec) if isinstance(spec, str) else spec
        for check in checks or registry.names("checks"):
            for method in chosen:
                if not isinstance(factory, SubjectFactory) or not applicable(check, method, factory, profile):
                    found.append(Case(check=check, method=method, subject=spec, profile=profile))
    return sorted(found, key=lambda case: case.id)


def with_grafts(subjects: Sequence[Any]) -> list[Any]:
    """The subjects, and beside each that is not built in the same one with a known cause grafted onto its model."""
    return [found for spec in subjects for found in (spec, _graft_of(spec)) if found is not None]


def _graft_of(spec: Any) -> Any:
    named = registry.get("subjects", spec) if isinstance(spec, str) else spec
    is_graft = getattr(named, "graded", False) or getattr(named, "serves", ())
    is_built_in = isinstance(spec, str) and registry.is_built_in("subjects", spec)
    if is_graft or is_built_in or not getattr(named, "graft", True):
        return None
    if isinstance(spec, str):
        return f"{registry.GRAFT}{spec}"
    from saliency_checks.graft import factory

    return factory(spec)


def default_methods(profile: str) -> list[str]:
    """The user's own registered methods; without any, the built-in ones of the profile. Controls are never judged."""
    own, built_in = registry.own("methods"), registry.names("methods")
    return _judged(own) or [name for name in _judged(built_in) if profile in registry.get("methods", name).profiles]


def _judged(names: list[str]) -> list[str]:
    return [name for name in names if not registry.get("methods", name).control]


def default_subjects(profile: str) -> list[str]:
    return [name for name in registry.names("subjects") if profile in registry.get("subjects", name).profiles]


def failure_is_strict(method: Method, subject: str) -> bool:
    """Whether a pass is red where a failure is known: a built-in method's are known on the built-in subjects only."""
    return not registry.is_built_in("methods", method.name) or registry.is_built_in("subjects", subject)


def parametrize_with_checks(
    methods: Sequence[Any],
    *,
    subjects: Sequence[Any] | None = None,
    checks: Sequence[str] | None = None,
    profile: str = "quick",
) -> Callable[[Any], Any]:
    """Decorate ``def test_faithful(case): case.require()`` to run every applicable check.

    Expected failures of the methods are marked as xfail, with their reasons; see :func:`failure_is_strict`.
    """
    import pytest

    parameters = []
    for case in cases(methods, subjects, checks, profile):
        name = name_of(case.subject)
        reason, strict = case.method.known_failure(case.check, name), failure_is_strict(case.method, name)
        # Only a verdict is excused: an error is never an expected failure.
        marks = [pytest.mark.xfail(reason=reason, strict=strict, raises=CheckFailed)] if reason else []
        parameters.append(pytest.param(case, id=case.id, marks=marks))
    decorate: Callable[[Any], Any] = pytest.mark.parametrize("case", parameters)
    return decorate
