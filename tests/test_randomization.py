"""Layers in the order in which they run; what is drawn again and what stays as it was."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from saliency_checks import vision
from saliency_checks.randomization import (
    Redraw,
    blocks,
    bottom_up,
    cascading,
    independent,
    reinitialise,
    weighted_layers,
)
from saliency_checks.subject import Unqualified

from toys import conv_net, mlp, noise

INPUTS = noise(40, 3, seed=4)


class Backwards(nn.Module):
    """Modules are defined in another order than they run; one is used twice, one never."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(8, 4)
        self.unused = nn.Linear(8, 8)
        self.middle = nn.Linear(8, 8)
        self.first = nn.Linear(192, 8)

    def forward(self, x):
        x = self.first(x.flatten(1)).tanh()
        return self.last(self.middle(self.middle(x)))


class Attention(nn.Module):
    """Parameters that no called module owns: positions of its own, and the projections inside attention."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(12, 4)
        self.attend = nn.MultiheadAttention(12, 2, batch_first=True)
        self.scale = Scale()
        self.embed = nn.Conv2d(3, 12, 4, stride=4)
        self.place = nn.Parameter(torch.randn(1, 4, 12))

    def forward(self, x):
        x = self.embed(x).flatten(2).transpose(1, 2) + self.place
        x = x + self.attend(x, x, x, need_weights=False)[0]
        return self.head(self.scale(x).mean(1))


class Scale(nn.Module):
    """Bare parameters and no initialiser; all equal, as layer scale is."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.full((12,), 0.1))
        self.one = nn.Parameter(torch.tensor(2.0))

    def forward(self, x):
        return x * self.gain * self.one


def deep(depth: int) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(192, 4), *[nn.Linear(4, 4) for _ in range(depth - 1)])


def as_trained(model: nn.Module) -> nn.Module:
    """No parameter stands where an initialiser would put it."""
    rng = torch.Generator().manual_seed(11)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if not name.startswith("scale."):
                parameter.add_(0.05 + 0.1 * torch.randn(parameter.shape, generator=rng))
    return model.eval()


def models() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    weight_norm = nn.utils.parametrizations.weight_norm
    found = {
        "conv net": conv_net(),
        "mlp": mlp(3),
        "backwards": Backwards(),
        "attention": Attention(),
        "one layer": deep(1),
        "deep": deep(19),
        "weight norm": nn.Sequential(weight_norm(nn.Conv2d(3, 4, 3)), nn.Flatten(), weight_norm(nn.Linear(144, 4))),
    }
    return {name: as_trained(model) for name, model in found.items()}


every_model = pytest.mark.parametrize("model", models().values(), ids=models().keys())


