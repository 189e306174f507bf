"""The explanation that is right by construction: what a check must pass if anything is to pass it."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from torch import Tensor, nn

from saliency_checks.method import Method
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int

    Images = Float[Tensor, "n c h w"]

Sites = list[tuple[int, Tensor]]


def truth_oracle(subject: Subject) -> Method:
    """A method that looks up the subject's truth masks (not registered: it explains these images only).

    The map is 1 on the cause of the asked class; for a class without a cause in the image, -1 on the causes
    there are. Images of the subject, its two-cause images and its replicas are known, and found by their exact
    values.

    Raises:
        LookupError: on call, for an image that the subject does not hold.
    """
    known: dict[bytes, Sites] = {}
    members = (subject.members(count)[count] for count in range(len(subject.replicas) + 1))  # trained when first needed

    def sites(image: Float[Tensor, "c h w"]) -> Sites:
        while _key(image) not in known:
            member = next(members, None)
            if member is None:
                raise LookupError(f"the oracle of {subject.name!r} was asked about an image that the subject lacks")
            known.update(_sites(member))
        return known[_key(image)]

    def explain(model: nn.Module, inputs: Images, targets: Int[Tensor, " n"]) -> Float[Tensor, "n h w"]:
        result = inputs.new_zeros(len(inputs), *inputs.shape[-2:])
        for row, image, target in zip(result, inputs, targets.tolist(), strict=True):
            own = [site for label, site in sites(image) if label == target]
            for site in own or [site for _, site in sites(image)]:
                row[site.to(row.device)] = 1.0 if own else -1.0
        return result

    return Method(name="oracle", explain=explain, signed=True)


def _key(image: Float[Tensor, "c h w"]) -> bytes:
    return hashlib.blake2b(image.detach().cpu().numpy().tobytes(), digest_size=16).digest()


def _sites(subject: Subject) -> dict[bytes, Sites]:
    if subject.truth is None:
        raise ValueError(f"subject {subject.name!r} offers no truth mask, so it has no oracle")
    rows = zip(subject.inputs, subject.targets.tolist(), subject.truth, strict=True)
    known: dict[bytes, Sites] = {_key(image): [(label, site)] for image, label, site in rows}
    if subject.contrast is not None:
        pairs = subject.pairs
        for image, labels, sites in zip(pairs.inputs, pairs.targets.tolist(), pairs.sites, strict=True):
            known[_key(image)] = list(zip(labels, sites, strict=True))
    return known
