"""From a check, a method and a subject to a Result: look, judge, look again; the same door for pytest and notebooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from saliency_checks import device as devices
from saliency_checks import registry
from saliency_checks.explain import ContractError, derive
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Draw, Metric, Scores
from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, REPORTED, SKIP, Result
from saliency_checks.subject import Contrast, Subject, SubjectFactory, Twins, Unqualified
from saliency_checks.verdict import Bound, Judgement, judge

Progress = Callable[[str], None]
# More constant or all-zero maps than this are a failure whatever the score is.
MOST_DEGENERATE = 0.10


class BadSubject(ValueError):
    """Something that is no subject, or one whose model, images and targets do not fit together."""


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is measured.

    Attributes:
        scale: images at the first look, relative to the metric's own number.
        looks: how often the images may be doubled before a verdict stays inconclusive.
        redraws: random weights per randomisation check; at least three, they are clusters.
        replicas: further subjects of the same recipe.
        without: cells left out because of what their subject costs to train.
    """

    name: str
    scale: float
    looks: int
    redraws: int
    replicas: int
    without: frozenset[tuple[str, str]] = frozenset()


PROFILES = {
    "quick": Profile(
        name="quick", scale=0.67, looks=3, redraws=3, replicas=0,
        without=frozenset({("label_permutation", "fashion_cnn")}),
    ),
    "standard": Profile(name="standard", scale=1.0, looks=3, redraws=3, replicas=1),
    "thorough": Profile(name="thorough", scale=2.0, looks=3, redraws=5, replicas=2),
}  # fmt: skip
_built: dict[tuple[Any, str], Subject] = {}


def measure(check: str | Metric, method: Any, subject: Any, *, n: int | None = None, seed: int = 0) -> NDArray[Any]:
    """Scores, one per image, of the worst group; no verdict.

    Args:
        check: a metric or its name, see ``sc.names("metrics")``.
        method: anything that explains, see :func:`saliency_checks.method.as_method`.
        subject: a Subject or the name of one.
        n: images; default as many as the standard profile first looks at.
        seed: everything random derives from it.

    Raises:
        ContractError: the method raised or returned no map of these inputs.
        Unqualified: the subject does not meet the metric's precondition.
    """
    metric, explained, judged = _metric(check), as_method(method), build_subject(subject)
    if reason := _inapplicable(metric, explained, judged.offers, judged.name):
        raise Unqualified(reason)
    scores = metric.measure(explained, judged, Draw(n=n or metric.n, seed=seed))
    means = scores.values.mean(1)
    return np.asarray(means[_worst(means.mean(1), metric.better)])


def run(
    check: str | Metric,
    method: Any,
    subject: Any,
    *,
    profile: str = "standard",
    seed: int = 0,
    n: int | None = None,
    bound: str | Bound | None = None,
    bound_origin: str = "argument",
    device: str | None = None,
    progress: Progress | None = None,
) -> Result:
    """The verdict of one check on one method and one subject.

    A bad method gives the verdict ``error``, a subject that does not qualify ``skip``: nothing is raised for
    either. Unknown names and things that are no method or no subject do raise.

    Args:
        n: images at the first look instead of the profile's.
        bound: instead of the check's own; gives a verdict on metrics that have none.
        progress: called with a short text before every step that may take long.
    """
    metric, explained, chosen = _metric(check), as_method(method), PROFILES[profile]
    limit = Bound.parse(bound) if isinstance(bound, str) else bound or metric.bound
    record = Result(
        check=metric.name, method=explained.name, subject=_name(subject), verdict=SKIP, better=metric.better, seed=seed,
        bound=str(limit) if limit else None, bound_origin=bound_origin if bound else "default",
    )  # fmt: skip
    started = time.perf_counter()
    try:
        judged = build_subject(subject, device)
        record = replace(record, subject=judged.name)
        if reason := _inapplicable(metric, explained, judged.offers, judged.name):
            raise Unqualified(reason)
        result = _look(metric, explained, judged, chosen, record, limit, n, progress or (lambda text: None))
    except Unqualified as error:
        result = replace(record, message=str(error))
    except BadSubject:
        raise
    except ContractError as error:
        result = replace(record, verdict=ERROR, message=f"contract: {error}")
    except Exception as error:
        text = f"{metric.name} could not be measured ({type(error).__name__}: {error})"
        result = replace(record, verdict=ERROR, message=text)
    return replace(result, seconds=round(time.perf_counter() - started, 3))


