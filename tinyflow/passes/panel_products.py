"""Matrices that many small products read are laid out once, in the order in which they are read.

Main pass: ``panel_products``. May import core, ir.graph, ops, passes.base and passes.control.

A product of a few rows passes once over its matrix: rows that are pages apart fill a few sets of
the caches only, and a transposed matrix is turned for every product. Where a loop, or an unrolled
one, multiplies by the same matrix again and again (the recurrent weights of an LSTM: 64 times
forward, 64 times transposed), panels of 32 columns are cut out of it once. The sums keep their
order, so the bits stay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from tinyflow.core.shape import Dim
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Function, Node, Value
from tinyflow.ir.graph.visit import rebuild, users
from tinyflow.ops.contraction import MatMul, PanelMatMul
from tinyflow.ops.control import While, new_input
from tinyflow.ops.movement import reshape, transpose
from tinyflow.ops.recompute import stored
from tinyflow.passes.base import graph_pass
from tinyflow.passes.control import trip_count

#: Columns of a panel: two or four vectors.
COLUMNS = 32
#: Rows of the other factor from which on a register tile is full, and up to which a product is
#: small.
LEAST_ROWS, MOST_ROWS = 8, 256
#: Products by one matrix that pay for its panels: each of them gains a tenth to a third.
LEAST_USES = 8
#: Bytes of the smallest matrix that is worth it: smaller ones stay in the first-level cache.
LEAST_BYTES = 1 << 15

#: Bytes of an array from which on it comes from memory, and the ops that take a part of it.
FAR_BYTES = 1 << 20
_PARTS = frozenset({"ArrayRead", "Slice", "StridedSlice"})


@graph_pass(needs={"static_types", "no_composites"}, level=1)
def panel_products(fn: Function) -> Function:
    """Products of a few rows by one matrix read panels of it that are made once.

    Before: while t < n: h = tanh(x[t] + MatMul(h, W))
    After:  P = Transpose(Reshape(W)); while t < n: h = tanh(x[t] + PanelMatMul(h, P))
    """
    uses = Counter(matrix_of(node) for node in fn.nodes if is_small_product(node))
    often = any(n >= LEAST_USES for n in uses.values())
    if not often and not any(isinstance(node.op, While) for node in fn.nodes):
        return fn
    panels: dict[tuple[Value, bool], Value] = {}
    readers = users(fn) if often else {}

    def change(node: Node, inputs: tuple[Value, ...]) -> Any:
        if isinstance(node.op, While):
            return _with_panels(node, node.op, inputs)
        if not is_small_product(node) or uses[matrix_of(node)] < LEAST_USES:
            return None
        key = matrix_of(node)
        with building(Builder()) as builder, builder.on_behalf_of(node.source, node.origin):
            if key not in panels:
                panels[key] = panels_of(inputs[1], key[1])
            product = emit(PanelMatMul(), inputs[0], panels[key])
            return stored(product) if meets_far_rows(node, readers) else product

    return rebuild(fn, change)


def is_small_product(node: Node) -> bool:
    """Whether this is a product of a few rows by a matrix that divides into panels."""
    if type(node.op) is not MatMul or node.op.transpose_a:
        return False
    rows, columns = node.types[0].shape or (0, 0)
    matrix = node.inputs[1].type
    if not matrix.dtype.is_floating or not isinstance(columns, int) or columns % COLUMNS:
        return False
    size = matrix.size_bytes
    if isinstance(size, Dim) or size < LEAST_BYTES:  # type: ignore[operator]
        return False
    return isinstance(rows, Dim) or LEAST_ROWS <= rows <= MOST_ROWS


def meets_far_rows(product: Node, readers: Mapping[Value, Sequence[Node]]) -> bool:
    """Whether the product is joined with a part of a large array: row t of the gates of all steps.

    A product takes it in pieces of a panel's width from as many pages as there are rows, and waits
    for memory; a kernel behind it reads the rows as the streams that they are.
    """
    value = product.outputs[0]
    return any(
        other.node.op.type_name in _PARTS and _is_large(other.node.inputs[0].type.size_bytes)
        for reader in readers.get(value, ())
        for other in reader.inputs
        if other is not value
    )


def _is_large(size: Any) -> bool:
    return isinstance(size, Dim) or size >= FAR_BYTES


def matrix_of(node: Node) -> tuple[Value, bool]:
    """The matrix of a product, and whether it is read transposed."""
    return node.inputs[1], node.op.transpose_b  # type: ignore[attr-defined]


def panels_of(matrix: Value, turned: bool) -> Value:
    """[k, n], or [n, k] if ``turned``, as [n / COLUMNS, k, COLUMNS]."""
    rows, columns = matrix.type.shape  # type: ignore[misc]
    if turned:
        parts = reshape(matrix, (rows // COLUMNS, COLUMNS, columns))
        return stored(transpose(parts, (0, 2, 1)))  # type: ignore[no-any-return]
    parts = reshape(matrix, (rows, columns // COLUMNS, COLUMNS))
    return stored(transpose(parts, (1, 0, 2)))  # type: ignore[no-any-return]


def _with_panels(node: Node, op: While, inputs: Sequence[Value]) -> Any:
    """The loop with panels of the invariant matrices among its inputs."""
    trips = trip_count(op, inputs)
    if trips is not None and isinstance(trips.bound, int) and trips.bound < LEAST_USES:
        return None
    outer = dict(zip(op.body.inputs[op.n_carried :], inputs[op.n_carried :], strict=True))
    own: dict[tuple[Value, bool], Value] = {}
    more: list[Value] = []
    readers = users(op.body)

    def change(product: Node, factors: tuple[Value, ...]) -> Any:
        if not is_small_product(product) or product.inputs[1] not in outer:
            return None
        key = matrix_of(product)
        with building(Builder()) as builder, builder.on_behalf_of(product.source, product.origin):
            if key not in own:
                more.append(panels_of(outer[key[0]], key[1]))
                own[key] = new_input(more[-1].type)
            found = emit(PanelMatMul(), factors[0], own[key])
            return stored(found) if meets_far_rows(product, readers) else found

    inside = rebuild(op.body, change)
    if not own:
        return None
    body = Function(op.body.name, [*op.body.inputs, *own.values()], inside.outputs)
    cond = Function(
        op.cond.name, [*op.cond.inputs, *[new_input(v.type) for v in more]], op.cond.outputs
    )
    new = replace(op, cond=cond, body=body)
    together = (*inputs, *more)
    types = new.infer(*[v.type for v in together])
    return node.replaced(op=new, inputs=together, types=types).outputs


__all__ = ["panel_products"]
