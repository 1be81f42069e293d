"""``tf.nn.rnn_cell``: one step of a recurrent network; variables named as TensorFlow names them.

Main types: ``RNNCell``, ``BasicRNNCell``, ``GRUCell``, ``BasicLSTMCell``, ``LSTMCell``,
``MultiRNNCell``, ``DropoutWrapper``, ``ResidualWrapper``. May import core, ops, variable_scope.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Sequence
from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.frames import public_methods
from tinyflow.frontends.tf1 import array_functions as arrays
from tinyflow.frontends.tf1 import math_functions as mathematics
from tinyflow.frontends.tf1 import nn_functions as networks
from tinyflow.frontends.tf1.convert import graph_of, tensor
from tinyflow.frontends.tf1.initializers import Constant, Zeros
from tinyflow.frontends.tf1.nest import flatten, map_structure
from tinyflow.frontends.tf1.variable_scope import get_variable, variable_scope
from tinyflow.ops.activation import tanh
from tinyflow.ops.base import Value

__all__ = [
    "BasicLSTMCell", "BasicRNNCell", "DropoutWrapper", "GRUCell", "LSTMCell", "LSTMStateTuple",
    "MultiRNNCell", "RNNCell", "ResidualWrapper",
]  # fmt: skip

LSTMStateTuple = namedtuple("LSTMStateTuple", ("c", "h"))


@public_methods("__call__", "zero_state")
class RNNCell:
    """``output, state = cell(inputs, state)``. A subclass defines ``call`` and the two sizes.

    inputs: [batch, features]. The variables are made by the first call, in a scope of the cell's
    name; later calls use them again.
    """

    base_name = "rnn_cell"

    def __init__(self, name: str | None = None, reuse: Any = None, dtype: Any = None) -> None:
        self._name = name
        self._reuse = reuse
        self._dtype = dtype
        self._scope: Any = None
        self._made: dict[str, Any] = {}

    @property
    def state_size(self) -> Any:
        raise NotImplementedError("Abstract method")

    @property
    def output_size(self) -> Any:
        raise NotImplementedError("Abstract method")

    @property
    def variables(self) -> list[Any]:
        return list(self._made.values())

    trainable_variables = trainable_weights = weights = variables

    def call(self, inputs: Any, state: Any) -> Any:
        raise NotImplementedError("Abstract method")

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        graph = graph_of(*flatten(inputs))
        with graph.as_default():
            if self._scope is None:
                block = variable_scope(
                    scope or self._name, default_name=self.base_name, reuse=self._reuse
                )
            else:
                block = variable_scope(self._scope)
            with block as entered:
                self._scope = entered
                return self.call(inputs, state)

    def variable(self, name: str, shape: Any, dtype: Any, initializer: Any = None) -> Any:
        """A weight, made once."""
        found = self._made.get(name)
        if found is None:
            found = self._made[name] = get_variable(
                name, shape, dtype=dtype, initializer=initializer
            )
        return found

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        """Zeros of the state's structure, [batch_size, size] each."""
        graph = graph_of(*([batch_size] if isinstance(batch_size, Value) else []))
        with graph.as_default(), graph.name_scope(type(self).__name__ + "ZeroState"):
            return map_structure(
                lambda size: arrays.zeros(_with_batch(batch_size, size), dtype), self.state_size
            )

    get_initial_state = zero_state


def _with_batch(batch_size: Any, size: int) -> Any:
    if isinstance(batch_size, Value):
        return arrays.stack([batch_size, size])
    return [int(batch_size), size]


def _features(inputs: Any) -> int:
    shape = inputs.type.shape
    if shape is None or not isinstance(shape[-1], int):
        raise InvalidArgumentError(
            f"Expected inputs.shape[-1] to be known, saw shape: {inputs.get_shape()}",
            source=inputs.node.source,
        )
    return shape[-1]


def _activation(given: Any) -> Callable[..., Any]:
    if isinstance(given, str):
        from tinyflow.ops import activation

        return {"sigmoid": mathematics.sigmoid}.get(given) or getattr(activation, given)
    return given or tanh  # type: ignore[no-any-return]


