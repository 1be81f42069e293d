"""Compiled code means what the reference means, and its bits depend on nothing but the inputs.

Every case runs natively; a fixed selection, and large arrays for each kind of kernel, run op by op,
with other vector widths and thread counts, and through the interpreter of loop nests, and must give
the same bits. The cross product of all cases and ways to run is marked slow.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.conformance.cases import (
    Case,
    cases,
    expected_results,
    graph_of,
    ids,
    is_pure,
    pick,
    reference_results,
)
from tinyflow.compile import compile_function
from tinyflow.compile.plan import CopyKernel
from tinyflow.core import options
from tinyflow.ir.graph.nodes import Op, Value
from tinyflow.ir.loop import interp as loop_interp
from tinyflow.ops import (
    contraction,
    cumulative,
    elementwise,
    indexing,
    joining,
    movement,
    nn,
    reduction,
    sorting,
    sparse,
)
from tinyflow.ops.base import Sample
from tinyflow.runtime.arena import aligned_empty

#: for samples that give no bound: what elementary functions promise
DEFAULT_ULP = 2.0
#: sums whose terms may cancel: held to the error of the same sum of absolute values
SUMS = frozenset({"AddN", "LinSpace", "Mean", "Sum"})

RUNNABLE = [c for c in cases() if is_pure(c.op) and not c.is_host]
FEW = pick(RUNNABLE, 1)


def native(case: Case, **changes: Any) -> list[np.ndarray]:
    fn, arrays = graph_of(case)
    with options.override(**changes):
        return list(compile_function(fn)(*arrays))


def bound_of(case: Case) -> float:
    """Allowed error in units in the last place."""
    bound = DEFAULT_ULP if case.sample.ulp is None else case.sample.ulp
    if case.op.type_name == "Prod":
        bound += case.arrays[0].size / 2  # half a unit per factor
    return bound + case.id.endswith("f64")  # there the reference itself is rounded


def scale_of(case: Case) -> Any:
    """Size of the terms that make up a result, where that is more than the result's own."""
    if case.op.type_name in SUMS:
        return np.abs(reference_results(case.op, [np.abs(a) for a in case.arrays])[0])
    return case.sample.scale


def assert_close(case: Case, results: list[np.ndarray]) -> None:
    """Integers and bools exactly; floats within the sample's bound, NaN and infinities alike."""
    expected = expected_results(case)
    assert len(results) == len(expected)
    for got, want in zip(results, expected):
        assert got.dtype == want.dtype and got.shape == want.shape
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
            continue
        bound = bound_of(case)
        size = np.maximum(np.abs(want), scale_of(case))
        with np.errstate(all="ignore"):
            allowed = (bound + 0.5) * np.spacing(np.where(np.isfinite(size), size, 1))
            wrong = ~(np.abs(got.astype(np.float64) - want) <= allowed)
        wrong &= ~((got == want) | (np.isnan(got) & np.isnan(want)))
        assert not wrong.any(), (
            f"{int(wrong.sum())} of {want.size} elements are off by more than {bound} ulp\n"
            f"native    {got[wrong].ravel()[:4]}\nreference {want[wrong].ravel()[:4]}"
        )


def assert_same_bits(results: list[np.ndarray], others: list[np.ndarray], what: str) -> None:
    """NaNs count as equal: IEEE 754 leaves the sign of 0/0 open, and LLVM folds it to another one
    than the processor computes."""
    for x, y in zip(results, others, strict=True):
        assert x.dtype == y.dtype and x.shape == y.shape
        if x.dtype.kind == "f":
            x, y = (np.where(np.isnan(a), np.asarray(np.nan, a.dtype), a) for a in (x, y))
        assert x.tobytes() == y.tobytes(), f"{what}: {x.ravel()[:4]} and {y.ravel()[:4]}"


@pytest.mark.parametrize("case", RUNNABLE, ids=ids(RUNNABLE))
def test_native_is_the_reference(case: Case) -> None:
    assert_close(case, native(case))


VARIANTS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("op by op", {"fuse": False}),
    ("8 lanes", {"lanes": 8}),
    ("4 lanes", {"lanes": 4}),
    ("one thread", {"threads": 1}),
    ("no optimisation", {"level": 0}),
)


def check_variants(case: Case, variants: tuple[tuple[str, dict[str, Any]], ...]) -> None:
    results = native(case, lanes=16, threads=2)
    assert_same_bits(results, native(case, lanes=16, threads=2), "two runs")
    for what, changes in variants:
        others = native(case, **{"lanes": 16, "threads": 2, **changes})
        assert_same_bits(results, others, what)


@pytest.mark.parametrize("case", FEW, ids=ids(FEW))
def test_same_bits_op_by_op(case: Case) -> None:
    check_variants(case, VARIANTS[:1])


@pytest.mark.slow
@pytest.mark.parametrize("case", RUNNABLE, ids=ids(RUNNABLE))
def test_same_bits_for_every_way_to_run(case: Case) -> None:
    check_variants(case, VARIANTS)


