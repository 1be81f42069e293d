"""Arithmetic, comparisons and reductions with TensorFlow-1's signatures and names.

Main functions: ``divide``, ``matmul``, ``reduce_sum`` ... May import core, ops, convert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyflow.core.dtype import as_dtype, int64
from tinyflow.core.error import AxisError, InvalidArgumentError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.array_functions import cast, one_of, tensors
from tinyflow.frontends.tf1.convert import graph_of, scoped, tensor
from tinyflow.frontends.tf1.elements import Tensor
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import (
    comparison,
    contraction,
    convert,
    division,
    elementwise,
    position,
    reduction,
)

#: operators and functions of one kind differ in their default name: ``x / y`` is "truediv"


@scoped("truediv")
def divide(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y as in Python 3: integers give floats."""
    return elementwise.truediv(*_pair(x, y), name=name)


truediv = divide


@scoped("div")
def div(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y as in Python 2: integers give integers, rounded down."""
    x, y = _pair(x, y)
    if x.dtype.is_floating:
        return elementwise.divide(x, y, name=name)
    return division.floordiv(x, y, name=name)


@scoped("div_no_nan")
def div_no_nan(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y, and 0 where y is 0."""
    from tinyflow.ops.logical import select

    x, y = _pair(x, y)
    safe = comparison.not_equal(y, 0)
    return select(safe, elementwise.divide(x, select(safe, y, 1)), 0, name=name)


def _pair(x: Any, y: Any) -> tuple[Any, Any]:
    from tinyflow.ops.logical import one_dtype

    return one_dtype(x, y)


@scoped("floordiv")
def floordiv(x: Any, y: Any, name: str | None = None) -> Any:
    """x / y rounded towards minus infinity."""
    return division.floordiv(x, y, name=name)


def multiply(x: Any, y: Any, name: str | None = None) -> Any:
    """x * y, element-wise."""
    return elementwise.multiply(x, y, name=name)


@scoped("clip_by_value")
def clip_by_value(t: Any, clip_value_min: Any, clip_value_max: Any, name: str | None = None) -> Any:
    """``t`` limited to [clip_value_min, clip_value_max]."""
    return elementwise.clip_by_value(t, clip_value_min, clip_value_max, name=name)


@scoped("clip_by_norm")
def clip_by_norm(t: Any, clip_norm: Any, axes: Any = None, name: str | None = None) -> Any:
    """``t`` scaled down so that its Euclidean norm is at most ``clip_norm``."""
    from tinyflow.ops.logical import select

    t = tensor(t, "t")
    total = reduction.reduce_sum(elementwise.multiply(t, t), _axes(axes), True)
    positive = comparison.greater(total, 0)
    # sqrt has an infinite slope at 0: its input is made safe as well as its result.
    norm = elementwise.sqrt(select(positive, total, 1))
    norm = select(positive, norm, total)
    scaled = elementwise.multiply(t, clip_norm)
    return elementwise.divide(scaled, elementwise.maximum(norm, clip_norm), name=name)


def add_n(inputs: Any, name: str | None = None) -> Any:
    """The sum of a list of tensors of one shape."""
    if not isinstance(inputs, (list, tuple)) or not inputs:
        raise InvalidArgumentError(
            "inputs must be a list of at least one Tensor/IndexedSlices with the same dtype and "
            "shape"
        )
    return elementwise.add_n(tensors(inputs, "inputs"), name=name)


@scoped("AccumulateNV2")
def accumulate_n(
    inputs: Any, shape: Any = None, tensor_dtype: Any = None, name: str | None = None
) -> Any:
    """The sum of a list of tensors, as ``add_n``."""
    return elementwise.add_n(tensors(inputs, "inputs"), name=name)


def sigmoid(x: Any, name: str | None = None) -> Any:
    """1 / (1 + exp(-x))."""
    from tinyflow.ops.activation import sigmoid as op

    return op(x, name=name)


@scoped("LogSigmoid")
def log_sigmoid(x: Any, name: str | None = None) -> Any:
    """log(1 / (1 + exp(-x))) without overflow."""
    from tinyflow.ops.activation import softplus

    return elementwise.negative(softplus(elementwise.negative(x)), name=name)


# ---------------------------------------------------------------------- products


def matmul(
    a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False,
    adjoint_a: bool = False, adjoint_b: bool = False, a_is_sparse: bool = False,
    b_is_sparse: bool = False, name: str | None = None, output_type: Any = None,
) -> Any:  # fmt: skip
    """The matrix product a @ b, of batches of matrices too.

    output_type: both are converted to it first (TensorFlow 2's int8 products with int32 sums).
    """
    graph = graph_of(a, b)
    with graph.as_default():
        if not isinstance(a, Value) or not isinstance(b, Value):
            with graph.name_scope(name or "MatMul") as scope:
                a, b = tensor(a, "a") if isinstance(a, Value) else _beside(a, b, "a"), b
                b = b if isinstance(b, Value) else _beside(b, a, "b")
                name = scope
        if output_type is not None:
            a, b = cast(a, output_type), cast(b, output_type)
        return contraction.matmul(
            a, b, transpose_a=bool(transpose_a or adjoint_a),
            transpose_b=bool(transpose_b or adjoint_b), name=name,
        )  # fmt: skip


def _beside(literal: Any, other: Any, name: str) -> Any:
    """A literal as a tensor of the dtype of its partner; tensors stay."""
    if isinstance(literal, Value):
        return literal
    from tinyflow.frontends.tf1.convert import convert_to_tensor

    typed = isinstance(other, Value) or hasattr(other, "as_value")
    known = hasattr(literal, "as_value")
    return convert_to_tensor(literal, other.dtype if typed and not known else None, name)


@scoped("Tensordot")
def tensordot(a: Any, b: Any, axes: Any, name: str | None = None) -> Any:
    """Products summed over pairs of dimensions."""
    return contraction.tensordot(tensor(a, "a"), tensor(b, "b"), axes, name)


# ---------------------------------------------------------------------- reductions


def _axes(axis: Any) -> Any:
    """An axis argument as the ops take it: None, an int, a tuple, or an integer tensor."""
    if axis is None or isinstance(axis, (int, Value)):
        return axis
    if hasattr(axis, "as_value"):
        return axis.as_value()
    if hasattr(axis, "tolist"):
        axis = axis.tolist()
        if isinstance(axis, int):
            return axis
    if any(isinstance(a, Value) for a in axis):
        return list(axis)
    return tuple(int(a) for a in axis)


def _reserve_axes(graph: Any, x: Any, axis: Any) -> None:
    """Counts the names of the operations that TensorFlow makes for "all axes"."""
    if axis is None:
        if isinstance(x, Tensor) and x.type.shape is not None:
            graph.reserve("Const")
        else:
            graph.reserve("Rank", "range")


def _reduction(function: Callable[..., Any], doc: str) -> Callable[..., Any]:
    over = " over ``axis`` (2016: ``reduction_indices``), over all without it."

    @titled(function.__name__, doc + over)
    def reduce(
        input_tensor: Any, axis: Any = None, keepdims: bool | None = None,
        name: str | None = None, reduction_indices: Any = None, keep_dims: bool | None = None,
    ) -> Any:  # fmt: skip
        axis = one_of(axis, reduction_indices, "axis", "reduction_indices", function.__name__)
        keepdims = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", function.__name__))
        graph = graph_of(input_tensor)
        with graph.as_default():
            _reserve_axes(graph, input_tensor, axis)
            x = input_tensor if isinstance(input_tensor, Value) else tensor(input_tensor, "input")
            try:
                return function(x, _axes(axis), keepdims, name=name)
            except AxisError as error:
                _hint_inner_reduction(error, x)
                raise

    return reduce


def _hint_inner_reduction(error: AxisError, x: Value) -> None:
    """The misplaced parenthesis: an axis for a scalar that a reduction over everything made."""
    if x.type.shape != ():
        return
    value = x
    while len(value.node.inputs) == 1 and value.type.shape == ():
        node = value.node
        if isinstance(node.op, reduction.Reduction) and node.inputs[0].type.shape != ():
            inner = "reduce_" + node.op.type_name.lower()
            error.located(f"the inner {inner} is at", node.source)
            error.hint = (
                f"did you mean it for the inner {inner}? The input is a scalar because {inner} "
                "without an axis reduces everything; check the parentheses"
            )
            return
        value = node.inputs[0]


reduce_sum = _reduction(reduction.reduce_sum, "The sum")
reduce_mean = _reduction(reduction.reduce_mean, "The mean")
reduce_prod = _reduction(reduction.reduce_prod, "The product")
reduce_max = _reduction(reduction.reduce_max, "The largest element")
reduce_min = _reduction(reduction.reduce_min, "The smallest element")
reduce_all = _reduction(reduction.reduce_all, "Logical and")
reduce_any = _reduction(reduction.reduce_any, "Logical or")
reduce_euclidean_norm = _reduction(reduction.reduce_euclidean_norm, "The Euclidean norm")


@scoped("ReduceLogSumExp")
def reduce_logsumexp(
    input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None,
    reduction_indices: Any = None, keep_dims: bool | None = None,
) -> Any:  # fmt: skip
    """log(sum(exp(x))) without overflow."""
    axis = one_of(axis, reduction_indices, "axis", "reduction_indices", "reduce_logsumexp")
    keepdims = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", "reduce_logsumexp"))
    return reduction.reduce_logsumexp(tensor(input_tensor), _axes(axis), keepdims, name=name)


@scoped("reduce_variance")
def reduce_variance(
    input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None
) -> Any:
    """The mean of the squared distance from the mean."""
    x = tensor(input_tensor, "input")
    mean = reduction.reduce_mean(x, _axes(axis), True)
    distance = elementwise.square(elementwise.subtract(x, mean))
    return reduction.reduce_mean(distance, _axes(axis), bool(keepdims), name=name)


@scoped("reduce_std")
def reduce_std(
    input_tensor: Any, axis: Any = None, keepdims: bool | None = None, name: str | None = None
) -> Any:
    """The standard deviation: the root of ``reduce_variance``."""
    return elementwise.sqrt(reduce_variance(input_tensor, axis, keepdims), name=name)


@scoped("count_nonzero")
def count_nonzero(
    input_tensor: Any, axis: Any = None, keepdims: bool | None = None, dtype: Any = int64,
    name: str | None = None, reduction_indices: Any = None, keep_dims: bool | None = None,
) -> Any:  # fmt: skip
    """How many elements differ from 0 (or are True)."""
    axis = one_of(axis, reduction_indices, "axis", "reduction_indices", "count_nonzero")
    keepdims = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", "count_nonzero"))
    x = tensor(input_tensor, "input")
    hit = x if x.dtype.is_bool else comparison.not_equal(x, 0)
    return reduction.reduce_sum(cast(hit, as_dtype(dtype)), _axes(axis), keepdims, name=name)


@scoped("norm")
def norm(
    tensor: Any, ord: Any = "euclidean", axis: Any = None, keepdims: bool | None = None,
    name: str | None = None, keep_dims: bool | None = None,
) -> Any:  # fmt: skip
    """Vector norms: "euclidean" (2), 1, infinity, or any positive number."""
    from tinyflow.frontends.tf1.convert import convert_to_tensor
    from tinyflow.ops.special import power

    keepdims = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", "norm"))
    x, axes = convert_to_tensor(tensor, name="tensor"), _axes(axis)
    if ord in ("euclidean", "fro", 2):
        squares = reduction.reduce_sum(elementwise.multiply(x, x), axes, keepdims)
        return elementwise.sqrt(squares, name=name)
    size = elementwise.absolute(x)
    if ord == 1:
        return reduction.reduce_sum(size, axes, keepdims, name=name)
    if ord == float("inf"):
        return reduction.reduce_max(size, axes, keepdims, name=name)
    if not isinstance(ord, (int, float)) or ord <= 0:
        raise InvalidArgumentError(
            f"'ord' must be a supported vector norm, got {ord}",
            choices=["euclidean", 1, 2, "np.inf", "a positive number"],
        )
    total = reduction.reduce_sum(power(size, float(ord)), axes, keepdims)
    return power(total, 1.0 / ord, name=name)


def _position(function: Callable[..., Any], default: str, what: str) -> Callable[..., Any]:
    @titled(
        function.__name__, f"The position of {what} along ``axis`` (2016: ``dimension``)."
    )
    def where(
        input: Any, axis: Any = None, name: str | None = None, dimension: Any = None,
        output_type: Any = int64,
    ) -> Any:  # fmt: skip
        axis = one_of(axis, dimension, "axis", "dimension", function.__name__)
        return function(tensor(input), 0 if axis is None else axis, output_type, name or default)

    return where


argmax = _position(position.argmax, "ArgMax", "the largest element")
argmin = _position(position.argmin, "ArgMin", "the smallest element")


def stop_gradient(input: Any, name: str | None = None) -> Any:
    """The same value; gradients do not pass."""
    return convert.stop_gradient(input, name=name)
