"""Metric: a pure measurement, one score per image; with a bound it is a check."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from saliency_checks import registry
from saliency_checks.adapters import SUPPLIED
from saliency_checks.explain import subject_maps
from saliency_checks.method import Method
from saliency_checks.subject import Subject
from saliency_checks.verdict import Bound, quantile_of

if TYPE_CHECKING:
    from jaxtyping import Bool, Float
    from torch import Tensor

# More constant or all-zero maps than this are a failure whatever the score is.
MOST_DEGENERATE = 0.10


@dataclass(frozen=True, kw_only=True)
class Draw:
    """How much of a measurement to make.

    Attributes:
        n: the first n images (of each replica); all where there are fewer.
        seed: the run's seed; everything random derives from it and from the key.
        redraws: how often weights are drawn again where a check does so.
        replicas: further subjects of the same recipe to measure on, where there are any.
    """

    n: int
    seed: int = 0
    redraws: int = 3
    replicas: int = 0


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One score per image, in groups of which the worst is judged.

    Attributes:
        values: array (groups, redraws, images); redraws share their random weights over all images.
        groups: a name per group ("most relevant first", "seed 1"): the failure says which was worst.
        degenerate: share of images whose map is constant; they count as a random order.
        details: anything worth showing (curves, similarities by layer), by name.
        images: which of the subject's images were scored, by number, where not the first ones.
    """

    values: NDArray[np.float64]
    groups: tuple[str, ...] = ("",)
    degenerate: float = 0.0
    details: Mapping[str, Any] = field(default_factory=dict)
    images: tuple[int, ...] | None = None

    @property
    def n(self) -> int:
        return int(self.values.shape[-1])


@dataclass(frozen=True, kw_only=True)
class Shown:
    """What was scored: images, their maps, and where the cause is known, its mask.

    Attributes:
        inputs: (n, C, H, W).
        maps: (n, H, W).
        truth: (n, H, W), booleans.
    """

    inputs: Float[Tensor, "n c h w"]
    maps: Float[Tensor, "n h w"]
    truth: Bool[Tensor, "n h w"] | None = None


Shows = Callable[[Method, Subject, Draw, int], Shown]  # the last one: index of the group


def own_images(method: Method, subject: Subject, draw: Draw, group: int) -> Shown:
    """The subject's own images, in order; of the replica where the groups are replicas. The maps are cached by now."""
    members = subject.members(draw.replicas)
    member = members[group] if group < len(members) else subject
    n = min(draw.n, *(len(one) for one in members))
    found = subject_maps(method, member, 0, n, seed=draw.seed)
    return Shown(inputs=member.inputs[:n], maps=found, truth=None if member.truth is None else member.truth[:n])


