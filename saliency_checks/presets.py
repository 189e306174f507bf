"""The settings of the published systems, as data: ``sc.get("metrics", "deletion@rise")`` measures as that paper does.

A preset changes settings only. What the originals do beyond that, and what not to repeat (defects, dependence on the
batch), is in the docstrings of the settings and in the README.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Preset:
    """Settings under a name.

    Attributes:
        settings: what differs from the metric's own.
        better: where the score's direction differs, too (an area as it is, instead of an advantage).
        source: the paper and its code.
    """

    source: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    better: str | None = None


def _steps(first: float, last: float, number: int) -> tuple[float, ...]:
    return tuple(round(first + (last - first) * i / (number - 1), 9) for i in range(number))


_ATTRIBENCH = "Gevaert et al. 2024, attribench 0.1.9: linear output, zero in the model's input space"
_SALIENCYSENSE = "Zhang et al. 2025, saliencysense"
_RISE = "Petsiuk et al. 2018, RISE, their code at 224 pixels: one row of pixels a step, softmax"
_RECALIBRATION = "Yang et al. 2023, recalibrated integrated gradients, their code"

# 100 steps; AUC is the mean of the steps. The map is read with its sign.
_AREA = {
    "imputer": "black", "output": "logit", "reading": "signed", "scale": "raw", "rule": "mean", "against": "nothing",
    "rounding": "down",
}  # fmt: skip
_TOP, _BOTTOM, _ALL = _steps(0, 0.15, 100), _steps(0.85, 1, 100), _steps(0, 1, 100)
_SLIC = {"segments": "slic", "count": 100, "pooled": "mean"}
_SOFTMAX = {**_AREA, "output": "probability", "rule": "trapezoid"}


def _area(order: str, fractions: tuple[float, ...], better: str, settings: Mapping[str, Any], source: str) -> Preset:
    return Preset(source=source, better=better, settings={**settings, "orders": (order,), "fractions": fractions})


def _infidelity(kind: str) -> Preset:
    settings = {
        "kind": kind, "imputer": "black", "deviation": 0.2, "is_absolute": True, "side": 5, "draws": 1000,
        "scale": "best", "clamp": True, "unit": "pixel",
    }  # fmt: skip
    return Preset(source=_ATTRIBENCH, settings=settings)


# The originals take the length over channels as well; here a map has one value per pixel.
_NEAR = {"in_spreads": False, "same_class": False}
_MASK = {"imputer": "black", "scaling": "range"}
_SUBSETS = {"imputer": "black", "reading": "signed", "sizes": _steps(0.1, 0.5, 10), "draws": 100}

PRESETS: Mapping[str, Mapping[str, Preset]] = {
    "deletion": {
        "attribench": _area("most", _TOP, "lower", _AREA, _ATTRIBENCH),
        "attribench_lerf": _area("least", _TOP, "higher", _AREA, _ATTRIBENCH),
        "rise": _area("most", _steps(0, 1, 225), "lower", _SOFTMAX, _RISE),
        "saliencysense": _area("most", _steps(0, 1, 29), "lower", _SOFTMAX, _SALIENCYSENSE),
    },
    "insertion": {
        "attribench": _area("least", _BOTTOM, "higher", _AREA, _ATTRIBENCH),
        "attribench_lerf": _area("most", _BOTTOM, "lower", _AREA, _ATTRIBENCH),
        "rise": _area("least", _steps(0, 1, 225), "higher", {**_SOFTMAX, "imputer": "blur_rise"}, _RISE),
        "saliencysense": _area(
            "least", _steps(0, 1, 29), "higher", {**_SOFTMAX, "imputer": "blur_saliencysense"}, _SALIENCYSENSE
        ),
    },
    "irof": {
        "attribench": _area("most", _ALL, "lower", {**_AREA, **_SLIC}, _ATTRIBENCH),
        "attribench_lerf": _area("least", _ALL, "higher", {**_AREA, **_SLIC}, _ATTRIBENCH),
    },
    "minimal_subset_deletion": {
        "attribench": Preset(
            source=f"{_ATTRIBENCH}; a share where attribench counts pixels",
            settings={"imputer": "black", "reading": "signed", "fractions": _ALL, "rounding": "down"},
        )
    },
    "minimal_subset_insertion": {
        "attribench": Preset(
            source=f"{_ATTRIBENCH}; a share where attribench counts pixels",
            settings={"imputer": "black", "reading": "signed", "fractions": _ALL, "rounding": "down"},
        )
    },
    "sensitivity_n": {
        "attribench": Preset(source=_ATTRIBENCH, settings=_SUBSETS),
        "recalibration": Preset(
            source=_RECALIBRATION,
            settings={
                "imputer": "black", "reading": "signed", "law": "bernoulli", "sizes": _steps(0.1, 0.9, 9), "draws": 10,
            },
        ),
        "recalibration_magnitude": Preset(
            source=_RECALIBRATION,
            settings={
                "imputer": "black", "reading": "channel_magnitude", "law": "bernoulli", "sizes": _steps(0.1, 0.9, 9),
                "draws": 10,
            },
        ),
    },
    "segment_sensitivity_n": {
        "attribench": Preset(
            source=f"{_ATTRIBENCH}; subsets of 10 to 50 segments, whatever number an image has",
            settings={**_SUBSETS, **_SLIC, "sizes": tuple(int(100 * size) for size in _steps(0.1, 0.5, 10))},
        )
    },
    "infidelity": {f"attribench_{kind}": _infidelity(kind) for kind in ("square", "noisy_baseline", "gaussian")},
    "average_drop": {"saliencysense": Preset(source=_SALIENCYSENSE, settings=_MASK)},
    "average_increase": {"saliencysense": Preset(source=_SALIENCYSENSE, settings=_MASK)},
    "average_gain": {"saliencysense": Preset(source=_SALIENCYSENSE, settings=_MASK)},
    "monotonicity_correlation": {
        "saliencysense": Preset(
            source=f"{_SALIENCYSENSE}, through Quantus: groups of 32 rows of one channel at 224 pixels, three channels",
            settings={"unit": "channel", "groups": 21, "draws": 10, "output": "probability"},
        )
    },
    "max_sensitivity": {
        "attribench": Preset(source=_ATTRIBENCH, settings={**_NEAR, "draws": 50, "norm": "peak"}),
        "saliencysense": Preset(source=f"{_SALIENCYSENSE}, through Quantus", settings={**_NEAR, "radius": 0.2}),
        "captum": Preset(source="Yeh et al. 2019, captum 0.9.0", settings={**_NEAR, "radius": 0.02}),
    },
    "average_sensitivity": {
        "saliencysense": Preset(source=f"{_SALIENCYSENSE}, through Quantus", settings={**_NEAR, "radius": 0.2})
    },
    "parameter_randomization": {"attribench": Preset(source=_ATTRIBENCH, settings={"redraws": 1})},
    "impact_coverage": {"attribench": Preset(source=_ATTRIBENCH)},
    "pointing_game": {
        "saliencysense": Preset(source=_SALIENCYSENSE),
        "excitation_backprop": Preset(
            source="Zhang et al. 2018, Excitation backprop, section 4.1: 15 of 224 pixels", settings={"tolerance": 15.0}
        ),
    },
    "localisation_error": {"saliencysense": Preset(source=f"{_SALIENCYSENSE}, with LE and OM under their own names")},
    "localisation_error_top1": {
        "saliencysense": Preset(source=f"{_SALIENCYSENSE}, with LE and OM under their own names")
    },
    "effective_complexity": {
        "saliencysense": Preset(
            source=f"{_SALIENCYSENSE}, through Quantus",
            settings={"threshold": 1e-5, "of_largest": False, "in_pixels": True},
        )
    },
    "diffid": {
        "recalibration": Preset(
            source=_RECALIBRATION,
            settings={
                "imputer": "kept_mean", "unit": "channel", "reading": "channel_magnitude", "output": "logit",
                "scale": "own", "rounding": "down",
            },
        ),
        "recalibration_accuracy": Preset(
            source=f"{_RECALIBRATION}: top-1 accuracy",
            settings={
                "imputer": "kept_mean", "unit": "channel", "reading": "channel_magnitude", "output": "accuracy",
                "scale": "raw", "rounding": "down",
            },
        ),
    },
}  # fmt: skip
