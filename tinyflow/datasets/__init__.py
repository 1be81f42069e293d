"""Data sets for the examples: MNIST, and the digits that ship with the package.

Main names: get_mnist, get_digits, random_one_hot_labels, DatasetUnavailable.
May import: NumPy and the standard library; nothing else of TinyFlow, so that loading stays light.
"""

from tinyflow.datasets.batches import ImageDataset, ImageSplit, random_one_hot_labels
from tinyflow.datasets.digits import get_digits
from tinyflow.datasets.mnist import get_mnist
from tinyflow.datasets.store import DatasetUnavailable

__all__ = [
    "DatasetUnavailable",
    "ImageDataset",
    "ImageSplit",
    "get_digits",
    "get_mnist",
    "random_one_hot_labels",
]
