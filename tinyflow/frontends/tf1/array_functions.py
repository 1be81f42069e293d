"""Functions that make and move tensors, with TensorFlow-1's signatures and names.

Main functions: ``constant``, ``placeholder``, ``zeros``, ``reshape``, ``concat``, ``where`` ...
May import core, ops, convert.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tinyflow.core.dtype import as_dtype, float32, int32
from tinyflow.core.error import InvalidArgumentError, ShapeError, Unsupported
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.convert import convert_to_tensor, extents, graph_of, scoped, tensor
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.frontends.tf1.tensor_shape import TensorShape
from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import (
    creation,
    indexing,
    joining,
    logical,
    movement,
    padding,
    python_index,
    sequence,
    slicing,
    strided,
)
from tinyflow.ops import placeholder as placeholder_ops
from tinyflow.ops import shape as shape_ops
from tinyflow.ops.convert import cast as cast_op

newaxis = None


def constant(
    value: Any, dtype: Any = None, shape: Any = None, name: str = "Const",
    verify_shape: bool = False,
) -> Any:  # fmt: skip
    """A constant tensor; a shorter list is continued with its last element to fill ``shape``.

    A shape without elements takes any value: slots of an empty variable start so.
    Errors: InvalidArgumentError for too many elements, DTypeError for a lossy number.
    """
    static = None if shape is None else TensorShape(shape)
    if static is None:
        return creation.constant(value, dtype, None, name)
    wanted = tuple(int(d) for d in static.as_list())  # type: ignore[arg-type]
    given = np.shape(value)
    size, room = math.prod(given), math.prod(wanted)
    if verify_shape and given != wanted:
        raise TypeError(f"Expected Tensor's shape: {wanted}, got {given}.")
    if size > room > 0:
        raise ShapeError(
            f"Too many elements provided. Needed at most {room}, but received {size}",
            received={"value": list(given), "shape": list(wanted)},
            source=_place(),
            hint="leave out shape to keep the value's own" if room == 1 else None,
        )
    return creation.constant(value, dtype, wanted, name)


constant_v1 = constant


def _place() -> Any:
    return get_default_graph().place()


def placeholder(dtype: Any, shape: Any = None, name: str | None = None) -> Any:
    """A tensor whose value every run feeds; None in ``shape`` is an extent known only then."""
    graph = get_default_graph()
    op_name = graph.claim(name or "Placeholder", _PLACEHOLDER)
    label = op_name.replace("/", "_").replace(".", "_").replace("-", "_")
    static = TensorShape(shape).core(label)
    return placeholder_ops.placeholder(as_dtype(dtype), static, name=op_name + "/")


_PLACEHOLDER = placeholder_ops.Placeholder(float32, ())


def placeholder_with_default(input: Any, shape: Any, name: str | None = None) -> Any:
    """``input`` unless a run feeds another value."""
    graph = graph_of(input)
    with graph.as_default():
        default = tensor(input, name=f"{name or 'PlaceholderWithDefault'}/input")
        label = graph.unique_name(name or "PlaceholderWithDefault", mark_as_used=False)
        static = TensorShape(shape).core(label.replace("/", "_"))
        return placeholder_ops.placeholder_with_default(default, static, name)


@scoped("zeros")
def zeros(shape: Any, dtype: Any = float32, name: str | None = None) -> Any:
    """Zeros of ``shape`` (a list, a TensorShape or an integer tensor)."""
    return creation.zeros(extents(shape), as_dtype(dtype), name)


@scoped("ones")
def ones(shape: Any, dtype: Any = float32, name: str | None = None) -> Any:
    """Ones of ``shape``."""
    return creation.ones(extents(shape), as_dtype(dtype), name)


@scoped("Fill")
def fill(dims: Any, value: Any, name: str | None = None, index_type: Any = None) -> Any:
    """``value`` in the shape ``dims``."""
    return creation.fill(extents(dims), tensor(value, "value"), name)


@scoped("zeros_like")
def zeros_like(
    tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True
) -> Any:
    """Zeros in the shape of ``tensor``."""
    return creation.zeros_like(convert_to_tensor(tensor, name="tensor"), dtype, name)


@scoped("ones_like")
def ones_like(
    tensor: Any, dtype: Any = None, name: str | None = None, optimize: bool = True
) -> Any:
    """Ones in the shape of ``tensor``."""
    return creation.ones_like(convert_to_tensor(tensor, name="tensor"), dtype, name)


@scoped("range")
def range(
    start: Any, limit: Any = None, delta: Any = 1, dtype: Any = None, name: str | None = None
) -> Any:
    """start, start + delta, ... before ``limit``."""
    return sequence.arange(start, limit, delta, dtype, name)


@scoped("LinSpace")
def linspace(start: Any, stop: Any, num: Any, name: str | None = None) -> Any:
    """``num`` evenly spaced numbers, both ends included."""
    return sequence.linspace(start, stop, num, name)


@scoped("eye")
def eye(
    num_rows: int, num_columns: int | None = None, batch_shape: Any = None, dtype: Any = float32,
    name: str | None = None,
) -> Any:  # fmt: skip
    """Identity matrices."""
    if batch_shape is None:
        return sequence.eye(num_rows, num_columns, dtype, name)
    matrix = sequence.eye(num_rows, num_columns, dtype)
    shape = (*extents(batch_shape), num_rows, num_rows if num_columns is None else num_columns)
    return movement.broadcast_to(matrix, shape, name)


# ---------------------------------------------------------------------- shape and rank


def shape(input: Any, name: str | None = None, out_type: Any = int32) -> Any:
    """The extents as an integer vector, known in every run."""
    return shape_ops.shape(input, out_type, name or "Shape")


def size(input: Any, name: str | None = None, out_type: Any = int32) -> Any:
    """The number of elements."""
    return shape_ops.size(input, out_type, name or "Size")


def rank(input: Any, name: str | None = None) -> Any:
    """The number of dimensions."""
    return shape_ops.rank(input, name or "Rank")


@scoped("Reshape")
def reshape(tensor: Any, shape: Any, name: str | None = None) -> Any:
    """The same elements in another shape; one extent may be -1."""
    return movement.reshape(convert_to_tensor(tensor, name="tensor"), extents(shape), name)


@scoped("transpose")
def transpose(a: Any, perm: Any = None, name: str | None = None, conjugate: bool = False) -> Any:
    """Dimensions reordered; all reversed without ``perm``."""
    return movement.transpose(tensor(a, "a"), perm, name)


@scoped("matrix_transpose")
def matrix_transpose(a: Any, name: str | None = None, conjugate: bool = False) -> Any:
    """The last two dimensions exchanged."""
    a = tensor(a, "a")
    rank_of_a = a.type.rank
    if rank_of_a is None or rank_of_a < 2:
        raise ShapeError(f"Argument `a` must be at least rank 2 for matrix_transpose, got {a.type}")
    axes = list(np.arange(rank_of_a))
    axes[-2:] = axes[:-3:-1]
    return movement.transpose(a, [int(i) for i in axes], name)


def expand_dims(input: Any, axis: Any = None, name: str | None = None, dim: Any = None) -> Any:
    """A new dimension of extent 1 at ``axis`` (2016: ``dim``)."""
    axis = one_of(axis, dim, "axis", "dim", "expand_dims")
    if axis is None:
        raise InvalidArgumentError("expand_dims: Must specify an axis argument")
    return movement.expand_dims(tensor(input), static_int(axis, "axis"), name or "ExpandDims")


def squeeze(input: Any, axis: Any = None, name: str | None = None, squeeze_dims: Any = None) -> Any:
    """Without the dimensions of extent 1, or without ``axis`` (2016: ``squeeze_dims``)."""
    axis = one_of(axis, squeeze_dims, "axis", "squeeze_dims", "squeeze")
    if isinstance(axis, (list, tuple)) and not axis:
        axis = None
    return movement.squeeze(tensor(input), axis, name or "Squeeze")


@scoped("BroadcastTo")
def broadcast_to(input: Any, shape: Any, name: str | None = None) -> Any:
    """``input`` stretched to ``shape`` by the rules of broadcasting."""
    return movement.broadcast_to(tensor(input, "input"), extents(shape), name)


@scoped("Tile")
def tile(input: Any, multiples: Any, name: str | None = None) -> Any:
    """``input`` repeated ``multiples[i]`` times along dimension i."""
    return movement.tile(tensor(input, "input"), extents(multiples), name)


def reverse(tensor: Any, axis: Any, name: str | None = None) -> Any:
    """Elements in the opposite order along ``axis``."""
    axes = [axis] if isinstance(axis, int) else axis
    return movement.reverse(convert_to_tensor(tensor), axes, name or "ReverseV2")


# ---------------------------------------------------------------------- joining and cutting


def concat(values: Any, axis: Any = None, name: str = "concat", concat_dim: Any = None) -> Any:
    """Tensors joined along an existing dimension.

    The argument order of 2016, ``concat(dim, values)``, is understood as well.
    """
    axis = one_of(axis, concat_dim, "axis", "concat_dim", "concat")
    if isinstance(values, int) and isinstance(axis, (list, tuple)):
        values, axis = axis, values
    if axis is None:
        raise InvalidArgumentError("concat: axis is missing", hint="tf.concat([a, b], axis=0)")
    parts = list(values) if isinstance(values, (list, tuple)) else [values]
    graph = graph_of(parts)
    with graph.as_default(), graph.name_scope(name) as scope:
        return joining.concat(tensors(parts), static_int(axis, "axis"), scope)


def tensors(values: Any, prefix: str = "values") -> list[Any]:
    """A list as tensors of one dtype: literals take that of the tensors among them."""
    typed = [v for v in values if isinstance(v, Value) or hasattr(v, "as_value")]
    dtype = typed[0].dtype if typed else None
    return [
        v if isinstance(v, Value)
        else convert_to_tensor(v, None if hasattr(v, "as_value") else dtype, f"{prefix}_{i}")
        for i, v in enumerate(values)
    ]  # fmt: skip


def stack(values: Any, axis: int = 0, name: str = "stack") -> Any:
    """Tensors of one shape joined along a new dimension (2016: ``pack``)."""
    graph = graph_of(values)
    with graph.as_default(), graph.name_scope(name) as scope:
        if isinstance(values, (Value, np.ndarray)) or hasattr(values, "as_value"):
            values = unstack(values) if not isinstance(values, np.ndarray) else list(values)
        parts = tensors(values)
        if not parts:
            raise InvalidArgumentError("stack: needs at least one tensor")
        return joining.stack(parts, axis, scope)


def unstack(value: Any, num: int | None = None, axis: int = 0, name: str = "unstack") -> list[Any]:
    """The slices along a dimension (2016: ``unpack``)."""
    graph = graph_of(value)
    with graph.as_default(), graph.name_scope(name):
        return joining.unstack(tensor(value, "value"), num, axis, "part")


def split(
    value: Any, num_or_size_splits: Any, axis: int = 0, num: int | None = None,
    name: str = "split", split_dim: Any = None,
) -> list[Any]:  # fmt: skip
    """Cut into equal parts (a number) or into parts of given sizes (a list).

    The argument order of 2016, ``split(dim, num, value)``, is understood as well.
    """
    if isinstance(value, int) and (isinstance(axis, Value) or hasattr(axis, "as_value")):
        value, axis = axis, value
    axis = axis if split_dim is None else split_dim
    if isinstance(num_or_size_splits, np.ndarray):
        num_or_size_splits = num_or_size_splits.tolist()
    graph = graph_of(value)
    with graph.as_default(), graph.name_scope(name):
        return joining.split(tensor(value, "value"), num_or_size_splits, axis, "part")


@scoped("Slice")
def slice(input_: Any, begin: Any, size: Any, name: str | None = None) -> Any:
    """``size`` elements from ``begin`` on; -1 is all that is left."""
    return slicing.slice_(tensor(input_, "input"), extents(begin), extents(size), name)


@scoped("StridedSlice")
def strided_slice(
    input_: Any, begin: Any, end: Any, strides: Any = None, begin_mask: int = 0,
    end_mask: int = 0, ellipsis_mask: int = 0, new_axis_mask: int = 0, shrink_axis_mask: int = 0,
    var: Any = None, name: str | None = None,
) -> Any:  # fmt: skip
    """``input_[begin:end:strides]`` with masks."""
    return strided.strided_slice(
        tensor(input_, "input"), begin, end, strides, begin_mask, end_mask, ellipsis_mask,
        new_axis_mask, shrink_axis_mask, name,
    )  # fmt: skip


@scoped("strided_slice")
def get_item(x: Any, index: Any, name: str | None = None) -> Any:
    """``x[index]``."""
    return python_index.get_item(x, index, name)


@scoped("Pad")
def pad(
    tensor: Any, paddings: Any, mode: str = "CONSTANT", name: str | None = None,
    constant_values: Any = 0,
) -> Any:  # fmt: skip
    """Extended along each dimension; mode CONSTANT, REFLECT or SYMMETRIC."""
    return padding.pad(
        convert_to_tensor(tensor, name="tensor"), paddings, mode, name, constant_values
    )


def gather(
    params: Any, indices: Any, validate_indices: Any = None, name: str | None = None,
    axis: Any = None, batch_dims: int = 0,
) -> Any:  # fmt: skip
    """Slices of ``params`` at ``indices`` along ``axis``."""
    if batch_dims:
        from tinyflow.frontends.tf1.embedding import batched_gather

        at = batch_dims if axis is None else static_int(axis, "axis")
        graph = graph_of(params, indices)
        with graph.as_default(), graph.name_scope(name or "GatherV2") as scope:
            return batched_gather(params, indices, at, int(batch_dims), scope)
    axis = 0 if axis is None else static_int(axis, "axis")
    return indexing.gather(params, indices, axis, name or "GatherV2")


@scoped("one_hot")
def one_hot(
    indices: Any, depth: Any, on_value: Any = None, off_value: Any = None, axis: Any = None,
    dtype: Any = None, name: str | None = None,
) -> Any:  # fmt: skip
    """Rows of zeros with one element set."""
    dtype = None if dtype is None else as_dtype(dtype)
    indices = tensor(indices, "indices")
    return indexing.one_hot(indices, depth, on_value, off_value, axis, dtype, name)


# ---------------------------------------------------------------------- choosing, converting


def where(condition: Any, x: Any = None, y: Any = None, name: str | None = None) -> Any:
    """``x`` where the condition holds, else ``y``; a vector condition chooses rows.

    With a condition only: int64[count, rank], the indices of its true elements.
    """
    if x is None and y is None:
        from tinyflow.frontends.tf1.segments import where_true

        return where_true(condition, name)
    if x is None or y is None:
        raise InvalidArgumentError("x and y must both be non-None or both be None.")
    graph = graph_of(condition, x, y)
    with graph.as_default(), graph.name_scope(name or "Select") as scope:
        condition = tensor(condition, "condition")
        x, y = logical.one_dtype(x, y)
        rows, full = condition.type.shape, x.type.shape
        if rows is not None and full is not None and len(rows) == 1 and len(full) > 1:
            condition = movement.reshape(condition, (-1, *[1] * (len(full) - 1)))
        return logical.select(condition, x, y, name=scope)


def cast(x: Any, dtype: Any, name: str | None = None) -> Any:
    """``x`` as another dtype; ``x`` itself when it has it already."""
    if hasattr(x, "as_value") or not isinstance(x, Value):
        x = tensor(x, name="x")
    return cast_op(x, as_dtype(dtype), name or "Cast")


def _converter(function_name: str, dtype_name: str, default: str) -> Any:
    @titled(function_name, f"``tf.cast(x, tf.{dtype_name})``.")
    def convert(x: Any, name: str = default) -> Any:
        return cast(x, dtype_name, name)

    return convert


to_float = _converter("to_float", "float32", "ToFloat")
to_double = _converter("to_double", "float64", "ToDouble")
to_int32 = _converter("to_int32", "int32", "ToInt32")
to_int64 = _converter("to_int64", "int64", "ToInt64")
to_bfloat16 = _converter("to_bfloat16", "bfloat16", "ToBFloat16")


@scoped("saturate_cast")
def saturate_cast(value: Any, dtype: Any, name: str | None = None) -> Any:
    """``cast`` with values outside the new range set to its ends."""
    from tinyflow.ops.elementwise import maximum, minimum

    value, wanted = tensor(value, "value"), as_dtype(dtype)
    if float(value.dtype.min) < float(wanted.min):
        value = maximum(value, np.array(wanted.min, value.dtype.numpy))
    if float(value.dtype.max) > float(wanted.max):
        value = minimum(value, np.array(wanted.max, value.dtype.numpy))
    return emit_cast(value, wanted, name)


def emit_cast(value: Any, dtype: Any, name: str | None) -> Any:
    from tinyflow.ops.convert import Cast

    return emit(Cast(dtype), value, name=name)


# ---------------------------------------------------------------------- arguments


def one_of(new: Any, old: Any, new_name: str, old_name: str, function: str) -> Any:
    """An argument with two spellings. Errors: InvalidArgumentError when both are given."""
    if old is None:
        return new
    if new is not None:
        raise InvalidArgumentError(
            f"{function}: Cannot specify both '{new_name}' and '{old_name}'",
            hint=f"'{old_name}' is the older name of '{new_name}'; give one of them",
        )
    return old


def static_int(value: Any, argument: str) -> int:
    """An integer argument given as a number or a constant tensor."""
    if isinstance(value, Value):
        known = creation.constant_value(value)
        if known is None:
            raise Unsupported(f"{argument} must be known when the graph is built, got {value}")
        return int(known)
    try:
        return int(value.__index__())
    except (AttributeError, TypeError):
        raise InvalidArgumentError(
            f"{argument} must be an integer, got {value!r}",
            hint="the arguments may be in the wrong order" if isinstance(value, list) else None,
        ) from None
