"""Whatever people bring as an attribution method becomes explain(model, inputs, targets), or is refused with a fix."""

from __future__ import annotations

import functools
import sys
import types
import warnings

import captum.attr
import numpy as np
import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn
from torch.nn import functional as F

import saliency_checks as sc
from saliency_checks import registry
from saliency_checks.explain import explain
from saliency_checks.layers import activation_layer, resize_like
from saliency_checks.method import BoundInstance, Method, as_method
from saliency_checks.methods.cam import grad_cam
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.snapshot import Snapshot

X = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.tensor([0, 2, 1])


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 5, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3),
    ).eval()  # fmt: skip


MODEL = network()
GRADIENT = input_gradient(MODEL, X, Y)


@pytest.fixture
def registered():
    """Names registered in a test are forgotten after it."""
    before = dict(registry._entries["methods"])
    yield
    registry._entries["methods"].clear()
    registry._entries["methods"].update(before)


# Functions: arguments by name, else by position ----------------------------------------------------------------------


class Callable3:
    def __call__(self, model, inputs, targets):
        return input_gradient(model, inputs, targets)


class Explainer:
    """Holds no model; its method is given one."""

    helper = nn.Identity()

    def explain(self, net, image, label):
        return input_gradient(net, image, label)


def with_scale(model, inputs, targets, scale=1.0):
    return scale * input_gradient(model, inputs, targets)


FUNCTIONS = {
    "canonical": lambda model, inputs, targets: input_gradient(model, inputs, targets),
    "singular": lambda model, input, target: input_gradient(model, input, target),
    "x, y": lambda net, x, y: input_gradient(net, x, y),
    "another order": lambda x, model, label: input_gradient(model, x, label),
    "unknown names": lambda a, b, c: input_gradient(a, b, c),
    "one unknown name": lambda model, batch, target: input_gradient(model, batch, target),
    "unknown name first": lambda target, batch, model: input_gradient(model, batch, target),
    "keyword only": lambda *, model, inputs, targets: input_gradient(model, inputs, targets),
    "star": lambda *args: input_gradient(*args),
    "star, keywords": lambda *args, **kw: input_gradient(*args, **kw),
    "model, star": lambda model, *rest: input_gradient(model, *rest),
    "keywords": lambda **kw: input_gradient(kw["model"], kw["inputs"], kw["targets"]),
    "optional extras": lambda model, inputs, targets, y=None, steps=5, **kw: (
        input_gradient(model, inputs, targets) if y is None and steps == 5 and not kw else None
    ),
    "optional targets": lambda model, inputs, targets=None: input_gradient(model, inputs, targets),
    "partial": functools.partial(with_scale, scale=1.0),
    "partial, model": functools.partial(
        lambda scale, model, inputs, targets: input_gradient(model, inputs, targets), 2.0
    ),
    "callable object": Callable3(),
    "bound method of a helper": Explainer().explain,
}


def positional_only(model, inputs, targets, /):
    return input_gradient(model, inputs, targets)


@pytest.mark.parametrize("function", [*FUNCTIONS.values(), positional_only], ids=[*FUNCTIONS, "positional only"])
def test_functions_are_given_their_arguments_by_name_else_by_position(function):
    torch.testing.assert_close(as_method(function)(MODEL, X, Y), GRADIENT)


def test_defaults_are_kept_and_partial_values_too():
    torch.testing.assert_close(as_method(with_scale)(MODEL, X, Y), GRADIENT)
    torch.testing.assert_close(as_method(functools.partial(with_scale, scale=3.0))(MODEL, X, Y), 3 * GRADIENT)


def test_a_function_that_is_written_for_arrays_gets_arrays():
    def quantus(model, inputs, targets, **kwargs) -> np.ndarray:
        assert kwargs == {}
        swapped = inputs.transpose(0, 2, 3, 1).astype(np.float32)  # a tensor has neither
        scores = targets[:, None, None].astype(np.float32)
        return np.abs(swapped).sum(axis=-1) * (1 + scores)

    found = as_method(quantus)(MODEL, X, Y)
    assert isinstance(found, np.ndarray)
    np.testing.assert_allclose(found, X.abs().sum(1).numpy() * (1 + Y.view(3, 1, 1).numpy()), rtol=1e-6)
    assert explain(as_method(quantus), MODEL, X, Y).shape == (3, 8, 8)


