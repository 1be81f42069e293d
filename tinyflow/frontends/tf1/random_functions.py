"""Random tensors: ``tf.random_uniform``, ``tf.random_normal`` and the graph's seed.

Main functions: ``random_uniform``, ``set_random_seed``. May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.dtype import as_dtype, float32
from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.convert import extents, scoped
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.ops import elementwise, random

__all__ = [
    "get_seed", "random_normal", "random_uniform", "set_random_seed", "truncated_normal",
]  # fmt: skip


def set_random_seed(seed: int) -> None:
    """Fixes the streams of the random operations of the default graph."""
    get_default_graph().seed = None if seed is None else int(seed)


def get_seed(op_seed: int | None) -> tuple[int | None, int | None]:
    """TensorFlow's pair (graph seed, operation seed); (None, None) when neither is set."""
    graph = get_default_graph()
    if graph.seed is None and op_seed is None:
        return None, None
    return graph.seeds(op_seed)


def _draw(op_class: Any, shape: Any, dtype: Any, seed: int | None, name: str | None = None) -> Any:
    first, second = get_default_graph().seeds(seed)
    return random.draw(op_class((), as_dtype(dtype), first, second), extents(shape), (), name)


@scoped("random_uniform")
def random_uniform(
    shape: Any, minval: Any = 0, maxval: Any = None, dtype: Any = float32,
    seed: int | None = None, name: str | None = None,
) -> Any:  # fmt: skip
    """Uniform on [minval, maxval); integers need ``maxval``."""
    dtype = as_dtype(dtype)
    if dtype.is_integer:
        if maxval is None:
            raise InvalidArgumentError("Must specify maxval for integer dtype " + dtype.name)
        return _integers(shape, minval, maxval, dtype, seed, name)
    drawn = _draw(random.RandomUniform, shape, dtype, seed)
    low, high = minval, 1 if maxval is None else maxval
    if isinstance(low, (int, float)) and isinstance(high, (int, float)):
        # The span in Python's double precision, as TensorFlow folds it per dtype.
        span = elementwise.multiply(drawn, float(high) - float(low), name="mul")
        return elementwise.add(span, float(low), name=name)
    span = elementwise.multiply(drawn, elementwise.subtract(high, low), name="mul")
    return elementwise.add(span, low, name=name)


def _integers(shape: Any, low: Any, high: Any, dtype: Any, seed: Any, name: str | None) -> Any:
    first, second = get_default_graph().seeds(seed)
    op = random.RandomUniformInt((), dtype, first, second)
    return random.draw(op, extents(shape), random.integer_bounds(low, high, dtype), name)


def _normal(own_name: str, op: Any, doc: str) -> Any:
    @scoped(own_name)
    @titled(own_name, doc)
    def normal(
        shape: Any, mean: Any = 0.0, stddev: Any = 1.0, dtype: Any = float32,
        seed: int | None = None, name: str | None = None,
    ) -> Any:  # fmt: skip
        drawn = _draw(op, shape, dtype, seed)
        return elementwise.add(elementwise.multiply(drawn, stddev, name="mul"), mean, name=name)

    return normal


random_normal = _normal(
    "random_normal", random.RandomStandardNormal,
    "Normal with the given mean and standard deviation.",
)  # fmt: skip
truncated_normal = _normal(
    "truncated_normal", random.TruncatedNormal,
    "Normal, without what lies more than two standard deviations from the mean.",
)  # fmt: skip
