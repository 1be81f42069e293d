"""Patches by rows: when they are taken, and that they compute what the general form does."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ops.test_convolution import function_of
from tinyflow.compile import compile_function
from tinyflow.core import options
from tinyflow.core.shape import Dim
from tinyflow.ops.patches import Patches, PatchesGrad
from tinyflow.passes.rules.windows import PatchesByRows, PatchesGradByRows
from tinyflow.rewrite import RuleSet


def names(fn):
    return {n.op.type_name for n in fn.nodes}


@pytest.mark.parametrize(("shape", "own"), [
    ((2, 33, 29, 3), ((5, 4), (2, 1), "SAME")),
    ((1, 9, 40, 17), ((3, 3), (1, 2), "VALID", (2, 3))),
    ((2, 6, 5, 2), ((2, 3), (1, 1), ((1, 0), (0, 2)))),
])  # fmt: skip
def test_rows_keep_every_bit_of_the_general_form(shape, own):
    x = np.random.default_rng(0).normal(size=shape).astype(np.float32)
    fn = function_of(Patches(*own), shape)
    results = []
    for off in (frozenset(), frozenset({"PatchesByRows"})):
        with options.override(disabled_passes=off):
            compiled = compile_function(fn)
        assert ("PatchRows" in names(compiled.fn)) == (not off)
        results.append(compiled(x)[0])
    np.testing.assert_array_equal(*results)
    np.testing.assert_array_equal(results[0], Patches(*own).reference(x))


def test_large_gradients_go_by_rows_too():
    shape, own = (8, 64, 60, 12), ((3, 3), (1, 1), "SAME")
    slopes = np.random.default_rng(0).normal(size=(8, 64, 60, 108)).astype(np.float32)
    compiled = compile_function(function_of(PatchesGrad(*own), slopes.shape, shape))
    assert "PatchRowsGrad" in names(compiled.fn)
    like = np.zeros(shape, np.float32)
    want = PatchesGrad(*own).reference(slopes.astype(np.float64), like)
    np.testing.assert_allclose(compiled(slopes, like)[0], want, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("op", "shapes", "reason"), [
    (Patches(), [(Dim.symbol("N"), 9, 9, 3)], "unknown extents"),
    (Patches(), [(0, 9, 9, 3)], "nothing to compute"),
    (Patches(), [(1, 2, 9000, 3)], "longer than the first cache"),
    (PatchesGrad(), [(2, 4, 4, 12), (2, 8, 8, 3)], "a cache holds the patches"),
    (PatchesGrad(), [(2, 4, 4, 4), (2, 8, 8, 1)], "one channel"),
])  # fmt: skip
def test_the_general_form_stays(op, shapes, reason):
    rule_set = RuleSet("windows", [PatchesByRows, PatchesGradByRows])
    _, trace = rule_set.apply(function_of(op, *shapes))
    assert reason in str(trace) and not trace.rewrites
