"""Images to compare with reach the methods that ask for them, whatever these call them."""

from __future__ import annotations

import warnings

import captum.attr
import pytest
import torch

from saliency_checks.explain import model_maps, subject_maps
from saliency_checks.loading import build_subject
from saliency_checks.method import as_method
from saliency_checks.run import run
from saliency_checks.subject import MOST_REFERENCES, Subject

from toys import conv_net, detector, made, subject_of

OTHERS = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(9))
NEEDS = frozenset({"references"})


def look(got):
    def explain(model, inputs, targets, references=None):
        got.append(references)
        return inputs

    return explain


def test_references_reach_the_methods_that_need_them_and_no_others():
    got = []
    subject = subject_of(conv_net(), 3, 8, references=OTHERS)
    needing = made(look(got), "needing", needs=NEEDS)
    subject_maps(needing, subject, 0, 8)
    model_maps(needing, subject, conv_net(seed=1), subject.inputs, subject.targets, 0, 8, stream="other model")
    assert run("contract", needing, subject).verdict == "fail"  # it returns the image
    assert len(got) > 10
    assert all(torch.equal(one, OTHERS) for one in got)
    got.clear()
    subject_maps(made(look(got), "other"), subject, 0, 8)
    assert got == [None]


def test_by_default_they_are_the_first_images_whatever_the_batch():
    got = []
    subject = subject_of(conv_net(), 3, MOST_REFERENCES + 32)
    subject_maps(made(look(got), "needing", needs=NEEDS), subject, 0, len(subject))
    assert len(got) == 3
    assert all(torch.equal(one, subject.inputs[:MOST_REFERENCES]) for one in got)


def test_a_method_that_edits_them_spoils_nobody_else_s():
    subject = subject_of(conv_net(), 3, 8, references=OTHERS.clone())
    subject_maps(made(lambda m, x, t, references: references.zero_()[:1] + x, "edits", needs=NEEDS), subject, 0, 8)
    assert torch.equal(subject.references, OTHERS)


def test_checks_apply_to_methods_that_need_them_on_every_subject():
    ours = made(lambda m, x, t, references: x - references.mean(0), "needing", needs=NEEDS, signed=True)
    assert run("sign", ours, detector(32), n=32).verdict != "skip"


@pytest.mark.parametrize("bad", [OTHERS[:0], OTHERS[:, :1], OTHERS[0]])
def test_references_of_another_shape_are_refused(bad):
    with pytest.raises(ValueError, match=r"references are .*, expected one image or more of \(3, 8, 8\)"):
        Subject(conv_net(), torch.rand(2, 3, 8, 8), torch.tensor([0, 1]), references=bad)


def test_they_follow_the_subject_to_its_device():
    assert torch.equal(build_subject(subject_of(conv_net(), 3, 8, references=OTHERS)).references, OTHERS)


@pytest.mark.parametrize("name", ["references", "background", "baselines"])
def test_a_function_is_given_them_under_its_own_name_for_them(name):
    ours = {}
    exec(f"def compare(model, inputs, targets, {name}): return inputs - {name}.mean(0)", ours)
    x, y = OTHERS[:2], torch.tensor([0, 1])
    found = as_method(ours["compare"], needs=NEEDS)(conv_net(), x, y, references=OTHERS)
    torch.testing.assert_close(found, x - OTHERS.mean(0))


def test_a_function_that_needs_both_is_given_both():
    def both(model, inputs, targets, baseline, references):
        return baseline - references[:1]

    absent = torch.zeros(1, 3, 1, 1)
    x, y = OTHERS[:2], torch.tensor([0, 1])
    found = as_method(both, needs={"references", "baseline"})(conv_net(), x, y, absent, OTHERS)
    torch.testing.assert_close(found, -OTHERS[:1])
    with pytest.raises(TypeError, match=r"also requires 'references'; needs=\{'references'\} supplies it"):
        as_method(both, needs={"baseline"})


def test_captum_s_classes_get_them_as_their_distribution_of_baselines():
    net, x, y = conv_net(), OTHERS[:3], torch.tensor([0, 1, 2])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = captum.attr.DeepLiftShap(net).attribute(x, baselines=OTHERS, target=y)
    found = as_method(captum.attr.DeepLiftShap, needs=NEEDS)(net, x, y, references=OTHERS)
    torch.testing.assert_close(found, expected)
