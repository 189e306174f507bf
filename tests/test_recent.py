"""What is kept of maps and segments: a bounded number of bytes, and nothing that a score would notice."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import saliency_checks as sc
from saliency_checks import recent
from saliency_checks.explain import BLOCK
from saliency_checks.method import Method
from saliency_checks.metric import Draw
from saliency_checks.recent import Recent
from saliency_checks.subject import Subject

from toys import Weighted, made

FAMILY = (
    "deletion", "insertion", "srg", "aopc", "diffid", "irof", "minimal_subset_deletion", "minimal_subset_insertion",
    "sensitivity_n", "segment_sensitivity_n", "infidelity", "average_drop", "monotonicity_correlation",
)  # fmt: skip
FEW = {"draws": 4, "segments": "grid", "count": 9}
SIDE = 48


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9)), max_size=40), st.integers(1, 20))
def test_never_more_is_held_than_may_be_and_what_was_used_last_stays(asked, most):
    store, sizes, used = Recent(most), {}, []
    for key, size in asked:
        size = sizes.setdefault(key, size)
        found = store.get(key, lambda key=key, size=size: torch.full((size,), key, dtype=torch.uint8))
        assert found.tolist() == [key] * size
        used = [one for one in used if one != key] + [key] * (size <= most)
        while sum(sizes[one] for one in used) > most:  # the model: a list, oldest first
            del used[0]
        assert store.held == sum(sizes[one] for one in used) <= most
        assert list(store._found) == used


def large(images: int) -> tuple[Subject, Method, list[int]]:
    """Colour images of 48 pixels, a method whose calls are counted, and the sizes of its calls."""
    model, rng = Weighted(3, SIDE, 3, 0).eval(), torch.Generator().manual_seed(0)
    inputs = torch.rand(images, 3, SIDE, SIDE, generator=rng, dtype=torch.float64)
    with torch.no_grad():
        subject = Subject(model, inputs, model(inputs).argmax(1), absent=0.3)
    sizes: list[int] = []

    def explain(model, inputs, targets):
        sizes.append(len(inputs))
        return model.weight[targets].detach() * (inputs - 0.3)

    return subject, made(explain, "counted", signed=True), sizes


def scores(name: str, method: Method, subject: Subject) -> np.ndarray:
    metric = sc.get("metrics", name)
    changes = {key: value for key, value in FEW.items() if hasattr(metric.settings, key)}
    return metric.with_settings(**changes).measure(method, subject, Draw(n=len(subject))).values


def held(found: Any) -> int:
    """Bytes of all tensors and arrays in there."""
    if isinstance(found, torch.Tensor | np.ndarray):
        return found.nbytes
    if isinstance(found, dict):
        return sum(map(held, found.values()))
    if isinstance(found, tuple | list):
        return sum(map(held, found))
    return sum(held(getattr(found, one.name)) for one in fields(found)) if is_dataclass(found) else 0


def test_what_the_family_keeps_of_an_image_is_little_beside_the_image(monkeypatch):
    """Curves and sums for ever, maps and segments as far as they fit. A map in their place would be a third or more."""
    monkeypatch.setattr(recent, "MOST_BYTES", 4 * 3 * SIDE**2 * 8)
    kept = []
    for images in (8, BLOCK + 8):
        subject, method, _ = large(images)
        for name in FAMILY:
            scores(name, method, subject)
        assert subject.recent.held <= recent.MOST_BYTES
        kept.append(held(subject.cache))
    assert (kept[1] - kept[0]) / BLOCK < subject.inputs[0].nbytes / 4


@pytest.mark.parametrize("name", FAMILY)
def test_a_score_makes_each_map_once_where_a_block_is_kept_and_is_the_same(name, monkeypatch):
    subject, method, sizes = large(BLOCK + 4)
    expected = scores(name, method, subject)
    once, again = sum(sizes), replace(subject)
    monkeypatch.setattr(recent, "MOST_BYTES", BLOCK * subject.inputs[0].nbytes)  # one block
    np.testing.assert_array_equal(scores(name, method, again), expected)
    assert again.recent.held <= recent.MOST_BYTES < subject.recent.held
    assert sum(sizes) - once == once == BLOCK + 4


def test_small_problems_keep_everything():
    """As in a standard profile: 256 images of 28 pixels and ten methods; nothing is explained twice."""
    images = torch.rand(256, 1, 28, 28)
    subject, explained = Subject(torch.nn.Flatten(), images, torch.zeros(256, dtype=torch.long)), []

    def explain(model, inputs, targets):
        explained.append(len(inputs))
        return inputs

    for number in range(10):
        method = made(explain, f"m{number}")
        for _ in range(2):
            sc.get("metrics", "entropy").measure(method, subject, Draw(n=256))
    assert sum(explained) == 10 * 256
    assert subject.recent.held == 10 * images.nbytes < recent.MOST_BYTES / 30


def test_whether_a_map_is_constant_is_remembered_where_the_map_is_not(monkeypatch):
    from saliency_checks.explain import constant_maps

    monkeypatch.setattr(recent, "MOST_BYTES", 0)
    subject, method, sizes = large(BLOCK + 4)
    flat = made(lambda m, x, t: method.explain(m, x, t) * (t > 0).view(-1, 1, 1, 1), "flat", signed=True)
    for _ in range(2):
        assert torch.equal(constant_maps(flat, subject, BLOCK + 2), (subject.targets == 0)[: BLOCK + 2])
    assert sum(sizes) == BLOCK + 4
