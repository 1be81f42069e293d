"""From a function of partly known types to one where every type is static.

Main function: ``specialize(fn, feed_types)``. May import core, ir.graph, ops and passes.decompose.

Before                                                   After, for feeds of float32[64, 3]
  %0 = Input {role="feed"} : float32[N, 3]                 %0 = Input : float32[64, 3]
  %1 = Shape(%0) : int32[2]                                %1 = Constant {[64 3]}
  %2 = DynamicShape(%0, %1) {Reshape, "shape"}             %2 = Reshape(%0) {shape=(64, 3)}
  %3 = UnbroadcastLike(%2, %9)                             %3 = Sum(%2) {axes=(0,)}

Types are inferred again from the concrete inputs; shapes that the graph computes are folded; ops
that stand for "the shape of that value" are replaced by ops with static attributes. Every pass
after this one may rely on types whose extents are numbers, or polynomials over the declared
``symbols`` of a step that serves all sizes (``fits`` tells whether it serves given ones).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tinyflow.core import shape as shapes
from tinyflow.core.error import InternalError, NeedsHost, ShapeError, TinyFlowError
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.builder import Builder, argument_names, building, describe, emit
from tinyflow.ir.graph.interp import apply
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, Op, TensorType, Value
from tinyflow.ir.graph.visit import remap, result_values
from tinyflow.ops.base import DynamicShape
from tinyflow.ops.control import ControlOp
from tinyflow.ops.creation import Constant, FilledLike, constant
from tinyflow.ops.dynamic_slice import DynamicSlice, PlaceSlice, SliceAdd, place_key
from tinyflow.ops.elementwise import Add
from tinyflow.ops.growing import GrowRows, padded_to
from tinyflow.ops.like import LikeOp
from tinyflow.ops.shape import Extent, symbolic_value
from tinyflow.passes.control import specialize_control
from tinyflow.passes.decompose import is_decomposed

#: arrays up to this many elements are folded here: shapes, axes, multiples
SMALL = 64


def specialize(
    fn: Function,
    feed_types: Sequence[TensorType],
    state_types: Mapping[Any, TensorType] | None = None,
    symbols: frozenset[str] = frozenset(),
    inside: bool = True,
) -> Function:
    """``fn`` for feeds of these types, one per input with role "feed", in order.

    state_types: types of variables whose declared type is not static, by key.
    symbols: names of the extents in ``feed_types`` that each run tells; all others are numbers.
    inside: whether slices by computed bounds may count on lying inside (see ops.dynamic_slice).
    Errors: ShapeError, DTypeError and so on from ``infer``, with the user's line of the op and the
    feeds' types; NeedsHost when a shape depends on computed data.
    """
    state = state_types or {}
    try:
        return _Specializer(fn, feed_types, state, symbols, inside).run()
    except _Unseen:
        return _Specializer(fn, feed_types, state, symbols, False).run()


class _Unseen(Exception):
    """A slice counts on lying inside, and the step needs its shape only: no kernel would see."""


class _Specializer:
    """One walk over the function; ``values`` maps old values to new ones."""

    def __init__(
        self,
        fn: Function,
        feed_types: Sequence[TensorType],
        state_types: Mapping[Any, TensorType],
        symbols: frozenset[str],
        inside: bool,
    ) -> None:
        self.fn = fn
        self.symbols, self.inside = symbols, inside
        self.values: dict[Value, Value] = {}
        self.constants: dict[Value, np.ndarray[Any, Any]] = {}
        self.extents: dict[str, Any] = {}  # symbols of the feeds' declared shapes
        self.known_shapes: dict[Any, bool] = {}  # shape -> see ``is_known``
        self.is_inner = False
        self.limits: Mapping[Value, int] = {}  # what counters of a loop come to at most
        self.state_types = state_types
        self.assumed: list[Node] = []  # slices that count on lying inside
        self.builder = Builder()
        feeds = [v for v in fn.inputs if v.node.op.role == "feed"]  # type: ignore[attr-defined]
        if len(feeds) != len(feed_types):
            raise InternalError(f"specialize: {len(feeds)} feeds, {len(feed_types)} types")
        self.feed_types = dict(zip(feeds, feed_types, strict=True))

    def sub_function(
        self, fn: Function, types: Sequence[TensorType], limits: Mapping[Value, int] | None = None
    ) -> Function:
        """A sub-function (see ops.control) for inputs of these types, some of which have limits."""
        inner = _Specializer(fn, types, {}, self.symbols, self.inside)
        inner.extents.update(self.extents)
        inner.limits, inner.is_inner = limits or {}, True
        return inner.run()

    def run(self) -> Function:
        values = self.values
        with building(self.builder):
            for node in self.fn.nodes:
                new = self.translate(node)
                if new is node.outputs:
                    continue
                for old, value in zip(node.outputs, new, strict=True):
                    values[old] = value
        found = remap(self.fn, values) if values else self.fn
        if self.assumed:
            seen = {place_key(n) for n in found.nodes if getattr(n.op, "assumes_inside", False)}
            if not {place_key(n) for n in self.assumed} <= seen:
                raise _Unseen
        return found

    def translate(self, node: Node) -> Sequence[Value]:
        """The outputs that stand for those of ``node``; ``node.outputs`` itself if it may stay."""
        op, values = node.op, self.values
        if isinstance(op, Input):
            return self.bind_input(node, op)
        inputs = node.inputs
        if values:
            inputs = tuple([values.get(v, v) for v in inputs])
            if inputs == node.inputs:
                inputs = node.inputs
        if type(op) is Constant:
            if node.types[0].size <= SMALL:
                self.constants[node.outputs[0]] = np.asarray(op.value)
            return node.outputs
        try:
            return self.rebuild(node, op, inputs)
        except TinyFlowError as error:
            explained = self.explain(error, node, inputs)
            if isinstance(explained, NeedsHost):
                explained.op = op  # the outermost loop or branch says so last
            raise explained from None

    def rebuild(self, node: Node, op: Op, inputs: tuple[Value, ...]) -> Sequence[Value]:
        if isinstance(op, ControlOp):
            return specialize_control(self, node, op, inputs)
        if (
            type(op) is Add and self.is_inner and isinstance(inputs[1].node.op, PlaceSlice)
            and inputs[0].type == inputs[1].type
        ):
            return self.added_in_place(node, inputs)
        if isinstance(op, GrowRows):
            return (self.grown(node, inputs),)
        if isinstance(op, DynamicShape) and hasattr(op.inner, "computed"):
            found = self.computed(node, op, inputs)
            if found is not None:
                return self.named(node, found)
        op, inputs = self.resolve(op, inputs)
        if op.effect is not Effect.HOST:
            for value in inputs:
                if not self.is_known(value.node.types[value.index]):
                    raise self.open_shape(op, _infer(op, inputs), inputs)
        if isinstance(op, (LikeOp, FilledLike)) and is_decomposed(op):
            with self.builder.on_behalf_of(node.source, node.origin):
                return self.named(node, result_values(op.decompose(*inputs)))
        known = self.folded(node, op, inputs)
        if known is not None:
            return known
        types = node.types
        if inputs is not node.inputs or op is not node.op or not self.are_known(types):
            op, types = self.infer(op, inputs, node.types)
            if types == node.types:
                types = node.types
        if (
            types is node.types
            and inputs is node.inputs
            and op is node.op
            and not node.control_inputs
        ):
            return node.outputs
        new = Node(
            op, inputs, types, node.name, self.controls(node), node.device, node.source, node.origin
        ).outputs
        return self.named(node, self.extents_known(op, new)) if self.symbols else new

    def extents_known(self, op: Op, results: Sequence[Value]) -> Sequence[Value]:
        """An Extent (or a Constant) in the place of a number that follows from the sizes that a run
        tells (or from those of them that are known)."""
        value = results[0]
        if len(results) > 1 or value.type.shape != () or op.effect is not Effect.NONE:
            return results
        extent = self.symbolic_operand(value)
        if extent is None:
            return results
        with self.builder.on_behalf_of(value.node.source, value.node.origin):
            if isinstance(extent, Dim):
                return (emit(Extent(extent, value.dtype)),)
            known = constant(np.asarray(extent, value.dtype.numpy), value.dtype)
        self.constants[known] = np.asarray(known.node.op.value)
        return (known,)

    def controls(self, node: Node) -> tuple[Node, ...]:
        return tuple(
            self.values[c.outputs[0]].node if c.outputs and c.outputs[0] in self.values else c
            for c in node.control_inputs
        )

    def named(self, node: Node, results: Sequence[Value]) -> Sequence[Value]:
        """Results of other ops under the node's name, where the last op is a new one."""
        for value in results:
            if value.node.name is None and not isinstance(value.node.op, Input):
                value.node.name = node.name
        return results

    # ------------------------------------------------------------------ inputs

    def bind_input(self, node: Node, op: Input) -> Sequence[Value]:
        value = node.outputs[0]
        concrete = self.feed_types.get(value)
        if concrete is None and not op.type.is_static:
            concrete = self.state_types.get(op.key)
            if concrete is None:
                raise InternalError(
                    f"specialize: no static type is known for {node.name or op.role}",
                    received={"declared": op.type},
                    source=node.source,
                )
        if concrete is None or concrete == op.type:
            return node.outputs
        if concrete.is_static:
            self.check_feed(node, op.type, concrete)
        for declared, extent in zip(op.type.shape or (), concrete.shape or (), strict=False):
            if isinstance(declared, Dim) and len(declared.terms) == 1:
                (monomial, coefficient), = declared.terms
                if len(monomial) == 1 and coefficient == 1:
                    self.extents.setdefault(monomial[0], extent)  # type: ignore[arg-type]
        return Node(
            dataclasses.replace(op, type=concrete), (), (concrete,), node.name,
            source=node.source, origin=node.origin,
        ).outputs  # fmt: skip

    def check_feed(self, node: Node, declared: TensorType, concrete: TensorType) -> None:
        want, got = declared.shape, concrete.shape
        fits = want is None or got is None or (
            # An unknown extent is whatever is fed, also in a step that serves all sizes.
            len(want) == len(got)
            and all(isinstance(w, Dim) or w == g for w, g in zip(want, got, strict=True))
        )
        if not fits:
            raise ShapeError(
                f"the value fed for {node.name or 'a value'} has a shape that does not fit",
                received={"fed": concrete, "declared": declared},
                source=node.source,
            )

    # ------------------------------------------------------------------ attributes and constants

    def is_known(self, type_: TensorType) -> bool:
        """Whether every extent is a number or follows from what a run tells."""
        shape = type_.shape
        known = self.known_shapes.get(shape)
        if known is None:
            known = type_.is_static or (
                bool(self.symbols)
                and shape is not None
                and shapes.symbols_of(shape) <= self.symbols
            )
            self.known_shapes[shape] = known
        return known

    def are_known(self, types: Sequence[TensorType]) -> bool:
        return all(map(self.is_known, types))

    def symbolic_operand(self, value: Value) -> Any:
        """A shape computed from sizes that a run tells, as nested tuples of numbers and extents."""
        found = symbolic_value(value) if self.symbols else None
        if found is None or any(
            isinstance(part, str) or not shapes.symbols_of(part) <= self.symbols
            for part in np.array(found, object).flat
        ):
            return None
        return found

    def added_in_place(self, node: Node, inputs: tuple[Value, ...]) -> Sequence[Value]:
        """A slice's gradient joins what a loop sums up where the slice lies, not all over it."""
        total, place = inputs[0], inputs[1].node
        op: Any = place.op
        with self.builder.on_behalf_of(node.source, node.origin):
            piece, begin = place.inputs
            added = SliceAdd(True, op.axes, op.steps, op.negative)
            return self.named(node, (self.builder.emit(added, (total, begin, piece)),))

    def grown(self, node: Node, inputs: tuple[Value, ...]) -> Value:
        """The array of a GrowRows with enough rows for every index that comes."""
        array, index = inputs
        known, rows = self.constant_of(index), array.type.shape[0]  # type: ignore[index]
        last = self.limits.get(node.inputs[1]) if known is None else int(known)
        if last is None or not isinstance(rows, int):
            raise NeedsHost(
                "TensorArray: only running tells how many elements it has",
                received={"array": array.type}, source=node.source,
            )  # fmt: skip
        with self.builder.on_behalf_of(node.source, node.origin):
            return padded_to(array, max(rows, last + 1))

    def computed(
        self, node: Node, op: DynamicShape, inputs: tuple[Value, ...]
    ) -> Sequence[Value] | None:
        """Results of an op that can do with an operand which only a run knows; else None."""
        operand = inputs[-1]
        if self.constant_of(operand) is not None or self.symbolic_operand(operand) is not None:
            return None
        with self.builder.on_behalf_of(node.source, node.origin):
            found = op.inner.computed(*inputs, self.inside)  # type: ignore[attr-defined]
        if found is None:
            return None
        node = found.node
        while node.op.type_name in ("Squeeze", "ExpandDims"):  # positions and new axes
            node = node.inputs[0].node
        if isinstance(node.op, DynamicSlice) and node.op.assumes_inside:
            self.assumed.append(node)
        return result_values(found)

    def resolve(self, op: Op, inputs: tuple[Value, ...]) -> tuple[Op, tuple[Value, ...]]:
        """The op with static attributes, on the inputs that it still needs."""
        if isinstance(op, DynamicShape):
            operand = self.constant_of(inputs[-1])
            if operand is None:
                operand = self.symbolic_operand(inputs[-1])
            if operand is None:
                raise NeedsHost(
                    f"{op.inner.type_name}: its {op.field} depends on computed data",
                    expected=f"{op.field} to follow from constants, shapes and the feeds' shapes",
                    hint="compute it in NumPy and use it as a Python value",
                )
            return op.resolve(operand), inputs[:-1]
        hook = getattr(op, "specialize", None)
        if hook is not None:
            found: Any = hook([v.type for v in inputs], [self.known(v) for v in inputs])
            if found is not None:
                reads = argument_names(type(found))  # type: ignore[arg-type]  # see there
                return found, inputs if reads else ()
        return op, inputs

    def known(self, value: Value) -> Any:
        """The array of a constant, the number that an extent stands for, or None."""
        op = value.node.op
        return op.extent if isinstance(op, Extent) else self.constants.get(value)

    def constant_of(self, value: Value) -> np.ndarray[Any, Any] | None:
        found = self.constants.get(value)
        if found is None and type(value.node.op) is Constant:
            found = np.asarray(value.node.op.value)
        return found

    def folded(
        self, node: Node, op: Op, inputs: tuple[Value, ...]
    ) -> Sequence[Value] | None:
        """A Constant in the place of a small computation on constants or of a shape."""
        if type(op) is Constant:
            arrays: list[Any] = []
        else:
            if not inputs or op.effect is not Effect.NONE:
                return None
            constants = self.constants
            for value in inputs:
                if value not in constants:
                    return None
            arrays = [constants[v] for v in inputs]
        op, types = self.infer(op, inputs)
        if any(not t.is_static or t.size > SMALL for t in types):
            return None
        with np.errstate(all="ignore"):
            result = apply(op, arrays)
        results = result if isinstance(result, (tuple, list)) else (result,)
        out = []
        with self.builder.on_behalf_of(node.source, node.origin):
            for array, type_ in zip(results, types, strict=True):
                value = constant(np.asarray(array, type_.dtype.numpy), type_.dtype)
                self.constants[value] = np.asarray(value.node.op.value)
                out.append(value)
        return self.named(node, out)

    def infer(
        self, op: Op, inputs: tuple[Value, ...], recorded: Sequence[TensorType] = ()
    ) -> tuple[Op, tuple[TensorType, ...]]:
        """The op, with the feeds' extents put into attributes that hold symbols, and its types.

        recorded: types that the graph knows besides (``set_shape``); they count where ``infer``
        leaves something open. The results of host calls may stay open: nothing is compiled there.
        """
        types = _infer(op, inputs)
        if self.are_known(types):
            return op, types
        fields = {name: self.substituted(v) for name, v in op.attributes.items()}
        if fields != op.attributes:
            op = dataclasses.replace(op, **fields)  # type: ignore[type-var]
            types = _infer(op, inputs)
        if recorded:
            types = tuple(map(self.refined, types, recorded))
        if not self.are_known(types) and op.effect is not Effect.HOST:
            raise self.open_shape(op, types, inputs)
        return op, types

    def refined(self, inferred: TensorType, recorded: TensorType) -> TensorType:
        known = self.substituted(recorded.shape)
        return inferred.with_shape(shapes.merge_shapes(inferred.shape, known))

    def open_shape(
        self, op: Op, types: Sequence[TensorType], inputs: Sequence[Value]
    ) -> NeedsHost:
        host = next((v for v in inputs if not self.is_known(v.type)), None)
        return NeedsHost(
            f"{op.type_name}: the shape of its result depends on computed data",
            received={"result": ", ".join(map(str, types))},
            expected="shapes that follow from constants and the feeds' shapes",
            hint=None
            if host is None
            else f"say the shape of {host.node.name or host.node.op.type_name} with set_shape(...)",
        )

    def substituted(self, attribute: Any) -> Any:
        """The attribute with the symbols that the feeds bind replaced by their extents."""
        if isinstance(attribute, Dim):
            total: Any = 0
            for monomial, product in attribute.terms:
                for symbol in monomial:
                    extent = self.extent_of(symbol)
                    if extent is None:
                        return attribute
                    product = product * extent
                total = total + product
            return total
        if type(attribute) is tuple:
            return tuple(map(self.substituted, attribute))
        return attribute

    def extent_of(self, symbol: str) -> Any:
        """What the feeds say of a symbol of the graph; None if they say nothing."""
        extent = self.extents.get(symbol)
        if extent is None:
            parts = shapes.quotient_parts(symbol)
            if parts is not None:
                return self.substituted(parts[0]) // self.substituted(parts[1])
            parts = shapes.broadcast_parts(symbol)
            if parts is not None:
                return shapes.broadcast_dim(*map(self.substituted, parts))
        return extent

    # ------------------------------------------------------------------ errors

    def explain(
        self, error: TinyFlowError, node: Node, inputs: tuple[Value, ...]
    ) -> TinyFlowError:
        """The error with the op's line, its inputs and what was fed."""
        error = describe(error, node.op, inputs, node.source)
        if node.name and node.name not in error.what:
            error.what = f"{error.what} (node '{node.name}')"
        for label, source in node.origin:
            error.located(label, source)
        for value, type_ in self.feed_types.items():
            name = value.node.name or "a value"
            error.received.setdefault(f"fed {name}", type_)
        if hasattr(error, "node"):
            error.node = node
        return error


