"""``tf.nn``: activations, normalisations and losses with TensorFlow-1's signatures and names.

Main functions: ``softmax``, ``softmax_cross_entropy_with_logits``. May import core, ops, convert.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1 import random_functions as random
from tinyflow.frontends.tf1.array_functions import one_of
from tinyflow.frontends.tf1.convert import extents, graph_of, scoped, tensor
from tinyflow.frontends.tf1.graph import get_default_graph
from tinyflow.frontends.tf1.math_functions import _axes, _beside
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import comparison, contraction, convert, elementwise, nn, reduction
from tinyflow.ops import shape as shape_ops
from tinyflow.ops.activation import leaky_relu as leaky_relu_op
from tinyflow.ops.activation import relu
from tinyflow.ops.like import reshape_like

__all__ = [
    "bias_add", "dropout", "l2_normalize", "leaky_relu", "log_softmax", "moments", "relu_layer",
    "sigmoid_cross_entropy_with_logits", "softmax", "softmax_cross_entropy_with_logits",
    "softmax_cross_entropy_with_logits_v2", "sparse_softmax_cross_entropy_with_logits",
    "weighted_cross_entropy_with_logits", "xw_plus_b",
]  # fmt: skip


def softmax(logits: Any, axis: Any = None, name: str | None = None, dim: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along ``axis`` (2016: ``dim``), the last one by default."""
    axis = one_of(axis, dim, "axis", "dim", "softmax")
    return nn.softmax(tensor(logits), -1 if axis is None else axis, name=name)


def log_softmax(logits: Any, axis: Any = None, name: str | None = None, dim: Any = None) -> Any:
    """log(softmax(x)), finite where softmax underflows."""
    axis = one_of(axis, dim, "axis", "dim", "log_softmax")
    return nn.log_softmax(tensor(logits), -1 if axis is None else axis, name=name)


def leaky_relu(features: Any, alpha: float = 0.2, name: str | None = None) -> Any:
    """x where x > 0, else alpha * x."""
    return leaky_relu_op(features, alpha, name=name)


def _named_arguments(function: str, sentinel: Any, labels: Any, logits: Any) -> None:
    if sentinel is not None:
        raise InvalidArgumentError(
            f"Only call `{function}` with named arguments (labels=..., logits=..., ...)",
            hint="older programs pass (logits, labels): name both",
        )
    if labels is None or logits is None:
        raise InvalidArgumentError("Both labels and logits must be provided.")


def _as_rows(labels: Any, logits: Any) -> Any:
    """Labels in the shape of the logits: all leading dimensions are rows, however they are cut."""
    labels, logits = _beside(labels, logits, "labels"), tensor(logits, "logits")
    if None in (labels.type.rank, logits.type.rank) or labels.type.rank == logits.type.rank:
        return labels
    return reshape_like(labels, logits)


def softmax_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, dim: int = -1,
    name: str | None = None, axis: Any = None,
) -> Any:  # fmt: skip
    """-sum(labels * log_softmax(logits)) per row; no gradient flows to ``labels``."""
    _named_arguments("softmax_cross_entropy_with_logits", _sentinel, labels, logits)
    scope_name = name or "softmax_cross_entropy_with_logits_sg"
    graph = graph_of(labels, logits)
    with graph.as_default(), graph.name_scope(scope_name):
        labels = convert.stop_gradient(tensor(labels), name="labels_stop_gradient")
        labels = _as_rows(labels, logits)
        return nn.softmax_cross_entropy_with_logits(
            labels, logits, dim if axis is None else axis, name="Reshape_2"
        )


def softmax_cross_entropy_with_logits_v2(
    labels: Any, logits: Any, axis: Any = None, name: str | None = None, dim: Any = None
) -> Any:
    """-sum(labels * log_softmax(logits)) per row; gradients flow to both."""
    axis = one_of(axis, dim, "axis", "dim", "softmax_cross_entropy_with_logits_v2")
    graph = graph_of(labels, logits)
    with (
        graph.as_default(),
        graph.name_scope(name or "softmax_cross_entropy_with_logits"),
    ):
        labels, logits = _as_rows(labels, logits), tensor(logits, "logits")
        return nn.softmax_cross_entropy_with_logits(
            labels, logits, -1 if axis is None else axis, name="Reshape_2"
        )


def sparse_softmax_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> Any:
    """-log_softmax(logits)[label] per row; ``labels`` are class numbers."""
    function = "sparse_softmax_cross_entropy_with_logits"
    _named_arguments(function, _sentinel, labels, logits)
    graph = graph_of(labels, logits)
    own = "SparseSoftmaxCrossEntropyWithLogits"
    with graph.as_default(), graph.name_scope(name or own):
        return nn.sparse_softmax_cross_entropy_with_logits(
            tensor(labels, "labels"), tensor(logits, "logits"), name=own
        )


def sigmoid_cross_entropy_with_logits(
    _sentinel: Any = None, labels: Any = None, logits: Any = None, name: str | None = None
) -> Any:
    """max(x, 0) - x*z + log(1 + exp(-|x|)), element-wise: independent yes/no labels z."""
    _named_arguments("sigmoid_cross_entropy_with_logits", _sentinel, labels, logits)
    graph = graph_of(labels, logits)
    with graph.as_default(), graph.name_scope(name or "logistic_loss") as scope:
        return nn.sigmoid_cross_entropy_with_logits(labels, logits, name=scope)


