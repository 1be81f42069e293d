"""Batches: order, wrap-around, one-hot rows."""

import numpy as np
import pytest

from tinyflow.datasets import ImageSplit, random_one_hot_labels
from tinyflow.datasets.batches import one_hot


def split_of(count: int) -> ImageSplit:
    labels = np.arange(count)
    return ImageSplit(labels[:, None].astype(np.float32), labels)


def test_batches_come_in_order():
    split = split_of(10)
    for start in (0, 3, 6):
        images, labels = split.next_batch(3)
        np.testing.assert_array_equal(labels, np.arange(start, start + 3))
        np.testing.assert_array_equal(images[:, 0], labels)


@pytest.mark.parametrize(
    ("count", "batch_size", "starts"),
    [
        (10, 3, [0, 3, 6, 0, 3]),  # 9 + 3 passes the end
        (10, 5, [0, 0, 0]),  # 5 + 5 reaches the end exactly: back to the start as well
        (12, 4, [0, 4, 0, 4]),  # rows 8..11 are never handed out
        (4, 4, [0, 0]),
        (4, 1, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_wraps_when_a_batch_would_reach_the_end(count, batch_size, starts):
    split = split_of(count)
    assert [split.next_batch(batch_size)[1][0] for _ in starts] == starts


def test_batch_size_may_change():
    split = split_of(10)
    assert [split.next_batch(n)[1][0] for n in (2, 5, 2, 1, 3)] == [0, 2, 7, 0, 1]


@pytest.mark.parametrize("batch_size", [0, -1, 11])
def test_refuses_impossible_batch(batch_size):
    with pytest.raises(ValueError, match=rf"must be in 1\.\.10, got {batch_size}"):
        split_of(10).next_batch(batch_size)


def test_one_hot():
    np.testing.assert_array_equal(one_hot(np.array([2, 0]), 3), [[0, 0, 1], [1, 0, 0]])
    assert one_hot(np.array([2, 0]), 3).dtype == np.float32


def test_random_one_hot_labels():
    labels = random_one_hot_labels((1000, 10))
    assert labels.shape == (1000, 10)
    assert labels.dtype == np.float32
    np.testing.assert_array_equal(np.sort(labels, axis=1), np.eye(10)[[9] * 1000])
    counts = labels.sum(axis=0)
    assert counts.min() > 60 and counts.max() < 150  # 100 each, give or take 4 deviations
    np.testing.assert_array_equal(labels, random_one_hot_labels((1000, 10)))
    assert (labels != random_one_hot_labels((1000, 10), seed=2)).any()
