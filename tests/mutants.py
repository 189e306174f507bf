"""Sound methods, broken one by one in the ways in which attribution code breaks.

``mutant.make(base, original=, unrelated=)`` gives the broken method under the name ``<base>_<mutant>``;
``mutant.killers`` names the checks that must fail it, each one where it applies, whatever sound method it was made of.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from saliency_checks.explain import validated
from saliency_checks.method import Method

Explain = Callable[[nn.Module, Tensor, Tensor], Tensor]
Break = Callable[[Explain, nn.Module, nn.Module], Explain]


@dataclass(frozen=True)
class Mutant:
    """A way to break a method.

    Attributes:
        name: added to the base's name.
        broken: ``(explain, original model, unrelated model) -> explain``.
        killers: checks that must fail it, wherever they apply; ``contract`` alone where the maps stay right.
    """

    name: str
    broken: Break
    killers: tuple[str, ...]

    def make(self, base: Method, *, original: nn.Module, unrelated: nn.Module) -> Method:
        def explain(model: nn.Module, inputs: Tensor, targets: Tensor, **given: Tensor) -> Tensor:
            def sound(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
                return validated(base.explain(model, inputs, targets, **given), inputs, base.name)

            return self.broken(sound, original, unrelated)(model, inputs, targets)

        return replace(base, name=f"{base.name}_{self.name}", explain=explain, expected_failures={})


def on_targets(choose: Callable[[nn.Module, Tensor, Tensor], Tensor]) -> Break:
    return lambda sound, *_: lambda m, x, t: sound(m, x, choose(m, x, t))


def on_inputs(edit: Callable[[Tensor], Tensor]) -> Break:
    return lambda sound, *_: lambda m, x, t: sound(m, edit(x), t)


def on_maps(edit: Callable[[Tensor], Tensor]) -> Break:
    """``edit`` sees maps (N, H, W)."""
    return lambda sound, *_: lambda m, x, t: edit(sound(m, x, t))


def stale_original(sound: Explain, original: nn.Module, unrelated: nn.Module) -> Explain:
    return lambda m, x, t: sound(original, x, t)


def stale_unrelated(sound: Explain, original: nn.Module, unrelated: nn.Module) -> Explain:
    return lambda m, x, t: sound(unrelated, x, t)


def train_mode(sound: Explain, *_: nn.Module) -> Explain:
    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        modes = [(module, module.training) for module in model.modules()]
        model.train()
        try:
            return sound(model, inputs, targets)
        finally:
            for module, mode in modes:
                module.training = mode

    return explain


def hashed(sound: Explain, *_: nn.Module) -> Explain:
    """Noise that depends on the weights, the image and the class, and on nothing that they mean."""

    def explain(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
        weights = zlib.crc32(b"".join(p.detach().cpu().numpy().tobytes() for p in model.parameters()))
        maps = []
        for image, target in zip(inputs.detach().cpu(), targets.tolist(), strict=True):
            seed = zlib.crc32(image.numpy().tobytes(), weights) + target
            maps.append(torch.randn(image.shape[-2:], generator=torch.Generator().manual_seed(seed)))
        return torch.stack(maps).to(inputs)

    return explain


def argmin(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    with torch.no_grad():
        return model(inputs).argmin(1)


def around_the_mean(inputs: Tensor) -> Tensor:
    """|x - mean| + mean, by image and channel."""
    mean = inputs.mean((2, 3), keepdim=True)
    return (inputs - mean).abs() + mean


def noisy(maps: Tensor) -> Tensor:
    return maps + 3 * maps.std((1, 2), keepdim=True) * torch.randn_like(maps)


def three_levels(maps: Tensor) -> Tensor:
    """-1, 0 and 1: the sign of whatever exceeds a tenth of the largest value."""
    most = maps.abs().amax((1, 2), keepdim=True)
    return maps.sign() * (maps.abs() > most / 10)


IMPORTANCE = ("additive_importance", "subtractive_importance")
MUTANTS: tuple[Mutant, ...] = (
    Mutant("argmin_target", on_targets(argmin), ("contract", "class_contrast")),
    Mutant("fixed_target", on_targets(lambda m, x, t: torch.zeros_like(t)), ("contract", "class_contrast")),
    Mutant("neighbours_target", on_targets(lambda m, x, t: t.roll(1)), ("contract", "class_contrast")),
    Mutant("stale_original", stale_original, ("contract", "cascading_randomization", "label_permutation")),
    Mutant("stale_unrelated", stale_unrelated, ("contract", "cascading_randomization", "label_permutation")),
    Mutant("transposed", on_maps(lambda a: a.transpose(1, 2)), ("pixel_recovery", *IMPORTANCE, "planted_deletion")),
    Mutant("flipped", on_maps(lambda a: a.flip(2)), ("pixel_recovery", *IMPORTANCE, "planted_deletion")),
    Mutant("shifted", on_maps(lambda a: a.roll((2, 2), (1, 2))), ("pixel_recovery", *IMPORTANCE, "planted_deletion")),
    Mutant("negated", on_maps(torch.neg), ("class_contrast", "sign")),
    Mutant("rolled", on_maps(lambda a: a.roll(1, 0)), ("contract", "pixel_recovery", *IMPORTANCE)),
    Mutant("detached", on_maps(torch.zeros_like), ("contract", "complexity")),
    Mutant("train_mode", train_mode, ("contract",)),
    Mutant("abs_input", on_inputs(around_the_mean), ("pixel_recovery", *IMPORTANCE)),
    Mutant("noisy", on_maps(noisy), ("contract", "cascading_randomization", "label_permutation")),
    Mutant("hashed", hashed, ("pixel_recovery", *IMPORTANCE, "label_permutation")),
    Mutant("few_levels", on_maps(three_levels), ("contract",)),
)
