"""``tf.TensorArray``: an array of tensors that loops read and write by index.

Main type: ``TensorArray``. May import core, ops, convert.
"""

from __future__ import annotations

import itertools
from typing import Any

from tinyflow.core.dtype import DType, as_dtype
from tinyflow.core.error import InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.frames import public_methods
from tinyflow.core.shape import Shape, merge_shapes, opaque
from tinyflow.frontends.tf1 import array_functions as arrays
from tinyflow.frontends.tf1.convert import convert_to_tensor
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.frontends.tf1.tensor_shape import TensorShape, as_shape
from tinyflow.ir.graph.nodes import TensorType, Value
from tinyflow.ops.base import emit
from tinyflow.ops.control import LoopVariable
from tinyflow.ops.convert import identity
from tinyflow.ops.growing import grow_rows
from tinyflow.ops.indexing import TensorScatter
from tinyflow.ops.reduction import reduce_max
from tinyflow.ops.tensor_array import array_read, array_write, zero_array

__all__ = ["TensorArray"]

_loops = itertools.count(1)


class _Spec:
    """What all states of one array share: element type and size."""

    def __init__(self, dtype: DType, size: Any, element: Shape, name: str) -> None:
        self.dtype = dtype
        self.size = size
        self.element = element
        self.name = name

    def merge(self, shape: Shape) -> None:
        try:
            self.element = merge_shapes(self.element, shape)
        except ShapeError as error:
            error.what = f"TensorArray {self.name}: elements of different shapes"
            raise


