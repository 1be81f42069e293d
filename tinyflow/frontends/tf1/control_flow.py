"""``tf.while_loop``, ``tf.cond`` and ``tf.case``: Python functions become sub-functions.

Main functions: those three. May import core, ops, graph, convert, nest, tensor_array.

The operations that a body's Python function makes go into the same graph, between two points in the
order of creation; what they use from before is captured and becomes an input of the loop. So
scopes, variables, collections and control edges work in bodies as everywhere else.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tinyflow.core.dtype import int32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_shapes, show
from tinyflow.frontends.tf1.control import identity
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, tensor
from tinyflow.frontends.tf1.elements import Operation
from tinyflow.frontends.tf1.graph import Graph, _Controls
from tinyflow.frontends.tf1.nest import flatten, is_nested, pack_as, same_structure
from tinyflow.frontends.tf1.tensor_array import TensorArray
from tinyflow.frontends.tf1.tensor_shape import as_shape, text_of
from tinyflow.ir.graph.nodes import Effect, Function, TensorType, Value
from tinyflow.ops.control import If, LoopVariable, While, outputs_of
from tinyflow.ops.convert import Identity

__all__ = ["case", "cond", "while_loop"]


# ---- tracing ------------------------------------------------------------------------------------


@contextlib.contextmanager
def _own_controls(graph: Graph) -> Iterator[bool]:
    """Inside, operations wait for nothing outside: the whole loop or branch does.

    Gives whether it waits for writes: then variables are read when it starts, not before.
    """
    outer = graph._controls
    after_writes = any(_writes(block.inputs) for block in outer)
    # A block that waits for nothing: variables make new reads in it, see Variable.as_value.
    graph._controls = [_Controls([], True)] if after_writes else []
    try:
        yield after_writes
    finally:
        graph._controls = outer


def _writes(operations: Sequence[Any]) -> bool:
    """Whether one of these operations writes a variable, or waits for one that does."""
    seen: set[Any] = set()
    stack = list(operations)
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op.effect is Effect.WRITE or isinstance(node.op, (If, While)):
            return True
        stack.extend(v.node for v in node.inputs)
        stack.extend(node.control_inputs)
    return False


def _is_state_read(value: Value) -> bool:
    """A variable's value, read by nothing that must come first."""
    node = value.node
    while isinstance(node.op, Identity) and not node.control_inputs:
        node = node.inputs[0].node
    return node.op.effect is Effect.READ and not node.inputs and not node.control_inputs


def _written(outputs: Sequence[Value], start: int) -> set[Any]:
    """Variables that operations from ``start`` on write, as far as ``outputs`` need them."""
    found: set[Any] = set()
    seen: set[Any] = set()
    stack = [v.node for v in outputs]
    while stack:
        node: Any = stack.pop()
        if node in seen or getattr(node, "serial", -1) < start:
            continue
        seen.add(node)
        if node.op.effect is Effect.WRITE:
            found.add(getattr(node.op, "ref", None))
        stack.extend(v.node for v in node.inputs)
        stack.extend(node.control_inputs)
    return found


def _captured(
    start: int, outputs: Sequence[Value], parameters: Sequence[Value], after_writes: bool
) -> list[Value]:
    """Values from before operation number ``start`` that ``outputs`` need, in order of use.

    Reads of variables count as from before, unless the body writes the variable or the whole
    waits for writes.
    """
    written = _written(outputs, start)
    found: dict[Value, None] = {}
    stopped, seen = set(parameters), set()

    def outside(value: Value) -> bool:
        if value.node.serial < start:  # type: ignore[attr-defined]
            return True
        if after_writes:
            return False
        return _is_state_read(value) and not (written and _read_ref(value) in written)

    stack = list(reversed(outputs))
    while stack:
        value = stack.pop()
        if value in stopped or value in found:
            continue
        if outside(value):
            found[value] = None
            continue
        node = value.node
        if node in seen:
            continue
        seen.add(node)
        stack.extend(reversed(node.inputs))
        for control in node.control_inputs:
            if control.serial >= start and control not in seen:  # type: ignore[attr-defined]
                seen.add(control)
                stack.extend(reversed(control.inputs))
                for deeper in control.control_inputs:
                    _follow(deeper, start, seen, stack)
    return list(found)


def _follow(node: Any, start: int, seen: set[Any], stack: list[Value]) -> None:
    """Inputs of a control predecessor and of its own predecessors."""
    waiting = [node]
    while waiting:
        one = waiting.pop()
        if one.serial < start or one in seen:
            continue
        seen.add(one)
        stack.extend(reversed(one.inputs))
        waiting.extend(one.control_inputs)


