"""Control flow as functions: ``While`` repeats a sub-function, ``If`` chooses one of two.

Main types: ``ControlOp`` (what both share), ``While``, ``If``, ``LoopVariable``.
May import core, ir.graph, ops.base.

Values of the surrounding graph that a sub-function uses are its trailing inputs: sub-functions are
closed. In the user's graph the inputs of a sub-function may be any values (the outer ones
themselves); ``functionalize`` makes them ``Input`` nodes, adds the variables and random counters
that the sub-functions need, and from then on the nodes are pure. Gradients: autodiff/control.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from tinyflow.core.dtype import bool_, uint64
from tinyflow.core.error import DTypeError, InternalError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import Dimension, merge_shapes
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Op, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.ops.base import Sample, emit

#: odd, so that multiples of it run through all of uint64: draws of different steps stay apart
_STREAM = 0x9E3779B97F4A7C15


class LoopIdentity:
    """What a loop and the forms of it that gradients ask for have in common."""


@dataclass(frozen=True)
class LoopVariable(Op):
    """The value of a loop variable (or of a branch's input) inside a sub-function of a graph.

    Errors: InvalidArgumentError when it is fetched: it has one value per iteration
    """

    type: TensorType
    not_differentiable = "a parameter of a sub-function has no inputs"

    def infer(self) -> TensorType:
        return self.type

    def functionalize(self, state: Any) -> Value:
        raise InvalidArgumentError(
            f"'{state.node.name}' lies inside a loop or branch: it has no single value there",
            expected="results of tf.while_loop or tf.cond",
            source=state.node.source if state.node.source.line else None,
            hint="return it from the body as a loop variable",
        )


@dataclass(frozen=True, eq=False)  # no fields here: all loops would be equal
class ControlOp(Op, abstract=True):
    """An op with sub-functions. ``effect`` is NONE: what they do to variables is in the results."""

    same_dtype = False
    #: never run by a pass on constants: a loop may be long
    is_control: ClassVar[bool] = True

    @property
    def functions(self) -> tuple[Function, ...]:
        raise NotImplementedError

    def with_functions(self, functions: Sequence[Function]) -> ControlOp:
        raise NotImplementedError

    def arguments(self, types: Sequence[TensorType]) -> None:
        """Checks the inputs against the sub-functions' inputs."""
        for fn in self.functions:
            if len(fn.inputs) != len(types):
                raise InternalError(
                    f"{self.type_name}: {len(types)} inputs, {fn.name} takes {len(fn.inputs)}"
                )
            for own, given in zip(fn.inputs, types, strict=True):
                if own.dtype is not given.dtype:
                    raise DTypeError(f"{fn.name} takes {own.type}, got {given}")
                merge_shapes(own.type.shape, given.shape)


@dataclass(frozen=True, eq=False)
class If(ControlOp):
    """ys = then(xs) if pred else orelse(xs); only the chosen sub-function runs.

    pred: bool []     xs: any...     ys: the types on which both sub-functions agree
    Gradient: an If of the sub-functions' gradients      Errors: DTypeError, ShapeError
    """

    then: Function
    orelse: Function

    @property
    def functions(self) -> tuple[Function, ...]:
        return self.then, self.orelse

    def with_functions(self, functions: Sequence[Function]) -> If:
        return If(*functions)

    def infer(self, pred: TensorType, *xs: TensorType) -> tuple[TensorType, ...]:  # type: ignore[override]
        pred.require_bool().require_rank(0)
        self.arguments(xs)
        return tuple(
            joined(a.type, b.type)
            for a, b in zip(self.then.outputs, self.orelse.outputs, strict=True)
        )

    def reference(self, pred: Any, *xs: Any) -> Any:  # type: ignore[override]
        return tuple(interp.run(self.then if np.all(pred) else self.orelse, xs))

    def functionalize(self, state: Any, pred: Value, *xs: Value) -> Any:
        """What the branches read becomes inputs, what they write results."""
        parts = [_Closed(state.function(fn), len(xs)) for fn in self.functions]
        extra = _all_extra(parts)
        written = list(dict.fromkeys(ref for part in parts for ref in part.fn.updates))
        keys = dict.fromkeys([*extra, *[("variable", ref) for ref in written]])
        count = len(self.then.outputs)
        functions = []
        for part in parts:
            inputs = part.signature(keys)
            outputs = [*part.fn.outputs[:count]]
            for ref in written:
                place = part.fn.updates.get(ref)
                own = inputs[len(xs) + list(keys).index(("variable", ref))]
                outputs.append(own if place is None else part.fn.outputs[place])
            functions.append(
                with_plain_inputs(Function(part.fn.name, inputs, outputs, None, part.fn.effects))
            )
        results = outputs_of(
            emit(_settled(If(*functions)), pred, *xs, *[read_state(state, key) for key in keys]),
        )
        for ref, value in zip(written, results[count:], strict=True):
            state.write(ref, value)
        return results[:count]

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        then = sub_function("then", [TensorType("float64", (2, 3))], lambda x: [x * x, x + 1.0])
        orelse = sub_function("orelse", [TensorType("float64", (2, 3))], lambda x: [x, x * 3.0])
        x = rng.uniform(0.5, 1.5, (2, 3))
        for pred in (True, False):
            yield Sample((np.array(pred), x), If(then, orelse))

    def bad_samples(self) -> Iterable[Any]:
        fn = sub_function("branch", [TensorType("float32", (2,))], lambda x: [x])
        yield Sample((np.array(True), np.zeros(3, np.float32)), If(fn, fn)), ShapeError
        yield Sample((np.float32(1), np.zeros(2, np.float32)), If(fn, fn)), DTypeError


@dataclass(frozen=True, eq=False)
class While(ControlOp):
    """x = xs; while cond(x, c): x, *y = body(x, c)    results: x, and every y stacked.

    inputs: carried xs (``n_carried`` of them), then loop-invariant c
    results: the carried values after the last iteration, then for each saved y an array
    [extent, ...] whose row t is y of iteration t (rows beyond the last iteration hold nothing)
    counter: whether the last carried value is an int32 that counts iterations from 0; needed for y
    extent: rows of the saved arrays: an int, or a symbol until types are static
    loop: identity of the loop as the user wrote it: its forms with and without saved values
    Gradient: a While that runs backwards through saved values     Errors: DTypeError, ShapeError
    """

    cond: Function
    body: Function
    n_carried: int
    counter: bool = False
    extent: Any = None
    back_prop: bool = True
    loop: Any = field(default_factory=LoopIdentity)

    @property
    def functions(self) -> tuple[Function, ...]:
        return self.cond, self.body

    def with_functions(self, functions: Sequence[Function]) -> While:
        return replace(self, cond=functions[0], body=functions[1])

    @property
    def saved(self) -> tuple[Value, ...]:
        return self.body.outputs[self.n_carried :]

    def infer(self, *types: TensorType) -> tuple[TensorType, ...]:
        self.arguments(types)
        carried = [v.type for v in self.body.inputs[: self.n_carried]]
        for one, before, after in zip(carried, types, self.body.outputs, strict=False):
            if after.dtype is not before.dtype:
                raise DTypeError(f"a loop variable of {before} becomes {after.type}")
            merge_shapes(one.shape, after.type.shape)
        return (*carried, *[
            y.type.with_shape(None if y.type.shape is None else (self.extent, *y.type.shape))
            for y in self.saved
        ])  # fmt: skip

    def reference(self, *xs: Any) -> Any:
        carried, constant = list(xs[: self.n_carried]), list(xs[self.n_carried :])
        rows: list[list[Any]] = [[] for _ in self.saved]
        while np.all(interp.run(self.cond, [*carried, *constant])[0]):
            results = interp.run(self.body, [*carried, *constant])
            carried = results[: self.n_carried]
            for column, row in zip(rows, results[self.n_carried :], strict=True):
                column.append(row)
        stacks = [self._stacked(rs, y.type) for rs, y in zip(rows, self.saved, strict=True)]
        return (*carried, *stacks)

    def _stacked(self, rows: list[Any], one: TensorType) -> Any:
        shape = tuple(one.shape) if not rows else rows[0].shape  # type: ignore[arg-type]
        extent = self.extent
        # Rows of a length that only running tells are as many as there are iterations.
        if not isinstance(extent, int) or extent * max(1, one.size_bytes) > 1 << 30:
            extent = len(rows)
        stack = np.zeros((extent, *shape), one.dtype.numpy)
        for t, row in enumerate(rows):
            stack[t] = row
        return stack

    def functionalize(self, state: Any, *xs: Value) -> Any:
        """State of the body becomes carried or invariant; forms of one loop become one loop."""
        done = state.merged.get(self.loop)
        if done is None:
            done = state.merged[self.loop] = self._merged(state.loops[self.loop], state, xs)
        return done[state.node]

    def _merged(self, nodes: Sequence[Any], state: Any, xs: Sequence[Value]) -> dict[Any, Any]:
        """One While with everything that any of the forms saves; results by form."""
        richest = max((n.op for n in nodes), key=lambda op: op.n_carried)
        saved = list(dict.fromkeys(y for n in nodes for y in n.op.saved))
        n = richest.n_carried
        inputs = list(xs)
        if richest.n_carried > self.n_carried:
            from tinyflow.ops.creation import constant

            inputs.insert(self.n_carried, constant(np.int32(0)))
        body = Function(
            richest.body.name, richest.body.inputs, [*richest.body.outputs[:n], *saved]
        )
        cond, fn = (_Closed(state.function(f), len(inputs)) for f in (richest.cond, body))
        carried, invariant = _split_state([cond, fn])
        keys = dict.fromkeys([*carried, *invariant])
        own = fn.signature(keys)
        outs, count = list(fn.fn.outputs), len(fn.fn.updates)
        new_state = _next_state(fn, carried, own[len(inputs) :])
        k = len(carried)
        body_inputs = _ordered(own, n, len(inputs), k)
        new_body = Function(
            body.name, body_inputs,
            [*new_state, *outs[:n], *outs[n : len(outs) - count]], None, fn.fn.effects,
        )  # fmt: skip
        cond_inputs = _ordered(cond.signature(keys), n, len(inputs), k)
        new_cond = Function(
            cond.fn.name, cond_inputs, cond.fn.outputs[:1], None, cond.fn.effects
        )
        starts = [
            _stream_start(state, key[1]) if key[0] == "counter" else read_state(state, key)
            for key in carried
        ]
        op = replace(
            richest, cond=with_plain_inputs(new_cond), body=with_plain_inputs(new_body),
            n_carried=n + k, loop=LoopIdentity(),
        )  # fmt: skip
        results = outputs_of(
            emit(_settled(op), *starts, *inputs, *[read_state(state, key) for key in invariant])
        )
        for key, value in zip(carried, results, strict=False):
            if key[0] == "variable":
                state.write(key[1], value)
        results = results[k:]
        position = {y: n + i for i, y in enumerate(saved)}
        found: dict[Any, Any] = {}
        for node in nodes:
            kept = results[: node.op.n_carried]
            found[node] = [*kept, *[results[position[y]] for y in node.op.saved]]
        return found

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        types = [TensorType("int32", ()), TensorType("float64", (3,)), TensorType("float64", (3,))]
        body = sub_function("body", types, lambda i, x, c: [i + 1, x * c + 0.5])
        for limit in (0, 1, 5):
            cond = sub_function("cond", types, lambda i, x, c, n=limit: [i < n])
            x, c = (rng.uniform(0.5, 1.0, 3) for _ in range(2))
            yield Sample((np.int32(0), x, c), While(cond, body, 2))

    def bad_samples(self) -> Iterable[Any]:
        types = [TensorType("int32", ()), TensorType("float32", (3,))]
        body = sub_function("body", types, lambda i, x: [i + 1, x])
        cond = sub_function("cond", types, lambda i, x: [i < 3])
        op = While(cond, body, 2)
        yield Sample((np.int32(0), np.zeros(4, np.float32)), op), ShapeError
        yield Sample((np.int32(0), np.zeros(3, np.float64)), op), DTypeError


# ---- helpers ------------------------------------------------------------------------------------


def joined(a: TensorType, b: TensorType) -> TensorType:
    """The type of a value that is one of two: extents that differ are unknown."""
    if a.dtype is not b.dtype:
        raise DTypeError(f"the branches return {a} and {b}", expected="one dtype")
    if a.shape == b.shape or a.shape is None or b.shape is None:
        return a if a.shape is not None and a.shape == b.shape else a.with_shape(None)
    if len(a.shape) != len(b.shape):
        return a.with_shape(None)
    from tinyflow.core.shape import opaque

    return a.with_shape(
        tuple(
            m if m == n else opaque(f"branch{next(_serial)}")
            for m, n in zip(a.shape, b.shape, strict=True)
        )
    )


#: constants of up to this many elements move into sub-functions
SMALL = 64


def constant_of(value: Value) -> Any:
    """The array of a small constant, else None."""
    op = value.node.op
    if op.type_name == "Constant" and value.node.types[0].size <= SMALL:
        return np.asarray(op.value)  # type: ignore[attr-defined]
    return None


def number_of(value: Value) -> Any:
    """The int or Dim that an integer scalar is known to be, else None."""
    op = value.node.op
    if op.type_name == "Extent":
        return op.extent  # type: ignore[attr-defined]
    known = constant_of(value)
    return None if known is None or known.ndim or known.dtype.kind not in "iu" else int(known)


def step_of(op: While, k: int) -> int | None:
    """By how much carried value ``k`` grows in every iteration, if by a constant integer."""
    if k >= op.n_carried:
        return None
    own, after = op.body.inputs[k], op.body.outputs[k]
    name = after.node.op.type_name
    if own.type.shape != () or own.dtype.kind not in ("int", "uint") or name not in ("Add", "Sub"):
        return None
    a, b = after.node.inputs
    if b is own and name == "Add":
        a, b = b, a
    step = constant_of(b)
    if a is not own or step is None or step.ndim:
        return None
    return int(step) if name == "Add" else -int(step)


def counter_of(op: While, inputs: Sequence[Value], k: int) -> tuple[Dimension, int] | None:
    """(start, step) of a carried counter."""
    step = step_of(op, k)
    start = number_of(inputs[k]) if k < len(inputs) else None
    return None if not step or start is None else (start, step)


def _numbers() -> Any:
    import itertools

    return itertools.count(1)


_serial = _numbers()


def new_extent(label: str) -> Any:
    """A symbol for a number of iterations that is not known yet."""
    from tinyflow.core.shape import opaque

    return opaque(f"{label}{next(_serial)}")


def sub_function(
    name: str, types: Sequence[TensorType], make: Callable[..., Sequence[Value]]
) -> Function:
    """The function of ``make`` on fresh inputs of these types."""
    builder = Builder()
    with building(builder):
        inputs = [builder.emit(Input(t), ()) for t in types]
        return Function(name, inputs, list(make(*inputs)))


def outputs_of(result: Any) -> Sequence[Value]:
    """What ``emit`` returned, always as a sequence."""
    return (result,) if isinstance(result, Value) else tuple(result)


def with_plain_inputs(fn: Function) -> Function:
    """``fn`` on fresh inputs that say nothing of feeds and variables: a caller binds them."""
    fresh = {v: new_input(v.type) for v in fn.inputs}
    inputs = [fresh[v] for v in fn.inputs]
    changed = substitute(fn, fresh)
    return Function(fn.name, inputs, changed.outputs, None, changed.effects)


def _settled(op: ControlOp) -> Op:
    """The op of a pure function: native, or driven by Python where sub-functions call it."""
    from tinyflow.ops.driven import native_or_driven

    return native_or_driven(op)


def new_input(type_: TensorType) -> Value:
    """An input of a sub-function."""
    return Builder().emit(Input(type_, "feed"), ())  # type: ignore[no-any-return]


class _Closed:
    """A sub-function after functionalize: ``count`` own inputs, then state by (role, key)."""

    def __init__(self, fn: Function, count: int) -> None:
        self.fn = fn
        self.own = fn.inputs[:count]
        self.extra = {
            (v.node.op.role, v.node.op.key): v  # type: ignore[attr-defined]
            for v in fn.inputs[count:]
        }

    def signature(self, keys: Iterable[Any]) -> list[Value]:
        """Own inputs, then one input per key, used or not."""
        return [*self.own, *[self.extra[k] if k in self.extra else _unused(k) for k in keys]]


def _unused(key: Any) -> Value:
    role, ref = key
    types = {"counter": TensorType(uint64, ()), "initialized": TensorType(bool_, ())}
    type_ = types.get(role) or ref.type
    return new_input(type_)


def _all_extra(parts: Sequence[_Closed]) -> dict[Any, Any]:
    return {key: value for part in parts for key, value in part.extra.items()}


def read_state(state: Any, key: Any) -> Value:
    role, ref = key
    if role == "variable":
        return state.read(ref)  # type: ignore[no-any-return]
    if role == "initialized":
        return state.initialized(ref)  # type: ignore[no-any-return]
    return state.counter_of(ref)  # type: ignore[no-any-return]


def _stream_start(state: Any, node: Any) -> Value:
    """Where the draws of this step's iterations start: far from those of other steps."""
    from tinyflow.ops.creation import constant
    from tinyflow.ops.elementwise import multiply

    return multiply(state.counter_of(node), constant(np.uint64(_STREAM)))  # type: ignore[no-any-return]


def _split_state(parts: Sequence[_Closed]) -> tuple[list[Any], list[Any]]:
    """What changes from iteration to iteration (written variables, counters), and what does not."""
    cond, body = parts
    written = dict.fromkeys(("variable", ref) for ref in body.fn.updates)
    if cond.fn.updates:
        raise InvalidArgumentError(
            "while_loop: the condition assigns a variable", hint="assign it in the body"
        )
    carried: list[Any] = list(written)
    invariant: list[Any] = []
    for key in dict.fromkeys([*cond.extra, *body.extra]):
        if key in written:
            continue
        (carried if key[0] == "counter" else invariant).append(key)
    return carried, invariant


def _next_state(body: _Closed, carried: Sequence[Any], inputs: Sequence[Value]) -> list[Value]:
    from tinyflow.ops.creation import constant
    from tinyflow.ops.elementwise import add

    after = []
    with building(Builder()):
        for key, value in zip(carried, inputs, strict=False):
            if key[0] == "counter":
                after.append(add(value, constant(np.uint64(1))))
            else:
                after.append(body.fn.outputs[body.fn.updates[key[1]]])
    return after


def _ordered(values: Sequence[Value], n: int, m: int, k: int) -> list[Value]:
    """[carried n, invariant m-n, state k carried, state invariant] -> carried first."""
    return [*values[m : m + k], *values[:n], *values[n:m], *values[m + k :]]


__all__ = [
    "ControlOp", "If", "LoopVariable", "While", "constant_of", "counter_of", "joined",
    "new_extent", "new_input", "number_of", "outputs_of", "step_of", "sub_function",
    "with_plain_inputs",
]  # fmt: skip
