"""LRP: limits and identities, z+ and the first layer's rules by hand, conservation, refusals."""

from __future__ import annotations

import captum.attr
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from saliency_checks import vision
from saliency_checks.methods import relevance
from saliency_checks.methods.gradient import input_x_gradient
from saliency_checks.methods.relevance import lrp

from convnets import HARD_NETS, RELUS, Calls, hard, images, linear, odd, pair, randomised

laws = settings(max_examples=10, deadline=None, derandomize=True)
seeds = st.integers(0, 2**31 - 1)
Y = torch.tensor([0, 1, 2])
COMPOSITES = ("epsilon", "epsilon_plus")


def without_biases(model: nn.Module) -> nn.Module:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.zero_()
    return model


def scores(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).gather(1, Y[:, None]).squeeze(1).detach()


class Residual(nn.Module):
    """Two blocks as in a ResNet: the first downsamples its shortcut, the second adds its input."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.conv1, self.bn1 = nn.Conv2d(6, 6, 3, 2, 1), nn.BatchNorm2d(6)
        self.conv2, self.bn2 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.short, self.bn3 = nn.Conv2d(6, 6, 1, 2), nn.BatchNorm2d(6)
        self.conv4, self.bn4 = nn.Conv2d(6, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.head = nn.Linear(6, 4)

    def forward(self, x):
        x = F.max_pool2d(self.bn(self.stem(x)).relu_(), 3, 1, 1)
        out = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu_()))
        out += self.bn3(self.short(x))
        out = out.relu_()
        return self.head((self.bn4(self.conv4(out)) + out).relu().mean((2, 3)))


def residual(seed: int = 0) -> nn.Module:
    model = randomised(Residual(), seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return model


# The epsilon rule ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in HARD_NETS if name != "batch norm"])
def test_without_biases_and_stabiliser_it_is_gradient_times_input_on_relu_networks(name):
    model, x = without_biases(hard(name)), images()
    found = lrp(model, x, Y, composite="epsilon", epsilon=0.0)
    torch.testing.assert_close(found, input_x_gradient(model, x, Y), rtol=1e-9, atol=1e-14)
    torch.testing.assert_close(found.sum((1, 2, 3)), scores(model, x))


def epsilon_by_hand(model: Calls, x: torch.Tensor, epsilon: float) -> torch.Tensor:
    """Bach et al. 2015, equation 58, unit by unit; what biases get is left with them."""
    parameters = [(layer.weight.detach(), layer.bias.detach()) for layer in (model.first, model.second, model.last)]
    values = [x.flatten(1)]
    for w, b in parameters:
        values.append(F.relu(values[-1] @ w.T + b))
    found = F.one_hot(Y, 4) * (values[2] @ parameters[2][0].T + parameters[2][1])
    for a, (w, b) in zip(values[2::-1], parameters[::-1], strict=True):
        z = a @ w.T + b
        shares = a[:, :, None] * w.T[None] / (z + epsilon * torch.where(z < 0, -1, 1))[:, None]
        found = torch.einsum("nij,nj->ni", shares, found)
    return found.view_as(x)


@pytest.mark.parametrize("epsilon", [1e-6, 0.25])
@pytest.mark.parametrize("relu", RELUS.values(), ids=RELUS)
def test_the_epsilon_rule_is_the_formula_however_the_relu_is_written(relu, epsilon):
    model, x = randomised(Calls(relu)), images() - 0.5
    found = lrp(model, x, Y, composite="epsilon", epsilon=epsilon)
    torch.testing.assert_close(found, epsilon_by_hand(model, x, epsilon))


def test_dense_layers_follow_epsilon_in_either_composite():
    model, x = randomised(Calls(F.relu)), images()
    one, two = (lrp(model, x, Y, composite=composite) for composite in COMPOSITES)
    assert torch.equal(one, two)


# z+ ------------------------------------------------------------------------------------------------------------------


class OneByOne(nn.Module):
    """A dense network of two layers, written as convolutions."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.last = nn.Conv2d(192, 7, 1), nn.Conv2d(7, 5, 1), nn.Linear(5, 4)

    def forward(self, x):
        hidden = self.second(self.first(x.reshape(-1, 192, 1, 1)).relu()).relu()
        return self.last(hidden.flatten(1))


