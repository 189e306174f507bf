"""From a check, a method and a subject to a Result: look, judge, look again; the same door for pytest and notebooks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saliency_checks import registry
from saliency_checks.explain import BLOCK, ContractError, derive, in_eval_mode
from saliency_checks.fingerprint import fingerprint
from saliency_checks.loading import BadSubject, build_subject, name_of
from saliency_checks.method import Method, as_method
from saliency_checks.metric import MOST_DEGENERATE, Draw, Metric, Scores
from saliency_checks.pictures import examples
from saliency_checks.profile import PROFILES, Profile
from saliency_checks.result import ERROR, FAIL, INCONCLUSIVE, PASS, REPORTED, SKIP, Result
from saliency_checks.subject import Subject, Unqualified
from saliency_checks.verdict import Bound, Judgement, judge, judge_quantile
from saliency_checks.wording import explain_verdict

Progress = Callable[[str], None]


def measure(check: str | Metric, method: Any, subject: Any, *, n: int | None = None, seed: int = 0) -> NDArray[Any]:
    """Scores, one per image, of the worst group; no verdict.

    Args:
        check: a metric or its name, see ``sc.names("metrics")``; ``deletion@rise`` is one with a paper's settings.
        method: anything that explains, see :func:`saliency_checks.method.as_method`.
        subject: a Subject or the name of one.
        n: images; default as many as the standard profile first looks at.
        seed: everything random derives from it.

    Raises:
        ContractError: the method raised or returned no map of these inputs.
        Unqualified: the subject does not meet the metric's precondition.
    """
    metric = _metric(check)
    return worst_group(metric, measured(metric, method, subject, n=n, seed=seed))


def measured(
    check: str | Metric, method: Any, subject: Any, *, n: int | None = None, seed: int = 0, device: str | None = None
) -> Scores:
    """All that :func:`measure` chooses from: every group and redraw, and which images were scored."""
    metric, explained = _metric(check), as_method(method)
    built = build_subject(subject, device)
    with in_eval_mode(built.model):
        judged = _applicable(metric, explained, built)
        return metric.measure(explained, judged, Draw(n=n or metric.n, seed=seed))


def worst_group(metric: Metric, scores: Scores) -> NDArray[Any]:
    """The scores per image, mean over redraws, of the group that would be judged."""
    means = scores.values.mean(1)
    return np.asarray(means[_worst([metric.statistic(row) for row in means], metric.better)])


def suited(subject: Subject, method: Method) -> Subject:
    """The subject, with its cause in a layer where the method reads one: a cause that bypasses it cannot be seen.

    Raises:
        Unqualified: no layer of the model takes the cause.
    """
    if subject.layered is None or "conv" not in method.needs:
        return subject
    if "layered" not in subject.cache:
        subject.cache["layered"] = subject.layered()
    layered: Subject = subject.cache["layered"]
    return layered


def _applicable(metric: Metric, method: Method, subject: Subject) -> Subject:
    """The subject as the method is judged on it.

    Raises:
        Unqualified: this measurement says nothing of the method there.
    """
    judged = suited(subject, method)
    if reason := metric.inapplicable(method, judged.offers, judged.name):
        raise Unqualified(reason)
    return judged


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
    images: int = 0,
    progress: Progress | None = None,
) -> Result:
    """The verdict of one check on one method and one subject.

    A bad method gives the verdict ``error``, a subject that does not qualify ``skip``: nothing is raised for
    either. Unknown names and things that are no method or no subject do raise.

    Args:
        n: images at the first look instead of the profile's.
        bound: instead of the check's own; gives a verdict on metrics that have none.
        images: so many worst and best images are kept with their maps, as ``result.examples``.
        progress: called with a short text before every step that may take long.
    """
    metric, explained, chosen = _metric(check), as_method(method), PROFILES[profile]
    limit = Bound.parse(bound) if isinstance(bound, str) else bound or metric.bound
    record = Result(
        check=metric.name, method=explained.name, subject=name_of(subject), verdict=SKIP, better=metric.better,
        seed=seed, bound=str(limit) if limit else None, bound_origin=bound_origin if bound else "default",
    )  # fmt: skip
    started = time.perf_counter()
    try:
        judged = build_subject(subject, device)
        record = replace(record, subject=judged.name)
        with in_eval_mode(judged.model):
            judged = _applicable(metric, explained, judged)
            record = replace(record, fingerprint=fingerprint(judged))
            result = _look(metric, explained, judged, chosen, record, limit, n, images, progress or (lambda text: None))
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
    n: int | None, images: int, progress: Progress,
) -> Result:  # fmt: skip
    """Measure and judge; double the images while the verdict is open and there are more."""
    first = n or first_look(metric, profile)
    readings = _readings(metric, method)
    for look in range(profile.looks):
        draw = Draw(n=first * 2**look, seed=record.seed, redraws=profile.redraws, replicas=profile.replicas)
        progress(f"{record.key}: {draw.n} images" + (", still open: drawing more" if look else ""))
        found = [
            (reading, scores, _judge(metric, scores, bound, look, profile.looks, draw, len(readings), record))
            for reading in readings
            for scores in [metric.measure(reading, subject, draw)]
        ]
        reading, scores, judgement = min(found, key=lambda item: _preference(item[2], metric))
        if judgement.verdict != INCONCLUSIVE or scores.n < draw.n:
            break
    controls = _controls(metric, subject, draw, progress)
    result = replace(
        record, verdict=judgement.verdict, score=judgement.score, low=judgement.low, high=judgement.high,
        n=scores.n, controls=controls, details=scores.details, groups=scores.groups,
        scores=scores.values.mean(1).tolist(),
        examples=examples(metric, reading, subject, draw, scores, judgement.group, images),
    )  # fmt: skip
    named = "" if len(readings) == 1 else f"read as {'signed' if reading.signed else 'a magnitude'}"
    return replace(result, message=explain_verdict(metric, result, scores, judgement, named))


def first_look(metric: Metric, profile: Profile) -> int:
    """Images that are drawn before the first verdict."""
    return BLOCK * max(1, round(metric.n * profile.scale / BLOCK))


def _readings(metric: Metric, method: Method) -> list[Method]:
    if metric.readings and method.signed is None:
        return [replace(method, signed=True), replace(method, signed=False)]
    return [method]


def _judge(
    metric: Metric, scores: Scores, bound: Bound | None, look: int, looks: int, draw: Draw, readings: int,
    record: Result,
) -> Judgement:  # fmt: skip
    if not np.isfinite(scores.values).all():
        raise ValueError(f"{metric.name} gave a score that is no number")
    if metric.exact:
        score = float(scores.values.mean())
        verdict = REPORTED if bound is None else PASS if bound.holds(score) else FAIL
        return Judgement(verdict=verdict, score=score, low=score, high=score, group=0, n=scores.n, n_needed=None)
    rule = judge if metric.quantile is None else partial(judge_quantile, quantile=metric.quantile)
    judgement = rule(
        scores.values, bound or Bound.parse(">= 0"), binary=metric.binary, look=look, looks=looks,
        last=scores.n < draw.n, readings=readings,
        rng=np.random.default_rng(derive(record.key, record.seed, "interval", look)),
    )  # fmt: skip
    if bound is None:
        return replace(judgement, verdict=REPORTED)
    return replace(judgement, verdict=FAIL) if scores.degenerate > MOST_DEGENERATE else judgement


def _preference(judgement: Judgement, metric: Metric) -> tuple[int, float]:
    order = (PASS, REPORTED, INCONCLUSIVE, FAIL)
    return order.index(judgement.verdict), -judgement.score if metric.better == "higher" else judgement.score


def _worst(scores: Sequence[float], better: str) -> int:
    return scores.index(min(scores) if better == "higher" else max(scores))


def _controls(metric: Metric, subject: Subject, draw: Draw, progress: Progress) -> dict[str, float]:
    """Score of each control on the same images, measured once per subject and draw."""
    if metric.exact:
        return {}
    scores = {}
    for name in registry.names("methods"):
        control = registry.get("methods", name)
        if not control.control or metric.applies(control):
            continue
        key = ("control", metric.name, metric.settings, name, draw)
        if key not in subject.cache:
            progress(f"{metric.name}/{name}/{subject.name}: control")
            rows = metric.measure(control, subject, draw).values.mean(1)
            values = [metric.statistic(row) for row in rows]
            subject.cache[key] = values[_worst(values, metric.better)]
        scores[name] = subject.cache[key]
    return scores


def _metric(check: str | Metric) -> Metric:
    if isinstance(check, Metric):
        return check
    found: Metric = registry.get("metrics", check)
    return found