def test_the_first_error_is_the_one_that_is_shown():
    def broken(model, inputs, targets):
        return inputs.no_such_attribute

    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'no_such_attribute'"):
        as_method(broken)(MODEL, X, Y)


def test_an_error_of_another_kind_is_not_tried_twice():
    calls = []

    def broken(model, inputs, targets):
        calls.append(inputs)
        raise RuntimeError("on purpose")

    with pytest.raises(RuntimeError, match="on purpose"):
        as_method(broken)(MODEL, X, Y)
    assert len(calls) == 1


# captum: classes and factories ---------------------------------------------------------------------------------------

CLASSES = {
    captum.attr.Saliency: lambda m: captum.attr.Saliency(m).attribute(X, target=Y),
    captum.attr.InputXGradient: lambda m: X * GRADIENT,
    captum.attr.IntegratedGradients: lambda m: captum.attr.IntegratedGradients(m).attribute(X, target=Y),
    captum.attr.DeepLift: lambda m: captum.attr.DeepLift(m).attribute(X, target=Y),
    captum.attr.GuidedBackprop: lambda m: captum.attr.GuidedBackprop(m).attribute(X, target=Y),
    captum.attr.FeatureAblation: lambda m: captum.attr.FeatureAblation(m).attribute(X, target=Y),
}


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_a_captum_class_or_its_factory_is_a_method_and_its_chatter_is_no_error(cls):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = CLASSES[cls](MODEL)
    torch.testing.assert_close(as_method(cls)(MODEL, X, Y), expected)
    torch.testing.assert_close(as_method(lambda m: cls(m))(MODEL, X, Y), expected)
    torch.testing.assert_close(as_method(lambda anything: cls(anything).attribute)(MODEL, X, Y), expected)


def test_a_captum_class_is_rebound_to_every_model_it_is_given():
    method = as_method(captum.attr.InputXGradient)
    other = network(seed=1)
    method(MODEL, X, Y)
    torch.testing.assert_close(method(other, X, Y), X * input_gradient(other, X, Y))


def test_a_class_that_needs_a_layer_is_given_the_activation_behind_the_last_convolution():
    method = as_method(captum.attr.LayerGradCam)
    assert method.needs == {"conv"}
    found = method(MODEL, X, Y)
    assert found.shape == (3, 1, 8, 8)
    torch.testing.assert_close(found.relu().amax((1, 2, 3)) > 0, grad_cam(MODEL, X, Y).amax((1, 2, 3)) > 0)
    theirs = captum.attr.LayerGradCam(MODEL, MODEL[4]).attribute(X, target=Y)
    torch.testing.assert_close(found, F.interpolate(theirs, size=(8, 8), mode="bilinear"))


def test_layer_maps_of_many_channels_are_summed_before_they_are_enlarged():
    found = as_method(captum.attr.LayerGradientXActivation)(MODEL, X, Y)
    theirs = captum.attr.LayerGradientXActivation(MODEL, MODEL[4]).attribute(X, target=Y)
    torch.testing.assert_close(found, resize_like(theirs.sum(1, keepdim=True), X))


def test_a_layer_factory_of_the_user_is_enlarged_too():
    found = as_method(lambda m: captum.attr.LayerGradCam(m, m[1]))(MODEL, X, Y)
    torch.testing.assert_close(found, captum.attr.LayerGradCam(MODEL, MODEL[1]).attribute(X, target=Y))
    assert as_method(lambda m: captum.attr.LayerGradCam(m, m[3]))(MODEL, X, Y).shape == (3, 1, 8, 8)