def _read_ref(value: Value) -> Any:
    node = value.node
    while isinstance(node.op, Identity):
        node = node.inputs[0].node
    return getattr(node.op, "ref", None)


def _as_result(item: Any, function: str) -> Any:
    """What a branch or body returned, as a tensor or array; an operation becomes a token."""
    if isinstance(item, TensorArray):
        return item
    if isinstance(item, Operation):
        with item.graph.control_dependencies([item]):
            return identity(convert_to_tensor(np.int32(0)))
    if item is None:
        raise InvalidArgumentError(f"{function} returned None", expected="tensors")
    return tensor(item)


# ---- while_loop ---------------------------------------------------------------------------------


def while_loop(
    cond: Callable[..., Any], body: Callable[..., Any], loop_vars: Any,
    shape_invariants: Any = None, parallel_iterations: int = 10, back_prop: bool = True,
    swap_memory: bool = False, name: str | None = None, maximum_iterations: Any = None,
    return_same_structure: bool = False,
) -> Any:  # fmt: skip
    """Repeats ``body`` on the loop variables while ``cond`` holds; their values at the end.

    loop_vars: a list or tuple of tensors, TensorArrays and structures of them. One variable comes
    back by itself unless ``return_same_structure``. parallel_iterations and swap_memory are
    accepted; an iteration is a few native kernels. Errors: InvalidArgumentError, DTypeError,
    ShapeError for a variable that changes its type.
    """
    if not callable(cond):
        raise TypeError("cond must be callable.")
    if not callable(body):
        raise TypeError("body must be callable.")
    if not isinstance(loop_vars, (list, tuple, dict)):
        loop_vars = [loop_vars]
    if not flatten(loop_vars):
        raise InvalidArgumentError("No loop variables provided")
    graph = graph_of(*[v for v in flatten(loop_vars) if not isinstance(v, TensorArray)])
    with graph.as_default(), graph.name_scope(name or "while"):
        loop = _Loop(graph, loop_vars, shape_invariants)
        results = loop.run(cond, body, maximum_iterations, back_prop)
    packed = pack_as(loop_vars, results)
    if not return_same_structure and isinstance(packed, (list, tuple)) and len(results) == 1:
        return packed[0]
    return packed


