"""With the causes of two classes in one image, the map points at the one it was asked for."""

from __future__ import annotations

from collections.abc import Callable


def test_class_contrast(judge: Callable[[], None]) -> None:
    judge()
