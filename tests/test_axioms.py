"""Axioms as a check: the published table of who fulfils what is found again, and what breaks one axiom is caught."""

from __future__ import annotations

import functools
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace

import captum.attr
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from saliency_checks import registry
from saliency_checks.axioms import LAWS, Question, Saturating, completeness, saturation, with_weights
from saliency_checks.axioms.drawing import DRAWN, SIZES, Example, Setup
from saliency_checks.axioms.search import affordable, smallest, workable
from saliency_checks.method import AXIOMS, CLAIMS, Method, as_method
from saliency_checks.methods.gradient import gradient, input_gradient, input_x_gradient
from saliency_checks.methods.path import integrated_gradients
from saliency_checks.methods.references import expected_gradients
from saliency_checks.result import FAIL, PASS, SKIP
from saliency_checks.run import run

import project

NETWORKS = 16  # half as many as the standard profile draws
METHODS = {name: entry for name, entry in registry.entries("methods").items() if not entry.control}
QUICK = [name for name in METHODS if "quick" in METHODS[name].profiles]

# Sundararajan et al. 2017, Lundberg and Lee 2017, Kindermans et al. 2019 and the papers of the methods: + holds (in
# expectation for what samples), - there is a counterexample, ? says nobody.
TABLE = """
                         completeness dummy saturation invariance linearity symmetry shift scale
gradient                 -            +     -          +          +         +        +     +
gradient_magnitude       -            +     -          +          -         +        +     +
input_x_gradient         -            +     -          +          +         +        -     +
smoothgrad               -            +     -          +          +         +        +     +
smoothgrad_squared       -            +     -          +          -         +        +     -
vargrad                  -            +     -          +          -         +        +     -
integrated_gradients     +            +     +          +          +         +        +     +
expected_gradients       +            +     +          +          +         +        +     +
gradient_shap            +            +     +          +          +         +        +     +
agi                      -            +     ?          +          -         ?        +     +
deep_lift                +            -     +          -          +         +        +     +
guided_backprop          -            -     -          -          -         +        +     +
occlusion                -            -     +          +          +         -        +     +
shapley_sampling         +            ?     +          +          +         ?        +     +
kernel_shap              +            ?     +          +          +         ?        +     +
lime                     -            ?     +          +          +         ?        +     +
rise                     -            -     ?          +          +         ?        +     +
grad_cam                 -            ?     ?          -          -         ?        +     +
score_cam                -            ?     ?          -          -         ?        ?     -
grad_cam_plus_plus       -            ?     ?          -          -         ?        ?     -
eigen_cam                -            ?     ?          -          -         ?        ?     -
iba                      -            ?     ?          -          -         ?        ?     -
gradient_mean_contrast   -            +     -          +          +         +        +     +
gradient_max_contrast    -            +     -          +          -         +        +     +
gradient_weighted_contrast -          +     -          +          -         +        +     -
recalibrated_ig_uniform  -            +     ?          +          -         ?        +     +
"""
FULL = {"invariance": "implementation_invariance", "shift": "input_shift_invariance"}


def table() -> dict[str, dict[str, str]]:
    head, *rows = (line.split() for line in TABLE.strip().splitlines())
    columns = [FULL.get(name, name) for name in head]
    return {name: dict(zip(columns, marks, strict=True)) for name, *marks in rows}


def found(method: Method, axiom: str, networks: int = NETWORKS, seed: int = 0) -> Example | None:
    sizes, passes = workable(method)
    return smallest(method, axiom, sizes, networks=affordable(networks, passes), seed=seed, thorough=False)


def violated(method: Method, networks: int = NETWORKS) -> set[str]:
    return {axiom for axiom in LAWS if found(method, axiom, networks)}


# The table is found again ---------------------------------------------------------------------------------------------


def test_every_axiom_has_its_law_and_every_law_its_axiom():
    assert set(LAWS) == AXIOMS


@pytest.mark.parametrize("name", table())
def test_a_method_claims_what_the_literature_says_of_it(name):
    row, claims = table()[name], METHODS[name].claims
    assert {axiom for axiom, mark in row.items() if mark == "+"} <= claims
    assert not {axiom for axiom, mark in row.items() if mark == "-"} & claims


@pytest.mark.parametrize("name", QUICK)
def test_what_is_claimed_survives_and_what_is_not_has_a_counterexample(name):
    assert violated(METHODS[name], networks=32) == AXIOMS - METHODS[name].claims


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in METHODS if name not in QUICK])
def test_what_is_claimed_survives(name):
    """On a few networks; docs/axioms.md has what was found on all."""
    assert not {axiom for axiom in METHODS[name].claims & AXIOMS if found(METHODS[name], axiom, networks=8)}