class _Loop:
    """One ``while_loop`` under construction."""

    def __init__(self, graph: Graph, loop_vars: Any, shape_invariants: Any) -> None:
        self.graph = graph
        self.structure = loop_vars
        self.starts = [
            v if isinstance(v, TensorArray) else tensor(v) for v in flatten(loop_vars)
        ]
        self.shapes = self._invariants(shape_invariants)

    def _invariants(self, given: Any) -> list[Any]:
        shapes: list[Any] = [None] * len(self.starts)
        if given is None:
            return shapes
        flat = _flat_shapes(given)
        if len(flat) != len(shapes):
            raise InvalidArgumentError(
                f"while_loop: {len(flat)} shape_invariants for {len(shapes)} loop variables"
            )
        for n, (shape, start) in enumerate(zip(flat, self.starts, strict=True)):
            if isinstance(start, TensorArray) or shape is None:
                continue
            known = as_shape(shape).core(f"loop{n}")
            try:
                merge_shapes(known, start.type.shape)
            except ShapeError:
                raise InvalidArgumentError(
                    f"The shape invariant specified for {start.name} is not compatible with the "
                    f"initial shape of the loop variable. It enters the loop with shape "
                    f"{text_of(start.type.shape)}, but the specified shape invariant is {shape}.",
                    source=start.node.source,
                ) from None
            shapes[n] = (known,)
        return shapes

    def variable(self, start: Any, shape: Any) -> Any:
        """The loop variable inside the body."""
        if isinstance(start, TensorArray):
            return start.loop_variable()
        kind = start.type if shape is None else start.type.with_shape(shape[0])
        return self.graph.emit(LoopVariable(kind), (), "Identity")

    def run(self, cond: Any, body: Any, maximum: Any, back_prop: bool) -> list[Any]:
        graph = self.graph
        if maximum is not None:
            limit = convert_to_tensor(maximum, int32, "maximum_iterations")
            zero = convert_to_tensor(np.int32(0), name="iteration_counter")
        first = len(graph._operations)
        with _own_controls(graph) as after_writes:
            inside = list(map(self.variable, self.starts, self.shapes))
            own: list[Any] = [v._flow if isinstance(v, TensorArray) else v for v in inside]
            counters: list[Any] = []
            next_counters: list[Any] = []
            arguments = _arguments(pack_as(self.structure, inside))
            go_on = self._condition(cond(*arguments))
            if maximum is not None:
                counter = graph.emit(LoopVariable(TensorType(int32, ())), (), "Iteration")
                go_on = self._also(counter < limit, go_on)
                counters, next_counters = [counter], [counter + 1]
            after = self._results(body(*arguments), inside)
        ends: list[Any] = [v._flow if isinstance(v, TensorArray) else v for v in after]
        starts = self._start_values(own)
        if maximum is not None:
            starts = [*starts, zero]
        parameters = [*own, *counters]
        captured = _captured(first, [go_on, *ends, *next_counters], parameters, after_writes)
        # Captured values from within this loop's text (reads of variables) come before the loop.
        inputs = [*parameters, *captured]
        op = While(
            Function("cond", inputs, [go_on]), Function("body", inputs, [*ends, *next_counters]),
            len(parameters), back_prop=back_prop,
        )  # fmt: skip
        found = outputs_of(graph.emit(op, (*starts, *captured), "Loop"))
        results: list[Any] = []
        for value, state in zip(found, after, strict=False):
            if isinstance(state, TensorArray):
                results.append(state._state(value))
            else:
                results.append(graph.emit(Identity(), (value,), "Exit"))
        return results

    def _also(self, a: Any, b: Any) -> Any:
        from tinyflow.ops.logical import logical_and

        return logical_and(a, b)

    def _condition(self, found: Any) -> Any:
        value = convert_to_tensor(found, name="cond")
        if value.dtype.kind != "bool" or value.type.shape not in ((), (1,), None):
            raise DTypeError(
                "while_loop: cond must return a boolean scalar", received={"cond": value.type},
                expected="bool []",
            )  # fmt: skip
        from tinyflow.ops.movement import reshape

        return value if value.type.shape == () else reshape(value, ())

    def _results(self, found: Any, inside: Sequence[Any]) -> list[Any]:
        if not is_nested(found) or (
            len(flatten(self.structure)) > 1 and isinstance(found, dict) and len(found) == 1
        ):
            found = [found]
        flat = [_as_result(item, "the body of while_loop") for item in flatten(found)]
        if len(flat) != len(inside):
            raise InvalidArgumentError(
                "The two structures don't have the same nested structure: the body returns "
                f"{len(flat)} values for {len(inside)} loop variables",
                expected="as many values as loop variables",
            )
        for n, (value, start) in enumerate(zip(flat, inside, strict=True)):
            if isinstance(value, TensorArray) != isinstance(start, TensorArray):
                raise InvalidArgumentError(f"while_loop: loop variable {n} changes its kind")
            if not isinstance(value, TensorArray):
                self._check(n, value, start)
        return flat

    def _check(self, n: int, value: Any, inside: Any) -> None:
        if value.dtype is not inside.dtype:
            raise DTypeError(
                f"while_loop: loop variable {n} enters as {inside.dtype} and comes back as "
                f"{value.dtype}", expected=f"dtype {inside.dtype}", source=value.node.source,
                hint=f"convert it with tf.cast(..., tf.{inside.dtype})",
            )  # fmt: skip
        try:
            merge_shapes(inside.type.shape, value.type.shape)
        except ShapeError:
            raise ShapeError(
                f"The shape for {inside.name} is not an invariant for the loop. It enters the loop "
                f"with shape {text_of(inside.type.shape)}, but has shape "
                f"{text_of(value.type.shape)} after one iteration. Provide shape invariants using "
                "either the `shape_invariants` argument of tf.while_loop or set_shape() on the "
                "loop variables.",
                received={"before": show(inside.type.shape), "after": show(value.type.shape)},
                source=value.node.source,
            ) from None

    def _start_values(self, own: Sequence[Any]) -> list[Value]:
        """Initial values; arrays whose elements were unknown before the body are made now."""
        values = []
        for start, inside in zip(self.starts, own, strict=True):
            if not isinstance(start, TensorArray):
                values.append(start)
                continue
            value = start._created()
            if inside.type.shape is None and value.type.shape is not None:
                inside.node.types = (start.loop_type(value.type),)
            values.append(value)
        return values


def _flat_shapes(given: Any) -> list[Any]:
    """Shape invariants in the order of the loop variables; a list of numbers is one shape."""
    from tinyflow.frontends.tf1.tensor_shape import TensorShape

    if given is None or isinstance(given, TensorShape):
        return [given]
    if isinstance(given, (list, tuple)) and all(isinstance(d, int) or d is None for d in given):
        return [given] if any(isinstance(d, int) for d in given) else list(given)
    parts = [given[key] for key in sorted(given)] if isinstance(given, dict) else given
    return [s for part in parts for s in _flat_shapes(part)]


