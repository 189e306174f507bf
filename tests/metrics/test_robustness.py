"""Linear models, whose maps do not move or move by a known amount; captum as second opinion."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from captum.metrics import sensitivity_max
from torch import nn

from saliency_checks.metric import Draw
from saliency_checks.metrics.robustness import average_sensitivity, local_lipschitz, max_sensitivity
from saliency_checks.neighbours import Neighbours, changes, offsets
from saliency_checks.run import run
from saliency_checks.subject import Subject

from toys import changed, constant, conv_net, detector, gradient, made, noise, plain_gradient, subject_of, white_noise
from toys import zero as zero_map

METRICS = (max_sensitivity, average_sensitivity, local_lipschitz)
ALL = Neighbours(draws=4, same_class=False)
input_gradient = made(lambda m, x, t: plain_gradient(m, x, t) * x.detach(), "input_gradient", signed=True)


def values(metric, method, subject, settings=ALL, n=None):
    return metric.measure(method, subject, Draw(n=n or len(subject)), settings=settings).values.squeeze((0, 1))


def linear(n=6):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 4)).eval()
    return Subject(model, noise(n), torch.arange(n) % 4)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_the_gradient_of_a_linear_model_never_moves(metric):
    assert not values(metric, gradient, linear()).any()


@pytest.mark.parametrize("norm", ["length", "peak"])
def test_input_times_gradient_of_a_linear_model_moves_by_the_weighted_noise(norm):
    subject, settings = linear(), replace(ALL, norm=norm)
    weights = subject.model[1].weight.detach()[subject.targets].double()
    x = subject.inputs.flatten(1).double()
    shifts = torch.stack([offsets(subject, 6, 0, i, settings).flatten(1).double() for i in range(4)])
    if norm == "length":
        moved = (shifts * weights).norm(dim=2) / (x * weights).norm(dim=1)
    else:
        before, after = x * weights, (x + shifts) * weights
        moved = (after / after.abs().amax(2, keepdim=True) - before / before.abs().amax(1, keepdim=True)).norm(dim=2)
    for metric, expected in zip(
        METRICS, (moved.amax(0), moved.mean(0), (moved / shifts.norm(dim=2)).amax(0)), strict=True
    ):
        np.testing.assert_allclose(values(metric, input_gradient, subject, settings), expected, rtol=1e-4)


@pytest.mark.parametrize("method", [gradient, input_gradient], ids=lambda m: m.name)
def test_captum_finds_the_same_on_the_same_noise(method):
    subject = subject_of(conv_net(channels=1), 1, n=5)
    settings = replace(max_sensitivity.with_preset("captum").settings, draws=7)
    mine = values(max_sensitivity, method, subject, settings)
    shifts = torch.stack([offsets(subject, 5, 0, i, settings) for i in range(7)], dim=1)

    for i in range(5):
        assert float(_captum(method, subject, i, shifts[i])) == pytest.approx(mine[i], rel=1e-4)


def _captum(method, subject, i, shifts):
    def explained(images):  # captum hands over a tuple or a tensor, and wants back the same
        plain = images[0] if isinstance(images, tuple) else images
        with torch.enable_grad():  # it calls under no_grad
            found = method.explain(subject.model, plain.detach().clone(), subject.targets[i].expand(len(plain)))
        return (found,) if isinstance(images, tuple) else found

    return sensitivity_max(explained, subject.inputs[i : i + 1], lambda x: x + shifts, n_perturb_samples=len(shifts))


@pytest.mark.parametrize("method", [constant, zero_map], ids=lambda m: m.name)
@pytest.mark.parametrize(("norm", "worst"), [("length", 2.0), ("peak", 2 * 8.0)])
def test_a_constant_map_gets_what_one_that_turns_into_its_negative_gets(method, norm, worst):
    found = max_sensitivity.measure(method, linear(), Draw(n=6), settings=replace(ALL, norm=norm))
    assert (found.values == worst).all()
    assert found.degenerate == 1
    sign = made(lambda m, x, t: (-1.0) ** len(calls.append(1) or calls) * torch.sign(plain_gradient(m, x, t)), "flip")
    calls: list[int] = []
    turning = values(max_sensitivity, sign, linear(), replace(ALL, norm=norm, draws=1))
    np.testing.assert_allclose(turning, worst, rtol=1e-6)


def test_noise_moves_by_the_root_of_two_and_is_last_but_for_constants():
    subject = subject_of(conv_net(channels=1), 1, n=32)
    found = [float(values(average_sensitivity, m, subject).mean()) for m in (gradient, white_noise, constant)]
    assert found == sorted(found)
    # |a - b| / |a| of two vectors of 64 normal numbers; its mean is sqrt(2 (1 + 1/64)) to first order.
    assert found[1] == pytest.approx((2 * 65 / 64) ** 0.5, abs=0.05)


def test_the_same_method_explains_the_noisy_images():
    subject, seen = linear(4), []

    def look(model, inputs, targets):
        seen.append((inputs.clone(), targets.clone()))
        return inputs

    values(max_sensitivity, made(look), subject)
    assert len(seen) == 1 + ALL.draws
    for i, (inputs, targets) in enumerate(seen[1:]):
        assert torch.equal(inputs, subject.inputs + offsets(subject, 4, 0, i, ALL))
        assert torch.equal(targets, subject.targets)


def test_every_method_meets_the_same_noise_within_its_radius():
    subject = subject_of(conv_net(), 3, n=4)
    shifts = offsets(subject, 4, 0, 0, Neighbours(radius=0.5, in_spreads=False))
    assert 0.45 < float(shifts.abs().max()) <= 0.5
    assert not torch.equal(shifts, offsets(subject, 4, 0, 1, Neighbours(radius=0.5, in_spreads=False)))
    in_spreads = offsets(subject, 4, 0, 0, Neighbours(radius=0.5))
    torch.testing.assert_close(in_spreads, shifts * subject.inputs.std())
    normal = offsets(subject, 4, 0, 0, Neighbours(radius=0.5, in_spreads=False, noise="normal"))
    assert float(normal.std()) == pytest.approx(0.5, abs=0.05)


def test_draws_that_change_the_prediction_do_not_count_where_others_do_not():
    class Threshold(nn.Module):
        """Class 1 where the first pixel is above .5."""

        def forward(self, x):
            first = x[:, 0, 0, 0] - 0.5
            return torch.stack([-first, first], dim=1)

    subject = Subject(Threshold(), torch.full((1, 1, 8, 8), 0.51), torch.tensor([1]))

    def jumps(model, inputs, targets):
        image = torch.linspace(1, 2, 64).view(1, 1, 8, 8).expand_as(inputs)
        return image * torch.where(inputs[:, :1, :1, :1] > 0.5, 1.0, -1.0)

    wide = Neighbours(radius=0.1, in_spreads=False, draws=12)
    assert values(max_sensitivity, made(jumps), subject, wide) == pytest.approx(0)
    assert values(max_sensitivity, made(jumps), subject, replace(wide, same_class=False)) == pytest.approx(2)
    assert not changes(made(jumps), subject, Draw(n=1), wide).counts.all()


def test_an_image_whose_every_draw_changes_the_prediction_is_not_robust_for_that():
    subject = detector(4)
    flipping = replace(subject, model=nn.Sequential(nn.Flatten(), Alternating()))
    found = values(max_sensitivity, white_noise, flipping, replace(ALL, same_class=True))
    assert (found > 1).all()


class Alternating(nn.Module):
    """The class changes with the last digits of the image."""

    def forward(self, x):
        return torch.nn.functional.one_hot((x.sum(1) * 1e4).long() % 4, 4).float() + 0 * x.sum(1, keepdim=True)


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.name)
def test_scale_and_the_number_of_images_change_nothing(metric):
    subject = subject_of(conv_net(channels=1), 1, n=40)
    one = values(metric, gradient, subject)
    np.testing.assert_allclose(values(metric, changed(lambda g: 1e3 * g, "scaled"), subject), one, rtol=1e-4)
    np.testing.assert_allclose(values(metric, gradient, replace(subject), n=5), one[:5], rtol=1e-4)
    np.testing.assert_allclose(
        values(metric, white_noise, replace(subject), n=5), values(metric, white_noise, subject)[:5]
    )


def test_what_two_calls_on_one_image_differ_by_is_told():
    subject = subject_of(conv_net(channels=1), 1, n=32)
    found = [average_sensitivity.measure(m, subject, Draw(n=32), settings=ALL) for m in (white_noise, gradient)]
    assert found[0].details["same image"] == pytest.approx(found[0].values.mean(), abs=0.05)
    assert found[1].details["same image"] == 0


@pytest.mark.parametrize("given", [{"noise": "gaussian"}, {"norm": "l2"}], ids=str)
def test_unknown_settings_say_what_is_known(given):
    with pytest.raises(ValueError, match="expected one of"):
        Neighbours(**given)


def test_it_is_reported_with_the_controls_beside_it():
    result = run("max_sensitivity", gradient, subject_of(conv_net(), 3, n=8))
    assert result.verdict == "reported"
    assert result.controls["random"] > 1 > result.controls["input_magnitude"]
    assert result.controls["constant"] == 2