# What breaks an axiom is caught ---------------------------------------------------------------------------------------

sound = as_method("integrated_gradients")


def made(explain: Callable[..., torch.Tensor], **fields) -> Method:
    return replace(sound, **{"name": "mine", "explain": explain, "source": explain, **fields})


def changed(edit: Callable[[torch.Tensor], torch.Tensor]) -> Method:
    return made(lambda model, x, y, baseline: edit(integrated_gradients(model, x, y, baseline=baseline)))


def trapezoid(model, x, y, baseline):
    explainer = captum.attr.IntegratedGradients(model)
    start = baseline.expand_as(x)
    return explainer.attribute(x, target=y, baselines=start, n_steps=50, method="riemann_trapezoid")


def without_the_mean(model, x, y, baseline, steps=5):
    """The published slip of a re-calibration package: a sum over points where there should be a mean."""
    points = (baseline + (x - baseline) * step / (steps - 1) for step in range(steps))
    return sum((point - baseline) * input_gradient(model, point, y) for point in points)


def black(model, x, y):
    return integrated_gradients(model, x, y, baseline=0.0)


class Probabilities(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model(x).softmax(1)


def of_probabilities(model, x, y):
    return gradient(Probabilities(model), x, y)


def by_size_of_network(model, x, y):
    return gradient(model, x, y) / sum(parameter.numel() for parameter in model.parameters() or [x])


def first_pixel_dropped(model, x, y):
    map_ = gradient(model, x, y)
    map_[..., 0, 0] = 0
    return map_


own = as_method("gradient")
MUTANTS = {
    "trapezoid weights": (made(trapezoid), {"completeness"}),
    "no mean over the points": (made(without_the_mean), {"completeness"}),
    "twice": (changed(lambda m: 2 * m), {"completeness"}),
    "absolute": (changed(torch.abs), {"completeness", "linearity"}),
    "squared": (changed(torch.square), {"completeness", "linearity", "scale"}),
    "a constant": (changed(lambda m: m + 0.1), {"completeness", "dummy", "linearity", "scale"}),
    "mixes the batch": (changed(lambda m: m + 0.1 * m.mean(0)), {"completeness", "symmetry"}),
    "a mean over the channels": (changed(lambda m: m.mean(1)), {"completeness"}),
    "moved": (changed(lambda m: m.roll(1, -1)), {"dummy", "saturation", "symmetry"}),
    "a black baseline": (made(black, needs=frozenset({"gradient"})), {"input_shift_invariance"}),
    "the input's share": (replace(own, explain=input_x_gradient), {"input_shift_invariance"}),
    "probabilities": (replace(own, explain=of_probabilities), {"linearity", "scale"}),
    "counts parameters": (replace(own, explain=by_size_of_network), {"implementation_invariance", "linearity"}),
    "drops a pixel": (replace(own, explain=first_pixel_dropped), {"symmetry"}),
}


LONG = {"twice", "squared", "a constant", "mixes the batch", "a mean over the channels", "moved"}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in LONG else []) for name in MUTANTS]
)
def test_a_method_that_breaks_axioms_violates_these_and_no_others(name):
    mutant, broken = MUTANTS[name]
    claims = as_method("integrated_gradients" if mutant.name == "mine" else "gradient").claims & AXIOMS
    assert {axiom for axiom in claims if found(mutant, axiom, networks=8)} == broken


def test_what_samples_is_complete_in_the_mean_and_a_bias_of_a_tenth_is_not():
    exact = as_method("expected_gradients")
    biased = replace(exact, explain=lambda *given, **more: 0.9 * expected_gradients(*given, **more))
    assert not found(exact, "completeness")
    assert found(biased, "completeness")


# Laws against closed forms --------------------------------------------------------------------------------------------


def test_completeness_compares_with_the_baseline_or_with_the_mean_of_the_references():
    f = with_weights(nn.Sequential(nn.Flatten(), nn.Linear(2, 1)), [[1.0, 3.0]], [0.5])
    x = torch.tensor([[[[2.0, 1.0]]]], dtype=torch.float64)
    half = torch.tensor([0.5], dtype=torch.float64)
    text = str(completeness(Question(method="gradient", x=x, baseline=half), f))
    assert "the map sums to 4, but f(x) - f(baseline) is 3" in text  # 1 + 3; (2 + 3) - (.5 + 1.5)
    assert completeness(Question(method="integrated_gradients", x=x, baseline=half), f).holds
    references = torch.tensor([[[[0.0, 1.0]]], [[[0.0, -1.0]]]], dtype=torch.float64)
    text = str(completeness(Question(method="gradient", x=x, references=references), f))
    assert "f(x) - f(references) is 5" in text


