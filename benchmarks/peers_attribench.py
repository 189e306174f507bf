"""Our ``@attribench`` presets beside attribench 0.1.9 itself, for ``peers.py``.

pip install --no-deps attribench h5py seaborn tqdm     (attribench asks for torch < 2)

Its functional part imports under today's torch; ``attribench.distributed`` does not (``torch.utils.data.sampler`` has
no ``T_co`` any more) and is not needed. Where both draw, its own code is also run on our draws: then only formulas
differ.
"""

from __future__ import annotations

import contextlib
import copy
import io
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from pairs import Pair, Scores
from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.explain import derive
from saliency_checks.method import Method
from saliency_checks.methods.gradient import input_gradient
from saliency_checks.metric import Draw, Metric
from saliency_checks.metrics.cascading_randomization import drawn as redrawn
from saliency_checks.neighbours import offsets
from saliency_checks.patch import STANDARD, patches
from saliency_checks.perturbation.curves import curve, removed
from saliency_checks.perturbation.nudges import _over_all
from saliency_checks.perturbation.subsets import drawn
from saliency_checks.perturbation.units import units_of
from saliency_checks.randomization import complete
from saliency_checks.subject import Subject

DRAWS = 100  # of infidelity, where the preset has 1,000
NEAR = 10  # of max-sensitivity, where it has 50
ON, METHODS = "constant", 10
CURVES = ("deletion", "insertion", "irof")


