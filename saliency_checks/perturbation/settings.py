"""How a score perturbs images, as data: what can be varied, and how many passes of the model that takes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

from saliency_checks.perturbation.engine import OUTPUTS
from saliency_checks.perturbation.imputers import IMPUTERS

TENTHS = tuple(i / 10 for i in range(11))


@dataclass(frozen=True, order=True)
class Part:
    """Perturbed images that a score asks the model about.

    Attributes:
        key: two parts of one key are the same images: they are measured once.
        steps: passes per image.
        shared: the same for all methods.
    """

    key: Hashable
    steps: int
    shared: bool = False


@dataclass(frozen=True)
class Plan:
    """All parts of a score; those of several scores are joined with ``|``. Known before the first pass is made."""

    parts: frozenset[Part]

    def __or__(self, other: Plan) -> Plan:
        return Plan(self.parts | other.parts)

    def passes(self, images: int, methods: int = 1) -> int:
        """Images through the model, the methods' own explanations not counted."""
        return images * sum(part.steps * (1 if part.shared else methods) for part in self.parts)


WHOLE = Part(("whole",), 1, shared=True)  # the image as it is


@dataclass(frozen=True, kw_only=True)
class Perturbation:
    """What all scores of perturbed images may vary.

    Attributes:
        imputer: what takes a removed unit's place, one of ``saliency_checks.perturbation.IMPUTERS``.
        unit: what is removed as one: a ``pixel`` with all its channels, each ``channel`` of a pixel, or a ``segment``.
        segments: ``slic`` (superpixels from scikit-image, the zero-parameter form) or ``grid``.
        count: about how many segments.
        output: what is read of the model, one of ``saliency_checks.perturbation.OUTPUTS``.
        reading: how the map is read: as the ``method`` declares, ``signed``, by ``magnitude``, or by the sum of the
            channels' magnitudes (``channel_magnitude``).
        pooled: a segment's value is the ``mean`` or the ``sum`` of its pixels'.
    """

    imputer: str = "absent"
    unit: str = "pixel"
    segments: str = "slic"
    count: int = 100
    output: str = "centred"
    reading: str = "method"
    pooled: str = "mean"

    def __post_init__(self) -> None:
        known = {
            "imputer": IMPUTERS,
            "unit": ("pixel", "channel", "segment"),
            "segments": ("slic", "grid"),
            "output": OUTPUTS,
            "reading": ("method", "signed", "magnitude", "channel_magnitude"),
            "pooled": ("mean", "sum"),
            **self.choices,
        }
        for name, names in known.items():
            if (value := getattr(self, name)) not in names:
                raise ValueError(f"{name} {value!r}: expected one of {', '.join(names)}")

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        """Names that the further fields of a subclass may have."""
        return {}

    @property
    def world(self) -> tuple[object, ...]:
        """What decides which image is left when a given share of the units is gone."""
        kind = (self.segments, self.count) if self.unit == "segment" else ()
        return (self.imputer, self.unit, *kind)

    @property
    def plan(self) -> Plan:
        return Plan(frozenset({WHOLE}))


@dataclass(frozen=True, kw_only=True)
class Curve(Perturbation):
    """A score from the curves over the removed share of the units.

    Attributes:
        orders: which curves it needs: ``most`` relevant first, ``least`` relevant first.
        fractions: removed shares, ascending.
        rounding: a share of the units is rounded to the ``nearest`` number, or ``down``.
        scale: an output relative to the whole image's with a guard against small ones (``guarded``), without
            (``own``), or as it is (``raw``).
        rule: area by the ``trapezoid`` rule, or the ``mean`` of the steps.
        against: the score is the area itself (``nothing``), or its distance in the right direction to the whole
            image's output (``whole``) or to the mean area of random orders (``random``).
        random_orders: how many of those.
    """

    orders: tuple[str, ...] = ("most", "least")
    fractions: tuple[float, ...] = TENTHS
    rounding: str = "nearest"
    scale: str = "guarded"
    rule: str = "trapezoid"
    against: str = "nothing"
    random_orders: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "fractions", tuple(round(share, 9) for share in self.fractions))
        if not self.fractions or list(self.fractions) != sorted({min(max(share, 0), 1) for share in self.fractions}):
            raise ValueError(f"fractions {self.fractions}: expected shares from 0 to 1, ascending, each once")

    @property
    def choices(self) -> dict[str, tuple[str, ...]]:
        return {
            "rounding": ("nearest", "down"),
            "scale": ("guarded", "own", "raw"),
            "rule": ("trapezoid", "mean"),
            "against": ("nothing", "whole", "random"),
        }

    @property
    def world(self) -> tuple[object, ...]:
        return (*super().world, self.rounding)

    @property
    def plan(self) -> Plan:
        inner = [share for share in self.fractions if 0 < share < 1]
        parts = {Part(("empty", self.world), 1, shared=True)} if 1 in self.fractions else set()
        if 0 in self.fractions or self.scale != "raw" or self.against == "whole":
            parts.add(WHOLE)
        map_of = (self.reading, self.pooled)
        parts |= {Part((self.world, order, map_of, share), 1) for order in self.orders for share in inner}
        if self.against == "random":
            random = ("random", self.random_orders)
            parts |= {Part((self.world, random, share), self.random_orders, shared=True) for share in inner}
        return Plan(frozenset(parts))
