"""What a graph means, in float64, and how far rounding may take a correct answer from it.

Main function: ``expected(built, seed)``. May import core, ir.graph, ops, passes and the front end.

Every op runs on float64 copies of its inputs and its result is rounded to its own type once. The
bound comes from the same run repeated with a random error after every op, as large as that op may
make: results that a small error changes much (differences of nearly equal numbers, branches and
comparisons near a tie) get a wide bound, all others a narrow one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.fuzz.programs import Built
from tinyflow.core.dtype import NARROW, as_dtype
from tinyflow.core.error import Unsupported
from tinyflow.frontends.tf1.fetches import Fetches
from tinyflow.ir.graph.interp import apply, decomposition, is_composite
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ops.control import If, While
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

#: repetitions with random errors, and how far beyond the largest of them a result may lie
RUNS, FACTOR = 7, 6.0
#: random errors: in units of the type's eps; for sums, of the sum of the terms' sizes
ROUNDING, SUMMING = 3.0, 4.0
#: ops that move or choose values, by the module they stand in, and by name
_EXACT_MODULES = frozenset((
    "comparison", "control", "creation", "joining", "like", "logical", "movement", "padding",
    "placeholder", "pool_windows", "position", "rounding", "sequence", "shape", "slicing",
    "sorting", "state", "tensor_array", "windows", "nd_positions",
))  # fmt: skip
_EXACT = frozenset((
    "Abs", "All", "Any", "CheckedIndex", "FirstOfEqual", "GatherV2", "Identity", "Max",
    "MaxPool", "Maximum", "Min", "Minimum", "Neg", "OneHot", "PoolArgmax", "PoolPick",
    "PreventGradient", "Relu", "Relu6", "ReverseSequence", "Sign", "StopGradient", "Where",
    "Select", "UnsortedSegmentMax", "UnsortedSegmentMin",
))  # fmt: skip
_SUMS = frozenset((
    "Add", "AddN", "AvgPool", "AvgPoolGrad", "BatchMatMul", "Conv", "ConvFilterGrad",
    "ConvInputGrad", "ConvProduct", "Cumsum", "FilterProduct", "GatherGrad", "MatMul", "Mean",
    "PoolPut", "SparseTensorDenseMatMul", "SparseProductGrad", "Sub", "Sum", "TakeAlongGrad",
    "TensorScatter", "UnbroadcastLike", "UnsortedSegmentSum",
))  # fmt: skip


@dataclass
class Expected:
    """A result and, element by element, how far off it may be (inf: anything goes)."""

    value: np.ndarray
    bound: np.ndarray


class _Run:
    """One evaluation; ``rng`` makes the errors, None for the result itself."""

    def __init__(self, rng: np.random.Generator | None) -> None:
        self.rng = rng
        self.store: dict[Any, np.ndarray] = {}

    def request(self, built: Built, fetches: list[Any], feeds: dict[Any, Any]) -> list[np.ndarray]:
        wanted = Fetches(built.graph, fetches)
        written = functionalize(wanted.values, list(wanted.targets), list(feeds))
        types = [TensorType(as_dtype(a.dtype), a.shape) for a in feeds.values()]
        try:
            fn = specialize(written, types)
        except Unsupported:  # sizes that only running tells
            fn = written
        by_key = {**feeds, **self.store}
        results = self.function(fn, [self._input(v, by_key) for v in fn.inputs])
        for key, place in fn.updates.items():
            self.store[key] = results[place]
        places = {value: n for n, value in enumerate(wanted.values)}  # each value once
        return [results[places[f]] for f in fetches if f in places]

    def _input(self, value: Any, by_key: dict[Any, Any]) -> Any:
        op = value.node.op
        if op.role == "initialized":
            return np.asarray(op.key in by_key)
        return by_key[op.key]

    def function(self, fn: Function, arrays: list[Any]) -> list[np.ndarray]:
        found: dict[Any, Any] = {}
        for value, array in zip(fn.inputs, arrays, strict=True):
            found[value] = np.asarray(array, value.dtype.numpy)
        for node in fn.nodes:
            if isinstance(node.op, Input):
                continue
            results = self.node(node, [found[v] for v in node.inputs])
            found.update(zip(node.outputs, results, strict=True))
        return [found[v] for v in fn.outputs]

    def node(self, node: Node, arrays: list[Any]) -> list[np.ndarray]:
        op = node.op
        if isinstance(op, If):
            return self.function(op.then if np.all(arrays[0]) else op.orelse, arrays[1:])
        if isinstance(op, While):
            return self.loop(op, arrays)
        if self.rng is not None and is_composite(op):
            types = tuple(TensorType(as_dtype(a.dtype), a.shape) for a in arrays)
            return self.function(decomposition(op, types), arrays)
        results = _as_list(_apply_wide(node, arrays))
        if self.rng is not None:
            results = self.with_errors(node, arrays, results)
        return [
            _rounded(r, t.dtype.numpy) for r, t in zip(results, node.types, strict=True)
        ]

    def with_errors(self, node: Node, arrays: list[Any], results: list[Any]) -> list[Any]:
        name = node.op.type_name
        module = type(node.op).__module__.rpartition(".")[2]
        if name in _EXACT or (module in _EXACT_MODULES and name not in _SUMS):
            return results
        sizes = [np.abs(r) for r in results]
        factor = ROUNDING
        if name in _SUMS:
            factor = SUMMING
            sizes = _as_list(_apply_wide(node, [_size(a) for a in arrays]))
        found = []
        for result, size, declared in zip(results, sizes, node.types, strict=True):
            if not declared.dtype.is_floating:
                found.append(result)
                continue
            limits = _limits(declared.dtype)
            error = factor * float(limits.eps) * np.abs(size)
            small = (np.abs(result) < 1e8 * float(limits.tiny)) & (result != 0)
            error = error + np.where(small, 4 * float(limits.smallest_subnormal), 0.0)
            error = np.where(np.isfinite(error), error, 0.0)
            found.append(result + error * self.draws(np.shape(result)))
        return found

    def draws(self, shape: tuple[int, ...]) -> np.ndarray:
        """Between half and the whole of the largest error, up or down: never none by chance."""
        assert self.rng is not None
        return self.rng.choice([-1.0, 1.0], shape) * self.rng.uniform(0.5, 1.0, shape)

    def loop(self, op: While, arrays: list[Any]) -> list[np.ndarray]:
        carried, constant = list(arrays[: op.n_carried]), list(arrays[op.n_carried :])
        rows: list[list[Any]] = [[] for _ in op.saved]
        while np.all(self.function(op.cond, [*carried, *constant])[0]):
            results = self.function(op.body, [*carried, *constant])
            carried = results[: op.n_carried]
            for column, row in zip(rows, results[op.n_carried :], strict=True):
                column.append(row)
        stacks = [op._stacked(r, y.type) for r, y in zip(rows, op.saved, strict=True)]
        return [*carried, *stacks]


def _limits(dtype: Any) -> Any:
    import ml_dtypes

    return ml_dtypes.finfo(dtype.numpy)


def _as_list(results: Any) -> list[Any]:
    return list(results) if isinstance(results, (tuple, list)) else [results]


def _widened(array: np.ndarray) -> np.ndarray:
    narrow = array.dtype == np.float32 or as_dtype(array.dtype) in NARROW
    return array.astype(np.float64) if narrow else array


def _size(array: np.ndarray) -> np.ndarray:
    return np.abs(array) if as_dtype(array.dtype).is_floating else array


def _apply_wide(node: Node, arrays: list[Any]) -> Any:
    try:
        return apply(node.op, [_widened(np.asarray(a)) for a in arrays])
    except Exception:  # an attribute that fixes the dtype: what the op itself makes of its inputs
        return apply(node.op, arrays, node.types)


def _rounded(array: Any, dtype: Any) -> np.ndarray:
    """The array in the op's own type; the largest float64 stands for the largest of that type."""
    array = np.asarray(array)
    found = array.astype(dtype)
    if array.dtype == np.float64 and as_dtype(found.dtype).is_floating:
        largest = np.finfo(np.float64).max
        own = np.asarray(_limits(as_dtype(found.dtype)).max)
        found = np.where(array == largest, own, np.where(array == -largest, -own, found))
    return np.asarray(found.astype(dtype))