@pytest.mark.parametrize("axiom", LAWS)
@settings(max_examples=20, deadline=None, derandomize=True)
@given(data=st.data(), size=st.sampled_from(SIZES), conv=st.booleans())
def test_every_network_fulfils_the_premise_of_its_axiom(axiom, data, size, conv):
    needs = frozenset({"baseline", "references"} | ({"conv"} if conv else set()))
    example = data.draw(DRAWN[axiom](Setup(method="gradient", needs=needs, size=size)))
    q, given_ = example.question, example.arguments
    f, x = given_["f"], q.x
    some = torch.cat([x, torch.randn(5, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))])
    if axiom == "dummy":
        other = some.clone()
        other.flatten(2)[..., given_["pixel"]] += 1.7
        torch.testing.assert_close(f(other), f(some))
    elif axiom == "implementation_invariance":
        torch.testing.assert_close(f(some), given_["g"](some))
    elif axiom == "symmetry":
        other = some.clone()
        other.flatten(2)[..., [given_["i"], given_["j"]]] = some.flatten(2)[..., [given_["j"], given_["i"]]]
        torch.testing.assert_close(f(other), f(some))
        for images in (x, q.references):
            assert torch.equal(images.flatten(2)[..., given_["i"]], images.flatten(2)[..., given_["j"]])
    elif axiom == "saturation":
        assert float((f(x) - f(q.start)).detach().abs().min()) > 0.01
        assert int((x != q.start[:1]).sum()) == 1
        assert not input_gradient(f, x, torch.tensor([0])).flatten(2)[0, 0, given_["pixel"]]


# The search and what it prints ----------------------------------------------------------------------------------------

VIOLATES = {
    "completeness": "gradient", "dummy": "guided_backprop", "implementation_invariance": "deep_lift",
    "input_shift_invariance": "input_x_gradient", "linearity": "gradient_magnitude", "saturation": "gradient",
    "scale": "smoothgrad_squared", "symmetry": "test_axioms:first_pixel_dropped",
}  # fmt: skip


@pytest.mark.parametrize("axiom", LAWS)
def test_the_counterexample_that_is_printed_is_small_and_shows_the_violation(axiom):
    example = found(as_method(VIOLATES[axiom]), axiom, networks=64)
    assert example is not None
    assert example.question.x.numel() == 2  # two pixels suffice for any of them
    with pytest.raises(AssertionError) as error:
        exec(example.code, {})
    assert str(error.value) == str(example.look())


def test_deep_lift_is_refuted_by_the_published_pair():
    for axiom in ("implementation_invariance", "dummy"):
        example = found(as_method("deep_lift"), axiom, networks=64)
        assert example is not None
        assert "Order(" in example.code


def test_the_smallest_network_has_one_hidden_unit_where_one_suffices():
    example = smallest(as_method("gradient_magnitude"), "linearity", SIZES, networks=NETWORKS)
    hidden = [len(example.arguments[name][1].weight) for name in "fg"]
    assert hidden == [1, 1]


def test_the_same_seed_finds_the_same_example_and_another_one_draws_others():
    first, again = (found(as_method("gradient"), "completeness").code for _ in range(2))
    assert first == again
    drawn = []
    for seed in (0, 1):
        codes: list[str] = []
        watching = made(lambda m, x, y, codes=codes: codes.append(repr(x)) or gradient(m, x, y), needs=frozenset())
        smallest(watching, "scale", SIZES[:1], networks=4, seed=seed)
        drawn.append(codes)
    assert drawn[0] != drawn[1]


@settings(max_examples=1, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.nested_given])
@given(seed=st.integers(0, 1))
def test_it_runs_inside_a_test_of_hypothesis(seed):
    assert run("axioms", "gradient_magnitude", "random_networks", profile="quick", seed=seed).verdict == PASS


def test_a_method_that_calls_the_model_very_often_gets_fewer_networks():
    often = as_method(functools.partial(integrated_gradients, steps=300), needs={"gradient", "baseline"})
    assert workable(often)[1] == 300
    assert [affordable(32, passes) for passes in (0, 1, 50, 100, 10_000)] == [32, 32, 32, 16, 8]