def test_a_noise_tunnel_factory_hands_the_target_on():
    found = as_method(lambda m: captum.attr.NoiseTunnel(captum.attr.InputXGradient(m)))
    torch.manual_seed(0)
    first = found(MODEL, X, Y)
    torch.manual_seed(0)
    expected = captum.attr.NoiseTunnel(captum.attr.InputXGradient(MODEL)).attribute(X, target=Y)
    torch.testing.assert_close(first, expected)


@pytest.mark.parametrize(
    ("cls", "missing", "fix"),
    [
        (captum.attr.Occlusion, "sliding_window_shapes", "lambda model, inputs, targets: Occlusion(model).attribute("),
        (captum.attr.GradientShap, "baselines", "lambda model, inputs, targets: GradientShap(model).attribute("),
        (captum.attr.DeepLiftShap, "baselines", "lambda model, inputs, targets: DeepLiftShap(model).attribute("),
        (captum.attr.NeuronGradient, "targets", "NeuronGradient(model, layer).attribute("),
        (captum.attr.NoiseTunnel, "attribution_method", "lambda model: NoiseTunnel(IntegratedGradients(model))"),
    ],
)
def test_a_class_that_needs_more_is_refused_at_once_with_the_line_that_fixes_it(cls, missing, fix):
    with pytest.raises(TypeError) as error:
        as_method(cls)
    assert missing in str(error.value)
    assert fix in str(error.value)


def test_the_line_that_fixes_occlusion_works():
    fixed = as_method(
        lambda model, inputs, targets: captum.attr.Occlusion(model).attribute(
            inputs, target=targets, sliding_window_shapes=(2, 3, 3)
        )
    )
    assert fixed(MODEL, X, Y).shape == X.shape


# The value that means absent ------------------------------------------------------------------------------------------

ABSENT = torch.tensor([0.2, 0.7]).view(1, 2, 1, 1)


def test_a_function_that_needs_a_baseline_is_given_it_under_its_own_name_for_it():
    def from_baseline(model, inputs, targets, baselines):
        return (inputs - baselines) * input_gradient(model, inputs, targets)

    method = as_method(from_baseline, needs={"baseline"})
    torch.testing.assert_close(method(MODEL, X, Y, ABSENT), (X - ABSENT) * GRADIENT)


def test_a_method_that_does_not_say_so_keeps_its_own_default():
    def from_default(model, inputs, targets, baseline=0.0):
        return (inputs - baseline) * input_gradient(model, inputs, targets)

    torch.testing.assert_close(as_method(from_default)(MODEL, X, Y, ABSENT), X * GRADIENT)
    with pytest.raises(TypeError, match=r"leaves no place for baseline"):
        as_method(lambda model, inputs, targets: inputs, needs={"baseline"})


@pytest.mark.parametrize("cls", [captum.attr.IntegratedGradients, captum.attr.DeepLiftShap])
@pytest.mark.parametrize("is_factory", [False, True])
def test_captum_classes_that_need_baselines_are_given_them(cls, is_factory):
    method = as_method((lambda m: cls(m)) if is_factory else cls, needs={"baseline"})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = cls(MODEL).attribute(X, baselines=ABSENT.expand_as(X), target=Y)
    torch.testing.assert_close(method(MODEL, X, Y, ABSENT), expected)


# pytorch-grad-cam: a faithful small imitation of its call convention -------------------------------------------------


class ActivationsAndGradients:
    def __init__(self, model, target_layers, reshape_transform):
        self.model, self.activations, self.gradients, self.handles = model, [], [], []
        for layer in target_layers:
            self.handles.append(layer.register_forward_hook(self.save_activation))
            self.handles.append(layer.register_forward_hook(self.save_gradient))

    def save_activation(self, module, inputs, output):
        self.activations.append(output.cpu().detach())

    def save_gradient(self, module, inputs, output):
        output.register_hook(lambda gradient: self.gradients.insert(0, gradient.cpu().detach()))

    def __call__(self, x):
        self.gradients, self.activations = [], []
        return self.model(x)

    def release(self):
        for handle in self.handles:
            handle.remove()


