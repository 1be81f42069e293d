"""``tf.layers``: layers with their own variables, named as TensorFlow-1 names them.

Main functions: ``dense``, ``conv2d``, ``batch_normalization``. May import core, ops, nn_functions,
nn_pooling, nn_spatial, variable_scope.
A layer without a name is called after its function and numbered: ``conv2d/kernel``,
``conv2d_1/kernel``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyflow.core.error import InvalidArgumentError, Unsupported
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1 import nn_functions, nn_pooling, nn_spatial
from tinyflow.frontends.tf1.convert import is_tensor, tensor
from tinyflow.frontends.tf1.graph_keys import GraphKeys, add_to_collection
from tinyflow.frontends.tf1.initializers import Ones, Zeros
from tinyflow.frontends.tf1.nn_spatial import per_channel
from tinyflow.frontends.tf1.variable_scope import get_variable, variable_scope
from tinyflow.frontends.tf1.variables import assign_sub
from tinyflow.ops import contraction, convert, elementwise, logical, movement, normalization
from tinyflow.ops import nn as nn_ops
from tinyflow.ops.windows import FORMATS, assemble, channel_axis

Name = str | None


def _scope(name: Name, default: str, reuse: Any) -> variable_scope:
    return variable_scope(name, default_name=default, reuse=reuse)


def _finish(y: Any, bias: Any, activation: Any, regularizer: Any, form: str) -> Any:
    """Bias and activation; what the result costs is a regularization loss.

    form: "NHWC" or "NCHW".
    """
    if bias is not None:
        y = nn_functions.bias_add(y, bias, form)
    if activation is not None:
        y = activation(y)
    if regularizer is not None:
        add_to_collection(GraphKeys.REGULARIZATION_LOSSES, regularizer(y))
    return y


def _make(
    name: str, shape: Any, x: Any, initializer: Any, regularizer: Any, constraint: Any,
    trainable: bool,
) -> Any:  # fmt: skip
    return get_variable(
        name, shape, dtype=x.dtype, initializer=initializer, regularizer=regularizer,
        constraint=constraint, trainable=trainable,
    )  # fmt: skip


def _known(x: Any, axis: int, layer: str) -> int:
    shape = x.type.shape
    extent = None if shape is None else shape[axis]
    if type(extent) is not int:
        raise InvalidArgumentError(
            f"{layer}: The channel dimension of the inputs should be defined. Found `None`.",
            hint="give the placeholder its last extent",
        )
    return extent


def dense(
    inputs: Any, units: int, activation: Any = None, use_bias: bool = True,
    kernel_initializer: Any = None, bias_initializer: Any = Zeros, kernel_regularizer: Any = None,
    bias_regularizer: Any = None, activity_regularizer: Any = None, kernel_constraint: Any = None,
    bias_constraint: Any = None, trainable: bool = True, name: Name = None, reuse: Any = None,
) -> Any:  # fmt: skip
    """activation(inputs @ kernel + bias); leading axes stay. Variables: kernel, bias."""
    with _scope(name, "dense", reuse):
        x = tensor(inputs)
        size = _known(x, -1, "dense")
        kernel = _make("kernel", [size, units], x, kernel_initializer, kernel_regularizer,
                       kernel_constraint, trainable)  # fmt: skip
        bias = None
        if use_bias:
            bias = _make("bias", [units], x, bias_initializer, bias_regularizer, bias_constraint,
                         trainable)  # fmt: skip
        if x.type.rank == 2:
            y = contraction.matmul(x, kernel)
        else:
            y = contraction.tensordot(x, kernel.as_value(), 1)
        return _finish(y, bias, activation, activity_regularizer, "NHWC")


def _repeat(value: Any, dims: int) -> tuple[int, ...]:
    if isinstance(value, (list, tuple)):
        return tuple(int(v) for v in value)
    return (int(value),) * dims


def _data_format(word: str, dims: int) -> str:
    """Errors: InvalidArgumentError for another word than these two."""
    if word not in ("channels_last", "channels_first"):
        raise InvalidArgumentError(
            f"unknown data_format {word!r}", choices=("channels_last", "channels_first")
        )
    return FORMATS[dims][word == "channels_first"]


def _conv_layer(dims: int) -> Callable[..., Any]:
    own_name = f"conv{dims}d"
    function = getattr(nn_spatial, own_name)

    @titled(
        own_name,
        f"activation(conv{dims}d(inputs, kernel) + bias). Variables: kernel [taps.., c, filters], "
        "bias [filters].",
    )
    def layer(
        inputs: Any, filters: int, kernel_size: Any, strides: Any = 1, padding: str = "valid",
        data_format: str = "channels_last", dilation_rate: Any = 1, activation: Any = None,
        use_bias: bool = True, kernel_initializer: Any = None, bias_initializer: Any = Zeros,
        kernel_regularizer: Any = None, bias_regularizer: Any = None,
        activity_regularizer: Any = None, kernel_constraint: Any = None,
        bias_constraint: Any = None, trainable: bool = True, name: Name = None, reuse: Any = None,
    ) -> Any:  # fmt: skip
        form = _data_format(data_format, dims)
        with _scope(name, own_name, reuse):
            x = tensor(inputs)
            channels = _known(x, channel_axis(form), own_name)
            shape = [*_repeat(kernel_size, dims), channels, filters]
            kernel = _make("kernel", shape, x, kernel_initializer, kernel_regularizer,
                           kernel_constraint, trainable)  # fmt: skip
            bias = None
            if use_bias:
                bias = _make("bias", [filters], x, bias_initializer, bias_regularizer,
                             bias_constraint, trainable)  # fmt: skip
            y = function(
                x, kernel.as_value(), _repeat(strides, dims), padding.upper(), data_format=form,
                dilations=_repeat(dilation_rate, dims),
            )  # fmt: skip
            kind = "NCHW" if form[1] == "C" else "NHWC"
            return _finish(y, bias, activation, activity_regularizer, kind)

    return layer


conv1d, conv2d, conv3d = (_conv_layer(dims) for dims in (1, 2, 3))


def conv2d_transpose(
    inputs: Any, filters: int, kernel_size: Any, strides: Any = (1, 1), padding: str = "valid",
    data_format: str = "channels_last", activation: Any = None, use_bias: bool = True,
    kernel_initializer: Any = None, bias_initializer: Any = Zeros, kernel_regularizer: Any = None,
    bias_regularizer: Any = None, activity_regularizer: Any = None, kernel_constraint: Any = None,
    bias_constraint: Any = None, trainable: bool = True, name: Name = None, reuse: Any = None,
) -> Any:  # fmt: skip
    """Transposed convolution: "same" multiplies the extents by the strides, "valid" adds what the
    kernel reaches beyond. Variables: kernel [taps, taps, filters, c], bias [filters]."""
    from tinyflow.ops.shape import shape as shape_of

    form = _data_format(data_format, 2)
    with _scope(name, "conv2d_transpose", reuse):
        x = tensor(inputs)
        size, steps = _repeat(kernel_size, 2), _repeat(strides, 2)
        kernel = _make(
            "kernel", [*size, filters, _known(x, channel_axis(form), "conv2d_transpose")], x,
            kernel_initializer, kernel_regularizer, kernel_constraint, trainable,
        )  # fmt: skip
        bias = None
        if use_bias:
            bias = _make("bias", [filters], x, bias_initializer, bias_regularizer,
                         bias_constraint, trainable)  # fmt: skip
        first = 2 if form[1] == "C" else 1
        extents = [d if type(d) is int else shape_of(x)[a] for a, d in enumerate(x.type.shape)]
        extra = [0 if padding.upper() == "SAME" else max(k - s, 0)
                 for k, s in zip(size, steps, strict=True)]  # fmt: skip
        places = [n * s + e for n, s, e in zip(extents[first:], steps, extra, strict=False)]
        shape = assemble(form, extents[:1], places, (filters,))
        y = nn_spatial.conv2d_transpose(
            x, kernel.as_value(), list(shape), steps, padding.upper(), form
        )
        return _finish(y, bias, activation, activity_regularizer, form)


def separable_conv2d(
    inputs: Any, filters: int, kernel_size: Any, strides: Any = (1, 1), padding: str = "valid",
    data_format: str = "channels_last", dilation_rate: Any = (1, 1), depth_multiplier: int = 1,
    activation: Any = None, use_bias: bool = True, depthwise_initializer: Any = None,
    pointwise_initializer: Any = None, bias_initializer: Any = Zeros,
    depthwise_regularizer: Any = None, pointwise_regularizer: Any = None,
    bias_regularizer: Any = None, activity_regularizer: Any = None,
    depthwise_constraint: Any = None, pointwise_constraint: Any = None,
    bias_constraint: Any = None, trainable: bool = True, name: Name = None, reuse: Any = None,
) -> Any:  # fmt: skip
    """Each channel convolved, then mixed. Variables: depthwise_kernel [taps, taps, c, multiplier],
    pointwise_kernel [1, 1, c * multiplier, filters], bias [filters]."""
    form = _data_format(data_format, 2)
    with _scope(name, "separable_conv2d", reuse):
        x = tensor(inputs)
        channels = _known(x, channel_axis(form), "separable_conv2d")
        each = _make("depthwise_kernel", [*_repeat(kernel_size, 2), channels, depth_multiplier], x,
                     depthwise_initializer, depthwise_regularizer, depthwise_constraint,
                     trainable)  # fmt: skip
        mixing = _make("pointwise_kernel", [1, 1, channels * depth_multiplier, filters], x,
                       pointwise_initializer, pointwise_regularizer, pointwise_constraint,
                       trainable)  # fmt: skip
        bias = None
        if use_bias:
            bias = _make("bias", [filters], x, bias_initializer, bias_regularizer,
                         bias_constraint, trainable)  # fmt: skip
        y = nn_spatial.separable_conv2d(
            x, each.as_value(), mixing.as_value(), _repeat(strides, 2), padding.upper(),
            _repeat(dilation_rate, 2), data_format=form,
        )  # fmt: skip
        return _finish(y, bias, activation, activity_regularizer, form)


def _pool_layer(kind: str, dims: int) -> Callable[..., Any]:
    own_name = f"{'max' if kind == 'MAX' else 'average'}_pooling{dims}d"
    what = "The largest element" if kind == "MAX" else "The mean"

    @titled(own_name, f"{what} of every window of {dims} spatial axes.")
    def layer(
        inputs: Any, pool_size: Any, strides: Any, padding: str = "valid",
        data_format: str = "channels_last", name: Name = None,
    ) -> Any:  # fmt: skip
        form = _data_format(data_format, dims)
        function = getattr(nn_pooling, f"{kind.lower()}_pool" + {2: ""}.get(dims, f"{dims}d"))
        with _scope(name, own_name, None):
            return function(
                tensor(inputs), _repeat(pool_size, dims), _repeat(strides, dims), padding.upper(),
                form,
            )  # fmt: skip

    return layer


max_pooling1d, max_pooling2d, max_pooling3d = (_pool_layer("MAX", d) for d in (1, 2, 3))
average_pooling1d, average_pooling2d, average_pooling3d = (_pool_layer("AVG", d) for d in (1, 2, 3))


def flatten(inputs: Any, name: Name = None, data_format: str = "channels_last") -> Any:
    """[n, ...] to [n, size]."""
    with _scope(name, "flatten", None):
        x = tensor(inputs)
        if data_format == "channels_first" and (x.type.rank or 0) > 2:
            x = movement.transpose(x, (0, *range(2, x.type.rank), 1))
        rest = (x.type.shape or ())[1:]
        if all(type(d) is int for d in rest):
            size = 1
            for d in rest:
                size *= d
            return movement.reshape(x, (-1, size), name="Reshape")
        from tinyflow.ops.shape import shape as shape_of

        return movement.reshape(x, (shape_of(x)[0], -1), name="Reshape")


def dropout(
    inputs: Any, rate: Any = 0.5, noise_shape: Any = None, seed: int | None = None,
    training: Any = False, name: Name = None,
) -> Any:  # fmt: skip
    """``nn.dropout`` while ``training`` (a bool, or a bool tensor), else the inputs."""
    with _scope(name, "dropout", None):
        x = tensor(inputs)
        if not is_tensor(training):
            if not training:
                return convert.identity(x, name="Identity")
            return nn_functions.dropout(x, noise_shape=noise_shape, seed=seed, rate=rate)
        dropped = nn_functions.dropout(x, noise_shape=noise_shape, seed=seed, rate=rate)
        return logical.select(tensor(training), dropped, x)


def batch_normalization(
    inputs: Any, axis: Any = -1, momentum: float = 0.99, epsilon: float = 1e-3,
    center: bool = True, scale: bool = True, beta_initializer: Any = Zeros,
    gamma_initializer: Any = Ones, moving_mean_initializer: Any = Zeros,
    moving_variance_initializer: Any = Ones, beta_regularizer: Any = None,
    gamma_regularizer: Any = None, beta_constraint: Any = None, gamma_constraint: Any = None,
    training: Any = False, trainable: bool = True, name: Name = None, reuse: Any = None,
    renorm: bool = False, renorm_clipping: Any = None, renorm_momentum: float = 0.99,
    fused: Any = None, virtual_batch_size: Any = None, adjustment: Any = None,
) -> Any:  # fmt: skip
    """Batch norm with moving averages. Variables: gamma, beta, moving_mean, moving_variance.

    training: a bool or a bool tensor: the batch's statistics, or the moving ones. The updates of
    the moving averages are in the collection UPDATE_OPS; run them beside the training step.
    """
    if renorm or virtual_batch_size is not None or adjustment is not None:
        raise Unsupported(
            "batch_normalization: renorm, virtual_batch_size and adjustment",
            expected="none of the three",
        )
    with _scope(name, "batch_normalization", reuse):
        x = tensor(inputs)
        rank = x.type.rank
        at = int(axis[0] if isinstance(axis, (list, tuple)) else axis)
        at = at + rank if at < 0 else at
        if at not in (1, rank - 1):
            raise InvalidArgumentError(f"batch_normalization: axis {axis}", choices=(1, rank - 1))
        form = "NHWC" if at == rank - 1 else "NCHW"
        size = [_known(x, at, "batch_normalization")]
        gamma = beta = None
        if scale:
            gamma = _make("gamma", size, x, gamma_initializer, gamma_regularizer, gamma_constraint,
                          trainable)  # fmt: skip
        if center:
            beta = _make("beta", size, x, beta_initializer, beta_regularizer, beta_constraint,
                         trainable)  # fmt: skip
        moving = (
            _make("moving_mean", size, x, moving_mean_initializer, None, None, False),
            _make("moving_variance", size, x, moving_variance_initializer, None, None, False),
        )
        factors = [None if p is None else p.as_value() for p in (gamma, beta)]
        if not is_tensor(training) and not training:
            return _normalized(x, moving[0].as_value(), moving[1].as_value(), factors, epsilon,
                               form)  # fmt: skip
        is_fused = rank == 4 and fused in (None, True)
        return _trained(x, moving, factors, (momentum, epsilon), training, form, is_fused)


def _normalized(
    x: Any, mean: Any, variance: Any, factors: list[Any], epsilon: float, form: str
) -> Any:
    wide = [
        None if p is None else per_channel(x, p, form) for p in (mean, variance, *factors)
    ]
    return normalization.batch_normalization(x, wide[0], wide[1], wide[3], wide[2], epsilon)


def _trained(
    x: Any, moving: tuple[Any, Any], factors: list[Any], numbers: tuple[float, float],
    training: Any, form: str, is_fused: bool,
) -> Any:  # fmt: skip
    """The result with the batch's statistics where ``training``, and the moving averages' update.

    Four-dimensional inputs take TensorFlow's fused kernel, which hands the moving average the
    variance over m - 1; others the one over m.
    """
    momentum, epsilon = numbers
    at = 1 if form == "NCHW" else x.type.rank - 1
    if is_fused and not is_tensor(training):
        scale, offset = _whole(x, factors, moving[0])
        y, mean, variance = normalization.fused_batch_norm(x, scale, offset, epsilon, form)
    else:
        others = [a for a in range(x.type.rank) if a != at]
        mean, variance = nn_ops.moments(x, others)
        used = (mean, variance)
        if is_tensor(training):
            flag = tensor(training)
            used = tuple(
                logical.select(flag, new, old.as_value())
                for new, old in zip(used, moving, strict=True)
            )  # type: ignore[assignment]
        y = _normalized(x, used[0], used[1], factors, epsilon, form)
        if is_fused:
            variance = elementwise.multiply(variance, _bessel(x, mean))
    for variable, statistic in zip(moving, (mean, variance), strict=True):
        change = elementwise.subtract(variable.as_value(), convert.stop_gradient(statistic))
        change = elementwise.multiply(change, 1.0 - momentum)
        if is_tensor(training):
            change = logical.select(tensor(training), change, elementwise.multiply(change, 0.0))
        update = assign_sub(variable, change, name="AssignMovingAvg")
        add_to_collection(GraphKeys.UPDATE_OPS, update)
    return y


def _whole(x: Any, factors: list[Any], like: Any) -> tuple[Any, Any]:
    from tinyflow.ops.creation import ones_like, zeros_like

    shape = like.as_value()
    gamma, beta = factors
    return (
        ones_like(shape) if gamma is None else gamma,
        zeros_like(shape) if beta is None else beta,
    )


def _bessel(x: Any, mean: Any) -> Any:
    """m / max(m - 1, 1) for m elements per channel."""
    from tinyflow.ops.reduction import element_count

    count = element_count(x, mean)
    if isinstance(count, float):
        return count / max(count - 1.0, 1.0)
    return elementwise.divide(count, elementwise.maximum(elementwise.subtract(count, 1.0), 1.0))
