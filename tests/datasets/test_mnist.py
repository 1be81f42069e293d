"""MNIST against its raw files, read here a second way."""

import gzip
import subprocess
import sys

import numpy as np
import pytest

from tinyflow.datasets import get_mnist, mnist, store


def raw(name: str) -> bytes:
    path = store.find_file(name, "mnist")
    if path is None:
        pytest.skip("needs the MNIST files: set TINYFLOW_DATA to a folder that holds them")
    content = path.read_bytes()
    return gzip.decompress(content) if path.suffix == ".gz" else content


@pytest.fixture(scope="module")
def pixels() -> np.ndarray:
    """uint8[70000, 784]: official train, then official test."""
    parts = [raw(f"{part}-images-idx3-ubyte.gz")[16:] for part in ("train", "t10k")]
    return np.frombuffer(b"".join(parts), np.uint8).reshape(70_000, 784)


@pytest.fixture(scope="module")
def digits() -> np.ndarray:
    """uint8[70000]: official train, then official test."""
    parts = [raw(f"{part}-labels-idx1-ubyte.gz")[8:] for part in ("train", "t10k")]
    return np.frombuffer(b"".join(parts), np.uint8)


@pytest.fixture(scope="module")
def flat(pixels):
    return get_mnist(flatten=True, onehot=True)


def test_files_are_the_published_ones(pixels):
    for file in mnist._FILES:
        path = store.find_file(file.name, "mnist")
        if path is not None and path.suffix == ".gz":
            file.verify(path.read_bytes())


def test_split_and_order(flat, pixels, digits):
    # Sorted by digit within each part, joined, permuted with seed 1234, cut at 60,000.
    order = sorted(range(60_000), key=digits.__getitem__)
    order += sorted(range(60_000, 70_000), key=digits.__getitem__)
    state = np.random.RandomState(1234)
    order = np.array(order)[state.permutation(70_000)]
    for rows, split in ((order[:60_000], flat.train), (order[60_000:], flat.test)):
        np.testing.assert_array_equal(split.labels.argmax(axis=1), digits[rows])
        np.testing.assert_array_equal(split.images, pixels[rows].astype(np.float32) / 255.0)


def test_shapes_and_types(flat):
    assert flat.train.images.shape == (60_000, 784)
    assert flat.test.images.shape == (10_000, 784)
    assert flat.train.labels.shape == (60_000, 10)
    assert flat.train.images.dtype == flat.train.labels.dtype == np.float32
    assert flat.train.images.min() == 0 and flat.train.images.max() == 1
    np.testing.assert_array_equal(flat.test.labels.sum(axis=1), 1)


def test_unflattened_integer_labels(flat):
    plain = get_mnist()
    assert plain.train.images.shape == (60_000, 1, 28, 28)
    assert plain.train.labels.dtype == np.int64
    np.testing.assert_array_equal(plain.test.images.reshape(10_000, 784), flat.test.images)
    np.testing.assert_array_equal(plain.test.labels, flat.test.labels.argmax(axis=1))


def test_two_loaders_give_the_same_batches(pixels, monkeypatch):
    monkeypatch.setattr(mnist, "_decoded", {})  # so that the permutation is drawn here
    np.random.seed(7)
    first, second = (get_mnist(flatten=True, onehot=True) for _ in range(2))
    # The user's own random sequence goes on as if nothing had been loaded.
    assert np.random.random_sample() == np.random.RandomState(7).random_sample()
    for _ in range(3):
        for one, other in zip(
            first.train.next_batch(100), second.train.next_batch(100), strict=True
        ):
            np.testing.assert_array_equal(one, other)


def test_last_batch_is_never_handed_out(pixels):
    train = get_mnist(flatten=True, onehot=True).train
    first = train.next_batch(100)[0][0].copy()
    for _ in range(598):
        train.next_batch(100)
    assert train.ptr == 59_900
    np.testing.assert_array_equal(train.next_batch(100)[0][0], first)


def test_decodes_once_and_shares_nothing_writable(pixels):
    first = get_mnist()
    decoded = mnist._permuted_pixels()
    assert mnist._permuted_pixels()[0] is decoded[0]
    before = float(first.test.images.sum())
    first.test.images[:] = 0
    assert float(get_mnist().test.images.sum()) == before


def test_import_is_light():
    heavy = ("gzip", "urllib.request", "http.client", "hashlib", "tempfile", "llvmlite")
    # What NumPy or the package itself loads is not this module's doing.
    code = (
        "import sys, numpy, tinyflow; before = set(sys.modules); import tinyflow.datasets; "
        f"print([name for name in {heavy} if name in set(sys.modules) - before])"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.strip() == "[]"
