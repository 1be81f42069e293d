"""Aligned memory."""

import gc
import mmap
import weakref

import ml_dtypes
import numpy as np
import pytest

from tinyflow.runtime.arena import ALIGNMENT, HUGE_PAGE, Arena, Shelf, aligned_empty


@pytest.mark.parametrize("size", [0, 1, 63, 64, 100_000, (1 << 20) - 1])
def test_small_arena_is_aligned_to_a_line(size):
    arena = Arena(size)
    assert arena.address % ALIGNMENT == 0
    assert arena.size_bytes == size


@pytest.mark.parametrize("size", [1 << 20, (9 << 20) + 5])
def test_large_arena_is_aligned_to_a_huge_page(size):
    arena = Arena(size)
    assert arena.address % HUGE_PAGE == 0
    last = arena.view(size - 1, (1,), np.uint8)
    last[0] = 9
    assert arena.view(size - 1, (1,), np.uint8)[0] == 9


def test_memory_is_zero_and_shared_between_views():
    arena = Arena(1000)
    words = arena.view(64, (3, 5), np.float32)
    assert words.shape == (3, 5) and words.dtype == np.float32
    assert words.ctypes.data == arena.address + 64
    assert not words.any()
    words[:] = 2.0
    assert arena.view(64 + 4, (), np.float32) == 2.0
    assert not arena.view(64 + 60, (10,), np.uint8).any()


def test_a_view_keeps_the_memory():
    view = Arena(8 << 20).view(0, (1 << 20,), np.float64)
    gc.collect()
    view[:] = 3.0
    assert view.sum() == 3.0 * (1 << 20)


@pytest.mark.parametrize("dtype", [np.bool_, np.complex128, ml_dtypes.bfloat16, np.int8])
def test_every_numeric_dtype(dtype):
    view = Arena(4096).view(128, (2, 3), dtype)
    view[:] = np.ones((2, 3), dtype)
    assert (view == np.ones((2, 3), dtype)).all()


@pytest.mark.parametrize(
    "offset, shape, dtype",
    [(-4, (1,), np.float32), (2, (1,), np.float32), (0, (26,), np.float32), (104, (1,), np.int8)],
)
def test_views_outside_or_misaligned_are_refused(offset, shape, dtype):
    with pytest.raises(ValueError, match="arena"):
        Arena(100).view(offset, shape, dtype)


def test_python_objects_are_refused():
    with pytest.raises(ValueError, match="references"):
        Arena(64).view(0, (1,), object)
    with pytest.raises(ValueError, match="references"):
        aligned_empty((1,), object)


def test_negative_size_is_refused():
    with pytest.raises(ValueError, match="-1"):
        Arena(-1)


def test_empty_view_at_the_end():
    assert Arena(64).view(64, (0, 3), np.float32).shape == (0, 3)


def test_works_without_huge_pages(monkeypatch):
    monkeypatch.delattr(mmap, "MADV_HUGEPAGE", raising=False)
    assert Arena(4 << 20).address % HUGE_PAGE == 0


@pytest.mark.parametrize("shape", [5, (), (0,), (3, 7), (2, 0, 3)])
@pytest.mark.parametrize("dtype", [np.float32, np.bool_, ml_dtypes.bfloat16, np.complex64])
def test_aligned_empty(shape, dtype):
    array = aligned_empty(shape, dtype)
    assert array.shape == np.empty(shape).shape
    assert array.dtype == np.dtype(dtype)
    assert array.size == 0 or array.ctypes.data % ALIGNMENT == 0
    assert array.flags.c_contiguous and array.flags.writeable


def test_arrays_of_a_shelf_stand_apart_in_huge_pages():
    shelf = Shelf()
    shapes = [(300, 1000), (256, 1024), (3,), (17, 16 << 10), (5 << 20,), (0, 7), (64, 1024)]
    arrays = [shelf.empty(shape, np.float32) for shape in shapes]
    for number, array in enumerate(arrays):
        assert array.shape == shapes[number]
        assert array.size == 0 or array.ctypes.data % ALIGNMENT == 0
        array[...] = number
    for number, array in enumerate(arrays):
        assert (array == number).all()
    assert arrays[0].ctypes.data % HUGE_PAGE == 0
    ends = arrays[0].ctypes.data + arrays[0].nbytes, arrays[1].ctypes.data
    assert 0 < ends[1] - ends[0] < 4096
    first = weakref.ref(shelf._block)
    del shelf, array
    gc.collect()
    assert (arrays[-1] == 6).all() and first() is None
