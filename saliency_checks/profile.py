"""How much evidence a run gathers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Profile:
    """How much is measured.

    Attributes:
        scale: images at the first look, relative to the metric's own number.
        looks: how often the images may be doubled before a verdict stays inconclusive.
        redraws: random weights per randomisation check; at least three, they are clusters.
        replicas: further subjects of the same recipe.
        seconds: budget of one method on all embedded subjects, one core, networks trained before. The gradient took
            25 in the quick profile and 42 in the standard one.
        passes: budget of one method, forward and backward through any model, at the first look.
        without: cells left out because of what their subject costs to train.
    """

    name: str
    scale: float
    looks: int
    redraws: int
    replicas: int
    seconds: int
    passes: int
    without: frozenset[tuple[str, str]] = frozenset()


PROFILES = {
    "quick": Profile(
        name="quick", scale=0.5, looks=3, redraws=3, replicas=0, seconds=60, passes=500_000,
        without=frozenset({("label_permutation", "fashion_cnn")}),
    ),
    "standard": Profile(
        name="standard", scale=1.0, looks=3, redraws=3, replicas=1, seconds=180, passes=1_500_000,
    ),
    "thorough": Profile(
        name="thorough", scale=2.0, looks=3, redraws=5, replicas=2, seconds=7200, passes=15_000_000,
    ),
}  # fmt: skip