def same_images(method: Method, subject: Subject, draw: Draw, group: int) -> Shown:
    """The subject's own images, whatever the group: groups that are scored on the same ones."""
    return own_images(method, subject, Draw(n=draw.n, seed=draw.seed, replicas=0), 0)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A measurement of one faithfulness property.

    Attributes:
        measure: ``(method, subject, draw[, settings]) -> Scores``; pure, no pytest, no verdict.
        better: ``higher`` or ``lower``.
        bound: what the score must hold; None for a metric that the literature says not to gate on.
        needs: what the subject must offer.
        applies: why this check says nothing about a method (a sentence), or "" where it does.
        binary: every score is 0 or 1, so the interval is exact.
        exact: the score is no sample, so there is no interval (a list of clauses that hold or not).
        quantile: what is judged is this quantile of the scores per image, and not their mean.
        readings: the score depends on reading a map as signed or as a magnitude.
        alone: an image's score does not depend on which others are scored, nor on replicas: a data set may be scored
            in shards.
        n: images at the first look of the standard profile.
        extra: how many explanations an image takes beside the one of itself, at most: for the plan of a run.
        shows: gives the images that were scored and their maps, for reports; None where there is no one map each.
        reference: the paper, with its equation or section.
        meaning: what a bad score says about the explanation.
        if_fails: what to look at then, in order.
        settings: what of the measurement can be varied, a frozen dataclass; None where nothing can. It is the
            default of the measurement's argument ``settings``, and says how many passes it takes (``settings.plan``).
    """

    name: str
    measure: Callable[..., Scores]
    better: str = "higher"
    bound: Bound | None = None
    needs: frozenset[str] = frozenset()
    applies: Callable[[Method], str] = lambda method: ""
    binary: bool = False
    exact: bool = False
    quantile: float | None = None
    readings: bool = False
    alone: bool = False
    n: int = 64
    extra: Callable[[Draw], int] = lambda draw: 0
    shows: Shows | None = None
    reference: str = ""
    meaning: str = ""
    if_fails: tuple[str, ...] = ()
    summary: str = ""
    settings: Any = None

    def with_settings(self, **changes: Any) -> Metric:
        """The same measurement with other settings, named ``metric@setting=value``.

        It has no bound: a bound is calibrated for the settings that a check has.

        Raises:
            TypeError: no such setting; says which there are.
        """
        known = [] if self.settings is None else [f.name for f in fields(self.settings)]
        for key in changes:
            if key not in known:
                raise TypeError(f"{self.name} has no setting {key!r}; it has {', '.join(known) or 'none'}")
        short = {key: value if isinstance(value, str | int | float) else ".." for key, value in changes.items()}
        shown = ",".join(f"{key}={value}" for key, value in short.items())
        return self._varied(shown, changes)

    def with_preset(self, name: str) -> Metric:
        """The same measurement with the settings of a paper or its code, named ``metric@preset``.

        Raises:
            UnknownName: no such preset of this metric; says which there are.
        """
        from saliency_checks.presets import PRESETS

        known = PRESETS.get(self.name, {})
        if name not in known:
            raise registry.UnknownName(f"{self.name} has no preset {name!r}; it has {', '.join(known) or 'none'}")
        preset = known[name]
        varied = self._varied(name, preset.settings)
        return replace(varied, better=preset.better or self.better, reference=preset.source)

    def variant(self, text: str) -> Metric:
        """What stands behind the ``@`` of a name: a preset, or settings such as ``imputer=blur,count=49``."""
        if "=" not in text:
            return self.with_preset(text)
        pairs = (pair.partition("=")[::2] for pair in text.split(","))
        return self.with_settings(**{key: _value(value) for key, value in pairs})

    def _varied(self, label: str, changes: Mapping[str, Any]) -> Metric:
        settings = replace(self.settings, **changes)
        measure = partial(self.measure, settings=settings)
        return replace(self, name=f"{self.name}@{label}", settings=settings, measure=measure, bound=None)

    def statistic(self, values: NDArray[np.float64]) -> float:
        """What is judged of the scores of all images of a group."""
        return float(values.mean()) if self.quantile is None else quantile_of(values, self.quantile)

    def inapplicable(self, method: Method, offers: Iterable[str], subject: str) -> str:
        """Why this measurement says nothing of ``method`` on a subject that offers these, or ""."""
        if missing := sorted(self.needs - frozenset(offers)):
            return f"{self.name} needs {', '.join(missing)}; {subject} offers none"
        if missing := sorted(method.needs - frozenset(offers) - frozenset(SUPPLIED)):  # every subject has these
            return f"{method.name} needs {', '.join(missing)}; {subject} offers none"
        return self.applies(method)


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def metric(
    *, name: str | None = None, bound: str | None = None, needs: set[str] | frozenset[str] = frozenset(), **fields: Any
) -> Callable[[Callable[..., Scores]], Metric]:
    """Register a measurement ``(method, subject, draw[, settings])`` under its function's name.

    ``bound`` makes it a check. The default of ``settings`` is a frozen dataclass that holds what can be varied.
    """

    def register(measure: Callable[..., Scores]) -> Metric:
        varied = inspect.signature(measure).parameters.get("settings")
        made = Metric(
            name=name or measure.__name__,
            measure=measure,
            bound=Bound.parse(bound) if bound else None,
            needs=frozenset(needs),
            settings=varied.default if varied else None,
            summary=(measure.__doc__ or "").strip().splitlines()[0] if measure.__doc__ else "",
            **fields,
        )
        origin = f"{measure.__module__}:{measure.__qualname__}"
        registered: Metric = registry.register("metrics", made.name, made, origin=origin)
        return registered

    return register
