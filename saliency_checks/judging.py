"""From a Result to what pytest makes of it: passed, failed, skipped, expected."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

import pytest

from saliency_checks import baseline, fixtures, plugin, registry
from saliency_checks import device as devices
from saliency_checks.case import Case, failure_is_strict
from saliency_checks.method import Method
from saliency_checks.options import KnownFailure
from saliency_checks.pictures import RANKS
from saliency_checks.report import BadReport, bundle, junit
from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, SKIP, Result
from saliency_checks.run import run
from saliency_checks.selection import BadSelection, Selection

BREACH = "contract: "  # how the message of a method that breaks the explain contract begins
_DEVICE = pytest.StashKey[str]()
_SELECTION = pytest.StashKey[Selection]()
_CONTRACTS = pytest.StashKey[dict[tuple[str, str], Result]]()
_SELECTED = pytest.StashKey[set[tuple[str, str]]]()


def selection(config: pytest.Config) -> Selection:
    """The methods and subjects of this run, resolved once per process."""
    if _SELECTION not in config.stash:
        try:
            config.stash[_SELECTION] = Selection.of(plugin.settings(config))
        except BadSelection as error:
            raise pytest.UsageError(str(error)) from error
    return config.stash[_SELECTION]


def judge_cell(item: pytest.Item, check: str, method: str, subject: str) -> None:
    """Run one check on one method and subject by the names in the test's id, record the Result, then judge it."""
    __tracebackhide__ = True
    chosen = selection(item.config)
    explained = chosen.methods[method]
    result = _measure(item, check, explained, chosen.subjects[subject], subject)
    if check != "contract" and _is_breach(result) and _contract_speaks(item, explained, subject):
        result = replace(result, verdict=SKIP, message=f"contract broken, see contract/{method}/{subject}")
    result = _with_command(chosen, plugin.settings(item.config).profile, result)
    expected = "" if item.config.getoption("runxfail") else expected_failure(item.config, check, explained, subject)
    listed = _listed(item.config, check, explained, subject)
    if result.verdict == PASS and not listed and not failure_is_strict(explained, subject):
        expected = ""
    if listed and listed.is_over and result.verdict in (FAIL, INCONCLUSIVE):
        result, expected = _no_longer_excused(result, listed), ""
    if not expected:  # an expected failure may be as bad as it likes
        result = _bundled(item.config, _gated(item.config, result))
    record(item, result, expected)
    _conclude(item, result, expected)


def _gated(config: pytest.Config, result: Result) -> Result:
    """A failure where the result is worse than in the baseline of this run."""
    if not (known := plugin.baseline(config)):
        return result
    source = str(plugin.settings(config).baseline)
    return baseline.gated(known, result, quantile=registry.get("metrics", result.check).quantile, source=source)


def _bundled(config: pytest.Config, result: Result) -> Result:
    """A red result with the place where what is behind it was written; that it could not be hides no verdict."""
    folder = plugin.settings(config).bundle
    if folder is None or result.verdict not in (FAIL, INCONCLUSIVE, ERROR):
        return result
    try:
        place, here = bundle.write(result, folder), config.invocation_params.dir
        told = str(place.relative_to(here) if place.is_relative_to(here) else place)
    except BadReport as error:
        told = f"NOT WRITTEN: {error}"
    return replace(result, message=f"{result.message}\n  bundle   {told}")


def expected_failure(config: pytest.Config, check: str, method: Method, subject: str) -> str:
    """Why this cell is known to fail; the ini file comes before what the method itself declares."""
    listed = _listed(config, check, method, subject)
    return listed.reason if listed else method.known_failure(check, subject)


def _listed(config: pytest.Config, check: str, method: Method, subject: str) -> KnownFailure | None:
    entries = plugin.settings(config).expected_failures.items()
    stated = {(registry.slug(name.rpartition(":")[2]), *where): known for (name, *where), known in entries}
    return stated.get((method.name, check, subject)) or stated.get((method.name, check, ""))


def _no_longer_excused(result: Result, listed: KnownFailure) -> Result:
    """Red, even where more images might decide it: the day by which it was to be mended is over."""
    told = f"  excused  until {listed.until}, which is over: {listed.reason}"
    head, *rest = result.message.splitlines()
    return replace(result, verdict=FAIL, message="\n".join([head, told, *rest]))


def record(item: pytest.Item, result: Result, expected: str) -> None:
    """Leave the result on the item, as strings: the report carries them from a worker to the controller."""
    shown = result.to_dict().get("examples", [])
    each = plugin.settings(item.config).images
    item.stash[plugin.EXAMPLES] = [one for rank in RANKS for one in [e for e in shown if e["rank"] == rank][:each]]
    lean = replace(result, examples=())  # pictures travel apart: user properties also end up in JUnit files
    item.user_properties += [(plugin.RESULT, lean.to_json()), *junit.properties(result)]
    item.user_properties.append((plugin.DEVICE, item.config.stash.get(_DEVICE, "")))
    if expected:
        item.user_properties.append((plugin.EXPECTED, expected))


