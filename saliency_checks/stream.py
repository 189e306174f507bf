"""A data set that is too large to hold: its images are decoded when a shard of them is asked for.

    subject = sc.stream(model, sc.image_folder("val"), side=224)

Any map-style data set of (image, label) will do, such as torchvision's; beside it there are three here that need
nothing else. An image that cannot be read is left out of every score, with its reason; it is never passed over.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from saliency_checks.chunking import chunked, per_pass
from saliency_checks.explain import evaluating
from saliency_checks.subject import Subject

if TYPE_CHECKING:
    from jaxtyping import Float, Int

SAMPLE = 64  # images whose statistics stand for all
ENDINGS = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})
Transform = Callable[[Any], Tensor]


class Images(Protocol):
    """What is read: ``(image, label)`` by number; the image as PIL opens it or as a tensor (C, H, W)."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> tuple[Any, int]: ...


class Unreadable(ValueError):
    """No image of a data set can be read, or there is none."""


@dataclass(frozen=True)
class Files:
    """Image files and the class of each."""

    paths: Sequence[Path]
    labels: Sequence[int]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise ValueError(f"{len(self.paths)} paths and {len(self.labels)} labels: expected one for each")

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int, /) -> tuple[Any, int]:
        return _opened(Path(self.paths[index]).read_bytes()), self.labels[index]

    @property
    def digest(self) -> str:
        """Of names, sizes and classes, not of the contents: those are read once, when they are measured."""
        rows = (f"{Path(p).name} {Path(p).stat().st_size} {c}" for p, c in zip(self.paths, self.labels, strict=True))
        return _hashed(rows)


def image_folder(root: str | Path) -> Files:
    """``root/class/image.jpg``, the classes numbered in the order of their names, as torchvision's ImageFolder."""
    root = Path(root)
    classes = sorted(entry.name for entry in os.scandir(root) if entry.is_dir())
    found = [
        (path, number)
        for number, name in enumerate(classes)
        for path in sorted((root / name).rglob("*"))
        if path.suffix.lower() in ENDINGS
    ]
    if not found:
        raise Unreadable(f"{root}: expected folders of images, one for each class ({root / 'class' / 'image.jpg'})")
    return Files([path for path, _ in found], [number for _, number in found])


@dataclass(frozen=True)
class Tars:
    """Tar shards as webdataset writes them: ``key.jpg`` and, beside it, ``key.cls`` with the class's number.

    Only the headers are read when it is made; an image is read from its place in the archive.
    """

    paths: Sequence[Path]
    members: list[tuple[int, str, int, int, int]] = field(init=False, repr=False)  # archive, name, place, size, class

    def __post_init__(self) -> None:
        found = [member for number, path in enumerate(self.paths) for member in _members(number, Path(path))]
        if not found:
            raise Unreadable(f"{', '.join(map(str, self.paths))}: no pair of an image and its .cls")
        object.__setattr__(self, "members", found)

    def __len__(self) -> int:
        return len(self.members)

    def __getitem__(self, index: int, /) -> tuple[Any, int]:
        archive, _, place, size, label = self.members[index]
        with Path(self.paths[archive]).open("rb") as file:
            file.seek(place)
            return _opened(file.read(size)), label

    @property
    def digest(self) -> str:
        return _hashed(f"{name} {size} {label}" for _, name, _, size, label in self.members)


def _members(number: int, path: Path) -> list[tuple[int, str, int, int, int]]:
    images: dict[str, tarfile.TarInfo] = {}
    labels: dict[str, int] = {}
    with tarfile.open(path, "r:") as archive:
        for member in archive:
            # webdataset: the key ends at the first dot of the file's name
            folder, _, name = member.name.rpartition("/")
            key, _, ending = name.partition(".")
            key = f"{folder}/{key}"
            if f".{ending.lower()}" in ENDINGS:
                images[key] = member
            elif ending.lower() == "cls" and (file := archive.extractfile(member)):
                labels[key] = int(file.read())
    if missing := sorted(images.keys() - labels.keys()):
        raise Unreadable(f"{path}: {images[missing[0]].name} has no {missing[0].strip('/')}.cls beside it")
    return [(number, image.name, image.offset_data, image.size, labels[key]) for key, image in images.items()]


def _opened(data: bytes) -> Any:
    from PIL import Image

    image = Image.open(io.BytesIO(data))
    image.load()
    return image