def _look(
    metric: Metric, method: Method, subject: Subject, profile: Profile, record: Result, bound: Bound | None,
    n: int | None, progress: Progress,
) -> Result:  # fmt: skip
    """Measure and judge; double the images while the verdict is open and there are more."""
    first = n or max(16, round(metric.n * profile.scale))
    readings = _readings(metric, method)
    for look in range(profile.looks):
        draw = Draw(n=first * 2**look, seed=record.seed, redraws=profile.redraws, replicas=profile.replicas)
        progress(f"{record.key}: {draw.n} images" + (", still open: drawing more" if look else ""))
        found = [
            (reading, scores, _judge(metric, scores, bound, look, profile.looks, len(readings), record))
            for reading in readings
            for scores in [metric.measure(reading, subject, draw)]
        ]
        reading, scores, judgement = min(found, key=lambda item: _preference(item[2], metric))
        if judgement.verdict != INCONCLUSIVE or scores.n < draw.n:
            break
    controls = _controls(metric, subject, draw, progress)
    result = replace(
        record, verdict=judgement.verdict, score=judgement.score, low=judgement.low, high=judgement.high,
        n=scores.n, controls=controls, details=scores.details,
    )  # fmt: skip
    named = "" if len(readings) == 1 else f"read as {'signed' if reading.signed else 'a magnitude'}"
    return replace(result, message=_explain_verdict(metric, result, scores, judgement, named))


def _readings(metric: Metric, method: Method) -> list[Method]:
    if metric.readings and method.signed is None:
        return [replace(method, signed=True), replace(method, signed=False)]
    return [method]


def _judge(
    metric: Metric, scores: Scores, bound: Bound | None, look: int, looks: int, readings: int, record: Result
) -> Judgement:
    if not np.isfinite(scores.values).all():
        raise ValueError(f"{metric.name} gave a score that is no number")
    if metric.exact:
        score = float(scores.values.mean())
        verdict = REPORTED if bound is None else PASS if bound.holds(score) else FAIL
        return Judgement(verdict=verdict, score=score, low=score, high=score, group=0, n=scores.n, n_needed=None)
    judgement = judge(
        scores.values, bound or Bound.parse(">= 0"), binary=metric.binary, look=look, looks=looks, readings=readings,
        rng=np.random.default_rng(derive(record.key, record.seed, "interval", look)),
    )  # fmt: skip
    if bound is None:
        return replace(judgement, verdict=REPORTED)
    return replace(judgement, verdict=FAIL) if scores.degenerate > MOST_DEGENERATE else judgement


def _preference(judgement: Judgement, metric: Metric) -> tuple[int, float]:
    order = (PASS, REPORTED, INCONCLUSIVE, FAIL)
    return order.index(judgement.verdict), -judgement.score if metric.better == "higher" else judgement.score


def _worst(means: NDArray[Any], better: str) -> int:
    return int(means.argmin() if better == "higher" else means.argmax())


def _controls(metric: Metric, subject: Subject, draw: Draw, progress: Progress) -> dict[str, float]:
    """Score of each control on the same images, measured once per subject and draw."""
    if metric.exact:
        return {}
    scores = {}
    for name in registry.names("methods"):
        control = registry.get("methods", name)
        if not control.control or metric.applies(control):
            continue
        key = ("control", metric.name, name, draw)
        if key not in subject.cache:
            progress(f"{metric.name}/{name}/{subject.name}: control")
            values = metric.measure(control, subject, draw).values.mean((1, 2))
            subject.cache[key] = float(values[_worst(values, metric.better)])
        scores[name] = subject.cache[key]
    return scores


def _inapplicable(metric: Metric, method: Method, offers: Iterable[str], subject: str) -> str:
    """Why this cell says nothing, or ""."""
    if missing := sorted(metric.needs - frozenset(offers)):
        return f"{metric.name} needs {', '.join(missing)}; {subject} offers none"
    if missing := sorted(method.needs - frozenset(offers) - {"baseline"}):  # every subject has an absent value
        return f"{method.name} needs {', '.join(missing)}; {subject} offers none"
    return metric.applies(method)