def _infer(op: Op, inputs: Sequence[Value]) -> tuple[TensorType, ...]:
    result: Any = op.infer(*[v.node.types[v.index] for v in inputs])
    return result if type(result) is tuple else (result,)


def fits(fn: Function, sizes: Mapping[str, int]) -> str | None:
    """Why a function specialised with symbols does not mean the same for these sizes; None if it
    does: every op infers, from types of these sizes, what its symbolic type becomes for them.
    """
    for node in fn.nodes:
        if isinstance(node.op, ControlOp):
            for inner in node.op.functions:
                reason = fits(inner, sizes)
                if reason is not None:
                    return reason
            continue
        if isinstance(node.op, Input) or not (
            shapes.symbols_of(tuple(t.shape for t in node.types))
            or shapes.symbols_of(tuple(v.type.shape for v in node.inputs))
        ):
            continue
        fields = node.op.attributes
        known = {name: shapes.substituted(v, sizes) for name, v in fields.items()}
        op = node.op if known == fields else dataclasses.replace(node.op, **known)  # type: ignore[type-var]
        try:
            found: Any = op.infer(*[at_sizes(v.type, sizes) for v in node.inputs])
        except TinyFlowError as error:
            return f"{node.op.type_name}: {error.what}"
        found = found if type(found) is tuple else (found,)
        if found != tuple([at_sizes(t, sizes) for t in node.types]):
            return f"{node.op.type_name}: another shape than {', '.join(map(str, node.types))}"
    return None


def at_sizes(type_: TensorType, sizes: Mapping[str, int]) -> TensorType:
    """The type with numbers in the place of the symbols."""
    return type_ if type_.is_static else type_.with_shape(shapes.substituted(type_.shape, sizes))