# The check ------------------------------------------------------------------------------------------------------------


def test_a_claim_is_held_and_what_is_not_claimed_is_measured_and_never_failed():
    result = run("axioms", replace(own, claims=frozenset({"dummy", "completeness"})), "random_networks")
    assert (result.verdict, result.score) == (FAIL, 0.5)
    assert "completeness              claimed      VIOLATED: the map sums to" in result.message
    assert "saturation                not claimed  VIOLATED: pixel" in result.message
    assert "symmetry                  not claimed  holds" in result.message
    assert "\n# completeness: the map sums to" in result.message  # flush left
    assert result.message.count("assert found.holds, found") == 1
    assert set(result.details["counterexamples"]) == {"completeness", "saturation"}
    assert run("axioms", replace(own, claims=frozenset({"dummy"})), "random_networks").verdict == PASS


def test_a_method_without_claims_is_measured_and_not_judged():
    result = run("axioms", replace(own, claims=frozenset()), "random_networks", profile="quick")
    assert result.verdict == SKIP
    assert "claims no axiom" in result.message
    assert "linearity                 not claimed  holds" in result.message


def test_a_method_that_explains_no_small_network_is_skipped_with_what_it_raised():
    def large(model, x, y):
        raise ValueError("images of at least 32 pixels")

    result = run("axioms", replace(own, explain=large), "random_networks")
    assert result.verdict == SKIP
    assert "images of at least 32 pixels" in result.message


def test_a_method_that_raises_on_some_networks_fails_with_the_smallest():
    def normalised(model, x, y):
        map_ = gradient(model, x, y)
        return map_ / map_.abs().amax((1, 2, 3), keepdim=True)

    result = run("axioms", replace(own, explain=normalised, claims=frozenset({"dummy"})), "random_networks")
    assert result.verdict == FAIL
    assert "NaN or infinite values" in result.message


def test_the_networks_are_for_this_check_alone_and_it_runs_on_nothing_else():
    from saliency_checks.case import cases

    drawn = [case for case in cases(["gradient"]) if "axioms" in (case.check, case.subject) or "networks" in case.id]
    assert [case.id for case in drawn] == ["axioms-gradient-random_networks"]


def test_every_axiom_is_a_claim_that_a_method_can_make():
    assert set(CLAIMS) - {"backward_rule", "mask"} == AXIOMS
    assert set(DRAWN) == AXIOMS


def test_hypothesis_is_imported_by_the_search_alone():
    code = "import sys, saliency_checks as sc; sc.names('checks'); assert 'hypothesis' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


MINE = '''
import saliency_checks as sc
import torch

@sc.method(claims={"completeness", "dummy"}, signed=True)
def wrong(model, inputs, targets):
    """Input times gradient: complete on linear networks only."""
    score = model(inputs.requires_grad_()).gather(1, targets[:, None]).sum()
    return inputs.detach() * torch.autograd.grad(score, inputs)[0]
'''


def test_a_wrong_claim_is_a_red_test_whose_text_can_be_pasted_and_leaves_no_folder(tmp_path):
    project.write(tmp_path, {"mine.py": MINE})
    done = project.pytest_in(
        tmp_path, "--pyargs", "saliency_checks.checks", "-k", "axioms", "--saliency-method=mine:wrong",
        "--saliency-profile=quick", "--saliency-report=out.json", "-p", "no:cacheprovider",
    )  # fmt: skip
    assert done.count("failed") == 1, done.output
    result = done.results["axioms/wrong/random_networks"]
    assert "Question(method='mine:wrong'" in done.output
    assert "again    saliency-checks run mine:wrong --subject random_networks -k axioms" in done.output
    assert not (tmp_path / ".hypothesis").exists()
    pasted = done.output[done.output.index("import torch\nfrom torch") :]
    pasted = pasted[: pasted.index("assert found.holds, found")] + "assert found.holds, found\n"
    assert pasted in result["message"] + "\n"
    again = subprocess.run([sys.executable, "-c", pasted], cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 1
    assert "AssertionError: the map sums to" in again.stderr


def test_saturation_asks_for_a_tenth_of_the_change():
    q = Question(method="integrated_gradients", x=torch.tensor([[[[2.0, 0.0]]]], dtype=torch.float64))
    assert saturation(q, Saturating(0, 1.0), pixel=0).holds
    assert not saturation(replace(q, method="gradient"), Saturating(0, 1.0), pixel=0).holds
