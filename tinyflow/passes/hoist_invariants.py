"""What a loop computes anew in every iteration although it need not: out of the loop.

Main pass: ``hoist_invariants``. May import core, ir.graph, ops, passes.base, passes.control.

Five things leave a loop, in this order; B rows per iteration, n iterations:

* ``concat([x[t], h]) @ W`` becomes ``x[t] @ W1 + h @ W2`` where x and W are invariant;
* ``x[t] @ W`` for every t becomes one product of n * B rows before the loop (the input's part of
  an LSTM's gates);
* the zeros of an array of which it writes every row once;
* ``acc + a[t]' @ d`` with an invariant array a becomes d saved per iteration, and one product over
  all n * B rows after the loop (the gradient of an LSTM's weights);
* any other node that depends on invariant inputs only, if it does work worth a place in memory.

The first and fourth add in another order: they need the contract RealEqual (level 2).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tinyflow.core import options
from tinyflow.core.shape import Dim, Dimension, are_equal, at_most
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Effect, Function, Node, Value
from tinyflow.ir.graph.visit import rebuild, substitute, users
from tinyflow.ops.contraction import MatMul
from tinyflow.ops.control import ControlOp, While, constant_of, counter_of, new_input
from tinyflow.ops.elementwise import add
from tinyflow.ops.movement import reshape
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.slicing import Slice
from tinyflow.ops.tensor_array import ArrayRead, ArrayWrite, new_array
from tinyflow.passes.base import graph_pass
from tinyflow.passes.control import is_open, trip_count

#: saved rows may take this much memory where that saves arithmetic intensity
MOST_BYTES = 1 << 28
#: level from which sums may be taken in another order
REORDERING = 2
#: ops that may report an error at run time, which a loop without iterations must not
_MAY_FAIL = frozenset({
    "ArrayRead", "StoredRead", "ArrayWrite", "GatherV2", "TensorScatter", "FloorDiv", "FloorMod",
    "TruncateDiv", "TruncateMod", "Pow", "DynamicSlice", "PlaceSlice", "SliceAdd",
})  # fmt: skip
#: ops that cost less than reading their result from memory
_CHEAP = frozenset({
    "BroadcastTo", "Constant", "NewArray", "Cast", "Range", "Fill", "Identity", "ExpandDims",
})  # fmt: skip


@graph_pass(needs={"static_types", "no_composites"}, level=1)
def hoist_invariants(fn: Function) -> Function:
    """Work that does not change from iteration to iteration is done once, or all at once.

    Before: while t < n: h = tanh(x[t] @ W + h @ V)
    After:  p = x @ W; while t < n: h = tanh(p[t] + h @ V)
    """
    if not any(isinstance(node.op, While) for node in fn.nodes):
        return fn

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        if not isinstance(node.op, While):
            return None
        return _Hoister(node, node.op, inputs).run()

    return rebuild(fn, change)


class _Hoister:
    """One loop. body: as changed so far; inputs: of the loop, invariant ones are appended."""

    def __init__(self, node: Node, op: While, inputs: Sequence[Value]) -> None:
        self.node, self.op = node, op
        self.inputs = list(inputs)
        self.body, self.cond = op.body, op.cond
        self.outer: dict[Value, Value] = dict(
            zip(op.body.inputs[op.n_carried :], inputs[op.n_carried :], strict=True)
        )
        self.changed = False
        self.trips = trip_count(op, inputs)

    def run(self) -> list[Value] | None:
        builder = Builder()
        with building(builder), builder.on_behalf_of(self.node.source, self.node.origin):
            self.split_products()
            self.batch_products()
            self.fill_arrays()
            finish = self.save_factors()
            self.hoist()
            if not self.changed:
                return None
            op = replace(self.op, cond=self.cond, body=self.body)
            types = op.infer(*[x.type for x in self.inputs])
            results = list(
                self.node.replaced(op=op, inputs=tuple(self.inputs), types=types).outputs
            )
            return finish(results)

    # ---- helpers ---------------------------------------------------------------------------------

    def is_invariant(self, value: Value) -> bool:
        """Whether the value follows from invariant inputs, by nodes that cannot fail."""
        if value in self.outer or constant_of(value) is not None:
            return True
        node = value.node
        if not node.inputs or node.op.effect is not Effect.NONE or node.control_inputs:
            return node.op.type_name == "Constant"
        if isinstance(node.op, ControlOp) or node.op.type_name in _MAY_FAIL:
            return False
        return all(self.is_invariant(v) for v in node.inputs)

    def outside(self, value: Value) -> Value:
        """An invariant value of the body, computed before the loop."""
        known = self.outer.get(value)
        if known is None:
            node = value.node
            if not node.inputs:
                return value
            again = node.replaced(inputs=tuple(self.outside(v) for v in node.inputs))
            known = again.outputs[value.index]
            self.outer[value] = known
        return known

    def add_input(self, outer: Value) -> Value:
        """A new invariant input of both functions."""
        own = new_input(outer.type)
        self.inputs.append(outer)
        self.outer[own] = outer
        self.body = Function(self.body.name, [*self.body.inputs, own], self.body.outputs)
        self.cond = Function(
            self.cond.name, [*self.cond.inputs, new_input(outer.type)], self.cond.outputs
        )
        self.changed = True
        return own

    def substitute(self, mapping: dict[Value, Value]) -> None:
        if mapping:
            inputs = self.body.inputs
            inside = substitute(self.body, mapping)
            self.body = Function(self.body.name, inputs, inside.outputs)
            self.changed = True

    def row_of_invariant(self, value: Value) -> Node | None:
        """The read if the value is a row [B, k] of an invariant array [n, B, k]."""
        node = value.node
        if not isinstance(node.op, ArrayRead) or node.inputs[0] not in self.outer:
            return None
        array = node.inputs[0].type
        if array.rank != 3 or is_open(array) or array.size == 0:
            return None
        rows: Any = array.shape[0]  # type: ignore[index]
        worth = self.trips is not None and at_most(rows, 2 * self.trips.bound)
        return node if worth else None

    # ---- products --------------------------------------------------------------------------------

    def split_products(self) -> None:
        """Products of joined rows become sums of products; of parts of products, smaller ones."""
        mapping: dict[Value, Value] = {}
        for node in self.body.nodes:
            op = node.op
            if type(op) is Slice and type(node.inputs[0].node.op) is MatMul:
                part = self.part_of_product(node, op, users(self.body))
                if part is not None:
                    mapping[node.outputs[0]] = part
            elif type(op) is MatMul and options.current().level >= REORDERING:
                total = self.sum_of_products(node, op)
                if total is not None:
                    mapping[node.outputs[0]] = total
        self.substitute(mapping)

    def part_of_product(self, node: Node, op: Slice, readers: Any) -> Value | None:
        """Some columns of a @ W: a times those columns of an invariant W."""
        product = node.inputs[0].node
        a, w = product.inputs
        inner: MatMul = product.op  # type: ignore[assignment]
        if len(readers.get(node.inputs[0], ())) != 1 or inner.transpose_a:
            return None
        begin, size = _numbers(op.begin), _numbers(op.size)
        if begin[0] != 0 or size[0] not in (-1, a.type.shape[0]) or not self.is_invariant(w):  # type: ignore[index]
            return None
        columns = 0 if inner.transpose_b else 1
        starts: list[Dimension] = [0, 0]
        extents = list(w.type.shape or ())
        starts[columns], extents[columns] = begin[1], node.types[0].shape[1]  # type: ignore[index]
        narrow = emit(Slice(tuple(starts), tuple(extents)), w)
        return emit(inner, a, narrow)  # type: ignore[no-any-return]

    def sum_of_products(self, node: Node, op: MatMul) -> Value | None:
        a, w = node.inputs
        joined = a.node
        if joined.op.type_name != "ConcatV2" or op.transpose_a or not self.is_invariant(w):
            return None
        if getattr(joined.op, "axis", None) not in (1, -1) or a.type.rank != 2:
            return None
        if not any(self.row_of_invariant(part) for part in joined.inputs):
            return None
        total, start = None, 0
        for part in joined.inputs:
            width: Any = part.type.shape[1]  # type: ignore[index]
            axis = 1 if op.transpose_b else 0
            starts, extents = [0, 0], list(w.type.shape or ())
            starts[axis], extents[axis] = start, width
            rows = emit(Slice(tuple(starts), tuple(extents)), w)
            term = emit(op, part, rows)
            total = term if total is None else add(total, term)
            start += width
        return total

    def batch_products(self) -> None:
        """Row times invariant matrix, for all rows at once before the loop."""
        mapping: dict[Value, Value] = {}
        for node in self.body.nodes:
            if type(node.op) is not MatMul or node.op.transpose_a:
                continue
            read = self.row_of_invariant(node.inputs[0])
            if read is None or not self.is_invariant(node.inputs[1]):
                continue
            array = self.outside(read.inputs[0])
            n, rows, width = array.type.shape  # type: ignore[misc]
            flat = reshape(array, (n * rows, width))
            product = emit(node.op, flat, self.outside(node.inputs[1]))
            whole = reshape(product, (n, rows, product.type.shape[1]))
            if not at_most(whole.type.size_bytes, MOST_BYTES):
                continue
            mapping[node.outputs[0]] = emit(ArrayRead(), self.add_input(whole), read.inputs[1])
        self.substitute(mapping)

    # ---- arrays of zeros -------------------------------------------------------------------------

    def fill_arrays(self) -> None:
        """An array of zeros of which the loop writes every row once need not be zeros before it;
        what is added to a row of zeros is the row."""
        mapping: dict[Value, Value] = {}
        for k in range(self.op.n_carried):
            write = self.only_write(k)
            if write is None or not _is_zero(self.inputs[k]):
                continue
            array, index, row = write.inputs
            if write.op == ArrayWrite(adds=True):
                if options.current().level < REORDERING:
                    continue  # -0 + 0 is 0
                mapping[write.outputs[0]] = emit(ArrayWrite(), array, index, row)
            rows, *element = array.type.shape  # type: ignore[misc]
            self.inputs[k] = new_array(array.dtype, rows, element)
            self.changed = True
        self.substitute(mapping)

    def only_write(self, k: int) -> Node | None:
        """What writes each row of the carried array ``k`` once, where nothing else reads it."""
        own, after = self.body.inputs[k], self.body.outputs[k]
        write, shape = after.node, own.type.shape
        if not isinstance(write.op, ArrayWrite) or write.inputs[0] is not own or not shape:
            return None
        readers = users(self.body)
        if readers.get(own) != [write] or readers.get(after) or self._cond_reads(k):
            return None
        if self.body.outputs.count(after) != 1 or own in self.body.outputs:
            return None
        return write if self.covers(write.inputs[1], shape[0]) else None

    # ---- sums over the iterations ----------------------------------------------------------------

    def save_factors(self) -> Any:
        """Takes sums of products out of the loop; what completes the loop's results afterwards."""
        n = self.op.n_carried
        sums: dict[int, Any] = {}
        if options.current().level >= REORDERING:
            for k in range(n):
                found = self.summed_product(k)
                if found is not None:
                    sums[k] = found
            for k in range(n):
                found = None if k in sums else self.summed_rows(k, {f[1] for f in sums.values()})
                if found is not None:
                    sums[k] = found
        if not sums:
            return lambda results: results
        factors = list(dict.fromkeys(factor for _, factor, _, _ in sums.values()))
        saved: dict[Value, int] = {}
        kept = [k for k in range(n) if k not in sums]
        arrays: list[Value] = []
        starts: list[Value] = []
        after: list[Value] = []
        for factor in factors:
            index, rows = next((i, r) for _, f, i, r in sums.values() if f is factor)
            there = self.array_of(factor, index, kept)
            if there is not None:
                saved[factor] = kept.index(there)
                continue
            start = new_array(factor.dtype, rows, factor.type.shape)
            own = new_input(start.type)
            saved[factor] = len(kept) + len(arrays)
            arrays.append(own)
            starts.append(start)
            after.append(emit(ArrayWrite(), own, index, factor))
        started = {k: self.inputs[k] for k in sums}
        body, cond = self.body, self.cond
        self.body = Function(
            body.name,
            [*[body.inputs[k] for k in kept], *arrays, *body.inputs[n:]],
            [*[body.outputs[k] for k in kept], *after],
        )
        self.cond = Function(
            cond.name,
            [*[cond.inputs[k] for k in kept], *[new_input(a.type) for a in arrays],
             *cond.inputs[n:]],
            cond.outputs,
        )  # fmt: skip
        self.inputs = [*[self.inputs[k] for k in kept], *starts, *self.inputs[n:]]
        self.op = replace(self.op, n_carried=len(kept) + len(arrays))
        self.changed = True

        def finish(results: list[Value]) -> list[Value]:
            complete: list[Any] = [None] * n
            for position, k in enumerate(kept):
                complete[k] = results[position]
            for k, (array, factor, _, _) in sums.items():
                rows = _flat(results[saved[factor]])
                if array is None:
                    total = reduce_sum(rows, axis=(0,))
                else:
                    total = emit(MatMul(transpose_a=True), _flat(self.outer[array]), rows)
                complete[k] = total if _is_zero(started[k]) else add(started[k], total)
            return complete

        return finish

    def array_of(self, factor: Value, index: Value, kept: Sequence[int]) -> int | None:
        """The carried array that the loop fills with the factor anyway."""
        for k in kept:
            write = self.only_write(k)
            if write is not None and (write.op, *write.inputs[1:]) == (ArrayWrite(), index, factor):
                return k
        return None

    def summand(self, k: int) -> Value | None:
        """s where carried value k becomes itself + s and is read for nothing else."""
        own, after = self.body.inputs[k], self.body.outputs[k].node
        if after.op.type_name != "Add" or own not in after.inputs:
            return None
        readers = users(self.body)
        if readers.get(own) != [after] or readers.get(after.outputs[0]):
            return None
        if self.body.outputs.count(after.outputs[0]) != 1 or self._cond_reads(k):
            return None
        other = after.inputs[1] if after.inputs[0] is own else after.inputs[0]
        return other if other.type == own.type else None

    def _cond_reads(self, k: int) -> bool:
        return self.cond.inputs[k] in {v for node in self.cond.nodes for v in node.inputs}

    def summed_product(self, k: int) -> tuple[Value | None, Value, Value, Dimension] | None:
        """(a, d, t, n) where the sum is that of a[t]' @ d and t runs once through all n rows."""
        product = self.summand(k)
        if product is None or product.node.op != MatMul(transpose_a=True):
            return None
        a, d = product.node.inputs
        read = a.node
        if not isinstance(read.op, ArrayRead) or read.inputs[0] not in self.outer:
            return None
        array, index = read.inputs
        if array.type.rank != 3 or is_open(array.type):
            return None
        rows: Any = array.type.shape[0]  # type: ignore[index]
        if not self.covers(index, rows) or not at_most(rows * d.type.size_bytes, MOST_BYTES):
            return None
        return array, d, index, rows

    def summed_rows(
        self, k: int, factors: set[Value]
    ) -> tuple[Value | None, Value, Value, Dimension] | None:
        """As ``summed_product`` for the sum of the rows of a factor that is saved anyway."""
        total = self.summand(k)
        d = None if total is None else _summed_over_rows(total.node)
        if d not in factors or self.trips is None:
            return None
        for node in self.body.nodes:
            if isinstance(node.op, ArrayRead) and self.covers(node.inputs[1], self.trips.bound):
                return None, d, node.inputs[1], self.trips.bound
        return None

    def covers(self, index: Value, rows: Dimension) -> bool:
        """Whether ``index`` takes each of 0 .. rows - 1 once over the iterations."""
        trips = self.trips
        if trips is None or not trips.exact or rows == 0 or not are_equal(trips.bound, rows):
            return False
        if index not in self.body.inputs[: self.op.n_carried]:
            return False
        counter = counter_of(
            replace(self.op, body=self.body, cond=self.cond), self.inputs,
            self.body.inputs.index(index),
        )  # fmt: skip
        return counter in ((0, 1), (rows - 1, -1))

    # ---- everything else -------------------------------------------------------------------------

    def hoist(self) -> None:
        """Nodes that depend on invariant inputs only and are worth it."""
        worthy = {
            node
            for node in self.body.nodes
            if node.inputs
            and not node.op.is_view
            and node.op.type_name not in _CHEAP
            and all(self.is_invariant(v) for v in node.outputs)
        }
        if not worthy:
            return
        readers = users(self.body)
        mapping: dict[Value, Value] = {}
        for node in self.body.nodes:
            if node not in worthy:
                continue
            for value in node.outputs:
                following = readers.get(value, ())
                if value in self.body.outputs or any(r not in worthy for r in following):
                    mapping[value] = self.add_input(self.outside(value))
        self.substitute(mapping)


def _numbers(values: Any) -> list[Dimension]:
    return [v if isinstance(v, Dim) else int(v) for v in values]


def _flat(array: Value) -> Value:
    """[n, rows, width] as [n * rows, width]."""
    n, rows, width = array.type.shape  # type: ignore[misc]
    return reshape(array, (n * rows, width))  # type: ignore[no-any-return]


def _summed_over_rows(node: Node) -> Value | None:
    """d where the node is the sum of the rows of d[rows, width], or its one row."""
    d, op = node.inputs[0] if node.inputs else None, node.op
    if d is None or d.type.rank != 2:
        return None
    if op.type_name == "Reshape":
        return d if d.type.shape == (1, *node.types[0].shape) else None  # type: ignore[misc]
    summed = op.type_name == "Sum" and (op.axis, op.keepdims) == ((0,), False)  # type: ignore[attr-defined]
    return d if summed else None


def _is_zero(value: Value) -> bool:
    """Whether this is an array of zeros, as gradients start with."""
    node = value.node
    while node.op.type_name in ("BroadcastTo", "Fill"):
        node = node.inputs[0].node
    return node.op.type_name == "Constant" and not np.any(node.op.value)  # type: ignore[attr-defined]


__all__ = ["hoist_invariants"]
