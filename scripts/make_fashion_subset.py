"""Make the embedded subset of Fashion-MNIST: the first 1,000 training and 200 test images of each class.

    python scripts/make_fashion_subset.py FOLDER

FOLDER holds the complete set: the four files ``{train,t10k}-{images-idx3,labels-idx1}-ubyte.gz``. The same files give
the same bytes. Images lie class by class without header or labels, which compresses best; of the codecs and pixel
filters of the standard library, LZMA on the plain bytes is the smallest (4.5 MB; zlib with a row filter: 5.0 MB).
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import lzma
from pathlib import Path

import numpy as np

from saliency_checks.fixtures.data import CLASSES, DATA, PER_CLASS

FILES = {"train": "train", "test": "t10k"}
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "lc": 4, "lp": 0, "pb": 0}]
NOTICE = """Fashion-MNIST (https://github.com/zalandoresearch/fashion-mnist)
fashion_train.xz and fashion_test.xz hold the first 1,000 training and 200 test images of each class.

The MIT License (MIT)

Copyright (c) 2017 Zalando SE, https://tech.zalando.com

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.
"""


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 28, 28) and labels (N,) of one complete idx pair."""
    images, labels = (folder / f"{FILES[part]}-{kind}-ubyte.gz" for kind in ("images-idx3", "labels-idx1"))
    for path in (images, labels):
        if not path.is_file():
            raise SystemExit(f"{path} is not there; expected the complete Fashion-MNIST as idx.gz files in {folder}")
    pixels = np.frombuffer(gzip.decompress(images.read_bytes()), np.uint8, offset=16)
    return pixels.reshape(-1, 28, 28), np.frombuffer(gzip.decompress(labels.read_bytes()), np.uint8, offset=8)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=DATA)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for part in FILES:
        images, labels = read(args.folder, part)
        chosen = [np.flatnonzero(labels == c)[: PER_CLASS[part]] for c in range(len(CLASSES))]
        packed = lzma.compress(images[np.concatenate(chosen)].tobytes(), filters=FILTERS)
        path = args.out / f"fashion_{part}.xz"
        path.write_bytes(packed)
        print(f"{path}  {len(packed):,} bytes  sha256 {hashlib.sha256(packed).hexdigest()}")
    (args.out / "LICENSE-Fashion-MNIST").write_text(NOTICE, encoding="utf-8")


if __name__ == "__main__":
    main()