def state(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


def changed(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that differ; a change by rounding is a mistake of its own, so it is not tolerated."""
    assert one.keys() == two.keys()
    return {name for name in one if not torch.equal(one[name], two[name])}


def drawn(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> set[str]:
    """Names of the tensors that differ by more than a hundredth of their size."""
    return {k for k in changed(one, two) if (one[k] - two[k]).abs().max() > 0.01 * one[k].abs().max()}


def owned(model: nn.Module, layers: tuple[str, ...]) -> set[str]:
    """Names of the tensors that the layers themselves own."""
    own = {
        layer: [
            *(name for name, _ in model.get_submodule(layer).named_parameters(recurse=False)),
            *(name for name, _ in model.get_submodule(layer).named_buffers(recurse=False)),
        ]
        for layer in layers
    }
    return {f"{layer}.{name}".lstrip(".") for layer, names in own.items() for name in names}


def test_layers_come_in_the_order_in_which_they_run():
    found = weighted_layers(Backwards(), INPUTS)
    assert [name for name in found if name != "unused"] == ["first", "middle", "last"]


def test_a_layer_that_is_never_called_stands_with_the_module_around_it():
    assert weighted_layers(Attention(), INPUTS) == ["", "embed", "attend", "attend.out_proj", "scale", "head"]


def test_looking_for_the_order_leaves_no_hooks_also_when_the_model_raises():
    model = Backwards()
    with pytest.raises(RuntimeError):
        weighted_layers(model, noise(2, 1))
    weighted_layers(model, INPUTS)
    assert not any(module._forward_pre_hooks for module in model.modules())


@every_model
@pytest.mark.parametrize("most", [1, 2, 3, 8, 100])
def test_blocks_hold_every_parameter_exactly_once_from_the_output_down(model, most):
    found = blocks(model, INPUTS, most)
    flat = [layer for block in found for layer in block]
    assert flat == weighted_layers(model, INPUTS)[::-1]
    assert len(found) == min(most, len(flat))
    assert max(map(len, found)) - min(map(len, found)) <= 1
    names = [name for layer in flat for name in owned(model, (layer,)) & set(dict(model.named_parameters()))]
    assert sorted(names) == sorted(dict(model.named_parameters()))


def test_a_deep_model_is_randomised_in_at_most_eight_steps():
    assert len(list(cascading(deep(30), INPUTS, 0))) == 8
    assert len(list(independent(deep(30), INPUTS, 0))) == 8


@settings(max_examples=15)
@given(st.integers(1, 25), st.integers(1, 10))
def test_blocks_are_nearly_equal_at_any_depth(depth, most):
    lengths = [len(block) for block in blocks(deep(depth), INPUTS, most)]
    assert sum(lengths) == depth
    assert max(lengths) - min(lengths) <= 1


def test_a_model_without_parameters_does_not_qualify():
    with pytest.raises(Unqualified, match="no parameters"):
        blocks(nn.Flatten(), INPUTS)


def test_a_model_that_cannot_be_copied_does_not_qualify_and_says_why():
    class Stubborn(nn.Linear):
        def __deepcopy__(self, memo):
            raise TypeError("holds a lock")

    with pytest.raises(Unqualified, match=r"cannot be copied .*holds a lock.*copy\.deepcopy"):
        list(cascading(nn.Sequential(nn.Flatten(), Stubborn(192, 4)), INPUTS, 0))


@every_model
def test_the_cascade_is_cumulative_and_leaves_the_model_alone(model):
    before, done, last = state(model), (), state(model)
    steps = blocks(model, INPUTS)
    for block, (layer, twin) in zip(steps, cascading(model, INPUTS, 5), strict=True):
        now = state(twin)
        done += block
        assert layer == block[-1]
        assert owned(model, block) & changed(last, now), "this step drew nothing"
        assert changed(before, now) <= owned(model, done)
        assert twin is not model
        assert not twin.training
        last = now
    assert drawn(before, last) >= set(dict(model.named_parameters())), "some parameter was never drawn again"
    assert not changed(before, state(model))


@every_model
def test_independent_randomisation_draws_one_block_and_leaves_the_others_bit_for_bit(model):
    before = state(model)
    for block, (layer, twin) in zip(blocks(model, INPUTS), independent(model, INPUTS, 5), strict=True):
        touched = changed(before, state(twin))
        assert touched
        assert touched <= owned(model, block), f"drawing {layer} again changed other layers"
        assert set(dict(twin.named_parameters())) & owned(model, block) <= drawn(before, state(twin))
    assert not changed(before, state(model))


@pytest.mark.parametrize("states", [cascading, independent])
def test_a_model_in_train_mode_stays_in_it_with_its_statistics(states):
    model = as_trained(conv_net())
    model.train()
    before = state(model)
    list(states(model, INPUTS, 0))
    assert not changed(before, state(model))
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("states", [cascading, independent])
def test_same_seed_same_weights_and_other_seed_other_weights(states):
    one, two, other = ([state(twin) for _, twin in states(conv_net(), INPUTS, seed)] for seed in (3, 3, 4))
    assert all(not changed(a, b) for a, b in zip(one, two, strict=True))
    assert all("7.weight" in changed(a, b) for a, b in zip(one[:1], other[:1], strict=True))
    assert "0.weight" in changed(one[-1], other[-1])


def test_the_last_cascade_step_and_the_independent_ones_draw_the_same_weights():
    *_, (_, full) = cascading(conv_net(), INPUTS, 3)
    for block, (_, twin) in zip(blocks(conv_net(), INPUTS), independent(conv_net(), INPUTS, 3), strict=True):
        for name in owned(full, block) & set(dict(full.named_parameters())):
            assert torch.equal(full.get_parameter(name), twin.get_parameter(name))


def test_layers_of_equal_shape_get_different_weights():
    *_, (_, twin) = cascading(deep(6), INPUTS, 0)
    weights = [layer.weight for layer in list(twin)[2:]]
    assert all(not torch.equal(a, b) for i, a in enumerate(weights) for b in weights[:i])


@pytest.mark.parametrize("states", [cascading, independent])
def test_the_global_generators_are_left_alone(states):
    model = as_trained(Attention())
    kept = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()  # noqa: NPY002
    list(states(model, INPUTS, 0))
    assert torch.equal(torch.get_rng_state(), kept[0])
    assert np.array_equal(np.random.get_state()[1], kept[1])  # noqa: NPY002
    assert random.getstate() == kept[2]


def test_linear_layers_get_their_own_initialiser_s_range():
    model = as_trained(nn.Sequential(nn.Flatten(), nn.Linear(192, 500)))
    with torch.no_grad():
        model[1].weight.mul_(100)
    reinitialise(model, ("1",), INPUTS, 0)
    bound = 192**-0.5
    assert model[1].weight.abs().max() <= bound
    assert abs(model[1].weight.std().item() / (bound / 3**0.5) - 1) < 0.02


def test_a_bare_parameter_keeps_its_mean_and_spread_but_not_its_values():
    class Bare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bias = nn.Parameter(3 + 0.5 * torch.randn(20_000, generator=torch.Generator().manual_seed(0)))

        def forward(self, x):
            return x.flatten(1)[:, :1] + self.bias

    model, before = Bare(), Bare().bias.detach().clone()
    reinitialise(model, ("",), INPUTS, 0)
    values = model.bias.detach()
    assert abs(values.mean() - 3) < 0.02
    assert abs(values.std() - 0.5) < 0.02
    assert abs(torch.corrcoef(torch.stack([values, before]))[0, 1]) < 0.03


def test_batch_norm_forgets_its_statistics_and_takes_them_from_the_images():
    model = as_trained(conv_net())
    model[1].momentum = 0.1
    reinitialise(model, ("0", "1"), INPUTS, 9)
    with torch.no_grad():
        activations = model[0](INPUTS)
    flat = activations.transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[1].running_mean, flat.mean(1), atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(model[1].running_var, flat.var(1), atol=1e-6, rtol=1e-4)
    assert model[1].momentum == 0.1
    assert not any(module.training for module in model.modules())
    normed = model[1](activations).transpose(0, 1).flatten(1)
    torch.testing.assert_close(normed.mean(1), torch.zeros(6), atol=1e-5, rtol=0)


def test_batch_norm_averages_over_more_than_one_batch_of_images():
    model, many = as_trained(conv_net()), noise(256, 3, seed=6)
    reinitialise(model, ("1",), many, 9)
    with torch.no_grad():
        batches = [model[0](batch).transpose(0, 1).flatten(1) for batch in many.split(64)]
    torch.testing.assert_close(model[1].running_mean, torch.stack([b.mean(1) for b in batches]).mean(0))
    torch.testing.assert_close(model[1].running_var, torch.stack([b.var(1) for b in batches]).mean(0))


def test_dropout_does_not_act_while_batch_norm_is_recalibrated():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 1), nn.Dropout(0.9), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 4)
    ).eval()
    reinitialise(model, ("2",), INPUTS, 0)
    with torch.no_grad():
        flat = model[0](INPUTS).transpose(0, 1).flatten(1)
    torch.testing.assert_close(model[2].running_mean, flat.mean(1), atol=1e-6, rtol=1e-5)


def stacked() -> nn.Sequential:
    """Two convolutions with a batch norm each; as trained: large statistics."""
    torch.manual_seed(1)
    net = nn.Sequential(
        nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 5, 3), nn.BatchNorm2d(5), nn.ReLU(),
        nn.Flatten(), nn.Linear(80, 4),
    )  # fmt: skip
    with torch.no_grad():
        net[0].weight.mul_(30)
        net[3].weight.mul_(30)
    net.train()(INPUTS)
    return net.eval()


def test_after_every_step_of_the_cascade_drawn_batch_norms_fit_what_reaches_them():
    """Their inputs change again with every lower layer; with the old statistics activations vanish or explode."""
    done: list[str] = []
    for block, (_, twin) in zip(blocks(stacked(), INPUTS), cascading(stacked(), INPUTS, 2), strict=True):
        done += block
        for name in set(done) & {"1", "4"}:
            with torch.no_grad():
                flat = twin[: int(name)](INPUTS).transpose(0, 1).flatten(1)
            spread = flat.std(1)  # drawn together, the upper norm saw batches that the lower one had just normed
            assert ((twin.get_submodule(name).running_mean - flat.mean(1)) / spread).abs().max() < 0.01
            assert (twin.get_submodule(name).running_var / spread**2 - 1).abs().max() < 0.01


@every_model
def test_from_the_input_up_the_blocks_are_the_same_in_the_other_order(model):
    before, done = state(model), set()
    steps = blocks(model, INPUTS)[::-1]
    for block, (layer, twin) in zip(steps, bottom_up(model, INPUTS, 5), strict=True):
        done |= owned(model, block)
        assert layer == block[0], "the last one of its block that runs"
        assert changed(before, state(twin)) <= done
    assert not changed(before, state(model))


def test_both_directions_end_at_the_same_weights():
    *_, (_, down) = cascading(conv_net(), INPUTS, 3)
    *_, (_, up) = bottom_up(conv_net(), INPUTS, 3)
    for (name, one), (_, two) in zip(down.named_parameters(), up.named_parameters(), strict=True):
        assert torch.equal(one, two), name


def test_per_layer_there_are_as_many_steps_as_layers():
    how = Redraw(most=None)
    assert len(list(cascading(deep(30), INPUTS, 0, how))) == 30
    assert len(list(bottom_up(deep(30), INPUTS, 0, how))) == 30


def test_the_truncated_normal_of_the_paper_draws_weights_within_two_spreads_and_leaves_vectors_to_the_layer():
    model = as_trained(nn.Sequential(nn.Flatten(), nn.Linear(192, 500)))
    reinitialise(model, ("1",), INPUTS, 0, how=Redraw(law="truncated", spread=0.01))
    assert model[1].weight.abs().max() <= 0.02
    # The spread of a normal cut off at two of its own: sqrt(1 - 4 phi(2) / (2 Phi(2) - 1)).
    assert model[1].weight.std().item() == pytest.approx(0.01 * 0.8796, rel=0.01)
    assert 0.02 < model[1].bias.abs().max() <= 192**-0.5


def test_batch_norm_statistics_are_kept_reset_or_recalibrated_by_choice():
    before = stacked()
    found = {}
    for choice in ("kept", "reset", "recalibrated"):
        *_, (_, found[choice]) = cascading(stacked(), INPUTS, 0, Redraw(statistics=choice))
    assert torch.equal(found["kept"][1].running_mean, before[1].running_mean)
    assert torch.equal(found["kept"][1].running_var, before[1].running_var)
    assert not found["reset"][1].running_mean.any()
    assert (found["reset"][1].running_var == 1).all()
    with torch.no_grad():
        flat = found["recalibrated"][0](INPUTS).transpose(0, 1).flatten(1)
    torch.testing.assert_close(found["recalibrated"][1].running_mean, flat.mean(1), atol=1e-6, rtol=1e-4)


def test_other_choices_are_refused():
    for wrong in ({"law": "uniform"}, {"statistics": "frozen"}):
        with pytest.raises(ValueError, match="expected one of"):
            Redraw(**wrong)


class Offset(nn.Module):
    """A buffer that is no statistic of a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("offset", torch.linspace(1, 2, 192))
        self.register_buffer("count", torch.tensor(3))
        self.head = nn.Linear(192, 4)

    def forward(self, x):
        return self.head(x.flatten(1) - self.offset)


def test_bare_buffers_are_drawn_only_where_that_is_asked_for():
    before = state(Offset())
    *_, (_, kept) = cascading(Offset(), INPUTS, 0)
    *_, (_, drawn_too) = cascading(Offset(), INPUTS, 0, Redraw(buffers=True))
    assert "offset" not in changed(before, state(kept))
    assert "offset" in changed(before, state(drawn_too))
    assert "count" not in changed(before, state(drawn_too))
    assert abs(drawn_too.offset.mean() - 1.5) < 0.1


def architecture(name: str) -> nn.Module:
    """Untrained, small where the family allows it."""
    models = vision.torchvision().models
    torch.manual_seed(0)
    if name == "vision transformer":
        return models.VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=8, mlp_dim=16, num_classes=4)
    if name == "inception v3":
        return models.inception_v3(weights=None, aux_logits=False, init_weights=False, num_classes=4)
    return models.resnet18(num_classes=4)


@pytest.mark.parametrize(
    ("name", "side", "first", "last"),
    [
        ("vision transformer", 16, "conv_proj", "heads.head"),
        ("resnet18", 32, "conv1", "fc"),
        ("inception v3", 80, "Conv2d_1a_3x3.conv", "fc"),
    ],
)
def test_large_architectures_are_randomised_whole_in_the_order_in_which_they_run(name, side, first, last):
    model = architecture(name).eval()
    images = noise(2, 3, size=side)
    layers = weighted_layers(model, images)
    assert layers.index(first) < layers.index(last)
    assert layers[-1] == last
    as_trained(model)
    moved = state(model)
    *_, (_, twin) = cascading(model, images, 0)
    assert set(dict(model.named_parameters())) <= changed(moved, state(twin)), "a parameter was not drawn again"
    assert torch.isfinite(twin(images)).all()
    assert not changed(moved, state(model))
