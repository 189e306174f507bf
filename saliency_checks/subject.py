"""Subject: what is explained, and what ground truth it can offer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, overload

import torch
from torch import Tensor, nn

from saliency_checks import registry
from saliency_checks.recent import Recent

if TYPE_CHECKING:
    from jaxtyping import Bool, Float, Int

    from saliency_checks.stream import Stream

OFFERS = {
    "gradient": "a model that autograd can differentiate",
    "baseline": "a value that means absent",
    "references": "other images to compare with",
    "conv": "convolutional layers",
    "mask": "a mask of the pixels that cause the class",
    "truth": "a mask of the pixels that cause the class, and masks of exchangeable decoys",
    "removal": "inputs from which the cause can be removed, and the class with it",
    "deletion": "a cause that can be taken away pixel by pixel",
    "decision": "a cause that alone decides the class, and with which the class goes",
    "contrast": "inputs with the causes of two classes",
    "randomization": "a trained model whose weights may be drawn again",
    "twins": "models trained on the same task and on permuted labels",
    "graded": "a model whose known cause can be made smaller or greater",
    "networks": "small random networks on which axioms are tested, drawn anew for each",
    "natural": "images on which deletion and insertion may be judged",
}


@dataclass(frozen=True, kw_only=True)
class Contrast:
    """Inputs that hold the causes of two classes at once.

    Attributes:
        inputs: images (N, C, H, W).
        targets: the two classes of each image (N, 2).
        sites: the mask of each class's own cause (N, 2, H, W).
    """

    inputs: Float[Tensor, "n c h w"]
    targets: Int[Tensor, "n 2"]
    sites: Bool[Tensor, "n 2 h w"]


@dataclass(frozen=True, kw_only=True)
class Twins:
    """Models of one architecture that memorised the same images, under true and under permuted labels.

    Attributes:
        same: two or more models trained on the true labels, from different seeds; the first one is the reference.
        permuted: models trained on permuted labels.
        inputs: training images to explain (N, C, H, W).
        targets: their true classes (N,).
    """

    same: tuple[nn.Module, ...]
    permuted: tuple[nn.Module, ...]
    inputs: Float[Tensor, "n c h w"]
    targets: Int[Tensor, " n"]


# Comparing with more images changes little and costs a pass each.
MOST_REFERENCES = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Origin:
    """Where the images of a shard come from.

    Attributes:
        first: number of its first image among all: what is drawn for an image is keyed by its number.
        whole: the subject whose images' statistics (mean, spread, range, references) stand for all.
        among: how many images are scored in all: the mean output that guards against small ones is theirs.
    """

    first: int
    whole: Subject
    among: int


class Unqualified(Exception):
    """A subject that does not meet a check's precondition: the check is skipped with this reason."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model, images, the classes to explain, and what is known about them.

    Attributes:
        model: classifier from (N, C, H, W) to logits (N, K); it is explained in eval mode.
        inputs: all images that may be drawn (N, C, H, W), as the model takes them.
        targets: the class to explain for each image (N,), int64.
        name: lower-case identifier; part of the result's key.
        absent: the value of a pixel that holds nothing (a number or one per channel); default the images' mean.
        references: images to which methods may compare (M, C, H, W), such as training images; default the first
            of the images, at most 64.
        truth: mask of the pixels that cause the target class (N, H, W).
        decoys: masks of the exchangeable pixels that do not (N, D, H, W).
        contrast: images with two causes, or what builds them when first needed.
        removable: whether deleting the truth takes the class away (verified by whoever built the subject).
        indivisible: the cause goes with any of its pixels (a pattern), so that an order of pixels says nothing.
        natural: whether deletion and insertion may be judged on these images.
        randomizable: whether checks may draw the model's weights again (on copies).
        twins: builds the label-permuted and the same-task twins when first needed.
        replicas: builds further subjects of the same recipe (other training seeds, other images); with this
            one they are the clusters, and the worst is judged.
        least_replicas: replicas that count in every profile.
        clean: the inputs without what was planted on them (N, C, H, W): what a deleted pixel holds.
        networks: it stands for small random networks that the axioms check draws itself.
        graded: ``model.at(effect)`` is the model with its known cause at another size.
        layered: builds the same subject with the cause in the activations that layer methods read.
        source: a data set of (image, label) that is larger than ``inputs``, which then are a sample of it; see
            :mod:`saliency_checks.stream`.
        origin: of a shard: where its images come from.
        skipped: images (by their place here) that could not be read or explained, and why; others stand in for them,
            and what is scored there does not count.
        facts: numbers that were measured when the subject was built, such as its accuracy; for reports.
        cache: what was measured on it: little for each image.
        recent: its maps and segments, each as large as an image: a bounded number of bytes.
    """

    model: nn.Module
    inputs: Float[Tensor, "n c h w"]
    targets: Int[Tensor, " n"]
    name: str = field(default="subject", kw_only=True)
    absent: float | tuple[float, ...] | None = field(default=None, kw_only=True)
    references: Float[Tensor, "m c h w"] | None = field(default=None, repr=False, kw_only=True)
    truth: Bool[Tensor, "n h w"] | None = field(default=None, repr=False, kw_only=True)
    decoys: Bool[Tensor, "n d h w"] | None = field(default=None, repr=False, kw_only=True)
    contrast: Contrast | Callable[[], Contrast] | None = field(default=None, repr=False, kw_only=True)
    removable: bool = field(default=False, kw_only=True)
    indivisible: bool = field(default=False, kw_only=True)
    natural: bool = field(default=True, kw_only=True)
    randomizable: bool = field(default=True, kw_only=True)
    twins: Callable[[], Twins] | None = field(default=None, repr=False, kw_only=True)
    replicas: tuple[Callable[[], Subject], ...] = field(default=(), repr=False, kw_only=True)
    least_replicas: int = field(default=0, repr=False, kw_only=True)
    clean: Float[Tensor, "n c h w"] | None = field(default=None, repr=False, kw_only=True)
    networks: bool = field(default=False, kw_only=True)
    graded: bool = field(default=False, kw_only=True)
    layered: Callable[[], Subject] | None = field(default=None, repr=False, kw_only=True)
    source: Stream | None = field(default=None, repr=False, kw_only=True)
    origin: Origin | None = field(default=None, repr=False, kw_only=True)
    skipped: Mapping[int, str] = field(default_factory=dict, repr=False, kw_only=True)
    facts: Mapping[str, Any] = field(default_factory=dict, repr=False, kw_only=True)
    cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False)
    recent: Recent = field(default_factory=Recent, init=False, repr=False)

    def __post_init__(self) -> None:
        registry.check_name(self.name)
        n = len(self.inputs)
        if self.inputs.ndim != 4 or not self.inputs.is_floating_point():
            raise ValueError(
                f"subject {self.name!r}: inputs are {self.inputs.dtype} {tuple(self.inputs.shape)}, expected floating"
                " point (N, C, H, W), as the model takes them"
            )
        if self.targets.shape != (n,) or self.targets.is_floating_point():
            raise ValueError(
                f"subject {self.name!r}: targets are {self.targets.dtype} {tuple(self.targets.shape)}, expected"
                f" integers ({n},): one class index per image"
            )
        references = self.inputs if self.references is None else self.references
        if references.shape[1:] != self.inputs.shape[1:] or (self.references is not None and not len(references)):
            raise ValueError(
                f"subject {self.name!r}: references are {tuple(references.shape)}, expected one image or more of"
                f" {tuple(self.inputs.shape[1:])}"
            )
        spatial = tuple(self.inputs.shape[-2:])
        if self.truth is not None and tuple(self.truth.shape) != (n, *spatial):
            raise ValueError(
                f"subject {self.name!r}: truth is {tuple(self.truth.shape)}, expected booleans {(n, *spatial)}"
            )

    @property
    def offers(self) -> frozenset[str]:
        """What checks may ask of this subject: names from ``OFFERS``."""
        held = {
            "gradient": True,
            "baseline": True,
            "references": True,
            "randomization": self.randomizable,
            "conv": any(isinstance(module, nn.Conv2d) for module in self.model.modules()),
            "mask": self.truth is not None,
            "truth": self.truth is not None and self.decoys is not None,
            "removal": self.truth is not None and self.removable,
            "deletion": self.truth is not None and self.removable and not self.indivisible,
            # A graft adds to what the model sees itself, so it need not decide.
            "decision": self.truth is not None and self.removable and not self.graded,
            "contrast": self.contrast is not None,
            "twins": self.twins is not None,
            "natural": self.natural,
            "graded": self.graded,
            "networks": self.networks,
        }
        return frozenset(name for name, is_held in held.items() if is_held)

    @property
    def absent_value(self) -> Float[Tensor, "1 c 1 1"]:
        """The value that means "nothing here", per channel."""
        channels = self.inputs.shape[1]
        if self.absent is None:
            return self.population.inputs.mean(dim=(0, 2, 3)).view(1, channels, 1, 1)
        value = torch.as_tensor(self.absent, dtype=self.inputs.dtype, device=self.inputs.device)
        return value.expand(channels).view(1, channels, 1, 1)

    @property
    def supplies(self) -> dict[str, Tensor]:
        """What a method may ask for beside model, images and classes: ``baseline`` and ``references``."""
        chosen = self.population.inputs[:MOST_REFERENCES] if self.references is None else self.references
        return {"baseline": self.absent_value, "references": chosen}

    def members(self, replicas: int) -> tuple[Subject, ...]:
        """This subject and up to ``replicas`` further ones of its recipe, each built once."""
        replicas = max(replicas, self.least_replicas)
        built: list[Subject] = self.cache.setdefault("replicas", [])
        built.extend(build() for build in self.replicas[len(built) : replicas])
        return (self, *built[:replicas])

    @property
    def pairs(self) -> Contrast:
        """The images with two causes.

        Raises:
            Unqualified: they cannot be built.
        """
        assert self.contrast is not None
        if isinstance(self.contrast, Contrast):
            return self.contrast
        if "pairs" not in self.cache:
            self.cache["pairs"] = self.contrast()
        built: Contrast = self.cache["pairs"]
        return built

    @property
    def population(self) -> Subject:
        """The subject whose images' statistics stand for the data set's: of a shard the whole, else this one."""
        return self if self.origin is None else self.origin.whole

    @property
    def first(self) -> int:
        """Number of the first image among all: 0 but in a shard."""
        return 0 if self.origin is None else self.origin.first

    def scored(self, n: int) -> tuple[Subject, int]:
        """(a subject, so many of its images): what a mean over all that are scored is taken from."""
        if self.origin is None or (self.first == 0 and len(self) >= self.origin.among):
            return self, n
        return self.population, min(self.origin.among, len(self.population))

    @property
    def size(self) -> int:
        """How many images there are, those included that are read when needed."""
        return len(self) if self.source is None else len(self.source)

    def cut(self, first: int, stop: int, among: int) -> Subject:
        """A shard: the images ``first`` to ``stop`` of ``among`` that are scored, with what is known of each.

        What is known of other images than these (twins, replicas, pairs) is left out.
        """
        rows = slice(first, stop)
        read = {"inputs": self.inputs[rows], "targets": self.targets[rows]}
        own = {name: value[rows] for name in ("truth", "decoys", "clean") if (value := getattr(self, name)) is not None}
        return replace(
            self, **(read if self.source is None else self.source.read(self, rows)), **own, contrast=None, twins=None,
            replicas=(), least_replicas=0, layered=None, source=None,
            origin=Origin(first=first, whole=self, among=among),
        )  # fmt: skip

    def without(self, images: Mapping[int, str], stand_in: int = 0) -> Subject:
        """The same, the given images (by place) replaced by that one of all; the others keep their place and draws."""
        inputs = self.inputs.clone()
        inputs[list(images)] = self.population.inputs[stand_in]
        return replace(self, inputs=inputs, skipped={**self.skipped, **images})

    def __len__(self) -> int:
        return len(self.inputs)


@dataclass(frozen=True, kw_only=True)
class SubjectFactory:
    """A registered subject: its name and what it offers are known before it is built.

    Attributes:
        build: makes the subject; called once per process, when first needed.
        offers: what it will at least offer.
        exact: it offers nothing else, so cells that need more can be left out without building it.
        serves: only checks that need one of these are run on it; all where it is empty.
        profiles: the profiles that include it by default.
        graft: whether a known cause is grafted onto its model as well, see :func:`saliency_checks.graft`.
    """

    name: str
    build: Callable[[], Subject]
    offers: frozenset[str]
    exact: bool = False
    serves: frozenset[str] = frozenset()
    graft: bool = True
    profiles: frozenset[str] = frozenset({"quick", "standard", "thorough"})

    def __call__(self) -> Subject:
        subject = self.build()
        if not isinstance(subject, Subject):
            raise TypeError(
                f"subject {self.name!r}: its function returned {type(subject).__name__}, expected"
                " sc.Subject(model, inputs, targets)"
            )
        missing = self.offers - subject.offers
        if missing:
            raise ValueError(
                f"subject {self.name!r} is declared to offer {', '.join(sorted(missing))} but does not: "
                + "; ".join(f"{name} means {OFFERS[name]}" for name in sorted(missing))
            )
        return replace(subject, name=self.name)


@overload
def subject(build: Callable[[], Subject], /) -> SubjectFactory: ...
@overload
def subject(
    *,
    name: str | None = None,
    offers: Iterable[str] = (),
    exact: bool = False,
    profiles: Iterable[str] | None = None,
    graft: bool = True,
) -> Callable[[Callable[[], Subject]], SubjectFactory]: ...
def subject(
    build: Callable[[], Subject] | None = None,
    /,
    *,
    name: str | None = None,
    offers: Iterable[str] = (),
    exact: bool = False,
    profiles: Iterable[str] | None = None,
    graft: bool = True,
) -> Any:
    """Register a function that builds a :class:`Subject`; it is called when first needed.

    What a subject offers is read from the one that was built; declaring it catches mistakes.

    Args:
        name: default the function's own name.
        offers: what the subject must offer, from ``OFFERS``.
        exact: it offers nothing else: checks that need more are not collected for it.
        profiles: the profiles that run it by default: all of them.
        graft: also judge methods by a known cause that is grafted onto the model (see the README).
    """
    unknown = set(offers) - set(OFFERS)
    if unknown:
        raise ValueError(f"offers {sorted(unknown)}: expected names from {sorted(OFFERS)}")

    def register(build: Callable[[], Subject]) -> SubjectFactory:
        factory = SubjectFactory(
            name=name or build.__name__,
            build=build,
            offers=frozenset(offers),
            exact=exact,
            profiles=frozenset(profiles or ("quick", "standard", "thorough")),
            graft=graft,
        )
        origin = f"{build.__module__}:{build.__qualname__}"
        registered: SubjectFactory = registry.register("subjects", factory.name, factory, origin=origin)
        return registered

    return register if build is None else register(build)
