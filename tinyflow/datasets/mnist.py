"""MNIST: 70,000 handwritten digits of 28x28 grey pixels.

Main names: get_mnist. Source: Y. LeCun, C. Cortes, C. J. C. Burges, "The MNIST database".
May import: NumPy and the neighbours in this folder.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tinyflow.datasets.batches import ORDER_SEED, ImageDataset, split_images
from tinyflow.datasets.idx import IdxError, read_idx
from tinyflow.datasets.store import DatasetUnavailable, RemoteFile, obtain

_MIRRORS = [
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
]
_TRAIN_COUNT, _TEST_COUNT, _SIDE = 60_000, 10_000, 28
_FILES = [
    RemoteFile(
        name="train-images-idx3-ubyte.gz",
        size_bytes=9_912_422,
        md5="f68b3c2dcbeaaa9fbdd348bbdeb94873",
        sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    RemoteFile(
        name="train-labels-idx1-ubyte.gz",
        size_bytes=28_881,
        md5="d53e105ee54ea40749a09fcbcd1e9432",
        sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    RemoteFile(
        name="t10k-images-idx3-ubyte.gz",
        size_bytes=1_648_877,
        md5="9fb629c4189551a2d022fa330f9573f3",
        sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    RemoteFile(
        name="t10k-labels-idx1-ubyte.gz",
        size_bytes=4_542,
        md5="ec29112dd5afa0611ce80d1b7f02629c",
        sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
]

# Decoded pixels by the paths they came from: a second get_mnist in one process unpacks nothing.
_decoded: dict[tuple[Path, ...], tuple[np.ndarray, np.ndarray]] = {}


def get_mnist(flatten: bool = False, onehot: bool = False) -> ImageDataset:
    """MNIST as (train, test), in one fixed order.

    images: float32[n, 784] if flatten else float32[n, 1, 28, 28], in [0, 1]
    labels: float32[n, 10] if onehot else int64[n]        n: 60,000 train, 10,000 test

    Order, as in the first TinyFlow: the official train and test images, each sorted by digit,
    are joined and permuted with seed 1234; the first 60,000 are `train`. So this split is not
    the official one, and `test` is drawn from all 70,000.

    Files: TINYFLOW_DATA (the four .gz files, or mnist/ with them), then the cache, then a
    checked download. Errors: DatasetUnavailable, with the ways out.
    """
    pixels, labels = _permuted_pixels()
    return split_images(
        pixels, labels, train_count=_TRAIN_COUNT, white=255, flatten=flatten, onehot=onehot
    )


def _permuted_pixels() -> tuple[np.ndarray, np.ndarray]:
    """(uint8[70000, 28, 28], uint8[70000]) in the order of get_mnist."""
    paths = tuple(
        obtain(
            _FILES,
            dataset="mnist",
            mirrors=_MIRRORS,
            instead="tinyflow.datasets.get_digits() needs no files: 1,797 digits of 8x8 pixels "
            "come with the package",
        )
    )
    if paths not in _decoded:
        _decoded[paths] = _decode(paths)
    return _decoded[paths]


def _decode(paths: tuple[Path, ...]) -> tuple[np.ndarray, np.ndarray]:
    counts = (_TRAIN_COUNT, _TRAIN_COUNT, _TEST_COUNT, _TEST_COUNT)
    shapes = [(n, _SIDE, _SIDE) if i % 2 == 0 else (n,) for i, n in enumerate(counts)]
    try:
        arrays = [read_idx(path, shape) for path, shape in zip(paths, shapes, strict=True)]
    except IdxError as damage:
        raise DatasetUnavailable(
            f"mnist: a file is not what it should be\n  {damage}\n"
            "  hint: delete or replace it; a copy in the cache is then downloaded again"
        ) from damage
    train_images, train_labels, test_images, test_labels = arrays
    pixels = np.concatenate([train_images, test_images])
    labels = np.concatenate([train_labels, test_labels])
    # The copy of MNIST that the first TinyFlow loaded was sorted by digit within each part.
    by_digit = np.concatenate(
        [
            np.argsort(train_labels, kind="stable"),
            _TRAIN_COUNT + np.argsort(test_labels, kind="stable"),
        ]
    )
    # RandomState keeps this sequence for ever and leaves the user's global generator alone.
    order = by_digit[np.random.RandomState(ORDER_SEED).permutation(len(labels))]
    return pixels[order], labels[order]
