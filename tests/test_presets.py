"""A metric under other settings: its name, its direction, and what it must not keep."""

from __future__ import annotations

import numpy as np
import pytest

import saliency_checks as sc
from saliency_checks.metric import Draw
from saliency_checks.presets import PRESETS
from saliency_checks.registry import UnknownName
from saliency_checks.subject import Unqualified

from toys import against, effect, weighted

ALL = [f"{metric}@{preset}" for metric, presets in PRESETS.items() for preset in presets]


@pytest.mark.parametrize("name", ALL)
def test_every_preset_is_a_metric_that_measures(name):
    metric = sc.get("metrics", name)
    assert metric.name == name
    assert metric.bound is None
    assert metric.reference == PRESETS[name.split("@")[0]][name.split("@")[1]].source
    metric = metric.with_settings(draws=3) if hasattr(metric.settings, "draws") else metric
    if metric.needs - weighted(3).offers:  # a mask, weights to draw again: measured by its own tests
        return
    try:
        found = metric.measure(effect, weighted(3), Draw(n=3)).values
    except Unqualified as reason:  # no image of 6 x 6 has 50 segments
        assert name == "segment_sensitivity_n@attribench"
        assert "fewer than" in str(reason)  # noqa: PT017
        return
    turned = name.startswith("impact_coverage")  # only images whose class the patch turned are scored
    assert found.shape[:2] == (1, 1)
    assert found.shape[2] == 3 or (turned and found.shape[2] > 0)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("paper", ["attribench", "saliencysense", "rise", "recalibration"])
def test_every_paper_has_presets(paper):
    assert any(name.split("@")[1].startswith(paper) for name in ALL)


@pytest.mark.parametrize("name", [name for name in ALL if PRESETS[name.split("@")[0]][name.split("@")[1]].better])
def test_where_the_direction_is_said_it_is_the_right_one(name):
    metric = sc.get("metrics", name)
    good, bad = (metric.measure(m, weighted(24), Draw(n=24)).values.mean() for m in (effect, against))
    assert (good > bad) == (metric.better == "higher")


def test_a_name_may_carry_settings():
    metric = sc.get("metrics", "deletion@imputer=blur,random_orders=2")
    assert metric.settings.imputer == "blur"
    assert metric.settings.random_orders == 2
    assert sc.get("metrics", "infidelity@clamp=True,deviation=0.5").settings.clamp is True
    found = sc.measure("deletion@against=nothing,scale=raw", effect, weighted(), n=12)
    expected = sc.get("metrics", "deletion").with_settings(against="nothing", scale="raw")
    assert np.array_equal(found, expected.measure(effect, weighted(), Draw(n=12)).values[0, 0])


def test_other_settings_have_no_bound_and_the_metric_itself_keeps_its_own():
    check = sc.get("metrics", "deletion_insertion")
    assert check.with_settings(imputer="blur").bound is None
    assert sc.get("metrics", "deletion_insertion").bound is not None
    result = sc.run("deletion_insertion@imputer=blur", effect, weighted(), n=12)
    assert result.check == "deletion_insertion@imputer=blur"
    assert result.verdict == "reported"


def test_settings_on_settings_keep_the_first():
    metric = sc.get("metrics", "deletion@rise").with_settings(imputer="blur")
    assert metric.settings.imputer == "blur"
    assert metric.settings.output == "probability"


@pytest.mark.parametrize(
    ("name", "error", "text"),
    [
        (
            "deletion@riise",
            UnknownName,
            "has no preset 'riise'; it has attribench, attribench_lerf, rise, saliencysense",
        ),
        ("contract@rise", UnknownName, "it has none"),
        ("deletion@imputr=blur", TypeError, "has no setting 'imputr'; it has imputer, unit"),
        ("contract@imputer=blur", TypeError, "it has none"),
        ("deletion@imputer=grey", ValueError, "imputer 'grey': expected one of absent, black"),
        ("deletoin@rise", UnknownName, "did you mean 'deletion'"),
    ],
)
def test_a_name_that_is_not_there_is_refused_with_those_that_are(name, error, text):
    with pytest.raises(error, match=text):
        sc.get("metrics", name)


def test_presets_are_not_metrics_of_their_own_in_the_list():
    assert not any("@" in name for name in sc.names("metrics"))
