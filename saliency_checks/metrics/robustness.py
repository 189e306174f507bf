"""How much does the map change when the image hardly does?

The map of the changed image comes from the same method; a stochastic one draws anew, so its own unrest counts as well
(``details`` say how much two calls on the same image differ). Draws that change the model's prediction do not count:
there the map should change. A fixed picture is perfectly robust, so these are read beside a check that such a picture
fails, and nothing here is gated. A constant or zero map gets what a map that turns into its negative gets: the worst.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor

from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.neighbours import Changes, Neighbours, changes
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float

NEAR = Neighbours()


def _most(found: Changes, values: Float[Tensor, "d n"]) -> Scores:
    return _scores(found, values.masked_fill(~found.counts, 0.0).amax(0))


def _mean(found: Changes, values: Float[Tensor, "d n"]) -> Scores:
    return _scores(found, (values * found.counts).sum(0) / found.counts.sum(0))


def _scores(found: Changes, values: Float[Tensor, " n"]) -> Scores:
    return Scores(
        values=values.double().cpu().numpy()[None, None],
        degenerate=found.degenerate,
        details={"same image": found.unrest},
    )


@metric(
    alone=True,
    better="lower",
    n=32,
    reference="Yeh et al. 2019, definition 2.2",
    meaning="noise that nobody sees moves the map",
)
def max_sensitivity(method: Method, subject: Subject, draw: Draw, settings: Neighbours = NEAR) -> Scores:
    """Largest change of the map over noisy copies of the image, as a share of the map's length."""
    found = changes(method, subject, draw, settings)
    return _most(found, found.map)


@metric(
    alone=True,
    better="lower",
    n=32,
    reference="Bhatt et al. 2020, section 3.1",
    meaning="noise that nobody sees moves the map",
)
def average_sensitivity(method: Method, subject: Subject, draw: Draw, settings: Neighbours = NEAR) -> Scores:
    """As ``max_sensitivity``, mean over the copies."""
    found = changes(method, subject, draw, settings)
    return _mean(found, found.map)


@metric(
    alone=True, better="lower", n=32, reference="Alvarez-Melis and Jaakkola 2018, equation 2, over sampled neighbours"
)
def local_lipschitz(method: Method, subject: Subject, draw: Draw, settings: Neighbours = NEAR) -> Scores:
    """Largest change of the map over noisy copies, per unit that the image moved; relative to the map's length."""
    found = changes(method, subject, draw, settings)
    return _most(found, found.map / found.image.clamp(min=1e-30))
