"""The real data that comes with graphc: 1,797 handwritten digits, read from the package itself."""

from __future__ import annotations

import gzip
from importlib import resources

import numpy as np
from numpy.typing import NDArray

_DARKEST = 16  # the file's pixels are counts of dark points in a 4x4 block, 0 to 16


def digits() -> tuple[NDArray[np.float32], NDArray[np.int32]]:
    """The images and labels of 1,797 handwritten digits, in the order of the file.

    images: (1797, 64) f32, an 8x8 image a row, 0 is white and 1 is black; labels: (1797,) i32, 0 to 9. Every call
    returns arrays of its own.

    Source: Alpaydin and Kaynak (1998), Optical Recognition of Handwritten Digits, UCI Machine Learning Repository,
    CC BY 4.0; the copy that scikit-learn ships (see the README beside the file).

    >>> images, labels = digits()
    >>> images.shape, labels[:10].tolist()
    ((1797, 64), [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
    >>> print("\\n".join("".join("-+xo#"[int(4 * p)] for p in row) for row in images[0].reshape(8, 8)))
    --+ox---
    --ooxo+-
    --o--xx-
    -+o--xx-
    -+x--xx-
    -+x--o+-
    --o+xo--
    --+ox---
    """
    file = resources.files(__name__).joinpath("digits.csv.gz")
    with file.open("rb") as raw, gzip.open(raw) as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.int32)
    return (table[:, :64] / _DARKEST).astype(np.float32), np.ascontiguousarray(table[:, 64])
