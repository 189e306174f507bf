"""A part of a study that asks one method about one subject: what it is keyed by, and when it has nothing to say."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from saliency_checks.explain import ContractError
from saliency_checks.method import Method
from saliency_checks.studies.provenance import code, digest_of
from saliency_checks.studies.store import Columns, Nothing, Unit
from saliency_checks.subject import Subject, Unqualified


def question(
    columns: Mapping[str, str], method: Method, subject: Subject, options: argparse.Namespace,
    make: Callable[[int], Columns], **settings: Any,
) -> Unit:  # fmt: skip
    """Made by ``make(images)``; where the method does not suit the subject, or breaks, the reason is kept instead."""

    def made() -> Columns:
        """
        Raises:
            Nothing: the method says nothing of this subject; the text says why.
        """
        if missing := sorted(method.needs - subject.offers):
            raise Nothing(f"{method.name} needs {', '.join(missing)}; {subject.name} offers none")
        try:
            return make(min(options.images, len(subject)))
        except (Unqualified, ContractError) as error:
            raise Nothing(str(error)) from error

    recipe = {
        "subject": digest_of(subject), "images": options.images, "seed": options.seed,
        "code": code(method.source or method.explain), **settings,
    }  # fmt: skip
    return Unit(columns=columns, recipe=recipe, make=made)
