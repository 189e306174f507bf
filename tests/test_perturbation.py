"""The engine against a naive loop; fills and curves against closed forms on linear models."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saliency_checks import chunking
from saliency_checks.explain import generator
from saliency_checks.maps import random_orders
from saliency_checks.perturbation import local_mean, outputs
from saliency_checks.perturbation.imputers import Scene, filled

from toys import conv_net, noise


class Linear(nn.Module):
    """Two logits, linear in the pixels, in float64."""

    def __init__(self, channels: int, height: int, width: int, seed: int = 0) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        )

    def forward(self, x):
        return torch.einsum("nchw,kchw->nk", x, self.weight)


def naive(model, inputs, fill, order, counts):
    """One image, one step, one pixel at a time."""
    rows = []
    for image, replacement, pixels in zip(inputs, fill, order, strict=True):
        for count in counts:
            changed = image.clone()
            for pixel in pixels[:count].tolist():
                row, column = divmod(pixel, image.shape[-1])
                changed[:, row, column] = replacement[:, row, column]
            rows.append(model(changed.unsqueeze(0))[0])
    return torch.stack(rows).view(len(inputs), len(counts), -1)


sizes = st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 5), st.integers(1, 5))


@settings(max_examples=30)
@given(
    sizes, st.lists(st.integers(0, 30), min_size=1, max_size=5), st.integers(0, 99), st.sampled_from([1, 7, 64, 10**6])
)
def test_outputs_are_those_of_a_loop_over_images_steps_and_pixels(size, counts, seed, elements):
    n, c, h, w = size
    rng = torch.Generator().manual_seed(seed)
    inputs, fill = (torch.randn(n, c, h, w, generator=rng, dtype=torch.float64) for _ in range(2))
    order, model = random_orders(n, h * w, generator=rng), Linear(c, h, w, seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunking, "ELEMENTS_PER_PASS", elements)
        found = outputs(model, inputs, fill, order, counts)
    torch.testing.assert_close(found, naive(model, inputs, fill, order, counts), atol=1e-12, rtol=0)
    assert not found.requires_grad


@pytest.mark.parametrize("elements", [1, 500, 3 * 64 * 7, 1 << 20])
def test_outputs_do_not_depend_on_the_chunk_size(elements, monkeypatch):
    model, inputs = conv_net().double(), noise(5, 3).double()
    order = random_orders(5, 64, generator=generator("chunks"))
    whole = outputs(model, inputs, torch.zeros_like(inputs), order, (0, 3, 64))
    batches = []
    model.register_forward_pre_hook(lambda m, args: batches.append(len(args[0])))
    monkeypatch.setattr(chunking, "ELEMENTS_PER_PASS", elements)
    cut = outputs(model, inputs, torch.zeros_like(inputs), order, (0, 3, 64))
    torch.testing.assert_close(cut, whole, atol=1e-12, rtol=0)
    assert sum(batches) == 15
    assert max(batches) == min(15, max(1, elements // 192))


def test_an_image_alone_gives_the_same_as_in_a_batch():
    model, inputs = conv_net().double(), noise(5, 3).double()
    order = random_orders(5, 64, generator=generator("alone"))
    whole = outputs(model, inputs, inputs.flip(0), order, (1, 9))
    alone = outputs(model, inputs[2:3], inputs.flip(0)[2:3], order[2:3], (1, 9))
    torch.testing.assert_close(alone, whole[2:3], atol=1e-12, rtol=0)


def test_nothing_removed_is_the_image_and_all_removed_is_the_fill():
    model, inputs = conv_net(), noise(3, 3)
    fill = torch.rand(3, 3, 8, 8, generator=generator("fill"))
    order = random_orders(3, 64, generator=generator("ends"))
    found = outputs(model, inputs, fill, order, (0, 64))
    with torch.no_grad():
        expected = torch.stack([model(inputs), model(fill)], dim=1)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


class Cramped(nn.Module):
    """A model on a device with room for so many images."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.batches = room, []

    def forward(self, x):
        self.batches.append(len(x))
        if len(x) > self.room:
            raise torch.OutOfMemoryError("no room")
        return x.flatten(1).double() @ torch.arange(64.0).double().view(64, 1)


def test_a_batch_that_does_not_fit_is_halved_until_it_does():
    inputs, order = noise(6), random_orders(6, 64, generator=generator("cramped"))
    fill = torch.zeros_like(inputs)
    model = Cramped(room=3)
    found = outputs(model, inputs, fill, order, (0, 5, 20, 64))
    assert torch.equal(found, outputs(Cramped(room=99), inputs, fill, order, (0, 5, 20, 64)))
    assert max(model.batches[-8:]) <= 3


def test_an_image_that_does_not_fit_alone_is_an_error_and_leaves_the_mode():
    inputs, model = noise(2), Cramped(room=0).train()
    with pytest.raises(torch.OutOfMemoryError, match="no room"):
        outputs(model, inputs, inputs, random_orders(2, 64, generator=generator("none")), (0, 1))
    assert model.training