def _arguments(packed: Any) -> tuple[Any, ...]:
    if isinstance(packed, (list, tuple)) and not hasattr(packed, "_fields"):
        return tuple(packed)
    return (packed,)


# ---- cond ---------------------------------------------------------------------------------------


def cond(
    pred: Any, true_fn: Any = None, false_fn: Any = None, strict: bool = False,
    name: str | None = None, fn1: Any = None, fn2: Any = None,
) -> Any:  # fmt: skip
    """What ``true_fn()`` returns if ``pred`` holds, else what ``false_fn()`` does; only one runs.

    Operations made outside run in any case. A list of one tensor comes back as the tensor unless
    ``strict``. Errors: TypeError for a Python bool, InvalidArgumentError for different structures.
    """
    true_fn, false_fn = true_fn or fn1, false_fn or fn2
    if not callable(true_fn):
        raise TypeError("true_fn must be callable.")
    if not callable(false_fn):
        raise TypeError("false_fn must be callable.")
    if isinstance(pred, bool):
        raise TypeError("pred must not be a Python bool")
    graph = graph_of(pred)
    with graph.as_default(), graph.name_scope(name or "cond"):
        pred = tensor(pred, "pred")
        branches = [_Branch(graph, fn, label) for fn, label in (
            (true_fn, "true_fn"), (false_fn, "false_fn"))]  # fmt: skip
        then, orelse = branches
        if not same_structure(then.structure, orelse.structure):
            raise InvalidArgumentError(
                "Incompatible return values of true_fn and false_fn: The two structures don't have "
                f"the same nested structure: {then.structure} and {orelse.structure}"
            )
        for a, b in zip(then.values, orelse.values, strict=True):
            if a.dtype is not b.dtype:
                raise DTypeError(
                    "Outputs of true_fn and false_fn must have the same type: "
                    f"{a.dtype.name}, {b.dtype.name}",
                    source=b.node.source,
                )
        captured = list(dict.fromkeys([*then.captured, *orelse.captured]))
        op = If(*[Function(b.label, captured, b.values) for b in branches])
        found = outputs_of(graph.emit(op, (pred, *captured), "Branch"))
        merged = [graph.emit(Identity(), (value,), "Merge") for value in found]
    results: list[Any] = [
        leaf._state(value) if isinstance(leaf, TensorArray) else value
        for leaf, value in zip(then.leaves, merged, strict=True)
    ]
    if then.is_operation:
        return results[0].op
    packed = pack_as(then.structure, results)
    if not strict and isinstance(packed, (list, tuple)) and len(packed) == 1:
        return packed[0]
    return packed


class _Branch:
    """What a branch's Python function made and returned."""

    def __init__(self, graph: Graph, function: Any, label: str) -> None:
        start = len(graph._operations)
        self.label = label
        with _own_controls(graph) as after_writes:
            self.structure = function()
            if self.structure is None:
                raise InvalidArgumentError(f"{label} must have a return value.")
            self.is_operation = isinstance(self.structure, Operation)
            self.leaves = [_as_result(leaf, label) for leaf in flatten(self.structure)]
            self.values: list[Value] = [
                leaf._created() if isinstance(leaf, TensorArray) else leaf for leaf in self.leaves
            ]
        self.captured = _captured(start, self.values, (), after_writes)


def case(
    pred_fn_pairs: Any, default: Any = None, exclusive: bool = False, strict: bool = False,
    name: str = "case",
) -> Any:  # fmt: skip
    """The result of the first function whose condition holds, else that of ``default``.

    pred_fn_pairs: (condition, function) pairs, or a dictionary. Without a default the last function
    runs when no condition holds.
    """
    pairs = list(pred_fn_pairs.items() if isinstance(pred_fn_pairs, dict) else pred_fn_pairs)
    if not pairs:
        raise InvalidArgumentError("case: pred_fn_pairs is empty")
    for pair in pairs:
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise TypeError("Each entry in pred_fn_pairs must be a 2-tuple")
        if not callable(pair[1]):
            raise TypeError("fn for pred must be callable.")
    if default is None:
        default = pairs.pop()[1]
    graph = graph_of(*[p for p, _ in pairs])
    with graph.as_default(), graph.name_scope(name):
        chosen = default
        for pred, function in reversed(pairs):
            chosen = _either(pred, function, chosen, strict)
        return chosen()


def _either(pred: Any, function: Any, other: Any, strict: bool) -> Callable[[], Any]:
    return lambda: cond(pred, function, other, strict)