def large_cases() -> list[Case]:
    """One op per kind of kernel, on sizes with odd tails, several chunks and work for threads."""
    rng = np.random.default_rng(7)

    def floats(*shape: int) -> np.ndarray:
        return rng.uniform(-1.0, 1.0, shape).astype(np.float32)

    rows = floats(301, 517)
    picks = rng.integers(0, 301, 4000).astype(np.int32)
    entries = np.stack([picks, rng.permutation(picks)], 1).astype(np.int64)
    table: list[tuple[Op, tuple[np.ndarray, ...], float]] = [
        (elementwise.Add(), (floats(70001), floats(70001)), 1.0),
        (elementwise.Exp(), (floats(70001),), 1.0),
        (elementwise.Mul(), (rows, floats(517)), 1.0),
        (reduction.Sum(), (floats(70001),), 300.0),
        (reduction.Sum((0,)), (rows,), 300.0),
        (reduction.Sum((1,)), (rows,), 300.0),
        (reduction.Max((1,), True), (rows,), 1.0),
        (nn.Softmax(), (rows,), 1.0),
        (nn.LogSoftmax(), (rows,), 8.0),
        (nn.SparseSoftmaxCrossEntropyWithLogits(), (rows, picks[:301]), 8.0),
        (contraction.MatMul(), (floats(130, 257), floats(257, 70)), 257.0),
        (contraction.MatMul(True, True), (floats(257, 130), floats(70, 257)), 257.0),
        (contraction.BatchMatMul(), (floats(3, 65, 33), floats(33, 47)), 33.0),
        (movement.Transpose(), (rows,), 1.0),
        (joining.ConcatV2(1), (rows, rows), 1.0),
        (indexing.GatherV2(0), (rows, picks), 1.0),
        (indexing.UnsortedSegmentSum(301), (floats(4000, 5), picks), 40.0),
        (indexing.UnsortedSegmentSum(301), (floats(4000, 517), picks), 40.0),
        (indexing.TensorScatter("add"), (rows, picks[:700], floats(700, 517)), 40.0),
        (sparse.SparseTensorDenseMatMul(301), (entries, floats(4000), rows), 40.0),
        (sorting.ArgSort(), (floats(40, 600),), 1.0),
        (sorting.TopKV2(9), (rows,), 1.0),
        (cumulative.Cumsum(1), (rows,), 517.0),
    ]
    return [
        Case(f"{op.type_name}-{n}-f32", op, arrays, Sample(arrays, op, ulp=8.0, scale=scale))
        for n, (op, arrays, scale) in enumerate(table)
    ]


LARGE = large_cases()


@pytest.mark.parametrize("case", LARGE, ids=ids(LARGE))
def test_large_arrays(case: Case) -> None:
    assert_close(case, native(case))
    check_variants(case, VARIANTS)


def interpreted(case: Case) -> list[np.ndarray]:
    """The plan's kernels, run by the interpreter of loop nests on arrays of this process."""
    fn, arrays = graph_of(case)
    compiled = compile_function(fn)
    plan = compiled.plan
    memory: dict[Any, np.ndarray] = dict(plan.constants)
    for value, position in zip(compiled.program.feed_values, compiled._positions):
        memory[value] = np.ascontiguousarray(arrays[position]).reshape(arrays[position].shape)
    views = {
        g.items[0].value: g.items[0].reads[0][0] for g in plan.grouping.groups if g.kind == "view"
    }
    for node in plan.fn.nodes:
        if getattr(node.op, "updates_in_place", False):
            views[node.outputs[0]] = node.inputs[0]

    def array(argument: Any, buffer: Any) -> np.ndarray:
        while argument in views:
            argument = views[argument]
        found = memory.get(argument)
        if found is None:
            found = memory[argument] = aligned_empty(buffer.shape, buffer.dtype.numpy)
        return found.reshape(buffer.shape)

    for lowered in [one for a in plan.actions for one in getattr(a, "members", (a,))]:
        if isinstance(lowered, CopyKernel):
            if isinstance(lowered.target, Value):  # else a fetch: what is copied is read below
                like = lowered.target.type
                memory[lowered.target] = np.array(memory[lowered.source]).reshape(like.shape)
            continue
        buffers = [
            np.zeros(b.shape, b.dtype.numpy) if a is None else array(a, b)  # None: the status
            for b, a in zip(lowered.kernel.buffers, lowered.arguments)
        ]
        loop_interp.run(lowered.kernel, buffers)
    results = []
    for value in plan.fn.outputs:
        root = value
        while root in views:
            root = views[root]
        shape = value.type.shape
        found = memory.get(root)
        if found is None:
            found = np.empty(shape, value.dtype.numpy)
        results.append(found.reshape(shape))
    return results


SMALL = [
    c for c in FEW if sum(a.size for a in c.arrays) <= 64 and not hasattr(c.op, "is_control")
]


@pytest.mark.parametrize("case", SMALL, ids=ids(SMALL))
def test_loop_interpreter_has_the_same_bits(case: Case) -> None:
    with options.override(lanes=4):
        results = interpreted(case)
    assert_same_bits(native(case, lanes=4), results, "native and loop interpreter")
