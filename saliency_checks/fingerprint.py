"""Short hashes of what a subject is made of: whether two results looked at the same images and the same weights."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from contextlib import suppress

import torch
from torch import Tensor

from saliency_checks.explain import BLOCK
from saliency_checks.subject import Subject

LETTERS = 12


def fingerprint(subject: Subject) -> dict[str, str]:
    """``data``: the first images, their classes and how many there are; ``model``: all parameters and buffers.

    The same on every machine for the same numbers. Networks that were trained elsewhere from the same recipe may
    differ in the last digits: then ``model`` differs.
    """
    if "fingerprint" not in subject.cache:
        rows = slice(BLOCK)
        state = subject.model.state_dict()
        subject.cache["fingerprint"] = {
            "data": _hash(str(len(subject)), [subject.inputs[rows], subject.targets[rows]]),
            "model": _hash(" ".join(state), (value for value in state.values() if isinstance(value, Tensor))),
        }
    found: dict[str, str] = subject.cache["fingerprint"]
    return found


def _hash(text: str, tensors: Iterable[Tensor]) -> str:
    digest = hashlib.blake2b(text.encode())
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        with suppress(RuntimeError, NotImplementedError):  # sparse and quantised ones are told apart by shape alone
            # Bytes, because numpy lacks bfloat16; a scalar has no last dimension to view.
            host = tensor.detach().cpu().contiguous().reshape(-1)
            digest.update(host.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:LETTERS]