class _Dense(RNNCell):
    """Cells of one size."""

    def __init__(
        self, num_units: int, activation: Any = None, reuse: Any = None, name: str | None = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(name, reuse, dtype)
        self._num_units = int(num_units)
        self._activation = _activation(activation)

    @property
    def state_size(self) -> Any:
        return self._num_units

    @property
    def output_size(self) -> Any:
        return self._num_units

    def joined(self, inputs: Any, state: Any, width: int, name: str = "", bias: Any = None,
               initializer: Any = None, bias_initializer: Any = None) -> Any:  # fmt: skip
        """[inputs, state] times a kernel, plus a bias."""
        inputs = tensor(inputs)
        rows = _features(inputs) + _features(state)
        kernel = self.variable(f"{name}kernel", [rows, width], inputs.dtype, initializer)
        offset = self.variable(
            f"{name}bias", [width], inputs.dtype, bias_initializer or Zeros()
        )
        product = mathematics.matmul(arrays.concat([inputs, state], 1), kernel)
        return networks.bias_add(product, offset)


class BasicRNNCell(_Dense):
    """output = state = activation([x, h] kernel + bias)"""

    base_name = "basic_rnn_cell"

    def call(self, inputs: Any, state: Any) -> Any:
        output = self._activation(self.joined(inputs, state, self._num_units))
        return output, output


class GRUCell(_Dense):
    """h' = u h + (1 - u) c; r, u = sigmoid(gates), c = activation(candidate of [x, r h])

    Source: Cho et al., Learning phrase representations, 2014
    """

    base_name = "gru_cell"

    def __init__(
        self, num_units: int, activation: Any = None, reuse: Any = None,
        kernel_initializer: Any = None, bias_initializer: Any = None, name: str | None = None,
        dtype: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(num_units, activation, reuse, name, dtype)
        self._kernel_initializer, self._bias_initializer = kernel_initializer, bias_initializer

    def call(self, inputs: Any, state: Any) -> Any:
        n = self._num_units
        gates = self.joined(
            inputs, state, 2 * n, "gates/", initializer=self._kernel_initializer,
            bias_initializer=self._bias_initializer or Constant(1.0),
        )  # fmt: skip
        reset, update = arrays.split(mathematics.sigmoid(gates), 2, 1)
        candidate = self._activation(
            self.joined(
                inputs, reset * state, n, "candidate/", initializer=self._kernel_initializer,
                bias_initializer=self._bias_initializer,
            )
        )
        after = update * state + (1 - update) * candidate
        return after, after


class BasicLSTMCell(_Dense):
    """i, j, f, o = [x, h] kernel + bias; c' = c s(f + forget_bias) + s(i) act(j); h' = act(c') s(o)

    s is the sigmoid. Source: Zaremba et al., Recurrent neural network regularization, 2014
    """

    base_name = "basic_lstm_cell"

    def __init__(
        self, num_units: int, forget_bias: float = 1.0, state_is_tuple: bool = True,
        activation: Any = None, reuse: Any = None, name: str | None = None, dtype: Any = None,
        **ignored: Any,
    ) -> None:  # fmt: skip
        super().__init__(num_units, activation, reuse, name, dtype)
        self._forget_bias = float(forget_bias)
        self._state_is_tuple = state_is_tuple

    @property
    def state_size(self) -> Any:
        n = self._num_units
        return LSTMStateTuple(n, n) if self._state_is_tuple else 2 * n

    def call(self, inputs: Any, state: Any) -> Any:
        c, h = state if self._state_is_tuple else arrays.split(state, 2, 1)
        sigmoid = mathematics.sigmoid
        i, j, f, o = arrays.split(self.joined(inputs, h, 4 * self._num_units), 4, 1)
        c = c * sigmoid(f + self._forget_bias) + sigmoid(i) * self._activation(j)
        h = self._activation(c) * sigmoid(o)
        after = LSTMStateTuple(c, h) if self._state_is_tuple else arrays.concat([c, h], 1)
        return h, after


class LSTMCell(_Dense):
    """As BasicLSTMCell, with optional peepholes, clipping and a projection of h.

    Source: Sak et al., Long short-term memory recurrent neural network architectures, 2014
    """

    base_name = "lstm_cell"

    def __init__(
        self, num_units: int, use_peepholes: bool = False, cell_clip: Any = None,
        initializer: Any = None, num_proj: int | None = None, proj_clip: Any = None,
        num_unit_shards: Any = None, num_proj_shards: Any = None, forget_bias: float = 1.0,
        state_is_tuple: bool = True, activation: Any = None, reuse: Any = None,
        name: str | None = None, dtype: Any = None, **ignored: Any,
    ) -> None:  # fmt: skip
        super().__init__(num_units, activation, reuse, name, dtype)
        self._use_peepholes, self._cell_clip = use_peepholes, cell_clip
        self._initializer = initializer
        self._num_proj, self._proj_clip = num_proj, proj_clip
        self._forget_bias, self._state_is_tuple = float(forget_bias), state_is_tuple

    @property
    def output_size(self) -> Any:
        return self._num_proj or self._num_units

    @property
    def state_size(self) -> Any:
        c, h = self._num_units, self.output_size
        return LSTMStateTuple(c, h) if self._state_is_tuple else c + h

    def _peephole(self, gate: str, c: Any) -> Any:
        weight = self.variable(f"w_{gate}_diag", [self._num_units], c.dtype, self._initializer)
        return c * weight

    def call(self, inputs: Any, state: Any) -> Any:
        n, sigmoid = self._num_units, mathematics.sigmoid
        c, h = state if self._state_is_tuple else arrays.split(state, [n, self.output_size], 1)
        gates = self.joined(inputs, h, 4 * n, initializer=self._initializer)
        i, j, f, o = arrays.split(gates, 4, 1)
        f = f + self._forget_bias
        if self._use_peepholes:
            f, i = f + self._peephole("f", c), i + self._peephole("i", c)
        c = sigmoid(f) * c + sigmoid(i) * self._activation(j)
        if self._cell_clip is not None:
            c = mathematics.clip_by_value(c, -self._cell_clip, self._cell_clip)
        if self._use_peepholes:
            o = o + self._peephole("o", c)
        h = sigmoid(o) * self._activation(c)
        if self._num_proj is not None:
            h = mathematics.matmul(
                h,
                self.variable("projection/kernel", [n, self._num_proj], h.dtype, self._initializer),
            )
            if self._proj_clip is not None:
                h = mathematics.clip_by_value(h, -self._proj_clip, self._proj_clip)
        after = LSTMStateTuple(c, h) if self._state_is_tuple else arrays.concat([c, h], 1)
        return h, after


class MultiRNNCell(RNNCell):
    """Cells on top of each other: each one's output is the next one's input."""

    base_name = "multi_rnn_cell"

    def __init__(self, cells: Sequence[Any], state_is_tuple: bool = True) -> None:
        super().__init__()
        if not cells:
            raise InvalidArgumentError("Must specify at least one cell for MultiRNNCell.")
        if not isinstance(cells, (list, tuple)):
            raise TypeError(f"cells must be a list or tuple, but saw: {cells}.")
        self._cells = list(cells)
        self._state_is_tuple = state_is_tuple

    @property
    def state_size(self) -> Any:
        sizes = tuple(cell.state_size for cell in self._cells)
        return sizes if self._state_is_tuple else sum(flatten(sizes))

    @property
    def output_size(self) -> Any:
        return self._cells[-1].output_size

    @property
    def variables(self) -> list[Any]:
        return [v for cell in self._cells for v in cell.variables]

    def call(self, inputs: Any, state: Any) -> Any:
        if not self._state_is_tuple:
            widths = [sum(flatten(cell.state_size)) for cell in self._cells]
            state = arrays.split(state, widths, 1)
        after = []
        for n, (cell, own) in enumerate(zip(self._cells, state, strict=True)):
            with variable_scope(f"cell_{n}"):
                inputs, new = cell(inputs, own)
            after.append(new)
        joined = tuple(after) if self._state_is_tuple else arrays.concat(after, 1)
        return inputs, joined


class _Wrapper(RNNCell):
    def __init__(self, cell: Any) -> None:
        super().__init__()
        self._cell = cell

    @property
    def state_size(self) -> Any:
        return self._cell.state_size

    @property
    def output_size(self) -> Any:
        return self._cell.output_size

    @property
    def variables(self) -> list[Any]:
        return self._cell.variables  # type: ignore[no-any-return]

    def zero_state(self, batch_size: Any, dtype: Any) -> Any:
        return self._cell.zero_state(batch_size, dtype)


class DropoutWrapper(_Wrapper):
    """A cell whose inputs, outputs or states are dropped out, anew in every step."""

    def __init__(
        self, cell: Any, input_keep_prob: Any = 1.0, output_keep_prob: Any = 1.0,
        state_keep_prob: Any = 1.0, variational_recurrent: bool = False, input_size: Any = None,
        dtype: Any = None, seed: Any = None, dropout_state_filter_visitor: Any = None,
    ) -> None:  # fmt: skip
        super().__init__(cell)
        if variational_recurrent:
            raise InvalidArgumentError("DropoutWrapper: variational_recurrent is not built")
        self._keep = input_keep_prob, output_keep_prob, state_keep_prob
        self._seed = seed

    def _dropped(self, value: Any, keep: Any) -> Any:
        if isinstance(keep, (int, float)) and keep >= 1:
            return value
        return networks.dropout(value, keep_prob=keep, seed=self._seed)

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        before, after, memory = self._keep
        output, state = self._cell(self._dropped(inputs, before), state, scope)
        if not (isinstance(memory, (int, float)) and memory >= 1):
            state = map_structure(lambda s: self._dropped(s, memory), state)
        return self._dropped(output, after), state


class ResidualWrapper(_Wrapper):
    """A cell whose inputs are added to its outputs."""

    def __call__(self, inputs: Any, state: Any, scope: Any = None) -> Any:
        output, state = self._cell(inputs, state, scope)
        return inputs + output, state