def to_tensor(image: Any, side: int | None = None) -> Float[Tensor, "c h w"]:
    """RGB from 0 to 1; with ``side`` the shorter side is resized to 8/7 of it (256 for 224) and the centre cut out."""
    if isinstance(image, Tensor):
        return image
    import numpy as np
    from PIL import Image

    image = image.convert("RGB")
    if side is not None:
        short = round(side * 8 / 7)
        width, height = (length * short // min(image.size) for length in image.size)
        left, top = (round((length - side) / 2) for length in (width, height))
        image = image.resize((width, height), Image.Resampling.BILINEAR).crop((left, top, left + side, top + side))
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


@dataclass(frozen=True, eq=False, kw_only=True)
class Stream:
    """A data set behind a subject.

    Attributes:
        images: gives (image, label) by number.
        transform: makes of an image what the model takes (C, H, W).
        explain: the class to explain, the ``label`` or what the model has ``predicted``.
        threads: that decode.
    """

    images: Images
    transform: Transform
    explain: str = "label"
    threads: int = 4

    def __len__(self) -> int:
        return len(self.images)

    @property
    def digest(self) -> str:
        return str(getattr(self.images, "digest", None) or _hashed([repr(self.images), str(len(self))]))

    def load(self, rows: range) -> list[tuple[Tensor, int] | str]:
        """Each image and its label, or why it cannot be read; decoded in parallel."""
        return list(_pool(self.threads).map(self._one, rows))

    def _one(self, index: int) -> tuple[Tensor, int] | str:
        try:
            image, label = self.images[index]
            made = self.transform(image)
            if not bool(torch.isfinite(made).all()):
                return "it holds values that are not finite"
            return made, int(label)
        except Exception as error:
            return f"{type(error).__name__}: {error}"

    def read(self, whole: Subject, rows: slice) -> dict[str, Any]:
        """Images, classes and what stands in for an image that cannot be read, on the subject's device."""
        stand_in = whole.inputs[0]
        found = self.load(range(rows.start, min(rows.stop, len(self))))
        for i, one in enumerate(found):
            if not isinstance(one, str) and one[0].shape != stand_in.shape:
                found[i] = f"its shape is {tuple(one[0].shape)}, the others' {tuple(stand_in.shape)}: give side="
        skipped = {i: one for i, one in enumerate(found) if isinstance(one, str)}
        images = [stand_in.cpu() if isinstance(one, str) else one[0].to(stand_in.dtype) for one in found]
        labels = [int(whole.targets[0]) if isinstance(one, str) else one[1] for one in found]
        inputs = torch.stack(images).to(stand_in.device)
        return {"inputs": inputs, "targets": self.targets(whole.model, inputs, labels), "skipped": skipped}

    def targets(self, model: nn.Module, inputs: Float[Tensor, "n c h w"], labels: Sequence[int]) -> Int[Tensor, " n"]:
        if self.explain == "label":
            return torch.tensor(labels, device=inputs.device)
        with evaluating(model):
            return chunked(lambda rows: model(rows).argmax(1), inputs, per_pass(inputs))


def stream(
    model: nn.Module, images: Images, *, name: str = "subject", side: int | None = None,
    transform: Transform | None = None, explain: str = "label", sample: int = SAMPLE, threads: int = 4, **fields: Any,
) -> Subject:  # fmt: skip
    """A subject of a data set of any size. Its ``inputs`` are the first images that can be read, a sample.

    Checks judge the sample. ``saliency-checks study benchmark`` reads all images, shard by shard; what a metric needs
    of the data set as a whole (mean, spread, range, references) it takes from the sample.

    Args:
        images: ``image_folder(root)``, ``Files(paths, labels)``, ``Tars(paths)``, or any data set of (image, label).
        side: images are resized and cut to so many pixels; by default they are taken as they are.
        transform: instead of that: from an image, as the data set gives it, to what the model takes.
        explain: the class to explain: the ``label`` or the one that the model has ``predicted``.
        threads: that decode.
        fields: further ones of :class:`Subject`.

    Raises:
        Unreadable: none of the first images can be read.
    """
    if explain not in ("label", "predicted"):
        raise ValueError(f"explain {explain!r}: expected 'label' or 'predicted'")
    source = Stream(
        images=images, transform=transform or (lambda image: to_tensor(image, side)), explain=explain, threads=threads
    )
    good: list[tuple[Tensor, int]] = []
    why = "it is empty"
    for first in range(0, min(len(source), 4 * sample), sample):
        for one in source.load(range(first, min(first + sample, len(source)))):
            if isinstance(one, str):
                why = one
            elif not good or one[0].shape == good[0][0].shape:
                good.append(one)
        if len(good) >= sample:
            break
    if not good:
        raise Unreadable(f"{images!r:.200}: none of the first images can be read ({why})")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    inputs = torch.stack([image for image, _ in good[:sample]]).to(device)
    targets = source.targets(model, inputs, [label for _, label in good[:sample]])
    return Subject(model, inputs, targets, name=name, source=source, **fields)


@lru_cache(maxsize=4)
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="decode")


def _hashed(rows: Any) -> str:
    found = hashlib.sha256()
    for row in rows:
        found.update(row.encode() + b"\n")
    return found.hexdigest()[:16]