def _metric(check: str | Metric) -> Metric:
    if isinstance(check, Metric):
        return check
    found: Metric = registry.get("metrics", check)
    return found


def _explain_verdict(metric: Metric, result: Result, scores: Scores, judgement: Judgement, reading: str) -> str:
    """The whole text of a verdict: the number first, then what it means and what to do."""
    assert result.score is not None
    assert result.low is not None
    assert result.high is not None
    group = scores.groups[judgement.group]
    remarks = [part for part in (f"worst: {group}" if group else "", reading) if part]
    note = str(scores.details.get("note", ""))
    if scores.degenerate > MOST_DEGENERATE:
        remarks.append(f"{scores.degenerate:.0%} of the maps are constant or all zero")
    head = f"{result.score:.2f} {_relation(result)} {result.bound or 'no bound'}  {metric.name}: {result.method} on {result.subject}"
    lines = [
        head,
        f"  score    {result.score:.2f} [{result.low:.2f}, {result.high:.2f}]  {metric.summary}"
        f" (n={result.n}, seed {result.seed})",
        *(f"           {remark}" for remark in remarks),
        f"  bound    {result.bound or 'none: reported, never failed'}  {result.bound_origin}",
    ]
    if result.controls:
        best = sorted(result.controls.items(), key=lambda item: item[1], reverse=metric.better == "higher")
        lines.append("  controls " + ", ".join(f"{name} {score:.2f}" for name, score in best[:4]))
    if result.verdict == INCONCLUSIVE:
        lines.append(f"  open     {judgement.advice}")
    if result.verdict in (FAIL, INCONCLUSIVE):
        lines.append(f"  meaning  {metric.meaning}")
        lines += [f"  {'check' if i == 0 else '     '}    {i + 1}. {text}" for i, text in enumerate(metric.if_fails)]
    if note:
        lines += [f"  note     {line}" for line in note.splitlines()]
    if result.verdict in (FAIL, INCONCLUSIVE):
        lines.append(f"  again    saliency-checks run {result.method} --subject {result.subject} -k {metric.name}")
    return "\n".join(lines)


def _relation(result: Result) -> str:
    return {PASS: "holds", FAIL: "breaks", INCONCLUSIVE: "is undecided against"}.get(result.verdict, "with")


def build_subject(spec: Any, device: str | None = None) -> Subject:
    """The subject behind a name, ``package.module:attribute``, a factory, a function or a Subject, on its device.

    Built once per process.
    """
    key = (spec if isinstance(spec, str) else id(spec), device or "auto")
    if key not in _built:
        found = registry.get("subjects", spec) if isinstance(spec, str) else spec
        built = found() if callable(found) and not isinstance(found, Subject) else found
        if not isinstance(built, Subject):
            raise BadSubject(
                f"{spec!r} gave {type(built).__name__}, expected a subject: sc.Subject(model, inputs, targets),"
                " a function that returns one, or a registered name"
            )
        if isinstance(spec, str) and ":" in spec and not isinstance(found, SubjectFactory):
            built = replace(built, name=registry.slug(spec.rpartition(":")[2]))
        _built[key] = _on_device(built, devices.pick(device or "auto"))
        _probe(_built[key])
        _built[(id(spec), "kept")] = spec  # an id stays unique only while its object lives
    return _built[key]


def _name(spec: Any) -> str:
    """What a subject will be called, before it is built."""
    if isinstance(spec, str):
        return spec if ":" not in spec else registry.slug(spec.rpartition(":")[2])
    return getattr(spec, "name", None) or registry.slug(getattr(spec, "__name__", "subject"))


