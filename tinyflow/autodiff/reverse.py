"""Reverse-mode differentiation of graphs.

Main function: ``gradients(ys, xs, ...)``. May import core, ir and ops.

One sweep in reverse topological order over the nodes between ``xs`` and ``ys``: each node's ``vjp``
turns the gradient of its results into those of its inputs, and the contributions to one value are
added up in the order of the sweep. Iterative, and linear in nodes and edges.
Source: Griewank and Walther, Evaluating Derivatives, 2008, section 3.2.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tinyflow.core import shape as shapes
from tinyflow.core.error import (
    DTypeError,
    InternalError,
    InvalidArgumentError,
    ShapeError,
    Unsupported,
)
from tinyflow.core.source import Source, user_frame
from tinyflow.ir.graph.builder import Builder, current_builder
from tinyflow.ir.graph.nodes import Node, Op, Value
from tinyflow.ir.graph.visit import ancestors, result_values
from tinyflow.ops.control import ControlOp
from tinyflow.ops.tensor_array import ArrayWrite, RowGrad


def gradients(
    ys: Any,
    xs: Any,
    grad_ys: Any = None,
    stop_gradients: Iterable[Value] | None = None,
    unconnected: str = "none",
) -> list[Value | None]:
    """d(sum of ys)/dx for each x of ``xs``, as new nodes of the current builder.

    ys, xs: a value or a sequence. grad_ys: one weight of y's type per y (None: ones).
    stop_gradients: values treated as constants. unconnected: "none" gives None, "zero" zeros where
    no differentiable path leads from x to a y (integer and boolean values carry no gradient).
    Every new node has the line of the forward node it belongs to, and the places "gradient of" and
    "requested at". Errors: ShapeError or DTypeError for a grad_y that does not fit,
    Unsupported for an op that has no gradient yet.
    """
    if unconnected not in ("none", "zero"):
        raise InvalidArgumentError(
            f"gradients: unknown unconnected_gradients {unconnected!r}", choices=["none", "zero"]
        )
    ys, xs = _sequence(ys), _sequence(xs)
    seeds = [None] * len(ys) if grad_ys is None else _sequence(grad_ys)
    if len(seeds) != len(ys):
        raise InvalidArgumentError(
            f"gradients: {len(seeds)} grad_ys for {len(ys)} ys", expected="one weight per y"
        )
    builder = current_builder()
    sweep = _Sweep(builder, user_frame(1))
    for y, seed in zip(ys, seeds, strict=True):
        sweep.seed(y, seed)
    found = sweep.run(ys, xs, set(stop_gradients or ()))
    if unconnected == "zero":
        from tinyflow.ops.creation import zeros_like

        return [zeros_like(x) if g is None else g for x, g in zip(xs, found, strict=True)]
    return found


def _sequence(values: Any) -> Sequence[Any]:
    return list(values) if isinstance(values, (list, tuple)) else [values]


class _Sweep:
    """The contributions collected so far, and where new nodes say they come from."""

    def __init__(self, builder: Builder, requested_at: Source) -> None:
        self.builder = builder
        self.requested_at = requested_at
        self.parts: dict[Value, list[Value]] = {}
        self.keeps_places = False  # inside a composite new nodes belong to the composite

    def seed(self, y: Value, weight: Any) -> None:
        """The gradient that ``y`` starts with."""
        if not y.dtype.is_floating:
            return
        if weight is None:
            from tinyflow.ops.creation import ones_like

            before = self.builder.source, self.builder.origin
            try:
                self.at(y.node)
                weight = ones_like(y)
            finally:
                self.builder.source, self.builder.origin = before
                self.builder.forward = None
        elif not isinstance(weight, Value):
            weight = self.builder.constant(weight, y.dtype, None)
        _check_seed(y, weight)
        self.parts.setdefault(y, []).append(weight)

    def at(self, node: Node) -> None:
        """New nodes belong to the forward node ``node``."""
        if self.keeps_places:
            return
        self.builder.source = node.source
        self.builder.forward = node
        self.builder.origin = (
            ("gradient of", node.source),
            ("requested at", self.requested_at),
        )

    def run(
        self, ys: Sequence[Value], xs: Sequence[Value], stops: set[Value]
    ) -> list[Value | None]:
        order = ancestors((y.node for y in ys if y not in stops), stop=stops)
        between = _between(order, xs, stops)
        parts, builder = self.parts, self.builder
        wanted = set(xs)
        before = builder.source, builder.origin
        try:
            for node in reversed(order):
                if node not in between:
                    continue
                totals = [self.total(v) if v in parts else None for v in node.outputs]
                if any(total is not None for total in totals):
                    self.at(node)
                    self.propagate(node, totals, between, wanted, stops)
                for value in node.outputs:
                    if value not in wanted:
                        parts.pop(value, None)
            return [self.total(x) if x in parts else None for x in xs]
        finally:
            builder.source, builder.origin = before
            builder.forward = None

    def total(self, value: Value) -> Value:
        """The sum of what has been contributed to ``value``; asked once all users are done."""
        contributions = self.parts[value]
        if len(contributions) > 1:
            self.at(value.node)
            contributions[:] = [add_up(contributions)]
        return contributions[0]

    def propagate(
        self,
        node: Node,
        totals: Sequence[Value | None],
        between: set[Node],
        wanted: set[Value],
        stops: set[Value],
    ) -> None:
        """Adds the contributions of one node to its inputs."""
        parts = self.parts
        for value, grad in zip(node.inputs, vjp(node, totals), strict=True):
            if grad is None or (value in stops and value not in wanted):
                continue
            if value.node in between or value in wanted:
                known = parts.get(value)
                if known is None:
                    parts[value] = [grad]
                else:
                    known.append(grad)


def _between(order: Sequence[Node], xs: Sequence[Value], stops: set[Value]) -> set[Node]:
    """Nodes on a path from an x, through floating values, that are worth visiting."""
    live: set[Value] = set(xs)
    between: set[Node] = set()
    for node in order:
        for value in node.inputs:
            if value in live:
                break
        else:
            continue
        if why_not_differentiable(node.op) is not None:
            continue
        between.add(node)
        for value in node.outputs:
            if value.dtype.kind == "float" and value not in stops:
                live.add(value)
    return between


def why_not_differentiable(op: Op) -> str | None:
    """The reason why no gradient flows through ``op``, or None."""
    inner = getattr(op, "not_differentiable_inner", None)
    return op.not_differentiable if inner is None else inner


def vjp(node: Node, totals: Sequence[Value | None]) -> Sequence[Value | None]:
    """Gradients of the inputs of ``node`` from those of its results, checked against their types.

    A composite without a ``vjp`` of its own is differentiated through its decomposition.
    """
    op = node.op
    if isinstance(op, ControlOp):
        from tinyflow.autodiff import control

        return control.vjp(node, totals)
    if type(op).vjp is Op.vjp:
        return _vjp_of_decomposition(node, totals)
    if len(totals) == 1:
        grads = op.vjp(totals[0], node.outputs[0], *node.inputs)
    else:
        grads = op.vjp(tuple(totals), node.outputs, *node.inputs)
    if len(grads) != len(node.inputs):
        raise InternalError(
            f"{op.type_name}.vjp returned {len(grads)} gradients for {len(node.inputs)} inputs",
            source=node.source,
        )
    for value, grad in zip(node.inputs, grads, strict=True):
        if grad is not None and grad.node.types[grad.index] is not value.node.types[value.index]:
            _check_gradient(node, value, grad)
    return grads


def _check_gradient(node: Node, value: Value, grad: Value) -> None:
    try:
        shapes.merge_shapes(value.type.shape, grad.type.shape)
    except ShapeError:
        pass
    else:
        if value.dtype is grad.dtype:
            return
    raise InternalError(
        f"{node.op.type_name}.vjp returned {grad.type} as gradient of an input {value.type}",
        source=node.source,
    )


def _vjp_of_decomposition(node: Node, totals: Sequence[Value | None]) -> list[Value | None]:
    op = node.op
    if type(op).decompose is Op.decompose:
        raise Unsupported(
            f"gradients: no gradient is defined for {op.type_name}",
            source=node.source,
            hint="tf.stop_gradient(...) leaves this path out",
        )
    results = result_values(op.decompose(*node.inputs))
    pairs = [(y, g) for y, g in zip(results, totals, strict=True) if g is not None]
    # Composites nest a few levels deep at most, so this recursion is bounded. The inputs are stops
    # as well as xs: the inner sweep must not run past them.
    inner = _Sweep(current_builder(), node.source)
    for y, g in pairs:
        inner.parts.setdefault(y, []).append(g)
    inner.keeps_places = True
    unique = list(dict.fromkeys(node.inputs))
    found = dict(zip(unique, inner.run([y for y, _ in pairs], unique, set(unique)), strict=True))
    # An input used twice has one gradient, which belongs to its first position.
    return [found.pop(v, None) if v.dtype.is_floating else None for v in node.inputs]


def add_up(contributions: Sequence[Value]) -> Value:
    """The sum, left to right: Add for two, AddN for more; single rows are added in place."""
    from tinyflow.ops import elementwise

    rows = [c.node for c in contributions if isinstance(c.node.op, RowGrad)]
    if rows and len(contributions) > 1:
        others = [c for c in contributions if not isinstance(c.node.op, RowGrad)]
        if not others:
            others, rows = [rows[0].outputs[0]], rows[1:]
        total = others[0] if len(others) == 1 else add_up(others)
        for row in rows:
            dy, index, _ = row.inputs
            total = current_builder().emit(ArrayWrite(adds=True), (total, index, dy))
        return total
    if len(contributions) == 2:
        return elementwise.add(contributions[0], contributions[1])  # type: ignore[no-any-return]
    return elementwise.add_n(list(contributions))  # type: ignore[no-any-return]


def _check_seed(y: Value, weight: Value) -> None:
    if weight.dtype is not y.dtype:
        raise DTypeError(
            "gradients: grad_ys differs from y in dtype",
            received={"y": y.type, "grad_y": weight.type},
            expected="one dtype",
        )
    try:
        shapes.merge_shapes(y.type.shape, weight.type.shape)
    except ShapeError as error:
        raise ShapeError(
            "gradients: grad_ys differs from y in shape",
            received={"y": y.type, "grad_y": weight.type},
            expected="one shape",
        ) from error


__all__ = ["add_up", "gradients", "vjp", "why_not_differentiable"]
