"""The UCI optical digits: 1,797 handwritten digits of 8x8 grey pixels, shipped with the package.

Main names: get_digits.
May import: NumPy and the neighbours in this folder.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from tinyflow.datasets.batches import ORDER_SEED, ImageDataset, split_images

_FILE = Path(__file__).with_name("digits.csv.gz")
_COUNT, _TRAIN_COUNT, _SIDE, _WHITE = 1797, 1437, 8, 16


def get_digits(flatten: bool = True, onehot: bool = True) -> ImageDataset:
    """The digits as (train, test), in one fixed order (permutation with seed 1234).

    images: float32[n, 64] if flatten else float32[n, 1, 8, 8], in [0, 1]
    labels: float32[n, 10] if onehot else int64[n]        n: 1,437 train, 360 test

    Source: E. Alpaydin and C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine
    Learning Repository, 1998, doi:10.24432/C50P49 (CC BY 4.0): its test part, in the file
    that scikit-learn ships. Each pixel counts the inked cells of a 4x4 block, 0..16.
    """
    pixels, labels = _permuted_pixels()
    return split_images(
        pixels, labels, train_count=_TRAIN_COUNT, white=_WHITE, flatten=flatten, onehot=onehot
    )


@cache
def _permuted_pixels() -> tuple[np.ndarray, np.ndarray]:
    """(uint8[1797, 8, 8], uint8[1797]) in the order of get_digits."""
    import gzip

    with gzip.open(_FILE, "rt", encoding="ascii") as lines:
        table = np.loadtxt(lines, delimiter=",", dtype=np.uint8)  # 64 pixels, then the digit
    table = table[np.random.RandomState(ORDER_SEED).permutation(_COUNT)]
    return table[:, :-1].reshape(_COUNT, _SIDE, _SIDE), table[:, -1]
