"""Which class is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from scipy import stats

import saliency_checks as sc
from saliency_checks.asking import CLASSES, asked, classes, diagnostics

from toys import detector, gradient


def test_most_and_least_likely_are_those_of_the_model():
    subject = detector(32)
    logits = subject.model(subject.inputs)
    assert torch.equal(classes(subject, "most_likely"), logits.argmax(1))
    assert torch.equal(classes(subject, "least_likely"), logits.argmin(1))
    assert torch.equal(classes(subject, "given"), subject.targets)


def test_a_random_class_is_any_but_the_given_one():
    """Uniform over the three others: chi-square, alpha 1e-4."""
    subject = detector(600)
    step = (classes(subject, "random") - subject.targets) % 4
    counts = step.bincount(minlength=4).tolist()
    assert counts[0] == 0
    assert stats.chisquare(counts[1:]).pvalue > 1e-4
    assert torch.equal(classes(subject, "random"), classes(replace(subject), "random"))
    assert not torch.equal(classes(subject, "random", 1), classes(subject, "random"))


@pytest.mark.parametrize("which", CLASSES)
def test_the_subject_asks_that_class_and_knows_nothing_of_its_cause(which):
    subject = detector(16)
    found = asked(subject, which)
    assert torch.equal(found.targets, classes(subject, which))
    assert torch.equal(found.inputs, subject.inputs)
    assert ("mask" in found.offers) == (which == "given")
    assert sc.measure("sparseness", gradient, found, n=16).shape == (16,)


def test_diagnostics_give_each_class_with_its_probability():
    subject = detector(16)
    found = diagnostics(subject)
    assert list(found) == ["given", "most_likely", "least_likely"]
    shares = subject.model(subject.inputs).softmax(1)
    torch.testing.assert_close(found["most_likely"][1], shares.amax(1))
    torch.testing.assert_close(found["least_likely"][1], shares.amin(1))
    torch.testing.assert_close(found["given"][1], shares[torch.arange(16), subject.targets])


def test_an_unknown_name_says_which_there_are():
    with pytest.raises(ValueError, match="expected one of given"):
        asked(detector(4), "worst")
