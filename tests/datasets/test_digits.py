"""The digits that ship with the package."""

import numpy as np

from tinyflow.datasets import get_digits


def test_shapes_and_types():
    digits = get_digits()
    assert digits.train.images.shape == (1437, 64)
    assert digits.test.images.shape == (360, 64)
    assert digits.train.labels.shape == (1437, 10)
    assert digits.test.labels.shape == (360, 10)
    assert digits.train.images.dtype == digits.train.labels.dtype == np.float32
    plain = get_digits(flatten=False, onehot=False)
    assert plain.train.images.shape == (1437, 1, 8, 8)
    assert plain.test.labels.shape == (360,)
    assert plain.test.labels.dtype == np.int64
    np.testing.assert_array_equal(plain.train.images.reshape(1437, 64), digits.train.images)
    np.testing.assert_array_equal(plain.train.labels, digits.train.labels.argmax(axis=1))


def test_content():
    digits = get_digits(onehot=False)
    images = np.concatenate([digits.train.images, digits.test.images])
    labels = np.concatenate([digits.train.labels, digits.test.labels])
    # Counts per class: the data set's own description.
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert images.min() == 0 and images.max() == 1
    np.testing.assert_array_equal(images * 16, np.round(images * 16))
    # The nearest train image has the same digit for nearly every test image.
    train, test = digits.train, digits.test
    distance = (test.images**2).sum(1)[:, None] - 2 * test.images @ train.images.T
    nearest = (distance + (train.images**2).sum(1)).argmin(axis=1)
    assert (train.labels[nearest] == test.labels).mean() > 0.97


def test_order_is_the_permutation_with_seed_1234():
    import gzip
    from importlib import resources

    packed = resources.files("tinyflow.datasets").joinpath("digits.csv.gz").read_bytes()
    first_line = (
        gzip.decompress(packed)
        .decode()
        .splitlines()[np.random.RandomState(1234).permutation(1797)[0]]
    )
    row = np.array(first_line.split(","), float)
    digits = get_digits(onehot=False)
    np.testing.assert_array_equal(digits.train.images[0], (row[:64] / 16).astype(np.float32))
    assert digits.train.labels[0] == row[64]


def test_callers_do_not_share_arrays():
    first = get_digits()
    first.train.images[:] = 7
    assert get_digits().train.images.max() == 1
