"""All weights drawn again at once."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from scipy import stats

from saliency_checks import randomization
from saliency_checks.metric import Draw
from saliency_checks.metrics.parameter_randomization import parameter_randomization
from saliency_checks.run import run

from toys import constant, conv_net, gradient, made, magnitude, mlp, plain_gradient, subject_of, white_noise, zero


def values(method, subject, **given):
    return parameter_randomization.measure(method, subject, Draw(n=len(subject)), **given).values


@pytest.mark.parametrize("model", [conv_net(channels=1), mlp()], ids=["conv", "mlp"])
def test_every_weight_is_drawn_again_and_the_model_itself_stays(model):
    before = copy.deepcopy(model.state_dict())
    ((_, twin),) = randomization.complete(model, subject_of(model, 1).inputs, 0)
    weights = [name for name, value in model.named_parameters() if value.ndim > 1]
    assert all(not torch.allclose(twin.state_dict()[name], before[name]) for name in weights)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_it_is_scipy_s_rank_correlation_with_the_map_of_the_new_model():
    subject = subject_of(conv_net(channels=1), 1, n=6)
    models = []

    def look(model, inputs, targets):
        models.append(copy.deepcopy(model))
        return plain_gradient(model, inputs, targets)

    found = values(made(look, signed=True), subject)[0]
    original, *others = [plain_gradient(m, subject.inputs.clone(), subject.targets).squeeze(1) for m in models]
    assert found.shape == (3, 6)
    assert not np.allclose(found[0], found[1])  # every redraw has weights of its own
    for row, other in zip(found, others, strict=True):
        expected = [stats.spearmanr(a.flatten(), b.flatten())[0] for a, b in zip(original, other, strict=True)]
        np.testing.assert_allclose(row, expected, atol=1e-6)


def stale(model):
    kept = copy.deepcopy(model)
    return made(lambda m, x, t: plain_gradient(kept, x, t), "stale", signed=True)


def test_who_never_looks_at_the_weights_is_last_and_who_follows_them_first():
    subject = subject_of(conv_net(), 3, n=32)
    for fixed in (stale(subject.model), magnitude, constant, zero):
        assert values(fixed, subject) == pytest.approx(1)
    assert abs(values(gradient, subject).mean()) < 0.2
    assert abs(values(white_noise, subject).mean()) < 0.05  # the known way to cheat it


def test_a_map_that_becomes_constant_has_changed():
    class Dead(torch.nn.Linear):
        def reset_parameters(self):
            torch.nn.init.zeros_(self.weight)
            torch.nn.init.zeros_(self.bias)

    model = torch.nn.Sequential(torch.nn.Flatten(), Dead(64, 4))
    torch.nn.init.normal_(model[1].weight)
    assert not values(gradient, subject_of(model.eval(), 1)).any()


def test_the_published_setting_draws_once():
    subject = subject_of(conv_net(), 3, n=8)
    once = values(gradient, subject, settings=parameter_randomization.with_preset("attribench").settings)
    assert once.shape == (1, 1, 8)
    np.testing.assert_array_equal(once[0, 0], values(gradient, subject)[0, 0])
    assert run("parameter_randomization", gradient, subject).verdict == "reported"