class PytorchGradCam:
    """GradCAM of pytorch-grad-cam: hooks from construction to deletion, ``loss.backward``, NumPy out."""

    def __init__(self, model, target_layers, reshape_transform=None):
        self.model = model.eval()
        self.target_layers = target_layers
        self.activations_and_grads = ActivationsAndGradients(model, target_layers, reshape_transform)

    def __call__(self, input_tensor, targets=None, aug_smooth=False, eigen_smooth=False):
        assert not aug_smooth
        outputs = self.activations_and_grads(input_tensor.requires_grad_())
        assert all(callable(target) for target in targets)
        self.model.zero_grad()
        loss = sum(target(output) for target, output in zip(targets, outputs, strict=True))
        loss.backward(retain_graph=True)
        activations, slopes = self.activations_and_grads.activations[0], self.activations_and_grads.gradients[0]
        cam = (slopes.mean((2, 3), keepdim=True) * activations).sum(1, keepdim=True).relu()
        return F.interpolate(cam, size=input_tensor.shape[-2:], mode="bilinear")[:, 0].numpy()

    def __del__(self):
        self.activations_and_grads.release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.activations_and_grads.release()


@pytest.mark.parametrize("spec", [PytorchGradCam, lambda m: PytorchGradCam(model=m, target_layers=[m[4]])])
def test_pytorch_grad_cam_works_as_a_class_and_as_a_factory(spec):
    method, model = as_method(spec), network()
    before = Snapshot.of(model)
    found = explain(method, model, X, Y)
    torch.testing.assert_close(found, grad_cam(MODEL, X, Y)[:, 0], rtol=1e-5, atol=1e-8)
    assert before.changes(model) == []


def test_its_hooks_are_released_even_when_it_raises_and_the_traceback_is_kept():
    model = network()
    model[7].register_forward_hook(lambda *_: (_ for _ in ()).throw(RuntimeError("on purpose")))
    try:
        as_method(lambda m: PytorchGradCam(m, [m[4]]))(model, X.clone(), Y)
    except RuntimeError as error:
        kept = error
    assert str(kept) == "on purpose"
    assert not model[4]._forward_hooks


def test_a_class_without_arguments_for_inputs_is_called_by_position():
    class Mine(nn.Module):
        def __init__(self, m):
            super().__init__()
            self.m = m

        def forward(self, a, b):
            return input_gradient(self.m, a, b)

    torch.testing.assert_close(as_method(Mine)(MODEL, X, Y), GRADIENT)


# What is refused -----------------------------------------------------------------------------------------------------


class HoldsModel:
    def __init__(self, model):
        self.model = model

    def __call__(self, x, y):
        return input_gradient(self.model, x, y)


BOUND = {
    "captum instance": (captum.attr.IntegratedGradients(MODEL), "pass lambda model: IntegratedGradients(model)"),
    "its method": (captum.attr.DeepLift(MODEL).attribute, "pass lambda model: DeepLift(model)"),
    "of a function": (captum.attr.Saliency(lambda x: MODEL(x)), "pass lambda model: Saliency(model)"),
    "grad-cam object": (PytorchGradCam(network(), [nn.Identity()]), "pass lambda model: PytorchGradCam(model)"),
    "own object": (HoldsModel(MODEL), "pass lambda model: HoldsModel(model)"),
    "model": (MODEL, "is a model, not a method"),
    "model's forward": (MODEL.forward, "is a model, not a method"),
    "closure": (lambda x, y: input_gradient(MODEL, x, y), "make the model its first argument"),
    "partial": (functools.partial(with_scale, MODEL), "leave its model argument open"),
    "partial keyword": (functools.partial(with_scale, model=MODEL), "leave its model argument open"),
    "partial of an instance": (
        functools.partial(captum.attr.IntegratedGradients(MODEL).attribute, n_steps=3),
        "pass lambda model: IntegratedGradients(model)",
    ),
}


@pytest.mark.parametrize(("spec", "fix"), BOUND.values(), ids=BOUND)
def test_an_explainer_that_holds_its_model_is_refused_with_the_line_that_fixes_it(spec, fix):
    with pytest.raises(BoundInstance) as error:
        as_method(spec)
    assert fix in str(error.value)