def expected(built: Built, seed: int) -> list[Expected]:
    """What ``built.run()`` should return."""
    runs = [_Run(None)] + [_Run(np.random.default_rng([seed, n])) for n in range(RUNS)]
    tables: list[list[np.ndarray]] = [[] for _ in runs]
    with np.errstate(all="ignore"):
        for fetches, feeds in built.requests():
            for run, table in zip(runs, tables, strict=True):
                table += run.request(built, fetches, feeds)
        return [_bounded(list(results)) for results in zip(*tables, strict=True)]


def _bounded(results: list[np.ndarray]) -> Expected:
    value, *others = results
    if any(o.shape != value.shape for o in others):  # a size that hangs by a rounding error
        return Expected(value, np.full(value.shape, np.inf))
    if value.dtype.kind in "iub":
        same = np.ones(value.shape, bool)
        for other in others:
            same &= other == value
        return Expected(value, np.where(same, 0.0, np.inf))
    limits = _limits(as_dtype(value.dtype))
    wide = value.astype(np.float64)
    spread = np.zeros(value.shape)
    for other in others:
        gap = np.abs(other.astype(np.float64) - wide)
        alike = (other == value) | (np.isnan(other) & np.isnan(value))
        spread = np.maximum(spread, np.where(alike, 0.0, np.where(np.isnan(gap), np.inf, gap)))
    own = np.where(np.isfinite(wide), np.abs(wide), 0.0)  # inf and nan: alike or not
    bound = FACTOR * spread + ROUNDING * float(limits.eps) * own
    bound = bound + 4 * float(limits.smallest_subnormal)
    return Expected(value, np.where(np.isnan(bound), np.inf, bound))
