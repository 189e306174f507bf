"""Does the method fulfil the axioms that it claims, on small random networks?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from saliency_checks.axioms.laws import LAWS
from saliency_checks.axioms.search import affordable, smallest, workable
from saliency_checks.method import Method
from saliency_checks.metric import Draw, Scores, metric
from saliency_checks.subject import Subject, Unqualified

if TYPE_CHECKING:
    from saliency_checks.axioms.drawing import Example


@metric(
    bound=">= 1",
    exact=True,
    needs={"networks"},
    n=32,
    reference="Sundararajan et al. 2017, Axiomatic attribution for deep networks; Kindermans et al. 2019, The"
    " (un)reliability of saliency methods, section 2",
    meaning="what the method says of itself is not so: an axiom that it claims is violated on the network below",
    if_fails=(
        "paste the code at the end into Python: it is the smallest network and image found that violate the axiom",
        "if the method should fulfil it: a factor, an abs(), a constant, a normalisation, a wrong baseline?",
        "if it need not: take the axiom out of the method's claims; it is then measured and never failed",
    ),
)
def axioms(method: Method, subject: Subject, draw: Draw) -> Scores:
    """Share of the axioms that the method claims which hold on every network drawn; all others are measured."""
    found, networks = measured(method, draw)
    note = "\n".join(_line(axiom, axiom in method.claims, example) for axiom, example in found.items())
    note += f"\non up to {networks} networks for each axiom"
    claimed = [axiom for axiom in LAWS if axiom in method.claims]
    if not claimed:
        raise Unqualified(
            f"{method.name} claims no axiom, so there is none to hold it to; measured:\n{note}\n"
            "  claim what you rely on: @sc.method(claims={...})"
        )
    kept = np.array([float(found[axiom] is None) for axiom in claimed])
    code = {axiom: example.code for axiom, example in found.items() if example}
    return Scores(
        values=kept[None, None],
        details={"note": note, "paste": _paste(claimed, found), "counterexamples": code},
    )


def measured(method: Method, draw: Draw) -> tuple[dict[str, Example | None], int]:
    """The smallest example found against each axiom, or None where it held; and on how many networks."""
    sizes, passes = workable(method)
    networks = affordable(draw.n, passes)
    found = {
        axiom: smallest(method, axiom, sizes, networks=networks, seed=draw.seed, thorough=axiom in method.claims)
        for axiom in LAWS
    }
    return found, networks


def _line(axiom: str, is_claimed: bool, example: Example | None) -> str:
    claim, holds = "claimed    " if is_claimed else "not claimed", "holds" if example is None else "VIOLATED"
    return f"{axiom:26}{claim}  {holds}" + (f": {example.look()}" if example else "")


def _paste(claimed: list[str], found: Mapping[str, Example | None]) -> str:
    """One piece of Python for each claim that is violated."""
    broken = [(axiom, example) for axiom, example in found.items() if axiom in claimed and example]
    return "\n\n".join(f"# {axiom}: {example.look()}\n{example.code}" for axiom, example in broken)