def _measure(item: pytest.Item, check: str, method: Method, spec: Any, subject: str, **given: Any) -> Result:
    """Run with the settings of this pytest run; what run() does not catch (a subject that fails to build) is
    recorded before it goes on its way."""
    wanted = plugin.settings(item.config)
    bound, origin = wanted.bounds.get(check, (None, "default"))
    asked: dict[str, Any] = {"profile": wanted.profile, "seed": wanted.seed, "device": wanted.device, "bound": bound}
    asked["images"] = max(wanted.images, bundle.IMAGES if wanted.bundle else 0)
    try:
        _prepare_device(item.config)
        with plugin.live(item.config) as progress, fixtures.reporting(progress):
            return run(check, method, spec, bound_origin=origin, progress=progress, **{**asked, **given})
    except Exception as error:
        text = f"{type(error).__name__}: {error}"
        record(item, Result(check=check, method=method.name, subject=subject, verdict=ERROR, message=text), "")
        raise


def _prepare_device(config: pytest.Config) -> None:
    """Here and not at collection, which must not probe for GPUs."""
    if _DEVICE not in config.stash:
        # One thread, with or without workers: their number must not change the last digits.
        config.stash[_DEVICE] = devices.take(plugin.settings(config).device, threads=1).type


def _with_command(chosen: Selection, profile: str, result: Result) -> Result:
    """The result with the command that repeats it as this run was asked for it, also in its message."""
    method, subject = chosen.specs[result.method], chosen.subjects.get(result.subject, result.subject)
    command = f"saliency-checks run {method} --subject {subject} -k {result.check} --profile {profile}"
    message = re.sub(r"saliency-checks run .*", lambda _: command, result.message)
    return replace(result, message=message, command=command)


def _is_breach(result: Result) -> bool:
    return result.verdict == ERROR and result.message.startswith(BREACH)


def _contract_speaks(item: pytest.Item, method: Method, subject: str) -> bool:
    """Whether this run's contract test of the same method and subject is red, wherever and whenever it runs.

    It is run once more here, because a breach that the contract check misses must stay red.
    """
    if (method.name, subject) not in _selected_contracts(item.session):
        return False
    known = item.config.stash.setdefault(_CONTRACTS, {})
    if (method.name, subject) not in known:
        spec = selection(item.config).subjects[subject]
        known[method.name, subject] = _measure(item, "contract", method, spec, subject)
    return known[method.name, subject].verdict in (ERROR, FAIL)


def _selected_contracts(session: pytest.Session) -> set[tuple[str, str]]:
    if _SELECTED not in session.stash:
        cells = filter(None, (plugin.cell_of(item.nodeid) for item in session.items))
        session.stash[_SELECTED] = {(method, subject) for check, method, subject in cells if check == "contract"}
    return session.stash[_SELECTED]


def _conclude(item: pytest.Item, result: Result, expected: str) -> None:
    __tracebackhide__ = True
    if result.verdict == SKIP:
        pytest.skip(result.message)
    if result.verdict == ERROR:
        pytest.fail(result.message, pytrace=False)
    if expected and result.verdict == PASS:
        pytest.fail(
            f"unexpected pass: {result}\n  it was expected to fail: {expected}\n"
            "  if the method was mended, take the entry out of the expected failures",
            pytrace=False,
        )
    if expected and result.verdict in (FAIL, INCONCLUSIVE):
        pytest.xfail(expected)
    if result.verdict == FAIL:
        pytest.fail(result.message, pytrace=False)
    if result.verdict == INCONCLUSIVE and not plugin.settings(item.config).allow_inconclusive:
        pytest.fail(result.message, pytrace=False)


@dataclass(frozen=True, kw_only=True)
class PytestCase(Case):
    """A case of ``parametrize_with_checks`` inside a pytest run: it takes the run's settings and is recorded."""

    item: pytest.Item

    @classmethod
    def of(cls, case: Case, item: pytest.Item) -> PytestCase:
        return cls(check=case.check, method=case.method, subject=case.subject, profile=case.profile, item=item)

    def run(self, **settings: Any) -> Result:
        name = self.subject if isinstance(self.subject, str) else getattr(self.subject, "name", "subject")
        given = {"profile": self.profile, **settings}
        result = _measure(self.item, self.check, self.method, self.subject, registry.slug(name), **given)
        mark = self.item.get_closest_marker("xfail")
        result = result if mark else _bundled(self.item.config, _gated(self.item.config, result))
        record(self.item, result, mark.kwargs.get("reason", "") if mark else "")
        return result

    def require(self, **settings: Any) -> Result:
        __tracebackhide__ = True
        result = self.run(**settings)
        if result.verdict == SKIP:
            pytest.skip(result.message)
        if result.verdict == ERROR:
            pytest.fail(result.message, pytrace=False)
        if result.verdict == INCONCLUSIVE and plugin.settings(self.item.config).allow_inconclusive:
            return result
        return result.require()
