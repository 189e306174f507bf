"""One metric of one method on one shard of images, by names alone: what a process anywhere can be asked to measure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np

from saliency_checks import registry
from saliency_checks.device import computing
from saliency_checks.explain import BLOCK, ContractError, in_eval_mode, subject_maps
from saliency_checks.loading import build_subject
from saliency_checks.method import Method, as_method
from saliency_checks.metric import Draw, Metric, Scores
from saliency_checks.run import suited, worst_group
from saliency_checks.studies.store import Columns, Nothing
from saliency_checks.subject import Subject, Unqualified

# A method that fails on a larger share of the images than this does not fail because of some images.
MOST_POISON = 0.1
# Images of the whole of which one is harmless.
STAND_INS = (0, 1)


Poison = tuple[list[int], "Scoring"] | None


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a unit of the benchmark does.

    Attributes:
        subject, method, metric: registered names or ``package.module:attribute``; steps, draws: see :func:`coarser`.
        images: that are scored in all.
        precision: of the networks, see :func:`saliency_checks.device.computing`.
        rows: first image and the one behind the last; None: all images together.
        reasons: images of the shard, by place, that are left out, and why.
        stand_in: number of the image that stands in for them, so that the others keep their place and draws.
    """

    subject: str
    method: str
    metric: str
    steps: int | None
    draws: int | None
    images: int
    seed: int
    device: str
    rows: tuple[int, int] | None
    precision: str = "fp32"
    reasons: tuple[tuple[int, str], ...] = ()
    stand_in: int = 0

    def __call__(self) -> Columns:
        """A row per image: its number and score; of one that is left out no score, and why in ``skipped``.

        Raises:
            Nothing: this cannot be measured; the text says why.
        """
        method, shard = self._explained()
        metric = coarser(registry.get("metrics", self.metric), self.steps, self.draws)
        try:
            try:
                return self._scored(metric, method, shard)
            except ContractError as error:
                if not (poison := self._poison(method, shard)):
                    raise
                return self._poisoned(poison, error)._scored(metric, method, shard)
        except (Unqualified, ContractError) as error:
            raise Nothing(str(error)) from error

    @property
    def places(self) -> Sequence[int]:
        """The images, by their place in the shard."""
        return range(self._count(self._explained()[1]))

    def probe(self, places: Iterable[int]) -> None:
        """Explain these images, among others that are harmless; raises what the method does."""
        method, shard = self._explained()
        explained = set(places)
        others = {i: "" for i in range(len(shard)) if i not in explained}
        with computing(self.precision, shard.inputs.device):
            subject_maps(method, shard.without(others, self.stand_in), 0, self._count(shard), seed=self.seed)

    def variants(self) -> tuple[Scoring, ...]:
        return tuple(replace(self, stand_in=image) for image in STAND_INS)

    def skipping(self, reasons: Mapping[int, str], *, like: Scoring) -> Scoring:
        return replace(self, reasons=(*self.reasons, *reasons.items()), stand_in=like.stand_in)

    def _explained(self) -> tuple[Method, Subject]:
        """The method, and the shard as the method is judged on it.

        Raises:
            Nothing: there is none.
        """
        method = as_method(self.method)
        try:
            layered = "conv" in method.needs and build_subject(self.subject, self.device).layered is not None
            return method, _shard(self.subject, self.device, self.method if layered else "", self.rows, self.images)
        except Unqualified as error:
            raise Nothing(str(error)) from error

    def _count(self, shard: Subject) -> int:
        return min(len(shard), self.images if self.rows is None else self.rows[1] - self.rows[0])

    def _scored(self, metric: Metric, method: Method, shard: Subject) -> Columns:
        shard = self._without(shard)
        if reason := metric.inapplicable(method, shard.offers, shard.name):
            raise Unqualified(reason)
        with in_eval_mode(shard.model), computing(self.precision, shard.inputs.device):
            return self._rows(metric, shard, metric.measure(method, shard, Draw(n=self._count(shard), seed=self.seed)))

    def _without(self, shard: Subject) -> Subject:
        """The shard without the images that are left out, made once."""
        if not self.reasons:
            return shard
        key = ("without", self.reasons, self.stand_in)
        if key not in shard.cache:
            shard.cache[key] = shard.without(dict(self.reasons), self.stand_in)
        found: Subject = shard.cache[key]
        return found

    def _rows(self, metric: Metric, shard: Subject, scores: Scores) -> Columns:
        values = worst_group(metric, scores).astype(np.float64)
        places = np.array(scores.images or range(len(values)), dtype=np.int64)
        counts = ~np.isin(places, list(shard.skipped))
        left_out = {i: reason for i, reason in sorted(shard.skipped.items()) if i < self._count(shard)}
        columns: dict[str, Any] = {
            "image": np.concatenate([places[counts], np.array(list(left_out), dtype=np.int64)]) + shard.first,
            "score": np.concatenate([values[counts], np.full(len(left_out), np.nan)]),
        }
        if left_out:
            columns["skipped"] = [None] * int(counts.sum()) + list(left_out.values())
        return columns

    def _poison(self, method: Method, shard: Subject) -> Poison:
        """The images on which the method fails; none where it fails on all, or not when it explains."""
        from saliency_checks.studies.engines import culprits

        key = ("poison", method.name, method.explain, self.seed)
        if key not in shard.cache:
            safe = next((some for some in self.variants() if not some._fails(())), None)
            places = self.places
            found = culprits(safe._fails, places) if safe else []
            few = len(found) <= max(1, MOST_POISON * len(places))
            shard.cache[key] = (found, safe) if found and few else None
        poison: Poison = shard.cache[key]
        return poison

    def _poisoned(self, poison: tuple[list[int], Scoring], error: Exception) -> Scoring:
        places, safe = poison
        return self.skipping(dict.fromkeys(places, str(error).partition("\n")[0]), like=safe)

    def _fails(self, places: Sequence[int]) -> bool:
        try:
            self.probe(places)
        except ContractError:
            return True
        return False


@lru_cache(maxsize=2)
def _shard(subject: str, device: str, layered: str, rows: tuple[int, int] | None, images: int) -> Subject:
    """The last ones are kept, with what was measured on them: units of one shard come one after the other.

    Raises:
        Unqualified: the subject has no such thing.
    """
    whole = build_subject(subject, device)
    whole = suited(whole, as_method(layered)) if layered else whole
    if rows is None:
        if whole.source is not None:
            raise Unqualified(f"a score that depends on all images at once is not measured where {subject} reads them")
        return whole
    stop = -(-rows[1] // BLOCK) * BLOCK  # whole blocks: a stochastic method's draws depend on them
    return whole.cut(rows[0], min(stop, whole.size), images)


def coarser(metric: Metric, steps: int | None, draws: int | None) -> Metric:
    """The same metric, of the same name, with at most so many steps and draws: what a slow machine can do."""
    changes: dict[str, Any] = {}
    shares = getattr(metric.settings, "fractions", ())
    if steps and len(shares) > (kept := max(2, steps)):
        changes["fractions"] = tuple(shares[round(i * (len(shares) - 1) / (kept - 1))] for i in range(kept))
    if draws and getattr(metric.settings, "draws", 0) > draws:
        changes["draws"] = draws
    return replace(metric.with_settings(**changes), name=metric.name) if changes else metric
