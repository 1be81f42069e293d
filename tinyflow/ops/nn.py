"""Ops of neural networks: softmax and its losses, bias, normalisation.

Main types: ``Softmax``, ``LogSoftmax``, the cross entropies, ``BiasAdd``.
May import ops.base, arithmetic and reduction families. The softmax family decomposes into row
reductions and element-wise ops, which fuse into one kernel; gradients are in closed form.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError
from tinyflow.core.shape import merge_dim, merge_shapes, normalize_axis, show
from tinyflow.ops.activation import relu, sigmoid
from tinyflow.ops.base import (
    Op,
    Sample,
    TensorType,
    Value,
    emit,
    ranged,
    require_same_dtype,
    to_value,
)
from tinyflow.ops.elementwise import (
    absolute,
    add,
    exp,
    log,
    maximum,
    multiply,
    negative,
    reciprocal,
    rsqrt,
    square,
    squared_difference,
    subtract,
)
from tinyflow.ops.indexing import CheckedIndex, OneHot, one_hot
from tinyflow.ops.like import unbroadcast
from tinyflow.ops.logical import select
from tinyflow.ops.movement import expand_dims, squeeze
from tinyflow.ops.reduction import reduce_max, reduce_mean, reduce_sum
from tinyflow.ops.special import log1p


def _rows(rng: np.random.Generator, *shape: int) -> np.ndarray:
    return ranged(rng, shape, "float", -4.0, 4.0)


@dataclass(frozen=True)
class RowOp(Op, abstract=True):
    """Same type out as in; works along ``axis``."""

    axis: int = -1

    def infer(self, logits: TensorType) -> TensorType:
        logits.require_float()
        if logits.shape is not None:
            normalize_axis(self.axis, len(logits.shape))
        return logits

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axis in (
            ((3, 4), -1), ((2, 3, 5), 1), ((7,), 0), ((0, 3), 1), ((4, 1), -1), ((2, 37), 1),
        ):  # fmt: skip
            yield Sample((_rows(rng, *shape),), type(self)(axis), ulp=6.0, scale=1.0)
        far = np.array([[200.0, -200.0, 199.0], [-1e4, 1e4, 0.0]], np.float32)
        yield Sample((far,), type(self)(-1), ulp=6.0, scale=1.0, check_gradient=False)

    def bad_samples(self) -> Iterable[Any]:
        yield (np.array([1, 2]),), DTypeError
        yield Sample((np.zeros((2, 3), np.float32),), type(self)(2)), ShapeError


def _shifted(logits: Value, axis: int) -> Value:
    """logits minus the largest of their row, so that exp cannot overflow."""
    return subtract(logits, reduce_max(logits, axis=axis, keepdims=True))  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Softmax(RowOp):
    """y_i = exp(x_i - m) / sum_j exp(x_j - m) along ``axis``, m the largest of the row.

    One division per row: y_i = e_i * (1 / sum). Two roundings instead of one, at most 1.5 ulp
    beside the errors of e_i and of the sum; the sum is at least 1, so its inverse is finite.
    logits: float[...]   y: same type    Gradient: dx = (dy - sum(dy * y)) * y
    Errors: DTypeError, AxisError      Source: Goodfellow et al., Deep Learning, section 4.1
    """

    onnx = "Softmax"

    def reference(self, x: Any) -> Any:
        return np.exp(_log_softmax(x, self.axis)) if np.size(x) else x

    def decompose(self, logits: Value) -> Value:
        weights = exp(_shifted(logits, self.axis))
        total = reduce_sum(weights, axis=self.axis, keepdims=True)
        return multiply(weights, reciprocal(total))  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, logits: Value) -> tuple[Any, ...]:
        inner = reduce_sum(multiply(dy, y), axis=self.axis, keepdims=True)
        return (multiply(subtract(dy, inner), y),)


def _log_softmax(x: Any, axis: int) -> Any:
    if not np.size(x):
        return x
    shifted = x - np.max(x, axis=axis, keepdims=True)
    return shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))


def softmax(logits: Any, axis: int = -1, name: str | None = None) -> Any:
    """exp(x) / sum(exp(x)) along ``axis``, without overflow. See Softmax."""
    return emit(Softmax(int(axis)), logits, name=name)


@dataclass(frozen=True)
class LogSoftmax(RowOp):
    """y_i = x_i - m - log(sum_j exp(x_j - m)) along ``axis``, m the largest of the row.

    logits: float[...]   y: same type    Gradient: dx = dy - exp(y) * sum(dy)
    Errors: DTypeError, AxisError
    """

    onnx = "LogSoftmax"

    def reference(self, x: Any) -> Any:
        return _log_softmax(x, self.axis)

    def decompose(self, logits: Value) -> Value:
        shifted = _shifted(logits, self.axis)
        total = reduce_sum(exp(shifted), axis=self.axis, keepdims=True)
        return subtract(shifted, log(total))  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, logits: Value) -> tuple[Any, ...]:
        total = reduce_sum(dy, axis=self.axis, keepdims=True)
        return (subtract(dy, multiply(exp(y), total)),)


def log_softmax(logits: Any, axis: int = -1, name: str | None = None) -> Any:
    """log(softmax(x)) along ``axis``, finite where softmax underflows. See LogSoftmax."""
    return emit(LogSoftmax(int(axis)), logits, name=name)


@dataclass(frozen=True)
class SoftmaxCrossEntropyWithLogits(Op):
    """loss = -sum_i labels_i * log_softmax(logits)_i along ``axis``.

    features: float[..., c] (the logits)   labels: same type, rows of weights
    loss: same dtype, without ``axis``
    Gradient: dlogits = dloss * (softmax * sum(labels) - labels), dlabels = -dloss * log_softmax
    (TensorFlow takes sum(labels) as 1: the same for rows that are distributions)
    Errors: ShapeError when the shapes differ, DTypeError, AxisError
    """

    axis: int = -1

    def infer(self, features: TensorType, labels: TensorType) -> TensorType:
        require_same_dtype(features, labels)
        features.require_float()
        try:
            shape = merge_shapes(features.shape, labels.shape)
        except ShapeError as error:
            error.what = f"logits {show(features.shape)} and labels {show(labels.shape)} differ"
            error.expected = "one row of weights per row of logits"
            if labels.rank == (features.rank or 0) - 1:
                error.hint = "for class numbers use sparse_softmax_cross_entropy_with_logits"
            raise
        return features.with_shape(_without(shape, self.axis))

    def reference(self, logits: Any, labels: Any) -> Any:
        return -np.sum(labels * _log_softmax(logits, self.axis), axis=self.axis)

    def decompose(self, logits: Value, labels: Value) -> Value:
        terms = multiply(labels, log_softmax(logits, self.axis))
        return negative(reduce_sum(terms, axis=self.axis))  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, logits: Value, labels: Value) -> tuple[Any, ...]:
        rows = expand_dims(dy, self.axis)
        total = reduce_sum(labels, axis=self.axis, keepdims=True)
        slope = subtract(multiply(softmax(logits, self.axis), total), labels)
        return multiply(rows, slope), negative(multiply(rows, log_softmax(logits, self.axis)))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, axis in (((3, 4), -1), ((2, 5, 3), 1), ((6,), 0), ((0, 3), -1), ((5, 1), -1)):
            labels = rng.uniform(0.0, 1.0, shape).astype(np.float32)
            op = SoftmaxCrossEntropyWithLogits(axis)
            yield Sample((_rows(rng, *shape), labels), op, ulp=8.0, scale=8.0)
        hard = np.array([[200.0, -200.0, 0.0]], np.float32), np.eye(3, dtype=np.float32)[1:2]
        yield Sample(hard, check_gradient=False, ulp=8.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, x[:, 0]), ShapeError
        yield (x, x.astype(np.float64)), DTypeError
        yield (x.astype(np.int32), x.astype(np.int32)), DTypeError


def _without(shape: Any, axis: int) -> Any:
    if shape is None:
        return None
    at = normalize_axis(axis, len(shape))
    return shape[:at] + shape[at + 1 :]


def softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, axis: int = -1, name: str | None = None
) -> Any:
    """Cross entropy of rows of weights. See SoftmaxCrossEntropyWithLogits."""
    op = SoftmaxCrossEntropyWithLogits(int(axis))
    return emit(op, logits, labels, name=name)


@dataclass(frozen=True)
class SparseSoftmaxCrossEntropyWithLogits(Op):
    """loss_n = -log_softmax(logits)_{n, labels_n}.

    features: float[n..., c] (the logits)   labels: integer[n...], class numbers   loss: float[n...]
    Gradient: dlogits = dloss * (softmax - one_hot(labels))
    Errors: ShapeError, DTypeError; InvalidArgumentError at run time for a label outside [0, c)
    """

    same_dtype = False

    def infer(self, features: TensorType, labels: TensorType) -> TensorType:
        features.require_float()
        labels.require_integer()
        features.require_rank(1, at_least=True)
        shape, own = features.shape, labels.shape
        if shape is None or own is None:
            return features.with_shape(own if shape is None else shape[:-1])
        if len(own) != len(shape) - 1 or any(
            merge_dim(a, b) is None for a, b in zip(own, shape[:-1], strict=True)
        ):
            same_rank = len(own) == len(shape)
            raise ShapeError(
                "labels do not fit the logits",
                expected=f"one class number per row: labels of shape {show(shape[:-1])}",
                hint="for rows of weights use softmax_cross_entropy_with_logits"
                if same_rank and own[-1] == shape[-1]
                else "remove the last axis with tf.squeeze(labels, -1)"
                if same_rank and own[-1] == 1
                else None,
            )
        return features.with_shape(shape[:-1])

    def reference(self, logits: Any, labels: Any) -> Any:
        positions = CheckedIndex(np.shape(logits)[-1]).reference(np.asarray(labels))
        logp = _log_softmax(logits, -1)
        return -np.take_along_axis(logp, positions[..., None].astype(np.int64), -1)[..., 0]

    def decompose(self, logits: Value, labels: Value) -> Value:
        count: int = logits.type.shape[-1]  # type: ignore[assignment, index]
        hit = emit(OneHot(count, -1, _bool(), True, False), emit(CheckedIndex(count), labels))
        logp = log_softmax(logits)
        # A select, not a product: 0 * -inf of another class would be NaN.
        return negative(reduce_sum(select(hit, logp, 0.0), axis=-1))  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, logits: Value, labels: Value) -> tuple[Any, ...]:
        target = one_hot(labels, _class_count(logits), dtype=logits.dtype)
        return multiply(expand_dims(dy, -1), subtract(softmax(logits), target)), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (2, 3, 5), (7,), (0, 3), (6, 1)):
            labels = rng.integers(0, shape[-1], shape[:-1]).astype(np.int32)
            yield Sample((_rows(rng, *shape), labels), ulp=8.0, scale=8.0)
        far = np.array([[200.0, -200.0, -np.inf]], np.float32), np.array([1])
        yield Sample(far, check_gradient=False, ulp=8.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, np.zeros((2, 3), np.int32)), ShapeError
        yield (x, np.zeros(4, np.int32)), ShapeError
        yield (x, np.zeros(2, np.float32)), DTypeError


def _bool() -> Any:
    from tinyflow.core.dtype import bool_

    return bool_


def _class_count(logits: Value) -> Any:
    shape = logits.type.shape
    if shape is not None and type(shape[-1]) is int:
        return shape[-1]
    from tinyflow.ops.python_index import get_item
    from tinyflow.ops.shape import shape as shape_of

    return get_item(shape_of(logits), -1)


def sparse_softmax_cross_entropy_with_logits(
    labels: Any, logits: Any, name: str | None = None
) -> Any:
    """Cross entropy of class numbers. See SparseSoftmaxCrossEntropyWithLogits."""
    return emit(SparseSoftmaxCrossEntropyWithLogits(), logits, labels, name=name)


@dataclass(frozen=True)
class SigmoidCrossEntropyWithLogits(Op):
    """loss = max(x, 0) - x * z + log(1 + exp(-|x|)) for logits x and labels z, element-wise.

    logits, labels: float[...] of one type      loss: same type
    Equal to -z log(sigmoid(x)) - (1 - z) log(1 - sigmoid(x)), without overflow.
    Gradient: dx = dloss * (sigmoid(x) - z), dz = -dloss * x    Errors: ShapeError, DTypeError
    """

    def infer(self, logits: TensorType, labels: TensorType) -> TensorType:
        require_same_dtype(logits, labels)
        logits.require_float()
        return logits.with_shape(merge_shapes(logits.shape, labels.shape))

    def reference(self, x: Any, z: Any) -> Any:
        return np.maximum(x, 0) - x * z + np.log1p(np.exp(-np.abs(x)))

    def decompose(self, logits: Value, labels: Value) -> Value:
        tail = log1p(exp(negative(absolute(logits))))
        return add(subtract(relu(logits), multiply(logits, labels)), tail)  # type: ignore[no-any-return]

    def vjp(self, dy: Value, y: Value, logits: Value, labels: Value) -> tuple[Any, ...]:
        slope = subtract(sigmoid(logits), labels)
        return multiply(dy, slope), negative(multiply(dy, logits))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape in ((3, 4), (), (0, 2), (1, 19)):
            arrays = _rows(rng, *shape), rng.uniform(0, 1, shape).astype(np.float32)
            yield Sample(arrays, ulp=4.0, scale=8.0)
        far = np.array([200.0, -200.0, 0.0], np.float32), np.array([1.0, 0.0, 0.5], np.float32)
        yield Sample(far, ulp=4.0, scale=8.0, check_gradient=False)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, x[0]), ShapeError
        yield (x, x.astype(np.float64)), DTypeError


def sigmoid_cross_entropy_with_logits(labels: Any, logits: Any, name: str | None = None) -> Any:
    """Cross entropy of independent yes/no labels. See SigmoidCrossEntropyWithLogits."""
    return emit(SigmoidCrossEntropyWithLogits(), logits, labels, name=name)


@dataclass(frozen=True)
class BiasAdd(Op):
    """y = value + bias along the channel axis.

    value: number[n, ..., c] ("NHWC"), number[n, c, ...] ("NCHW")   bias: same dtype [c]
    y: type of value     Gradient: dvalue = dy, dbias = dy summed over the other axes
    Errors: ShapeError when bias is no vector of c elements, DTypeError
    """

    data_format: str = "NHWC"

    def infer(self, value: TensorType, bias: TensorType) -> TensorType:
        require_same_dtype(value, bias)
        value.require_number()
        bias.require_rank(1)
        value.require_rank(2 if self.data_format == "NHWC" else 3, at_least=True)
        if self.data_format not in ("NHWC", "NCHW"):
            raise InvalidArgumentError(
                f"unknown data_format {self.data_format!r}", choices=("NHWC", "NCHW")
            )
        if value.shape is None or bias.shape is None:
            return value
        axis = self._axis(len(value.shape))
        if merge_dim(value.shape[axis], bias.shape[0]) is None:
            raise ShapeError(
                f"{bias.shape[0]} biases for {value.shape[axis]} channels",
                expected=f"bias.shape[0] == value.shape[{axis}]",
            )
        return value

    def _axis(self, rank: int) -> int:
        return rank - 1 if self.data_format == "NHWC" else 1

    def reference(self, value: Any, bias: Any) -> Any:
        trailing = np.ndim(value) - 1 - self._axis(np.ndim(value))
        return value + np.reshape(bias, (-1, *[1] * trailing))

    def compute(self, value: te.Tensor, bias: te.Tensor) -> te.Tensor:
        axis = self._axis(value.rank)
        return te.compute(
            value.shape, lambda *axes: value[axes] + bias[axes[axis]], "bias_add"
        )

    def vjp(self, dy: Value, y: Value, value: Value, bias: Value) -> tuple[Any, ...]:
        if self.data_format == "NHWC":
            return dy, unbroadcast(dy, bias)
        rank = value.type.rank
        if rank is None:
            raise InvalidArgumentError("BiasAdd: gradient for NCHW needs a known rank",
                                       received={"value": value.type})  # fmt: skip
        return dy, reduce_sum(dy, axis=tuple(d for d in range(rank) if d != 1))

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, channels, form in (
            ((3, 4), 4, "NHWC"), ((2, 3, 5), 5, "NHWC"), ((2, 3, 5), 3, "NCHW"),
            ((0, 2), 2, "NHWC"), ((1, 7), 7, "NHWC"),
        ):  # fmt: skip
            yield Sample((_rows(rng, *shape), _rows(rng, channels)), BiasAdd(form))

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 3), np.float32)
        yield (x, x[:, 0]), ShapeError
        yield (x, x), ShapeError
        yield (x, np.zeros(3, np.float64)), DTypeError


def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
    """value + bias along the channels. See BiasAdd."""
    return emit(BiasAdd(data_format or "NHWC"), value, bias, name=name)


def l2_normalize(
    x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = "l2_normalize"
) -> Any:
    """x / sqrt(max(sum(x**2), epsilon)) along ``axis``."""
    x = to_value(x)
    total = reduce_sum(square(x), axis=axis, keepdims=True)
    return multiply(x, rsqrt(maximum(total, epsilon)), name=name)


def moments(
    x: Any, axes: Any, keepdims: bool = False, name: str | None = "moments"
) -> tuple[Any, Any]:
    """Mean and variance over ``axes``, in two passes: mean((x - mean)**2).

    TensorFlow holds the mean fixed in the variance: right for the gradient, wrong for the second.
    """
    x = to_value(x)
    mean = reduce_mean(x, axis=axes, keepdims=True, name=name)
    variance = reduce_mean(squared_difference(x, mean), axis=axes, keepdims=True, name=name)
    if keepdims:
        return mean, variance
    gone = axes if axes is None or isinstance(axes, int) else [int(a) for a in axes]
    if gone is None:
        gone = list(range(x.type.rank or 0))
    return squeeze(mean, gone, name=name), squeeze(variance, gone, name=name)
