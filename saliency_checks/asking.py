"""The same images, asked about another class.

``asked(subject, "least_likely")`` is the negative control of saliencysense: every metric runs on it, and scores of
faithfulness must collapse there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import evaluating, generator
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int

CLASSES = ("given", "most_likely", "least_likely", "random")


def logits(subject: Subject) -> Float[Tensor, "n k"]:
    """Of all images, computed once."""
    if "logits" not in subject.cache:
        with evaluating(subject.model):
            subject.cache["logits"] = chunked(subject.model, subject.inputs, per_pass(subject.inputs))
    found: Tensor = subject.cache["logits"]
    return found


def classes(subject: Subject, which: str, seed: int = 0) -> Int[Tensor, " n"]:
    """The class of each image to ask for, a name from ``CLASSES``; a random one is never the given one."""
    if which not in CLASSES:
        raise ValueError(f"classes {which!r}: expected one of {', '.join(CLASSES)}")
    found = logits(subject)
    if which == "random":
        count = found.shape[1]
        rng = generator("random class", subject.name, seed)
        step = 1 + (torch.rand(len(subject), generator=rng) * (count - 1)).long().clamp(max=count - 2)
        return (subject.targets + step.to(subject.targets)) % count
    return {"given": subject.targets, "most_likely": found.argmax(1), "least_likely": found.argmin(1)}[which]


def diagnostics(subject: Subject) -> dict[str, tuple[Int[Tensor, " n"], Float[Tensor, " n"]]]:
    """Class and probability of each image's given, most likely and least likely class."""
    probabilities = logits(subject).softmax(1)
    found = {which: classes(subject, which) for which in CLASSES if which != "random"}
    return {which: (of, probabilities.gather(1, of.unsqueeze(1))[:, 0]) for which, of in found.items()}


def asked(subject: Subject, which: str, seed: int = 0) -> Subject:
    """The subject with each image's class replaced; what is known about the given class is left out.

    Args:
        which: ``given`` (the ground truth, where targets are labels), ``most_likely``, ``least_likely``, ``random``.
    """
    if which == "given":
        return subject
    return replace(
        subject, targets=classes(subject, which, seed), name=f"{subject.name}_{which}", truth=None, decoys=None,
        removable=False, replicas=(), least_replicas=0, graded=False, layered=None, source=None,
    )  # fmt: skip