def test_other_errors_are_not_retried():
    class Broken(nn.Module):
        calls = 0

        def forward(self, x):
            Broken.calls += 1
            raise RuntimeError("shape")

    with pytest.raises(RuntimeError, match="shape"):
        outputs(Broken(), noise(4), noise(4), random_orders(4, 64, generator=generator("broken")), (0, 1))
    assert Broken.calls == 1


@pytest.mark.parametrize("raises", [False, True])
def test_the_model_runs_in_eval_mode_and_every_module_keeps_its_own(raises):
    model, inputs = conv_net(), noise(4, 3)
    model.train()
    model[1].eval()  # a frozen batch norm in a model that trains
    before, state, seen = [m.training for m in model.modules()], model[1].running_mean.clone(), []

    def look(module, args):
        seen.append(module.training)
        if raises:
            raise RuntimeError("half way")

    for module in model.modules():
        module.register_forward_pre_hook(look)
    try:
        outputs(model, inputs, inputs, random_orders(4, 64, generator=generator("mode")), (0, 1))
    except RuntimeError:
        assert raises
    assert seen
    assert not any(seen)
    assert [m.training for m in model.modules()] == before
    assert torch.equal(model[1].running_mean, state)


def scene(inputs, value=0.0, everything=None, seed=0):
    return Scene(
        inputs=inputs, absent=torch.as_tensor(value, dtype=inputs.dtype).expand(inputs.shape[1]).view(1, -1, 1, 1),
        everything=inputs if everything is None else everything, generator=torch.Generator().manual_seed(seed),
    )  # fmt: skip


def test_the_absent_fill_is_the_given_colour_and_black_is_zero():
    inputs, value = noise(3, 2), torch.tensor([0.25, -1.0])
    mean, black = filled("absent", scene(inputs, value)), filled("black", scene(inputs, value))
    assert mean.shape == black.shape == inputs.shape
    assert bool((mean[:, 0] == 0.25).all() and (mean[:, 1] == -1).all())
    assert not black.any()


@settings(max_examples=20)
@given(sizes.filter(lambda s: s[2] * s[3] > 1), st.integers(0, 99))
def test_the_local_mean_is_the_grey_mean_of_the_neighbours_without_the_pixel_itself(size, seed):
    n, c, h, w = size
    inputs = torch.rand(n, c, h, w, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    found = local_mean(inputs)
    grey = inputs.numpy().mean(1)
    for i, row, column in np.ndindex(n, h, w):
        around = [
            grey[i, y, x]
            for y in range(max(0, row - 2), min(h, row + 3))
            for x in range(max(0, column - 2), min(w, column + 3))
            if (y, x) != (row, column)
        ]
        np.testing.assert_allclose(found[i, :, row, column].numpy(), np.mean(around), atol=1e-12)


def test_a_spot_does_not_show_in_its_own_local_mean():
    inputs = torch.full((1, 3, 9, 9), 0.5)
    inputs[0, 0, 4, 4] = 1.0
    found = local_mean(inputs)
    torch.testing.assert_close(found[0, :, 4, 4], torch.full((3,), 0.5))
    assert found[0, 0, 4, 5] > 0.5


def test_the_deletion_curve_of_a_linear_model_is_a_sum_of_contributions():
    model = Linear(3, 6, 6)
    inputs = torch.rand(4, 3, 6, 6, generator=generator("inputs"), dtype=torch.float64)
    fill = torch.rand(4, 3, 6, 6, generator=generator("fills"), dtype=torch.float64)
    order, counts = random_orders(4, 36, generator=generator("linear")), range(37)
    contributions = ((inputs - fill).unsqueeze(1) * model.weight).sum(2).flatten(2)  # (n, classes, pixels)
    lost = contributions.gather(2, order.unsqueeze(1).expand_as(contributions)).cumsum(2)
    start = model(inputs)
    expected = torch.cat([start.unsqueeze(2), start.unsqueeze(2) - lost], dim=2).transpose(1, 2)
    torch.testing.assert_close(outputs(model, inputs, fill, order, counts), expected, atol=1e-12, rtol=0)


def test_inserting_the_most_relevant_is_deleting_the_least_relevant_read_backwards():
    model, inputs = conv_net().double(), noise(4, 3).double()
    fill = torch.full_like(inputs, 0.4)
    order, counts = random_orders(4, 64, generator=generator("insert")), (0, 1, 5, 32, 60, 64)
    inserted = outputs(model, fill, inputs, order, counts)  # the fill's pixels give way to the image's
    deleted = outputs(model, inputs, fill, order.flip(1), [64 - count for count in counts])
    torch.testing.assert_close(inserted, deleted, atol=1e-12, rtol=0)