def _probe(subject: Subject) -> None:
    """Run the model on two images; whatever does not fit is said now, in the subject's name."""
    was_training = subject.model.training
    subject.model.eval()
    try:
        with torch.no_grad():
            logits = subject.model(subject.inputs[:2])
    except Exception as error:
        shape = tuple(subject.inputs[:2].shape)
        raise BadSubject(
            f"subject {subject.name!r}: its model fails on its inputs {shape}: {type(error).__name__}: {error}"
        ) from error
    finally:
        subject.model.train(was_training)
    if not isinstance(logits, Tensor) or logits.ndim != 2 or logits.shape[1] < 2:
        got = f"a tensor {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
        raise BadSubject(
            f"subject {subject.name!r}: its model returned {got}, expected logits (N, K) of at least two classes;"
            " wrap it in a module that returns them"
        )
    if len(subject) and not 0 <= int(subject.targets.min()) <= int(subject.targets.max()) < logits.shape[1]:
        raise BadSubject(
            f"subject {subject.name!r}: targets lie in [{int(subject.targets.min())}, {int(subject.targets.max())}],"
            f" expected class indices below {logits.shape[1]}, the model's number of logits"
        )


def _on_device(subject: Subject, device: torch.device) -> Subject:
    """The subject with all that it holds, now or when built later, on one device; the user's model is not moved
    unless it lies elsewhere."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device)
        if isinstance(value, nn.Module):
            return value.to(device).eval()
        if isinstance(value, Contrast):
            return Contrast(inputs=move(value.inputs), targets=move(value.targets), sites=move(value.sites))
        if isinstance(value, Twins):
            return Twins(
                same=tuple(map(move, value.same)), permuted=tuple(map(move, value.permuted)),
                inputs=move(value.inputs), targets=move(value.targets),
            )  # fmt: skip
        return value

    twins, replicas = subject.twins, subject.replicas
    return replace(
        subject,
        model=move(subject.model), inputs=move(subject.inputs), targets=move(subject.targets).long(),
        truth=move(subject.truth), decoys=move(subject.decoys), contrast=move(subject.contrast),
        twins=(lambda: move(twins())) if twins else None,
        replicas=tuple((lambda build=build: _on_device(build(), device)) for build in replicas),
    )  # fmt: skip


def applicable(check: str, method: Method, factory: SubjectFactory, profile: str = "standard") -> str:
    """Why a cell is left out, from what the subject declares alone; "" where it applies or only building can tell."""
    if (check, factory.name) in PROFILES[profile].without:
        return f"{check} on {factory.name} is not in the {profile} profile"
    if not factory.exact:
        return ""
    return _inapplicable(_metric(check), method, factory.offers, factory.name)


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
    chosen = [as_method(spec) for spec in (methods if methods is not None else default_methods())]
    repeated = sorted({m.name for m in chosen if [other.name for other in chosen].count(m.name) > 1})
    if repeated:
        raise registry.DuplicateName(f"two methods are named {', '.join(repeated)}; give one sc.as_method(..., name=)")
    found = []
    for spec in subjects if subjects is not None else default_subjects(profile):
        factory = registry.get("subjects", spec) if isinstance(spec, str) else spec
        for check in checks or registry.names("checks"):
            for method in chosen:
                if not isinstance(factory, SubjectFactory) or not applicable(check, method, factory, profile):
                    found.append(Case(check=check, method=method, subject=spec, profile=profile))
    return sorted(found, key=lambda case: case.id)


def default_methods() -> list[str]:
    own = [name for name in registry.own("methods") if not registry.get("methods", name).control]
    return own or [name for name in registry.names("methods") if not registry.get("methods", name).control]


def default_subjects(profile: str) -> list[str]:
    return [name for name in registry.names("subjects") if profile in registry.get("subjects", name).profiles]


def parametrize_with_checks(
    methods: Sequence[Any],
    *,
    subjects: Sequence[Any] | None = None,
    checks: Sequence[str] | None = None,
    profile: str = "quick",
) -> Callable[[Any], Any]:
    """Decorate ``def test_faithful(case): case.require()`` to run every applicable check.

    Expected failures of the methods are marked as strict xfail, with their reasons.
    """
    import pytest

    parameters = []
    for case in cases(methods, subjects, checks, profile):
        reason = case.method.expected_failures.get(case.check)
        marks = [pytest.mark.xfail(reason=reason, strict=True)] if reason else []
        parameters.append(pytest.param(case, id=case.id, marks=marks))
    decorate: Callable[[Any], Any] = pytest.mark.parametrize("case", parameters)
    return decorate
