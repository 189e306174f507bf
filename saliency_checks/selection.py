"""Which methods, subjects and cells a run is about: from names to entries, with a sentence for every mistake."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from saliency_checks import device as devices
from saliency_checks import registry
from saliency_checks.case import applicable, default_methods, default_subjects, with_grafts
from saliency_checks.method import Method, as_method
from saliency_checks.subject import SubjectFactory
from saliency_checks.verdict import Bound

if TYPE_CHECKING:
    from saliency_checks.options import Settings


class BadSelection(ValueError):
    """Something that was asked for cannot be had; one sentence says what, and what there is."""


@dataclass(frozen=True, kw_only=True)
class Selection:
    """The names of a run, resolved.

    Attributes:
        methods: method by the name that test ids show.
        specs: what each method was asked for as, by the same name.
        subjects: registered name or ``package.module:attribute`` by the name that test ids show.
        profile: decides which costly cells are left out.
        named: the subjects were asked for, so a check that does not apply to them says so instead of being left out.
    """

    methods: Mapping[str, Method]
    specs: Mapping[str, str]
    subjects: Mapping[str, str]
    profile: str
    named: bool

    @classmethod
    def of(cls, settings: Settings) -> Selection:
        """Raises BadSelection for names that nothing answers to."""
        specs, methods = _methods(settings.methods or default_methods(settings.profile))
        selection = cls(
            methods=methods,
            specs=specs,
            subjects=_subjects(settings.subjects or default_subjects(settings.profile)),
            profile=settings.profile,
            named=bool(settings.subjects),
        )
        _check_bounds(settings.bounds)
        _check_device(settings.device)
        for method, check, subject in settings.expected_failures:
            entry = f"saliency_expected_failures: {'/'.join(filter(None, (method, check, subject)))}"
            _known(entry, "method", method, {*registry.names("methods"), *selection.methods})
            _known(entry, "check", check, registry.names("checks"))
            if subject:
                _known(entry, "subject", subject, {*registry.names("subjects"), *selection.subjects})
        return selection

    def imported(self) -> Iterator[str]:
        """A line for each method and subject that was named as ``module:attribute`` or is another package's."""
        for kind, specs in (("methods", self.specs), ("subjects", self.subjects)):
            for spec in specs.values():
                if not spec.startswith(registry.GRAFT) and (place := registry.imported_from(kind, spec)):
                    yield f"{kind[:-1]} {spec} from {place}"

    def cells(self, check: str) -> list[tuple[str, str]]:
        """(method, subject) of the tests of one check, sorted."""
        # Where a graft stands beside a subject, only that has a cause of a given size.
        is_graded = "graded" in registry.get("metrics", check).needs
        return [
            (method, subject)
            for method in sorted(self.methods)
            for subject in sorted(self.subjects)
            if not (is_graded and f"{subject}_graft" in self.subjects)
            and not self._left_out(check, self.methods[method], self.subjects[subject])
        ]

    def _left_out(self, check: str, method: Method, subject: str) -> bool:
        factory = registry.get("subjects", subject)
        if self.named and not getattr(factory, "serves", ()):
            return False
        return isinstance(factory, SubjectFactory) and bool(applicable(check, method, factory, self.profile))


def _methods(specs: Iterable[str]) -> tuple[dict[str, str], dict[str, Method]]:
    names: dict[str, str] = {}
    found: dict[str, Method] = {}
    for spec in dict.fromkeys(specs):
        try:
            method = as_method(spec)
        except (registry.UnknownName, TypeError, ValueError) as error:
            raise BadSelection(_sentence("method", spec, error)) from error
        except Exception as error:
            raise BadSelection(f"method {spec!r} cannot be imported: {_where(error)}") from error
        if method.name in found:
            raise BadSelection(f"two methods are called {method.name!r}, one of them {spec!r}; rename one")
        names[method.name], found[method.name] = spec, method
    return names, found


def _subjects(specs: Iterable[str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for spec in dict.fromkeys(specs):
        try:
            entry, *graft = [registry.get("subjects", name) for name in with_grafts([spec])]
        except registry.UnknownName as error:
            raise BadSelection(_sentence("subject", spec, error)) from error
        except Exception as error:
            raise BadSelection(f"subject {spec!r} cannot be imported: {_where(error)}") from error
        name = entry.name if isinstance(entry, SubjectFactory) else registry.slug(spec.rpartition(":")[2])
        if name in found:
            raise BadSelection(f"two subjects are called {name!r}, one of them {spec!r}; rename one")
        found[name] = spec
        if graft:
            found[graft[0].name] = f"{registry.GRAFT}{spec}"
    return found


def _check_bounds(bounds: Mapping[str, tuple[str, str]]) -> None:
    for check, (text, origin) in bounds.items():
        entry = f"bound {check} {text} ({origin})"
        _known(entry, "check", check, registry.names("checks"))
        try:
            Bound.parse(text)
        except ValueError as error:
            raise BadSelection(f"{entry}: {error}") from error


def _check_device(name: str | None) -> None:
    try:
        devices.pick(name or "cpu")  # without a name nothing is probed for
    except ValueError as error:
        raise BadSelection(str(error)) from error


def _known(entry: str, kind: str, name: str, names: Iterable[str]) -> None:
    if name in names or ":" in name:
        return
    near = difflib.get_close_matches(name, sorted(names), n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(map(repr, near))}?" if near else f"known: {', '.join(sorted(names))}"
    own = " (one that this run does not have is named package.module:attribute)" if kind == "method" else ""
    raise BadSelection(f"{entry}: unknown {kind} {name!r}; {hint}{own}")


def _sentence(kind: str, spec: str, error: Exception) -> str:
    return str(error) if repr(spec) in str(error) else f"{kind} {spec!r}: {error}"


def _where(error: Exception) -> str:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