@public_methods("__init__", "read", "write", "stack", "unstack", "gather", "scatter", "split")
class TensorArray:
    """An array of ``size`` tensors of one dtype and shape; every method returns a new state of it.

    Written elements are set once; an element that was never written reads as zeros.
    With ``dynamic_size`` a write past the end makes it longer. Errors: InvalidArgumentError at run
    time for an index outside [0, size); Unsupported for elements of different shapes.
    """

    def __init__(
        self, dtype: Any, size: Any = None, dynamic_size: Any = None, clear_after_read: Any = None,
        tensor_array_name: Any = None, handle: Any = None, flow: Any = None,
        infer_shape: bool = True, element_shape: Any = None,
        colocate_with_first_write_call: bool = True, name: str | None = None,
    ) -> None:  # fmt: skip
        element = None if element_shape is None else as_shape(element_shape).core("element")
        if size is None and flow is None:
            if not dynamic_size:
                raise InvalidArgumentError("TensorArray: size is required")
            size = 0
        self._dynamic = bool(dynamic_size)
        label = name or tensor_array_name or "TensorArray"
        self._spec = _Spec(as_dtype(dtype), size, element, label)
        self._flow: Value | None = flow

    # ------------------------------------------------------------------ states

    def _state(self, flow: Any) -> TensorArray:
        other = object.__new__(TensorArray)
        other._spec, other._flow, other._dynamic = self._spec, flow, self._dynamic
        return other

    def _created(self) -> Value:
        """The array's value; made when the shape of the elements is known."""
        if self._flow is None:
            spec = self._spec
            if spec.element is None:
                raise InvalidArgumentError(
                    f"TensorArray {spec.name}: nothing was written and element_shape is unknown",
                    hint="give element_shape=...",
                )
            self._flow = zero_array(spec.dtype, spec.size, spec.element, spec.name)
        return self._flow

    @property
    def flow(self) -> Any:
        """The array as one tensor [size, element...] (in TensorFlow a token)."""
        return self._created()

    @property
    def handle(self) -> Any:
        return self._created()

    @property
    def dtype(self) -> DType:
        return self._spec.dtype

    @property
    def dynamic_size(self) -> bool:
        return self._dynamic

    @property
    def element_shape(self) -> TensorShape:
        return TensorShape(self._spec.element)

    def identity(self) -> TensorArray:
        return self._state(None if self._flow is None else identity(self._flow))

    def grad(self, source: Any, flow: Any = None, name: str | None = None) -> Any:
        raise Unsupported(
            "TensorArray.grad", expected="tf.gradients, which goes through TensorArrays"
        )

    def close(self, name: str | None = None) -> Any:
        from tinyflow.frontends.tf1.control import no_op

        return no_op(name)

    # ------------------------------------------------------------------ elements

    def read(self, index: Any, name: str | None = None) -> Any:
        """The element at ``index``."""
        return array_read(self._created(), _index(index), name or "TensorArrayReadV3")

    def write(self, index: Any, value: Any, name: str | None = None) -> TensorArray:
        """The array with ``value`` at ``index``."""
        value = self._element(value)
        self._spec.merge(value.type.shape)
        flow = self._grown(index)
        return self._state(array_write(flow, _index(index), value, name or "TensorArrayWriteV3"))

    def _element(self, value: Any) -> Any:
        return convert_to_tensor(value, self._spec.dtype, "value")

    def _grown(self, index: Any) -> Any:
        """The array's value with a row for ``index``, if it may grow."""
        spec = self._spec
        if not self._dynamic:
            return self._created()
        known = index if isinstance(index, int) else None
        if self._flow is None and known is not None and isinstance(spec.size, int):
            spec.size = max(spec.size, known + 1)  # nothing was written yet
        flow = self._created()
        rows = flow.type.shape[0] if flow.type.shape else None
        if known is not None and isinstance(rows, int) and known < rows:
            return flow
        return grow_rows(flow, _index(index))

    def size(self, name: str | None = None) -> Any:
        """The number of elements."""
        if self._flow is None or (self._flow.type.shape is None and not self._dynamic):
            return convert_to_tensor(self._spec.size, name=name)
        return arrays.shape(self._flow)[0]

    # ------------------------------------------------------------------ whole arrays

    def stack(self, name: str | None = None) -> Any:
        """All elements as one tensor [size, element...]."""
        return identity(self._created(), name or "TensorArrayStack")

    def unstack(self, value: Any, name: str | None = None) -> TensorArray:
        """The array whose elements are the rows of ``value``."""
        value = self._element(value)
        shape = value.type.shape
        self._spec.merge(None if shape is None else shape[1:])
        if shape is not None and isinstance(shape[0], int):
            self._spec.size = shape[0]
        else:
            self._spec.size = arrays.shape(value)[0]
        return self._state(value)

    def gather(self, indices: Any, name: str | None = None) -> Any:
        """The elements at ``indices`` as one tensor."""
        return arrays.gather(self._created(), indices, name=name)

    def scatter(self, indices: Any, value: Any, name: str | None = None) -> TensorArray:
        """The array with the rows of ``value`` at ``indices``."""
        value = self._element(value)
        shape = value.type.shape
        self._spec.merge(None if shape is None else shape[1:])
        indices = convert_to_tensor(indices, name="indices")
        flow = self._grown(reduce_max(indices)) if self._dynamic else self._created()
        flow = emit(TensorScatter("update"), flow, indices, value, name=name)
        return self._state(flow)

    def concat(self, name: str | None = None) -> Any:
        """The elements joined along their first dimension."""
        whole = self._created()
        extents = arrays.shape(whole)
        joined = arrays.concat([[extents[0] * extents[1]], extents[2:]], 0)
        return arrays.reshape(whole, joined, name=name)

    def split(self, value: Any, lengths: Any, name: str | None = None) -> TensorArray:
        """The array of consecutive pieces of ``value``; all lengths must be equal."""
        from tinyflow.ops.creation import constant_value

        value = self._element(value)
        lengths = convert_to_tensor(lengths, name="lengths")
        known = constant_value(lengths)
        if known is None or len(set(known.tolist())) != 1:
            raise Unsupported("TensorArray.split with lengths that differ or are not constant")
        extents = arrays.shape(value)
        target = arrays.concat([[len(known), int(known[0])], extents[1:]], 0)
        return self.unstack(arrays.reshape(value, target, name=name))

    # ------------------------------------------------------------------ loops

    def loop_variable(self) -> TensorArray:
        """The array inside a loop's body."""
        graph = get_default_graph()
        kind = self.loop_type(None if self._flow is None else self._flow.type)
        return self._state(graph.emit(LoopVariable(kind), (), "Identity"))

    def loop_type(self, start: TensorType | None) -> TensorType:
        """The array's type inside a loop that it enters with ``start``: how it grows is unknown."""
        shape = None if start is None else start.shape
        if self._dynamic and shape:
            shape = (opaque(f"rows{next(_loops)}"), *shape[1:])
        return TensorType(self._spec.dtype, shape)

    def __repr__(self) -> str:
        return f"<tf.TensorArray '{self._spec.name}' dtype={self._spec.dtype}>"


def _index(index: Any) -> Any:
    return convert_to_tensor(index, name="index")