def plus_by_hand(a: torch.Tensor, layer: nn.Conv2d, found: torch.Tensor) -> torch.Tensor:
    """Montavon et al. 2017, z+, for inputs of any sign; a positive bias takes its share."""
    products = (a[:, :, None] * layer.weight.detach()[:, :, 0, 0].T[None]).clamp(min=0)
    whole = products.sum(1) + layer.bias.detach().clamp(min=0)
    return torch.einsum("nij,nj->ni", (products / whole[:, None]).nan_to_num(), found)


def test_the_z_plus_rule_is_the_formula():
    model, x = randomised(OneByOne()), images() - 0.3
    a0 = x.flatten(1)
    a1 = model.first(a0[..., None, None]).relu().detach()
    a2 = model.second(a1).relu().detach().flatten(1)
    w = model.last.weight.detach()[Y]
    z = (a2 * w).sum(1, keepdim=True) + model.last.bias.detach()[Y, None]
    found = a2 * w * z / (z + 1e-6 * z.sign())
    expected = plus_by_hand(a0, model.first, plus_by_hand(a1.flatten(1), model.second, found)).view_as(x)
    torch.testing.assert_close(lrp(model, x, Y), expected)


def test_where_all_speaks_for_the_class_nothing_is_negative_and_nothing_lost():
    model, x = without_biases(randomised(OneByOne())), images()
    with torch.no_grad():
        model.last.weight.abs_()
    found = lrp(model, x, Y, epsilon=0.0)
    assert (found >= 0).all()
    torch.testing.assert_close(found.sum((1, 2, 3)), scores(model, x))


# Skip connections, batch norm, pooling -------------------------------------------------------------------------------


def test_a_sum_splits_relevance_in_proportion_to_its_summands():
    class Sum(nn.Module):
        def forward(self, x):
            a, b = x.flatten(1).unbind(1)
            return F.relu(a * 2 + b)[:, None]

    torch.testing.assert_close(lrp(Sum(), pair([3.0, -2.0]), Y[:1], epsilon=0.0), pair([6.0, -2.0]))


@pytest.mark.parametrize("composite", COMPOSITES)
@laws
@given(seed=seeds)
def test_relevance_is_conserved_through_residual_blocks_without_constants(composite, seed):
    model, x = residual(seed), images(seed=seed)
    without_biases(model)
    for name, tensor in [*model.named_buffers(), *model.named_parameters()]:
        if name.endswith("mean"):
            tensor.zero_()
        elif name.endswith(("weight", "var")) and "head" not in name:  # every unit has some positive input
            tensor.data.abs_() if "bn" in name else tensor.data.add_(0.1)
    found = lrp(model, x, Y, composite=composite, epsilon=0.0).sum((1, 2, 3))
    torch.testing.assert_close(found, scores(model, x), rtol=1e-6, atol=1e-9)


def folded(model: Residual) -> Residual:
    """Batch norm inside the weights, as another library would do it."""
    pairs = {"stem": "bn", "conv1": "bn1", "conv2": "bn2", "short": "bn3", "conv4": "bn4"}
    for conv, norm in pairs.items():
        merged = torch.nn.utils.fusion.fuse_conv_bn_eval(getattr(model, conv), getattr(model, norm))
        setattr(model, conv, merged)
        setattr(model, norm, nn.Identity())
    return model


@pytest.mark.parametrize("composite", COMPOSITES)
@pytest.mark.parametrize("first", ["same", "flat", "w_squared", "box"])
def test_batch_norm_counts_as_part_of_the_layer_before_it(composite, first):
    x = images()
    settings = {"composite": composite, "first": first}
    torch.testing.assert_close(lrp(residual(), x, Y, **settings), lrp(folded(residual()), x, Y, **settings))


@pytest.mark.parametrize("composite", COMPOSITES)
def test_an_image_gets_the_same_map_alone_and_in_a_batch(composite):
    model, x = residual(), images()
    alone = torch.cat([lrp(model, x[i : i + 1], Y[i : i + 1], composite=composite) for i in range(3)])
    torch.testing.assert_close(lrp(model, x, Y, composite=composite), alone)


# The layer that reads the pixels -------------------------------------------------------------------------------------


