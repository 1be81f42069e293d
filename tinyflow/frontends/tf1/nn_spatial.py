"""``tf.nn`` for images: convolutions and normalisation with TensorFlow-1's signatures.

Main functions: ``conv2d``, ``conv2d_transpose``, ``fused_batch_norm``.
May import core, ops, convert.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tinyflow.core.error import InvalidArgumentError, Unsupported
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.array_functions import one_of
from tinyflow.frontends.tf1.convert import extents, graph_of, scoped, tensor
from tinyflow.ops import conv_grads, convolution, creation, movement, normalization
from tinyflow.ops.activation import relu
from tinyflow.ops.convert import cast, stop_gradient
from tinyflow.ops.elementwise import divide, multiply, negative, squared_difference
from tinyflow.ops.joining import concat
from tinyflow.ops.reduction import reduce_sum
from tinyflow.ops.windows import FORMATS, channel_axis, channels_first

Name = str | None
#: strides, padding, dilations, data_format as the ops take them
Attributes = tuple[Any, Any, Any, str]


def _format(data_format: str | None, dims: int) -> str:
    return FORMATS[dims][0] if data_format is None else data_format


def steps(value: Any, dims: int, data_format: str, word: str) -> tuple[int, ...]:
    """Strides, rates or window sizes of the spatial axes, from one number, one per spatial axis
    or one per axis. Errors: Unsupported where batch or channels have another one than 1."""
    if value is None:
        return (1,) * dims
    steps = [int(s) for s in value] if isinstance(value, (list, tuple)) else [int(value)]
    if len(steps) == 1:
        return tuple(steps * dims)
    if len(steps) == dims:
        return tuple(steps)
    if len(steps) != dims + 2:
        raise InvalidArgumentError(
            f"{word} has {len(steps)} elements", expected=f"1, {dims} or {dims + 2}, got {value}"
        )
    channel = channel_axis(data_format) if len(data_format) == dims + 2 else dims + 1
    if steps[0] != 1 or steps[channel] != 1:
        raise Unsupported(
            f"{word} {steps} in the batch and depth dimensions", expected="1 for both"
        )
    return tuple(s for axis, s in enumerate(steps) if axis not in (0, channel))


def _padding(padding: Any, dims: int, data_format: str) -> Any:
    """As the ops take it: "SAME", "VALID" or pairs of the spatial axes."""
    if isinstance(padding, str):
        return padding.upper()
    if not isinstance(padding, (list, tuple)):
        raise InvalidArgumentError(
            f"padding {padding!r}", expected='"SAME", "VALID" or [before, after] for each axis'
        )
    pairs = [tuple(int(p) for p in pair) for pair in padding]
    if len(pairs) == dims + 2:
        channel = channel_axis(data_format)
        if any(pairs[0]) or any(pairs[channel]):
            raise Unsupported("padding of the batch or depth dimension", expected="[0, 0] for both")
        pairs = [pair for axis, pair in enumerate(pairs) if axis not in (0, channel)]
    return tuple(pairs)


def attributes(
    dims: int, strides: Any, padding: Any, dilations: Any, data_format: str | None
) -> Attributes:
    """Strides, padding, dilations and format of ``dims`` spatial axes as the ops take them."""
    form = _format(data_format, dims)
    return (
        steps(strides, dims, form, "strides"), _padding(padding, dims, form),
        steps(dilations, dims, form, "dilations"), form,
    )  # fmt: skip


def conv1d(
    value: Any = None, filters: Any = None, stride: Any = None, padding: Any = None,
    use_cudnn_on_gpu: Any = None, data_format: str | None = None, name: Name = None,
    input: Any = None, dilations: Any = None,
) -> Any:  # fmt: skip
    """Convolution of sequences: value [n, w, c], filters [taps, c, co]."""
    value = one_of(value, input, "value", "input", "conv1d")
    graph = graph_of(value, filters)
    form = {"NHWC": "NWC", "NCHW": "NCW"}.get(data_format or "NWC", data_format)
    with graph.as_default(), graph.name_scope(name or "conv1d"):
        own = attributes(1, stride, padding, dilations, form)
        return convolution.conv(tensor(value), tensor(filters), *own, name="Squeeze")


def conv2d(
    input: Any, filter: Any = None, strides: Any = None, padding: Any = None,
    use_cudnn_on_gpu: bool = True, data_format: str = "NHWC", dilations: Any = None,
    name: Name = None, filters: Any = None,
) -> Any:  # fmt: skip
    """Convolution of images: input [n, h, w, c], filter [taps, taps, c, co].

    A filter for fewer channels than the input has makes groups.
    """
    filter = one_of(filter, filters, "filter", "filters", "conv2d")
    own = attributes(2, strides, padding, dilations, data_format)
    return convolution.conv(input, filter, *own, name=name or "Conv2D")


def conv3d(
    input: Any, filter: Any = None, strides: Any = None, padding: Any = None,
    data_format: str = "NDHWC", dilations: Any = None, name: Name = None, filters: Any = None,
) -> Any:  # fmt: skip
    """Convolution of volumes: input [n, d, h, w, c], filter [taps, taps, taps, c, co]."""
    filter = one_of(filter, filters, "filter", "filters", "conv3d")
    own = attributes(3, strides, padding, dilations, data_format)
    return convolution.conv(input, filter, *own, name=name or "Conv3D")


@scoped("convolution")
def convolution_nd(
    input: Any, filter: Any = None, padding: Any = None, strides: Any = None,
    dilation_rate: Any = None, name: Name = None, data_format: str | None = None,
    filters: Any = None, dilations: Any = None,
) -> Any:  # fmt: skip
    """Convolution of one to three spatial axes, as many as the filter has."""
    filter = one_of(filter, filters, "filter", "filters", "convolution")
    rate = one_of(dilation_rate, dilations, "dilation_rate", "dilations", "convolution")
    input, filter = tensor(input), tensor(filter)
    dims = spatial_rank(filter.type.rank, input.type.rank, "convolution")
    own = attributes(dims, strides, padding, rate, data_format)
    return convolution.conv(input, filter, *own, name=name)


def spatial_rank(first: int | None, second: int | None, function: str) -> int:
    """How many spatial axes an image of rank ``first`` (or ``second``) has."""
    rank = second if first is None else first
    if rank is None or rank - 2 not in FORMATS:
        raise InvalidArgumentError(
            f"{function}: rank {'unknown' if rank is None else rank}", expected="rank 3, 4 or 5"
        )
    return rank - 2


def atrous_conv2d(value: Any, filters: Any, rate: int, padding: Any, name: Name = None) -> Any:
    """``conv2d`` whose taps lie ``rate`` apart."""
    return convolution_nd(value, filters, padding, dilation_rate=[rate, rate], name=name)


def _depthwise(x: Any, filter: Any, own: Attributes, name: Name) -> Any:
    """Every channel convolved with its own filters: a group per channel."""
    filter.type.require_rank(4)
    *taps, channels, multiplier = filter.type.shape
    grouped = movement.reshape(filter, (*taps, 1, channels * multiplier), name="filter")
    return convolution.conv(x, grouped, *own, name=name)


@scoped("depthwise")
def depthwise_conv2d(
    input: Any, filter: Any = None, strides: Any = None, padding: Any = None, rate: Any = None,
    name: Name = None, data_format: str | None = None, dilations: Any = None,
) -> Any:  # fmt: skip
    """Each channel with its own filters: filter [taps, taps, c, m], result [n, h, w, c * m]."""
    rate = one_of(rate, dilations, "rate", "dilations", "depthwise_conv2d")
    own = attributes(2, strides, padding, rate, data_format)
    return _depthwise(tensor(input, "tensor_in"), tensor(filter, "filter_in"), own, name)


def depthwise_conv2d_native(
    input: Any, filter: Any, strides: Any, padding: Any, data_format: str = "NHWC",
    dilations: Any = None, name: Name = None,
) -> Any:  # fmt: skip
    """``depthwise_conv2d`` under its other name."""
    return depthwise_conv2d(input, filter, strides, padding, dilations,
                            name or "DepthwiseConv2dNative", data_format)  # fmt: skip


@scoped("separable_conv2d")
def separable_conv2d(
    input: Any, depthwise_filter: Any, pointwise_filter: Any, strides: Any, padding: Any,
    rate: Any = None, name: Name = None, data_format: str | None = None, dilations: Any = None,
) -> Any:  # fmt: skip
    """``depthwise_conv2d``, then a 1 x 1 ``conv2d`` that mixes the channels."""
    rate = one_of(rate, dilations, "rate", "dilations", "separable_conv2d")
    own = attributes(2, strides, padding, rate, data_format)
    each = _depthwise(tensor(input), tensor(depthwise_filter), own, "depthwise")
    plain = attributes(2, 1, "VALID", None, data_format)
    return convolution.conv(each, tensor(pointwise_filter), *plain, name=name)


def _conv_transpose(
    dims: int, dy: Any, filter: Any, output_shape: Any, strides: Any, padding: Any,
    data_format: str | None, name: Name, dilations: Any,
) -> Any:  # fmt: skip
    graph = graph_of(dy, filter, output_shape)
    with graph.as_default(), graph.name_scope(name or f"conv{dims}d_transpose") as scope:
        own = attributes(dims, strides, padding, dilations, data_format)
        dy, filter = tensor(dy, "value"), tensor(filter, "filter")
        like = creation.zeros(extents(output_shape), dy.dtype, name="output_shape")
        return conv_grads.conv_input_grad(dy, filter, like, *own, name=scope)


def conv1d_transpose(
    input: Any, filters: Any, output_shape: Any, strides: Any, padding: Any = "SAME",
    data_format: str | None = None, dilations: Any = None, name: Name = None,
) -> Any:  # fmt: skip
    """The gradient of ``conv1d`` for its input, as an operation: filters [taps, co, c]."""
    return _conv_transpose(1, input, filters, output_shape, strides, padding, data_format, name,
                           dilations)  # fmt: skip


def _conv_transpose_of_axes(dims: int) -> Callable[..., Any]:
    word, taps = f"conv{dims}d_transpose", "taps, " * dims

    @titled(
        word,
        f"The gradient of ``conv{dims}d`` for its input, as an operation: filter [{taps}co, c].",
    )
    def function(
        value: Any = None, filter: Any = None, output_shape: Any = None, strides: Any = None,
        padding: Any = "SAME", data_format: str = FORMATS[dims][0], name: Name = None,
        input: Any = None, filters: Any = None, dilations: Any = None,
    ) -> Any:  # fmt: skip
        value = one_of(value, input, "value", "input", word)
        filter = one_of(filter, filters, "filter", "filters", word)
        return _conv_transpose(dims, value, filter, output_shape, strides, padding, data_format,
                               name, dilations)  # fmt: skip

    return function


conv2d_transpose, conv3d_transpose = (_conv_transpose_of_axes(dims) for dims in (2, 3))


def conv2d_backprop_input(
    input_sizes: Any, filter: Any = None, out_backprop: Any = None, strides: Any = None,
    padding: Any = None, use_cudnn_on_gpu: bool = True, data_format: str = "NHWC",
    dilations: Any = None, name: Name = None, filters: Any = None,
) -> Any:  # fmt: skip
    """The gradient of ``conv2d`` for an input of shape ``input_sizes``."""
    filter = one_of(filter, filters, "filter", "filters", "conv2d_backprop_input")
    return conv2d_transpose(out_backprop, filter, input_sizes, strides, padding, data_format,
                            name or "Conv2DBackpropInput", dilations=dilations)  # fmt: skip


@scoped("Conv2DBackpropFilter")
def conv2d_backprop_filter(
    input: Any, filter_sizes: Any, out_backprop: Any, strides: Any, padding: Any,
    use_cudnn_on_gpu: bool = True, data_format: str = "NHWC", dilations: Any = None,
    name: Name = None,
) -> Any:  # fmt: skip
    """The gradient of ``conv2d`` for a filter of shape ``filter_sizes``."""
    input, dy = tensor(input), tensor(out_backprop)
    like = creation.zeros(extents(filter_sizes), input.dtype, name="filter_sizes")
    own = attributes(2, strides, padding, dilations, data_format)
    return conv_grads.conv_filter_grad(input, dy, like, *own, name=name)


def fused_batch_norm(
    x: Any, scale: Any, offset: Any, mean: Any = None, variance: Any = None,
    epsilon: float = 0.001, data_format: str = "NHWC", is_training: bool = True, name: Name = None,
) -> tuple[Any, Any, Any]:  # fmt: skip
    """Batch norm: result, mean, variance; those of the batch, or the given ones in inference."""
    graph = graph_of(x, scale, offset, mean, variance)
    epsilon = max(epsilon, 1.001e-5)  # the least that TensorFlow takes
    if is_training:
        if mean is not None or variance is not None:
            raise InvalidArgumentError(
                "Both 'mean' and 'variance' must be None if is_training is True."
            )
        return normalization.fused_batch_norm(  # type: ignore[no-any-return]
            x, scale, offset, epsilon, data_format, name=name or "FusedBatchNormV3"
        )
    if mean is None or variance is None:
        raise InvalidArgumentError("mean and variance are needed if is_training is False")
    with graph.as_default(), graph.name_scope(name or "FusedBatchNormV3") as scope:
        x, mean, variance = tensor(x), tensor(mean), tensor(variance)
        a, b, c, d = (
            per_channel(x, tensor(p), data_format) for p in (mean, variance, offset, scale)
        )
        y = normalization.batch_normalization(x, a, b, c, d, epsilon, (None,) * 6 + (scope,))
    return y, mean, variance


def per_channel(x: Any, values: Any, data_format: str) -> Any:
    """One number per channel in a shape that broadcasts against x."""
    if not channels_first(data_format):
        return values
    return movement.add_last_axes(values, (x.type.rank or len(data_format)) - 2)


def batch_normalization(
    x: Any, mean: Any, variance: Any, offset: Any, scale: Any, variance_epsilon: Any,
    name: Name = None,
) -> Any:  # fmt: skip
    """(x - mean) / sqrt(variance + variance_epsilon) * scale + offset."""
    graph = graph_of(x, mean, variance, offset, scale)
    with graph.as_default(), graph.name_scope(name or "batchnorm"):
        x, mean, variance = tensor(x), tensor(mean), tensor(variance)
        offset, scale = (None if p is None else tensor(p) for p in (offset, scale))
        last = "sub" if offset is None else "add_1"
        names = "add", "Rsqrt", "mul", "mul_1", "mul_2", "sub", last
        return normalization.batch_normalization(
            x, mean, variance, offset, scale, variance_epsilon, names
        )


def weighted_moments(
    x: Any, axes: Any, frequency_weights: Any, name: Name = None, keep_dims: Any = None,
    keepdims: Any = None,
) -> tuple[Any, Any]:  # fmt: skip
    """Mean and variance over ``axes`` of elements that count ``frequency_weights`` times."""
    keep = bool(one_of(keepdims, keep_dims, "keepdims", "keep_dims", "weighted_moments"))
    graph = graph_of(x, frequency_weights)
    with graph.as_default(), graph.name_scope(name or "weighted_moments"):
        x = tensor(x, "x")
        ones = creation.ones_like(x)
        weights = multiply(ones, cast(tensor(frequency_weights, "weights"), x.dtype))
        total = reduce_sum(weights, axes, True)
        mean = divide(reduce_sum(multiply(weights, x), axes, True), total)
        squares = multiply(weights, squared_difference(x, stop_gradient(mean)))
        variance = divide(reduce_sum(squares, axes, True), total)
        if keep:
            return mean, variance
        return movement.squeeze(mean, axes), movement.squeeze(variance, axes)


@scoped("LRN")
def lrn(
    input: Any, depth_radius: int = 5, bias: float = 1, alpha: float = 1, beta: float = 0.5,
    name: Name = None,
) -> Any:  # fmt: skip
    """input / (bias + alpha * sum of squares of near channels) ** beta."""
    return normalization.local_response_normalization(
        tensor(input), depth_radius, bias, alpha, beta, name
    )


@scoped("CRelu")
def crelu(features: Any, name: Name = None, axis: int = -1) -> Any:
    """relu(x) and relu(-x), joined along ``axis``."""
    features = tensor(features, "features")
    both = concat([features, negative(features, name="Neg")], axis)
    return relu(both, name=name)

