"""Values that the caller feeds.

Main types: ``Placeholder``, ``PlaceholderWithDefault``. May import ops.base.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tinyflow.core import shape as shapes
from tinyflow.core.dtype import DType, as_dtype
from tinyflow.core.error import InvalidArgumentError, ShapeError
from tinyflow.core.shape import Dim, Shape
from tinyflow.ops.base import Op, Sample, TensorType, Value, emit


@dataclass(frozen=True)
class Placeholder(Op):
    """A value that every run must feed if it is needed.

    y: dtype[shape]     Errors: InvalidArgumentError at run time when it is needed and not fed
    """

    dtype: DType
    shape: Shape = None
    not_differentiable = "a placeholder has no inputs"

    def infer(self) -> TensorType:
        return TensorType(self.dtype, self.shape)

    def functionalize(self, state: Any) -> Value:
        """Reached only when the value was not fed: see passes.functionalize."""
        node = state.node
        shown = "<unknown>" if self.shape is None else _tensorflow_shape(self.shape)
        name = node.name or "Placeholder"
        raise InvalidArgumentError(
            f"You must feed a value for placeholder tensor '{name}' with dtype {self.dtype}"
            + ("" if self.shape is None else f" and shape {shown}"),
            expected=f"a {self.dtype} value of shape {shown} for '{name}:0'",
            source=node.source if node.source.line else None,
            hint=f"feed_dict={{{_identifier(name)}: ...}} in the call of run",
        )


@dataclass(frozen=True)
class PlaceholderWithDefault(Op):
    """``default``, unless the caller feeds another value; ``shape`` may be less definite.

    default: any[...]      y: same dtype, shape ``shape``
    Gradient: dy           Errors: ShapeError if the default does not fit ``shape``
    """

    shape: Shape = None

    def infer(self, default: TensorType) -> TensorType:
        try:
            shapes.merge_shapes(default.shape, self.shape)
        except ShapeError as error:
            error.expected = f"a default of shape {shapes.show(self.shape)}"
            raise
        return default.with_shape(self.shape)

    def functionalize(self, state: Any, default: Value) -> Value:
        return default

    def reference(self, default: Any) -> Any:
        return default

    def decompose(self, default: Value) -> Value:
        return default

    def vjp(self, dy: Value, y: Value, default: Value) -> tuple[Any, ...]:
        return (dy,)

    def samples(self, rng: Any) -> Any:
        for shape in ((2, 3), (), (0, 4)):
            yield Sample((rng.normal(size=shape).astype("float32"),), type(self)(shape))

    def bad_samples(self) -> Any:
        import numpy as np

        yield Sample((np.zeros((2, 3), np.float32),), type(self)((3, 2))), ShapeError


def _tensorflow_shape(shape: Any) -> str:
    """TensorFlow's spelling, ``[?,784]``: programs match on that text."""
    return "[" + ",".join("?" if isinstance(d, Dim) else str(d) for d in shape) + "]"


def _identifier(name: str) -> str:
    last = name.rsplit("/", 1)[-1]
    return last if last.isidentifier() else f"'{name}:0'"


def placeholder(dtype: Any, shape: Shape = None, name: str | None = None) -> Any:
    """A value to be fed. ``shape``: dimensions, or None for an unknown rank. See Placeholder."""
    fixed = None if shape is None else tuple(shape)
    return emit(Placeholder(as_dtype(dtype), fixed), name=name)


def placeholder_with_default(value: Any, shape: Shape, name: str | None = None) -> Any:
    """``value`` unless fed. See PlaceholderWithDefault."""
    fixed = None if shape is None else tuple(shape)
    return emit(PlaceholderWithDefault(fixed), value, name=name)
