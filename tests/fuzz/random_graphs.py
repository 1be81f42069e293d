"""Random functions of the tensor graph, for comparing compiled code with the reference interpreter.

Main function: ``random_function(seed)``. Shapes have extents 0 and 1 now and then, broadcasts,
reductions, contractions, row normalisations, views and several outputs.
"""

from __future__ import annotations

import numpy as np

from tinyflow import ops
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType, Value

UNARY = ("tanh", "negative", "square", "sigmoid", "relu", "absolute", "softplus")
BINARY = ("add", "subtract", "multiply", "maximum", "minimum")


class _Maker:
    def __init__(self, seed: int, dtype: str) -> None:
        self.rng = np.random.default_rng(seed)
        self.dtype = dtype
        self.inputs: list[Value] = []
        self.arrays: list[np.ndarray] = []
        self.values: list[Value] = []
        self.extents = [int(e) for e in self.rng.choice([1, 2, 3, 5, 7, 16, 17, 33, 40], 4)]
        if self.rng.random() < 0.04:
            self.extents[0] = 0

    def pick(self, options):
        return options[int(self.rng.integers(len(options)))]

    def input(self, shape) -> Value:
        type_ = TensorType(self.dtype, shape)
        value = Node(Input(type_), (), (type_,), f"x{len(self.inputs)}").outputs[0]
        self.inputs.append(value)
        self.arrays.append(self.rng.normal(size=shape).astype(self.dtype))
        self.values.append(value)
        return value

    def shape(self):
        rank = int(self.rng.integers(0, 4))
        return tuple(self.pick(self.extents) for _ in range(rank))

    def compatible(self, x: Value) -> Value:
        """Something that broadcasts with x: an existing value, or a new input."""
        shape = x.type.shape
        found = []
        for v in self.values:
            try:
                np.broadcast_shapes(shape, v.type.shape)
            except ValueError:
                continue
            found.append(v)
        if found and self.rng.random() < 0.75:
            return self.pick(found)
        kept = [d if self.rng.random() < 0.7 else 1 for d in shape]
        return self.input(tuple(kept[int(self.rng.integers(0, len(kept) + 1)) :]))

    def step(self) -> None:
        x = self.pick(self.values[-6:])
        rank = len(x.type.shape)
        kind = self.rng.random()
        if kind < 0.25:
            y = getattr(ops, self.pick(UNARY))(x)
        elif kind < 0.55:
            y = getattr(ops, self.pick(BINARY))(x, self.compatible(x))
        elif kind < 0.62 and rank:
            y = ops.softmax(x) if x.type.size else x
        elif kind < 0.80 and rank:
            axes = tuple(a for a in range(rank) if self.rng.random() < 0.5) or (rank - 1,)
            reduce = self.pick(("reduce_sum", "reduce_mean", "reduce_max"))
            if reduce == "reduce_max" and any(x.type.shape[a] == 0 for a in axes):
                reduce = "reduce_sum"
            y = getattr(ops, reduce)(x, axis=axes, keepdims=bool(self.rng.random() < 0.5))
        elif kind < 0.87 and rank == 2:
            w = self.input((x.type.shape[1], self.pick(self.extents)))
            y = ops.matmul(x, w)
        elif kind < 0.93 and rank >= 2:
            y = ops.transpose(x, tuple(int(a) for a in self.rng.permutation(rank)))
        else:
            shape = list(x.type.shape)
            shape.insert(int(self.rng.integers(0, rank + 1)), 1)
            y = ops.reshape(x, tuple(shape))
        if y.type.size <= 200_000 and len(y.type.shape) <= 5:
            self.values.append(y)


def random_function(seed: int, dtype: str = "float32") -> tuple[Function, list[np.ndarray]]:
    """A function of static types with arrays for its inputs."""
    maker = _Maker(seed, dtype)
    with building(Builder()):
        maker.input(maker.shape())
        for _ in range(int(maker.rng.integers(3, 18))):
            maker.step()
        count = int(maker.rng.integers(1, 4))
        outputs = [maker.values[-1]] + [maker.pick(maker.values) for _ in range(count - 1)]
    return Function(f"fuzz{seed}", maker.inputs, outputs), maker.arrays