class NoCall:
    pass


REFUSED = {
    "number": (3, "expected a function (model, inputs, targets) -> attributions"),
    "tensor": (X, "is no attribution method"),
    "module": (types, "is no attribution method"),
    "class without a call": (NoCall, "neither .attribute nor a call"),
    "no arguments": (lambda: None, "leaves no place for model and inputs and targets"),
    "no targets": (lambda model, inputs: None, "leaves no place for targets"),
    "only inputs": (lambda inputs: None, "leaves no place for model and targets"),
    "one too many": (lambda model, inputs, targets, baseline: None, "also requires 'baseline'"),
    "keyword required": (lambda model, inputs, targets, *, steps: None, "also requires 'steps'"),
}


@pytest.mark.parametrize(("spec", "text"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_explain_is_refused_in_one_sentence(spec, text):
    with pytest.raises(TypeError) as error:
        as_method(spec)
    assert text in str(error.value)
    assert not isinstance(error.value, BoundInstance)


def test_a_factory_that_returns_nothing_of_use_is_named_when_it_is_called():
    with pytest.raises(TypeError, match="the factory returned int, expected an object with"):
        as_method(lambda model: 3)(MODEL, X, Y)


def test_a_name_that_is_not_registered_is_answered_with_the_nearest():
    with pytest.raises(registry.UnknownName, match="did you mean 'integrated_gradients'"):
        as_method("integrated_gradient")


# Names, fields, registration -----------------------------------------------------------------------------------------


def test_names_come_from_what_was_given():
    assert as_method(with_scale).name == "with_scale"
    assert as_method(functools.partial(with_scale, scale=2)).name == "with_scale"
    assert as_method(captum.attr.IntegratedGradients).name == "integrated_gradients"
    assert as_method(lambda m: IntegratedGradients(m)).name == "integrated_gradients"
    assert as_method(Callable3()).name == "callable3"
    assert as_method(lambda model, x, y: x).name == "unnamed"
    assert as_method(with_scale, name="mine").name == "mine"


def test_fields_override_and_unknown_ones_are_answered_with_the_nearest():
    made = as_method(with_scale, signed=True, needs=["gradient"], claims=("linearity",), stochastic=True)
    assert (made.signed, made.needs, made.claims, made.stochastic) == (True, {"gradient"}, {"linearity"}, True)
    with pytest.raises(TypeError, match="no field 'nmae'; did you mean 'name'"):
        as_method(with_scale, nmae="x")
    with pytest.raises(TypeError, match="no field 'zzz'; known: name, "):
        sc.method(zzz=1)
    with pytest.raises(ValueError, match=r"needs \['gpu'\]: expected names from"):
        as_method(with_scale, needs={"gpu"})
    with pytest.raises(ValueError, match=r"claims \['truth'\]: expected names from"):
        as_method(with_scale, claims={"truth"})
    with pytest.raises(ValueError, match="has no reason"):
        as_method(with_scale, expected_failures={"sign": " "})
    with pytest.raises(ValueError, match="try 'my_method'"):
        as_method(with_scale, name="My Method")


def test_a_method_passes_through_and_overrides_make_a_copy():
    made = as_method(with_scale, signed=False)
    assert as_method(made) is made
    assert as_method(made, signed=True).signed is True
    assert made.signed is False


@pytest.mark.usefixtures("registered")
def test_the_decorator_registers_and_returns_the_function_itself():
    @sc.method(needs={"gradient"}, signed=True, expected_failures={"sign": "it is unsigned"})
    def decorated(model, inputs, targets):
        return input_gradient(model, inputs, targets)

    assert isinstance(decorated, types.FunctionType)
    entry = registry.get("methods", "decorated")
    assert isinstance(entry, Method)
    assert "decorated" in registry.own("methods")
    assert as_method("decorated") is entry
    assert as_method(decorated) is entry
    assert as_method(decorated, signed=None).signed is None
    torch.testing.assert_close(entry(MODEL, X, Y), decorated(MODEL, X, Y))


@pytest.mark.usefixtures("registered")
def test_the_decorator_works_bare_and_on_classes_factories_and_partials():
    def tripled(model, inputs, targets):
        return 3 * input_gradient(model, inputs, targets)

    assert sc.method(tripled) is tripled
    partial = functools.partial(with_scale, scale=5.0)
    for name, spec in {"the_class": captum.attr.Saliency, "the_factory": lambda m: captum.attr.Saliency(m)}.items():
        assert sc.method(name=name)(spec) is spec
        assert as_method(spec) is registry.get("methods", name)
    sc.method(name="the_partial")(partial)
    torch.testing.assert_close(as_method(partial)(MODEL, X, Y), 5 * GRADIENT)
    assert as_method(with_scale).name == "with_scale"


@pytest.mark.usefixtures("registered")
def test_a_reloaded_definition_replaces_itself_and_another_one_is_refused():
    def define():
        def twice(model, inputs, targets):
            return inputs

        return twice

    sc.method(define())
    sc.method(define())

    def other(model, inputs, targets):
        return inputs

    with pytest.raises(registry.DuplicateName, match="'twice' is already registered by"):
        sc.method(name="twice")(other)


def test_built_in_methods_are_found_by_their_functions_and_are_not_the_user_s_own():
    assert as_method(grad_cam) is registry.get("methods", "grad_cam")
    assert not set(registry.own("methods")) & {"grad_cam", "random", "gradient"}


def test_an_attribute_path_names_the_method_after_the_attribute(monkeypatch):
    module = types.ModuleType("somebodys_methods")
    module.smooth_ig = lambda m: captum.attr.IntegratedGradients(m)
    module.plain = sc.get("methods", "gradient").source
    monkeypatch.setitem(sys.modules, "somebodys_methods", module)
    assert as_method("somebodys_methods:smooth_ig").name == "smooth_ig"
    assert as_method("somebodys_methods:plain").name == "gradient"
    assert as_method("captum.attr:IntegratedGradients").name == "integrated_gradients"


def test_methods_can_be_kept_in_sets_and_as_keys():
    made = as_method(with_scale, expected_failures={"sign": "because"})
    assert len({made, made, as_method(with_scale)}) == 2


# Layers --------------------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Two branches that are concatenated, and a head that convolves single cells."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 1)
        self.head = nn.Conv2d(6, 3, 1)
        self.join = nn.Module()

    def forward(self, x):
        both = nn.Identity.forward(self, torch.cat([self.left(x), self.right(x)], 1))
        return self.head(both.mean((2, 3), keepdim=True)).flatten(1)


def test_a_failure_may_be_known_on_one_subject_only():
    made = as_method(with_scale, expected_failures={"sign": "everywhere", "acuity/small": "here"})
    assert made.known_failure("sign", "small") == "everywhere"
    assert made.known_failure("acuity", "small") == "here"
    assert made.known_failure("acuity", "large") == ""


def test_the_layer_behind_the_last_convolution_is_its_activation():
    assert activation_layer(MODEL, X) is MODEL[4]
    deeper = nn.Sequential(nn.Sequential(*list(MODEL)[:5]), *list(MODEL)[5:])
    assert activation_layer(deeper, X) is deeper[0]


def test_convolutions_on_single_cells_do_not_count():
    branches = Branches()
    assert activation_layer(branches, X) is branches.right
    head_only = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 3, 1), nn.Flatten())
    with pytest.raises(ValueError, match="no convolution with a spatial output"):
        activation_layer(head_only, X)


def test_finding_the_layer_leaves_no_hook_even_when_the_model_raises():
    model = network()
    before = Snapshot.of(model)
    activation_layer(model, X)
    with pytest.raises(RuntimeError):
        activation_layer(model, X[:, :1])
    assert before.changes(model) == []


@pytest.mark.slow
def test_torchvision_s_resnet_gives_the_last_block():
    from saliency_checks.vision import torchvision

    model = torchvision().models.resnet18(weights=None).eval()
    assert activation_layer(model, torch.rand(1, 3, 64, 64)) is model.layer4
