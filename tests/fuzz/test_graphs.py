"""Compiled functions against the reference interpreter, on random graphs with fixed seeds."""

import numpy as np
import pytest

from tests.fuzz.random_graphs import random_function
from tinyflow.compile import compile_function
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.text import show

SEEDS = range(60)


def bits(array: np.ndarray) -> bytes:
    """All bits but those of NaNs, whose sign and payload IEEE 754 leaves open."""
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array).tobytes()


def check(seed: int, dtype: str) -> None:
    fn, arrays = random_function(seed, dtype)
    expected = interp.run(fn, arrays)
    fused = compile_function(fn)(*arrays)
    single = compile_function(fn, fuse=False)(*arrays)
    tolerance = 2e-3 if dtype == "float32" else 1e-9
    repro = f"\nfrom tests.fuzz.test_graphs import check; check({seed}, {dtype!r})\n{show(fn)}"
    for want, got, alone in zip(expected, fused, single, strict=True):
        assert got.shape == np.shape(want), repro
        np.testing.assert_allclose(
            got, want, rtol=tolerance, atol=tolerance, err_msg=repro, equal_nan=True
        )
        assert bits(got) == bits(alone), f"fused and op by op differ{repro}"


@pytest.mark.parametrize("seed", SEEDS)
def test_float32(seed):
    check(seed, "float32")


@pytest.mark.parametrize("seed", range(1000, 1020))
def test_float64(seed):
    check(seed, "float64")


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2000, 2600))
def test_many(seed):
    check(seed, "float32")