class Scaled(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model((x - 0.4) / torch.tensor([0.2, 0.3, 0.5], dtype=x.dtype).view(3, 1, 1))


@pytest.mark.parametrize("first", ["same", "flat", "w_squared", "box"])
def test_a_normalisation_inside_the_model_passes_each_pixel_s_relevance_on(first):
    model, x = residual(), images()
    outside = (x - 0.4) / torch.tensor([0.2, 0.3, 0.5], dtype=x.dtype).view(3, 1, 1)
    box = {} if first != "box" else {"bounds": (float(x.min()), float(x.max()))}
    found = lrp(Scaled(model), x, Y, first=first, **box)
    if first != "box":  # a box is not the same number for every channel behind a normalisation
        torch.testing.assert_close(found, lrp(model, outside, Y, first=first))
    assert (found.flatten(1).abs().sum(1) > 0).all()


def first_by_hand(first: str, x: torch.Tensor, w: torch.Tensor, r: torch.Tensor) -> torch.Tensor:
    if first == "flat":
        return r / 192 * torch.ones_like(x)
    if first == "w_squared":
        return r * w**2 / (w**2).sum(1, keepdim=True)
    low, high = x.amin(1, keepdim=True), x.amax(1, keepdim=True)
    z = x * w - low * w.clamp(min=0) - high * w.clamp(max=0)
    return r * z / z.sum(1, keepdim=True)


@pytest.mark.parametrize("first", ["flat", "w_squared", "box"])
def test_the_rules_of_the_first_layer_are_their_formulas_and_lose_nothing(first):
    """Montavon et al. 2017, table 1; Lapuschkin et al. 2019 (flat)."""
    model, x = linear(), images()
    expected = first_by_hand(first, x.flatten(1), model[1].weight[Y].detach(), scores(model, x)[:, None])
    torch.testing.assert_close(lrp(model, x, Y, first=first), expected.view_as(x))
    torch.testing.assert_close(expected.sum(1), scores(model, x))


# Attention -----------------------------------------------------------------------------------------------------------


def test_a_factor_gets_half_and_what_divides_gets_nothing():
    class Quotient(nn.Module):
        def forward(self, x):
            a, b, c = x.flatten(1).unbind(1)
            return (a * b / c)[:, None]

    x = torch.tensor([3.0, 4.0, 2.0], dtype=torch.float64).view(1, 1, 1, 3)
    expected = torch.tensor([3.0, 3.0, 0.0], dtype=torch.float64).view(1, 1, 1, 3)
    torch.testing.assert_close(lrp(Quotient(), x, Y[:1]), expected)


def test_layer_norm_is_its_centring_times_a_constant():
    model, x = randomised(nn.Sequential(nn.Flatten(), nn.LayerNorm(192), nn.Linear(192, 4))), images()
    flat = x.flatten(1)
    scale = (flat.var(1, correction=0, keepdim=True) + 1e-5) ** -0.5
    w = model[2].weight[Y].detach() * model[1].weight.detach() * scale
    expected = flat * (w - w.mean(1, keepdim=True))
    torch.testing.assert_close(lrp(model, x, Y, epsilon=0.0), expected.view_as(x))


def test_softmax_is_gradient_times_input():
    model, x = nn.Sequential(nn.Flatten(), nn.Softmax(1)), images()
    torch.testing.assert_close(lrp(model, x, Y), input_x_gradient(model, x, Y))


# Nothing is made or lost in silence ----------------------------------------------------------------------------------


class Odd(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.first, self.last, self.function = nn.Linear(192, 9), nn.Linear(9, 4), function

    def forward(self, x):
        return self.last(self.function(self.first(x.flatten(1))))


ODD = {
    "cumprod": lambda z: z.cumprod(1),
    "logsumexp": lambda z: z.logsumexp(1, keepdim=True) * torch.ones(9, dtype=z.dtype),
    "log": lambda z: z.abs().log(),  # what it makes of 0 is no constant
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lrp_names_the_function_that_has_no_rule(name, dtype):
    with pytest.raises(ValueError, match=f"lrp: .* has no rule here .*{name}"):
        lrp(randomised(Odd(ODD[name])).to(dtype), images().to(dtype), Y)


@pytest.mark.parametrize("name", HARD_NETS)
@pytest.mark.parametrize("composite", COMPOSITES)
def test_rounding_in_float32_is_not_taken_for_relevance_that_was_lost(name, composite):
    assert lrp(hard(name).float(), images().float(), Y, composite=composite).any()


def test_the_check_kills_a_skip_connection_that_is_counted_twice(monkeypatch):
    """What module hooks do that pass relevance through a sum as if it were a gradient."""

    def copied(self, call):
        output = call.own()
        return output.detach() + sum(output.detach() / one.detach() * (one - one.detach()) for one in call.traced)

    lrp(hard("residual"), images(), Y)
    monkeypatch.setattr(relevance.Relevance, "shift", copied)
    with pytest.raises(ValueError, match="contributions of the images sum to"):
        lrp(hard("residual"), images(), Y)


# captum as a peer ----------------------------------------------------------------------------------------------------


class Plain(nn.Module):
    """Modules as captum knows them; it has no rule for nn.Flatten."""

    def __init__(self, activation=None) -> None:
        super().__init__()
        self.conv1, self.relu1, self.pool = nn.Conv2d(3, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)
        self.conv2, self.relu2, self.fc = nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.Linear(8 * 16, 4)
        self.activation = activation or self.relu2

    def forward(self, x):
        hidden = self.pool(self.relu1(self.conv1(x)))
        return self.fc(self.activation(self.conv2(hidden)).flatten(1))


def captums(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    found: torch.Tensor = captum.attr.LRP(model).attribute(x, target=Y).detach()
    return found


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_s_epsilon_rule_agrees_on_modules_that_it_knows():
    model, x = randomised(Plain()), images()
    torch.testing.assert_close(
        lrp(model, x, Y, composite="epsilon", epsilon=1e-9), captums(model, x), rtol=1e-5, atol=0
    )


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_captum_loses_relevance_in_a_functional_silu_in_silence():
    """Why the rules act on functions. If this fails, captum has been mended."""
    model, x = randomised(Plain(F.silu)), images()
    ours = lrp(model, x, Y, composite="epsilon", epsilon=1e-9)
    assert (captums(model, x) - ours).abs().max() > 0.01 * ours.abs().max()


# Side by side with zennit ---------------------------------------------------------------------------------------------


def by_zennit(model, x, y, first):
    vision.torchvision()  # which zennit imports, where it does import
    from zennit.attribution import Gradient
    from zennit.canonizers import SequentialMergeBatchNorm
    from zennit.composites import SpecialFirstLayerMapComposite, layer_map_base
    from zennit.rules import Epsilon, Flat, WSquare, ZBox, ZPlus
    from zennit.types import Convolution, Linear

    rules = {
        "same": ZPlus(), "flat": Flat(), "epsilon": Epsilon(), "w_squared": WSquare(zero_params="bias"),
        "box": ZBox(low=torch.zeros_like(x), high=torch.ones_like(x)),
    }  # fmt: skip
    deeper = Epsilon() if first == "epsilon" else ZPlus()
    composite = SpecialFirstLayerMapComposite(
        layer_map=[(Convolution, deeper), (Linear, Epsilon()), *layer_map_base()],
        first_map=[(Convolution, rules[first])], canonizers=[SequentialMergeBatchNorm()],
    )  # fmt: skip
    with Gradient(model, composite) as attributor:
        return attributor(x.clone(), lambda logits: logits * F.one_hot(y, logits.shape[1]).to(logits))[1].detach()


@pytest.mark.parametrize("first", ["epsilon", "same", "flat", "box", "w_squared"])
def test_relevance_is_that_of_zennit(first):
    """With batch norm, pooling and biases; zennit counts the bias in the w^2 rule's denominator unless told not to."""
    model = randomised(
        nn.Sequential(
            nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.MaxPool2d(2),
            nn.Conv2d(6, 8, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
        )
    )  # fmt: skip
    x, y = images(), torch.tensor([0, 1, 2])
    if first == "epsilon":
        found = lrp(model, x, y, composite="epsilon")
    else:
        found = lrp(model, x, y, first=first, bounds=(0.0, 1.0) if first == "box" else None)
    expected = by_zennit(model, x, y, first)
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-3


def test_opposite_errors_of_two_images_do_not_hide_one_another():
    model, x = odd(), images(2)
    both = torch.cat([x, -x])
    with pytest.raises(ValueError, match="sinh"):
        lrp(model, both, torch.zeros(4, dtype=torch.long))