@scoped("logistic_loss")
def weighted_cross_entropy_with_logits(
    labels: Any = None, logits: Any = None, pos_weight: Any = None, name: str | None = None,
    targets: Any = None,
) -> Any:  # fmt: skip
    """Sigmoid cross entropy with positive examples weighted by ``pos_weight``."""
    from tinyflow.ops.special import log1p

    labels = one_of(labels, targets, "labels", "targets", "weighted_cross_entropy_with_logits")
    z, x = tensor(labels, "labels"), tensor(logits, "logits")
    weight = (pos_weight - 1) * z + 1
    small = log1p(elementwise.exp(elementwise.negative(elementwise.absolute(x))))
    tail = elementwise.add(small, relu(elementwise.negative(x)))
    first = elementwise.multiply(elementwise.subtract(1, z), x)
    return elementwise.add(first, elementwise.multiply(weight, tail), name=name)


def bias_add(value: Any, bias: Any, data_format: str | None = None, name: str | None = None) -> Any:
    """value + bias along the channels: the last dimension, or the second for "NCHW"."""
    return nn.bias_add(value, bias, data_format, name=name)


@scoped("xw_plus_b")
def xw_plus_b(x: Any, weights: Any, biases: Any, name: str | None = None) -> Any:
    """x @ weights + biases."""
    product = contraction.matmul(tensor(x, "x"), tensor(weights, "weights"))
    return nn.bias_add(product, _beside(biases, product, "biases"), name=name)


@scoped("relu_layer")
def relu_layer(x: Any, weights: Any, biases: Any, name: str | None = None) -> Any:
    """relu(x @ weights + biases)."""
    product = contraction.matmul(tensor(x, "x"), tensor(weights, "weights"))
    return relu(nn.bias_add(product, _beside(biases, product, "biases")), name=name)


@scoped("l2_normalize")
def l2_normalize(
    x: Any, axis: Any = None, epsilon: float = 1e-12, name: str | None = None, dim: Any = None
) -> Any:
    """x / sqrt(max(sum(x**2), epsilon))."""
    axis = one_of(axis, dim, "axis", "dim", "l2_normalize")
    return nn.l2_normalize(tensor(x, "x"), _axes(axis), epsilon, name)


def moments(
    x: Any, axes: Any, shift: Any = None, name: str | None = None, keep_dims: Any = None,
    keepdims: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Mean and variance over ``axes``."""
    keep = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", "moments"))
    graph = graph_of(x)
    with graph.as_default(), graph.name_scope(name or "moments"):
        x, axes = tensor(x, "x"), _axes(axes)
        mean = reduction.reduce_mean(x, axes, True, name="mean")
        distance = elementwise.squared_difference(x, convert.stop_gradient(mean))
        variance = reduction.reduce_mean(distance, axes, True, name="variance")
        if keep:
            return mean, variance
        from tinyflow.ops.movement import squeeze

        folded = None if axes is None else axes
        if folded is None:
            rank = x.type.rank
            folded = None if rank is None else tuple(range(rank))
        return squeeze(mean, folded, name="Squeeze"), squeeze(variance, folded, name="Squeeze_1")


def dropout(
    x: Any, keep_prob: Any = None, noise_shape: Any = None, seed: int | None = None,
    name: str | None = None, rate: Any = None,
) -> Any:  # fmt: skip
    """Elements set to 0 with probability ``rate`` (= 1 - keep_prob), the others scaled up."""
    if rate is None and keep_prob is None:
        raise InvalidArgumentError(
            "dropout: You must provide a rate to dropout.", hint="rate=0.5, or keep_prob=0.5"
        )
    graph = graph_of(x, keep_prob, rate)
    with graph.as_default(), graph.name_scope(name or "dropout") as scope:
        x = tensor(x, "x")
        if not x.dtype.is_floating:
            raise InvalidArgumentError(
                f"x has to be a floating point tensor since it's going to be scaled. Got a "
                f"{x.dtype} tensor instead.",
                hint="convert it with tf.cast(x, tf.float32)",
            )
        rate = _rate(keep_prob, rate)
        if isinstance(rate, (int, float)) and rate == 0:
            return convert.identity(x, name=scope)
        shape = _noise_shape(x, noise_shape)
        noise = random.random_uniform(shape, dtype=x.dtype, seed=seed)
        keep = elementwise.subtract(1, rate) if isinstance(rate, Value) else 1 - rate
        scale = elementwise.divide(1, keep) if isinstance(keep, Value) else 1 / keep
        kept = convert.cast(comparison.greater_equal(noise, rate), x.dtype)
        return elementwise.multiply(elementwise.multiply(x, scale), kept, name=scope)


def _rate(keep_prob: Any, rate: Any) -> Any:
    given = keep_prob if rate is None else rate
    if isinstance(given, Value) or hasattr(given, "as_value"):
        given = tensor(given)
        return elementwise.subtract(1, given) if rate is None else given
    chance = 1 - float(given) if rate is None else float(given)
    if not 0 <= chance < 1:
        shown = "keep_prob must be in (0, 1]" if rate is None else "rate must be in [0, 1)"
        raise InvalidArgumentError(f"dropout: {shown}, got {given}")
    return chance


def _noise_shape(x: Any, noise_shape: Any) -> Any:
    if noise_shape is not None:
        return extents(noise_shape)
    if x.type.is_static:
        return x.type.shape
    get_default_graph().reserve("Shape")
    return shape_ops.shape(x)