def summed(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return input_gradient(model, inputs, targets).sum(1, keepdim=True)


def untied(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    """The gradient and a trace of noise: where segments tie, attribench takes them in their order, ours by lot."""
    rng = torch.Generator().manual_seed(0)
    return summed(model, inputs, targets) + 1e-4 * torch.rand(1, 1, *inputs.shape[2:], generator=rng)


GRADIENT = Method(name="gradient", explain=summed, signed=True)
UNTIED = Method(name="untied", explain=untied, signed=True)


def preset(name: str) -> Metric:
    metric = registry.get("metrics", name)
    fewer = {"infidelity": DRAWS, "max_sensitivity": NEAR}.get(name.partition("@")[0])
    return metric.with_settings(draws=fewer) if fewer else metric


def ours(name: str, subject: Subject, method: Method = GRADIENT, **changes: Any) -> Scores:
    metric = preset(name).with_settings(**changes) if changes else preset(name)
    return lambda: metric.measure(method, replace(subject), Draw(n=len(subject))).values.mean((0, 1))


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
        yield


class Peer:
    """attribench's functions on a subject and maps, batched as it likes: all images at once."""

    def __init__(self, subject: Subject, maps: dict[str, Tensor]) -> None:
        from attribench.data import AttributionsDataset
        from attribench.functional import metrics

        self.subject, self.maps, self.metrics = subject, maps, metrics
        self.data = AttributionsDataset(subject.inputs, subject.targets, attributions=maps)
        self.common = {"model": subject.model, "attributions_dataset": self.data, "batch_size": len(subject)}

    def masker(self) -> dict[str, Any]:
        from attribench.masking.image import ConstantImageMasker

        return {ON: ConstantImageMasker("pixel")}

    def curves(self, function: str, mode: str, stop: float) -> np.ndarray:
        """Mean over the steps, of the first method."""
        with quiet():
            found = getattr(self.metrics, function)(
                **self.common, maskers=self.masker(), mode=mode, start=0.0, stop=stop, num_steps=100
            )
        return self.column(found.get_df(ON, "linear"))

    def irof(self, mode: str) -> np.ndarray:
        """The function itself returns nothing (it forgets to): the batch that it computes."""
        return self.irof_curves(mode).mean(1)

    def irof_curves(self, mode: str, name: str = "") -> np.ndarray:
        from attribench.functional.metrics._irof import _irof_batch

        maps = self.maps[name or next(iter(self.maps))]
        given = (self.subject.inputs, self.subject.targets, self.subject.model, maps, self.masker(), ["linear"], mode)
        return _irof_batch(*given, 0.0, 1.0, 100)[ON]["linear"].numpy()

    def subsets(self, mode: str) -> np.ndarray:
        with quiet():
            found = self.metrics.minimal_subset(**self.common, maskers=self.masker(), mode=mode, num_steps=100)
        return self.column(found.get_df(ON)) / self.subject.inputs[0, 0].numel()

    def infidelity(self, generator: Any) -> np.ndarray:
        given = {"activation_fns": ["linear"], "perturbation_generators": {"kind": generator}}
        with quiet():
            found = self.metrics.infidelity(**self.common, **given, num_perturbations=DRAWS)
        return self.column(found.get_df("kind", "linear"))

    def sensitivity_n(self, segmented: bool) -> np.ndarray:
        given = {"activation_fns": ["linear"], "min_subset_size": 0.1, "max_subset_size": 0.5, "num_steps": 10}
        with quiet():
            found = self.metrics.sensitivity_n(
                **self.common, maskers=self.masker(), **given, num_subsets=100, segmented=segmented
            )
        return self.column(found.get_df(ON, "linear"))

    def column(self, found: Any) -> np.ndarray:
        return found[0][next(iter(self.maps))].to_numpy()

    def max_sensitivity(self) -> np.ndarray:
        methods = {name: lambda x, y: summed(self.subject.model, x, y) for name in self.maps}
        with quiet():
            found = self.metrics.max_sensitivity(
                self.data, len(self.subject), methods, num_perturbations=NEAR, radius=0.1
            )
        return self.column(found.get_df())

    def randomized(self, model: Callable[[], nn.Module]) -> np.ndarray:
        from attribench import MethodFactory

        class Gradient:
            def __init__(self, model: nn.Module) -> None:
                self.model = model

            def __call__(self, x: Tensor, y: Tensor) -> Tensor:
                return summed(self.model, x, y)

        with quiet():
            found = self.metrics.parameter_randomization(
                model, self.data, len(self.subject), MethodFactory(dict.fromkeys(self.maps, Gradient))
            )
        return self.column(found.get_df())

    def coverage(self) -> np.ndarray:
        """With our patches; places are its own."""
        known = patches(self.subject.population, STANDARD)
        images = torch.utils.data.TensorDataset(self.subject.inputs, self.subject.targets)
        with tempfile.TemporaryDirectory() as folder, quiet():
            for square, target in zip(known.squares, known.targets.tolist(), strict=True):
                torch.save(square[None], Path(folder) / f"patch_{target}.pt")
            methods = {name: lambda x, y: summed(self.subject.model, x, y) for name in self.maps}
            found = self.metrics.impact_coverage(self.subject.model, images, len(self.subject), methods, folder)
        return self.column(found.get_df())


# --- our draws, through attribench's code ----------------------------------------------------------------------------


def nudged(peer: Peer, kind: str) -> np.ndarray:
    subject, settings = peer.subject, preset(f"infidelity@attribench_{kind}").settings
    rows, shape = slice(0, len(subject)), subject.inputs.shape
    images = _over_all(subject, rows, 0, settings, lambda x, image: x.flatten(1)).view(-1, *shape)

    class Given:
        left = iter(subject.inputs - images)

        def set_samples(self, samples: Tensor) -> None: ...

        def generate_perturbation(self) -> Tensor:
            return next(self.left)

    return peer.infidelity(Given())


def removing(peer: Peer, segmented: bool) -> np.ndarray:
    """Every subset in the order in which it is asked for: by size, by draw, and for segments by image."""
    subject, n = peer.subject, len(peer.subject)
    settings = preset(f"{'segment_' if segmented else ''}sensitivity_n@attribench").settings
    rows, asked = slice(0, n), []
    for subset in drawn(subject, rows, 0, settings, units_of(subject, rows, settings)):
        for turn in subset.turn:
            gone = turn < subset.high
            asked += [row.nonzero()[:, 0].numpy() for row in (gone.expand(n, -1) if segmented else gone[:1])]

    class Given:
        left = iter(asked)

        def choice(self, units: Any, size: int, replace: bool) -> np.ndarray:
            chosen = next(self.left)
            assert len(chosen) == size
            return chosen

    given = Given()
    with mock.patch("numpy.random.default_rng", return_value=given):
        return peer.sensitivity_n(segmented)


def shifted(peer: Peer) -> np.ndarray:
    """The noise of our neighbours, from its call of ``torch.rand``."""
    settings = preset("max_sensitivity@attribench").settings
    radius, n = settings.radius, len(peer.subject)
    left = iter([(offsets(peer.subject, n, 0, i, settings) + radius) / (2 * radius) for i in range(NEAR)])

    class Torch:
        def __getattr__(self, name: str) -> Any:
            return getattr(torch, name)

        def rand(self, shape: Any, device: Any) -> Tensor:
            return next(left)

    with mock.patch("attribench.functional.metrics._max_sensitivity.torch", Torch()):
        return peer.max_sensitivity()


def on_our_weights(peer: Peer) -> np.ndarray:
    """A model that holds ours where no module is found that could be reset."""
    subject = peer.subject
    ((_, model),) = redrawn(complete, subject, derive("complete", subject.name, 0, 0))

    class Sealed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.run = model.__call__

        def forward(self, x: Tensor) -> Tensor:
            return self.run(x)

    return peer.randomized(Sealed)


def everything_masked(subject: Subject) -> np.ndarray:
    """What its IROF, most relevant first, adds where a step is less than a segment: the slice [-0:] is all of them."""
    settings = preset("irof@attribench").settings
    units = units_of(subject, slice(0, len(subject)), settings)
    none = (removed(units, settings.fractions, "down") == 0)[:, 1:].sum(1).numpy()
    ends = curve(GRADIENT, subject, len(subject), 0, settings, "most").read("logit")[:, [0, -1]].numpy()
    return none * (ends[:, 1] - ends[:, 0]) / len(settings.fractions)


# --- the table -------------------------------------------------------------------------------------------------------


def pairs(subject: Subject) -> list[Pair]:
    """Every metric of attribench beside its preset."""
    from attribench.functional.metrics.infidelity import _perturbation_generator as kinds

    peer = Peer(subject, {"gradient": summed(subject.model, subject.inputs, subject.targets)})
    pixels = subject.inputs[0, 0].numel()
    grid = tuple(pixels // 100 * j / pixels for j in range(100))
    rest = tuple(sorted(round(1 - share, 9) for share in grid))
    generators = {
        "square": lambda: kinds.SquarePerturbationGenerator(5),
        "noisy_baseline": lambda: kinds.NoisyBaselinePerturbationGenerator(0.2),
        "gaussian": lambda: kinds.GaussianPerturbationGenerator(0.2),
    }
    fair = Peer(subject, {"untied": untied(subject.model, subject.inputs, subject.targets)})
    found = [
        Pair(f"{name}@attribench{'' if mode == 'morf' else '_lerf'}", ours(
            f"{name}@attribench{'' if mode == 'morf' else '_lerf'}", subject
        ), lambda name=name, mode=mode: peer.curves(name, mode, 0.15))
        for name in ("deletion", "insertion") for mode in ("morf", "lerf")
    ]  # fmt: skip
    for mode, end, rest_of in (("morf", "", everything_masked(subject)), ("lerf", "_lerf", 0.0)):
        name, why = f"irof@attribench{end}", "" if end else "; its step of less than one segment masks all of them"
        found += [
            Pair(name, ours(name, subject), lambda m=mode: peer.irof(m), f"ties{why}"),
            Pair(
                f"  without ties{'' if end else ' and that step'}", ours(name, subject, UNTIED),
                lambda m=mode: peer.irof(m), same=lambda m=mode, rest=rest_of: fair.irof(m) - rest,
            ),
        ]  # fmt: skip
    for mode, steps in (("deletion", grid), ("insertion", rest)):
        name = f"minimal_subset_{mode}@attribench"
        found += [
            Pair(
                name, ours(name, subject), lambda mode=mode: peer.subsets(mode),
                f"its steps are of {pixels // 100} pixels: up to {99 * (pixels // 100)} of {pixels}",
            ),
            Pair("  at its steps", ours(name, subject, fractions=steps), lambda mode=mode: peer.subsets(mode)),
        ]  # fmt: skip
    for kind, make in generators.items():
        name = f"infidelity@attribench_{kind}"
        found.append(
            Pair(
                name, ours(name, subject), lambda make=make: peer.infidelity(make()), "on our nudges",
                same=lambda kind=kind: nudged(peer, kind),
            )
        )  # fmt: skip
    for segmented in (False, True):
        name = f"{'segment_' if segmented else ''}sensitivity_n@attribench"
        found.append(
            Pair(
                name, ours(name, subject), lambda s=segmented: peer.sensitivity_n(s), "on our subsets",
                same=lambda s=segmented: removing(peer, s),
            )
        )  # fmt: skip
    reset, model = "parameter_randomization@attribench", subject.model
    return [
        *found,
        Pair(
            "max_sensitivity@attribench", ours("max_sensitivity@attribench", subject), peer.max_sensitivity,
            "on our noise", same=lambda: shifted(peer),
        ),
        Pair(
            reset, ours(reset, subject), lambda: peer.randomized(lambda: copy.deepcopy(model)),
            "on our weights", same=lambda: on_our_weights(peer),
        ),
        Pair(
            "impact_coverage@attribench", ours("impact_coverage@attribench", subject), peer.coverage,
            "the same patches; its places are common to a batch, and images that none turns are scored as well",
        ),
        family(subject),
    ]  # fmt: skip


def family(subject: Subject) -> Pair:
    """The whole default suite but for coverage and robustness, for ten methods."""
    rng = torch.Generator().manual_seed(0)
    maps = {f"m{i}": torch.rand(len(subject), 1, *subject.inputs.shape[-2:], generator=rng) for i in range(METHODS)}
    methods = [Method(name=name, explain=lambda m, x, t, one=one: one, signed=True) for name, one in maps.items()]
    names = [f"{name}@attribench{end}" for name in CURVES for end in ("", "_lerf")]
    names += [f"minimal_subset_{mode}@attribench" for mode in ("deletion", "insertion")]
    names += [f"infidelity@attribench_{kind}" for kind in ("square", "noisy_baseline")]
    names += ["sensitivity_n@attribench", "segment_sensitivity_n@attribench"]

    def shared() -> np.ndarray:
        once, draw = replace(subject), Draw(n=len(subject))
        return np.stack([preset(name).measure(m, once, draw).values.mean((0, 1)) for name in names for m in methods])

    def theirs() -> np.ndarray:
        from attribench.functional.metrics.infidelity import _perturbation_generator as kinds

        peer = Peer(subject, maps)
        for mode in ("morf", "lerf"):
            for function in ("deletion", "insertion"):
                peer.curves(function, mode, 0.15)
            for name in maps:
                peer.irof_curves(mode, name)
        for mode in ("deletion", "insertion"):
            peer.subsets(mode)
        for generator in (kinds.SquarePerturbationGenerator(5), kinds.NoisyBaselinePerturbationGenerator(0.2)):
            peer.infidelity(generator)
        return np.stack([peer.sensitivity_n(segmented) for segmented in (False, True)])

    note = "deletion, insertion, IROF, subsets, infidelity, sensitivity-n"
    return Pair(f"twelve scores, {METHODS} methods", shared, theirs, note, compared=False)
