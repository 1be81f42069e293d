"""``tf.nn.dynamic_rnn`` and ``tf.nn.static_rnn``: a cell applied to a sequence.

Main functions: ``dynamic_rnn`` (a native loop), ``static_rnn`` (unrolled),
``bidirectional_dynamic_rnn``. May import core, ops, control_flow, tensor_array, rnn_cells.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow.core.dtype import as_dtype, int32
from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1 import array_functions as arrays
from tinyflow.frontends.tf1.control_flow import while_loop
from tinyflow.frontends.tf1.convert import convert_to_tensor, graph_of, tensor
from tinyflow.frontends.tf1.nest import flatten, map_structure, pack_as
from tinyflow.frontends.tf1.tensor_array import TensorArray
from tinyflow.frontends.tf1.variable_scope import variable_scope

__all__ = ["bidirectional_dynamic_rnn", "dynamic_rnn", "static_rnn"]


def _time_first(value: Any) -> Any:
    rank = value.type.rank
    if rank is None or rank < 2:
        raise InvalidArgumentError(
            f"dynamic_rnn: inputs must be [batch, time, ...], got {value.get_shape()}",
            source=value.node.source,
        )
    return arrays.transpose(value, [1, 0, *range(2, rank)])


def _extent(value: Any, axis: int) -> Any:
    shape = value.type.shape
    return shape[axis] if shape and isinstance(shape[axis], int) else arrays.shape(value)[axis]


def _initial_state(cell: Any, state: Any, batch: Any, dtype: Any) -> Any:
    if state is not None:
        return map_structure(tensor, state)
    if dtype is None:
        raise InvalidArgumentError("If there is no initial_state, you must give a dtype.")
    return cell.zero_state(batch, dtype)


def dynamic_rnn(
    cell: Any, inputs: Any, sequence_length: Any = None, initial_state: Any = None,
    dtype: Any = None, parallel_iterations: Any = None, swap_memory: bool = False,
    time_major: bool = False, scope: Any = None,
) -> Any:  # fmt: skip
    """(outputs, last state) of ``cell`` over [batch, time, ...] (or time first).

    Past ``sequence_length`` an example's outputs are zeros and its state stays. One native loop
    runs all steps; the input's part of the products is computed for all steps at once.
    """
    graph = graph_of(*flatten(inputs))
    with graph.as_default(), variable_scope(scope or "rnn"):
        values = [tensor(v) for v in flatten(inputs)]
        if not time_major:
            values = [_time_first(v) for v in values]
        steps, batch = _extent(values[0], 0), _extent(values[0], 1)
        state = _initial_state(cell, initial_state, batch, dtype)
        lengths = None
        if sequence_length is not None:
            lengths = arrays.cast(tensor(sequence_length), int32)
        sources = [TensorArray(v.dtype, size=0).unstack(v) for v in values]
        kind = as_dtype(dtype) if dtype is not None else flatten(state)[0].dtype
        sizes = flatten(cell.output_size)
        targets = [
            TensorArray(kind, size=steps, tensor_array_name="dynamic_rnn_output") for _ in sizes
        ]

        def step(time: Any, outs: list[TensorArray], before: list[Any]) -> Any:
            rows = pack_as(inputs, [s.read(time) for s in sources])
            output, after = cell(rows, pack_as(state, before))
            outputs, after = flatten(output), flatten(after)
            if lengths is not None:
                done = time >= lengths
                outputs = [arrays.where(done, arrays.zeros_like(o), o) for o in outputs]
                after = [
                    arrays.where(done, b, a) for b, a in zip(before, after, strict=True)
                ]
            outs = [t.write(time, o) for t, o in zip(outs, outputs, strict=True)]
            return time + 1, outs, after

        start = convert_to_tensor(np.int32(0), name="time")
        _, outs, last = while_loop(
            lambda time, *_: time < steps, step, (start, targets, flatten(state)),
            parallel_iterations=parallel_iterations or 32, swap_memory=swap_memory,
        )  # fmt: skip
        outputs = [t.stack() for t in outs]
        if not time_major:
            outputs = [_time_first(o) for o in outputs]
        return pack_as(cell.output_size, outputs), pack_as(state, last)


def static_rnn(
    cell: Any, inputs: Any, initial_state: Any = None, dtype: Any = None,
    sequence_length: Any = None, scope: Any = None,
) -> Any:  # fmt: skip
    """(list of outputs, last state) of ``cell`` over a list of [batch, ...]: an unrolled graph."""
    if not isinstance(inputs, (list, tuple)):
        raise TypeError("inputs must be a sequence")
    if not inputs:
        raise InvalidArgumentError("inputs must not be empty")
    graph = graph_of(*flatten(inputs))
    with graph.as_default(), variable_scope(scope or "rnn"):
        values = [map_structure(tensor, v) for v in inputs]
        batch = _extent(flatten(values[0])[0], 0)
        state = _initial_state(cell, initial_state, batch, dtype)
        lengths = None if sequence_length is None else arrays.cast(tensor(sequence_length), int32)
        outputs = []
        for time, value in enumerate(values):
            output, after = cell(value, state)
            if lengths is not None:
                done = lengths <= time
                output = arrays.where(done, arrays.zeros_like(output), output)
                after = map_structure(
                    lambda b, a, done=done: arrays.where(done, b, a), state, after
                )
            state = after
            outputs.append(output)
        return outputs, state


def bidirectional_dynamic_rnn(
    cell_fw: Any, cell_bw: Any, inputs: Any, sequence_length: Any = None,
    initial_state_fw: Any = None, initial_state_bw: Any = None, dtype: Any = None,
    parallel_iterations: Any = None, swap_memory: bool = False, time_major: bool = False,
    scope: Any = None,
) -> Any:  # fmt: skip
    """((outputs forward, outputs backward), (state forward, state backward))"""
    graph = graph_of(*flatten(inputs))
    with graph.as_default(), variable_scope(scope or "bidirectional_rnn"):
        common = {"dtype": dtype, "time_major": True, "swap_memory": swap_memory}
        value = tensor(inputs) if time_major else _time_first(tensor(inputs))
        lengths = None if sequence_length is None else arrays.cast(tensor(sequence_length), int32)
        with variable_scope("fw") as fw:
            out_fw, state_fw = dynamic_rnn(
                cell_fw, value, lengths, initial_state_fw, scope=fw, **common
            )
        with variable_scope("bw") as bw:
            out_bw, state_bw = dynamic_rnn(
                cell_bw, _reversed(value, lengths), lengths, initial_state_bw, scope=bw, **common
            )
            out_bw = _reversed(out_bw, lengths)
        if not time_major:
            out_fw, out_bw = _time_first(out_fw), _time_first(out_bw)
        return (out_fw, out_bw), (state_fw, state_bw)


def _reversed(value: Any, lengths: Any) -> Any:
    """[time, batch, ...] with every example's first ``lengths`` steps in reverse order."""
    if lengths is None:
        return arrays.reverse(value, [0])
    extents = arrays.shape(value)
    time = arrays.expand_dims(arrays.range(extents[0]), 1)
    batch = arrays.expand_dims(arrays.range(extents[1]), 0)
    within = arrays.expand_dims(lengths, 0)
    position = arrays.where(time < within + batch * 0, within - 1 - time, time + within * 0)
    rows = arrays.reshape(value, arrays.concat([[extents[0] * extents[1]], extents[2:]], 0))
    taken = arrays.gather(rows, arrays.reshape(position * extents[1] + batch, [-1]))
    return arrays.reshape(taken, extents)
