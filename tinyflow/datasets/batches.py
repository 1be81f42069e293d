"""Images with labels, handed out in batches of a fixed order.

Main types: ImageSplit (images, labels, next_batch), ImageDataset (train, test).
May import: NumPy.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# The seed of the first TinyFlow's loader: a batch number means the same images as it did there.
ORDER_SEED = 1234


class ImageSplit:
    """Images and labels in a fixed order, read in batches.

    images: float32[n, features] or float32[n, 1, height, width], values in [0, 1]
    labels: int64[n], or float32[n, classes] one-hot
    """

    def __init__(self, images: np.ndarray, labels: np.ndarray) -> None:
        self.images = images
        self.labels = labels
        self.ptr = 0

    @property
    def num_examples(self) -> int:
        return int(self.labels.shape[0])

    def next_batch(self, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `batch_size` rows of (images, labels), as views.

        Goes back to the first row as soon as a batch would reach the end, so the last rows
        (a whole batch, where the sizes divide) are never handed out. That is how the first
        TinyFlow counted; published results of its programs depend on it.
        Errors: ValueError unless 1 <= batch_size <= num_examples.
        """
        if not 1 <= batch_size <= self.num_examples:
            raise ValueError(
                f"next_batch: batch_size must be in 1..{self.num_examples}, got {batch_size}"
            )
        if self.ptr + batch_size >= self.num_examples:
            self.ptr = 0
        rows = slice(self.ptr, self.ptr + batch_size)
        self.ptr += batch_size
        return self.images[rows], self.labels[rows]

    def __repr__(self) -> str:
        images = f"{self.images.dtype}{list(self.images.shape)}"
        labels = f"{self.labels.dtype}{list(self.labels.shape)}"
        return f"ImageSplit(images={images}, labels={labels})"


class ImageDataset(NamedTuple):
    """The part to learn from and the part to judge by."""

    train: ImageSplit
    test: ImageSplit


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    """int[n] -> float32[n, classes]: 1 at [i, labels[i]], else 0."""
    rows = np.zeros((labels.shape[0], classes), np.float32)
    rows[np.arange(labels.shape[0]), labels] = 1
    return rows


def random_one_hot_labels(shape: tuple[int, int], seed: int | None = ORDER_SEED) -> np.ndarray:
    """float32[n, classes]: one 1 in each row, at a place drawn uniformly.

    shape: (n, classes). seed: the same seed gives the same labels; None draws fresh ones.
    """
    count, classes = shape
    return one_hot(np.random.default_rng(seed).integers(0, classes, size=count), classes)


def split_images(
    pixels: np.ndarray,
    labels: np.ndarray,
    *,
    train_count: int,
    white: int,
    flatten: bool,
    onehot: bool,
) -> ImageDataset:
    """Pixels in their final order -> scaled images, cut into train and test.

    pixels: uint8[n, height, width], 0..white        labels: uint8[n], classes 0..9
    The first `train_count` rows are the train split, the rest the test split.
    """
    count, height, width = pixels.shape
    images = pixels.astype(np.float32)
    images /= white
    images = images.reshape((count, height * width) if flatten else (count, 1, height, width))
    targets = one_hot(labels, 10) if onehot else labels.astype(np.int64)
    return ImageDataset(
        train=ImageSplit(images[:train_count], targets[:train_count]),
        test=ImageSplit(images[train_count:], targets[train_count:]),
    )
