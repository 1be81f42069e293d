"""Loops and branches that Python drives: a step per sub-function, run iteration by iteration.

Main types: ``DrivenControl``, ``Rows``. May import core, ir and ops; steps come from ``make``.

Condition and body are steps in stages like any other: their kernels are native, host calls run
between them, and a value that grows costs two compilations, not one per iteration.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from tinyflow.core.error import Unsupported
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType, Value
from tinyflow.ir.graph.visit import substitute
from tinyflow.ops.control import If, While
from tinyflow.ops.tensor_array import ArrayRead

Array = np.ndarray[Any, Any]
#: what runs a sub-function: arrays in, arrays out
Part = Callable[[Sequence[Array]], list[Array]]
#: makes the step of a function of these feeds; the first argument is the sub-function it is of
Make = Callable[[Function, Function, Sequence[Value]], Part]


class Rows(list[Any]):
    """The values that a driven loop saved, one per iteration; their shapes may differ."""


class DrivenControl:
    """A ``Driven`` node, ready to run. rows: which inputs are saved values of another loop."""

    def __init__(self, node: Node, rows: Sequence[bool], make: Make) -> None:
        self.node, self.rows, self.make = node, tuple(rows), make
        self.control: Any = node.op.control  # type: ignore[attr-defined]
        self._parts: dict[str, _Part] = {}

    def run(self, given: Sequence[Any]) -> list[Any]:
        """The results for these inputs. Exceptions of the host functions pass through."""
        if isinstance(self.control, If):
            return self._branch(self.control, given)
        return self._loop(self.control, given)

    def _branch(self, op: If, given: Sequence[Any]) -> list[Any]:
        name = "then" if np.all(given[0]) else "orelse"
        return self._part(name, getattr(op, name), 1, 0).run(given[1:])

    def _loop(self, op: While, given: Sequence[Any]) -> list[Any]:
        n = op.n_carried
        cond, body = self._part("cond", op.cond, 0, n), self._part("body", op.body, 0, n)
        carried, invariant = list(given[:n]), list(given[n:])
        saved: list[Any] = [Rows() for _ in op.saved]
        while cond.run([*carried, *invariant])[0].all():
            results = body.run([*carried, *invariant])
            carried = results[:n]
            for rows, row in zip(saved, results[n:], strict=True):
                rows.append(row)
        return [*carried, *saved]

    def _part(self, name: str, fn: Function, first: int, n_carried: int) -> _Part:
        found = self._parts.get(name)
        if found is None:
            found = _Part(fn, self.rows[first:], n_carried, self.make)
            found = self._parts[name] = found
        return found


class _Part:
    """A sub-function as a step of its own, without the inputs that it does not need.

    Inputs that are saved values of another loop are not taken as a whole: the rows that the body
    reads by its counter are.
    """

    def __init__(
        self, fn: Function, rows: Sequence[bool], n_carried: int, make: Make
    ) -> None:
        position = {v: n for n, v in enumerate(fn.inputs)}
        needed = {v for node in fn.nodes for v in node.inputs} | set(fn.outputs)
        fresh: dict[Value, Value] = {}
        self._sources: list[tuple[int, int | None]] = []  # input, index input for a row of it
        for n, value in enumerate(fn.inputs):
            if value in needed and not rows[n]:
                fresh[value] = self._feed(value.type, value, (n, None))
        for node in fn.nodes:
            for value in node.inputs:
                n = position.get(value, -1)
                if n < 0 or not rows[n]:
                    continue
                index = position.get(node.inputs[1], -1) if len(node.inputs) > 1 else -1
                if not isinstance(node.op, ArrayRead) or not 0 <= index < n_carried:
                    raise Unsupported(
                        "gradients: a loop that Python drives saves values for one loop only, "
                        "which reads them row by row",
                        expected="first derivatives through such loops",
                        source=node.source,
                    )
                fresh[node.outputs[0]] = self._feed(node.types[0], node, (n, index))
        inputs = list(fresh.values())
        inside = substitute(Function(fn.name, fn.inputs, fn.outputs, None, fn.effects), fresh)
        self._step = make(
            fn, Function(fn.name, inputs, inside.outputs, None, inside.effects),
            [v.node.op.key for v in inputs],  # type: ignore[attr-defined]
        )

    def _feed(self, type_: TensorType, key: Any, source: tuple[int, int | None]) -> Value:
        self._sources.append(source)
        value = key if isinstance(key, Value) else key.outputs[0]
        node = Node(Input(type_, "feed", value), (), (type_,), value.node.name,
                    source=value.node.source)  # fmt: skip
        return node.outputs[0]

    def run(self, given: Sequence[Any]) -> list[Array]:
        arrays = [
            given[n] if index is None else given[n][int(given[index])]
            for n, index in self._sources
        ]
        return self._step(arrays)


__all__ = ["DrivenControl", "Rows"]
