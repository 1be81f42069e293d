"""``tf.nn`` pooling: with TensorFlow-1's signatures, and kinds that only torch and ONNX have.

Main functions: ``max_pool``, ``avg_pool``, ``pool``, ``max_pool_with_argmax``, ``max_unpool``,
``lp_pool``, ``adaptive_avg_pool``, ``dilation2d``, ``extract_image_patches``.
May import core, ops, convert, nn_spatial.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinyflow.core.dtype import as_dtype, int64
from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1.array_functions import one_of
from tinyflow.frontends.tf1.convert import extents, graph_of, tensor
from tinyflow.frontends.tf1.nn_spatial import Name, attributes, spatial_rank, steps
from tinyflow.ops import adaptive_pooling, lp_pooling, morphology, pool_positions, pooling
from tinyflow.ops.elementwise import negative
from tinyflow.ops.movement import reverse
from tinyflow.ops.patches import patches
from tinyflow.ops.windows import FORMATS


def _pool(
    kind: Any, dims: int, value: Any, ksize: Any, strides: Any, padding: Any,
    data_format: str | None, dilations: Any, name: Name, **rest: Any,
) -> Any:  # fmt: skip
    own = attributes(dims, strides, padding, dilations, data_format)
    size = steps(ksize, dims, own[-1], "ksize")
    return kind(value, size, *own, name=name, **rest)


def max_pool(
    value: Any = None, ksize: Any = None, strides: Any = None, padding: Any = None,
    data_format: str = "NHWC", name: Name = None, input: Any = None,
) -> Any:  # fmt: skip
    """The largest element of every window of [n, h, w, c]."""
    value = one_of(value, input, "value", "input", "max_pool")
    return _pool(pooling.max_pool, 2, value, ksize, strides, padding, data_format, None,
                 name or "MaxPool")  # fmt: skip


def avg_pool(
    value: Any = None, ksize: Any = None, strides: Any = None, padding: Any = None,
    data_format: str = "NHWC", name: Name = None, input: Any = None,
) -> Any:  # fmt: skip
    """The mean of every window of [n, h, w, c]; padding does not count."""
    value = one_of(value, input, "value", "input", "avg_pool")
    return _pool(pooling.avg_pool, 2, value, ksize, strides, padding, data_format, None,
                 name or "AvgPool")  # fmt: skip


def max_pool1d(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = "NWC", name: Name = None
) -> Any:
    """The largest element of every window of [n, w, c]."""
    return _pool(pooling.max_pool, 1, input, ksize, strides, padding, data_format, None,
                 name or "MaxPool1d")  # fmt: skip


def avg_pool1d(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = "NWC", name: Name = None
) -> Any:
    """The mean of every window of [n, w, c]."""
    return _pool(pooling.avg_pool, 1, input, ksize, strides, padding, data_format, None,
                 name or "AvgPool1D")  # fmt: skip


def max_pool3d(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = "NDHWC",
    name: Name = None,
) -> Any:  # fmt: skip
    """The largest element of every window of [n, d, h, w, c]."""
    return _pool(pooling.max_pool, 3, input, ksize, strides, padding, data_format, None,
                 name or "MaxPool3D")  # fmt: skip


def avg_pool3d(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = "NDHWC",
    name: Name = None,
) -> Any:  # fmt: skip
    """The mean of every window of [n, d, h, w, c]."""
    return _pool(pooling.avg_pool, 3, input, ksize, strides, padding, data_format, None,
                 name or "AvgPool3D")  # fmt: skip


def max_pool_nd(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str | None = None,
    name: Name = None,
) -> Any:  # fmt: skip
    """``max_pool`` of one to three spatial axes, as many as the input has."""
    return _pool_by_rank("max_pool", input, ksize, strides, padding, data_format, name)


def avg_pool_nd(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str | None = None,
    name: Name = None,
) -> Any:  # fmt: skip
    """``avg_pool`` of one to three spatial axes, as many as the input has."""
    return _pool_by_rank("avg_pool", input, ksize, strides, padding, data_format, name)


def _pool_by_rank(
    kind: str, input: Any, ksize: Any, strides: Any, padding: Any, data_format: str | None,
    name: Name,
) -> Any:  # fmt: skip
    with graph_of(input).as_default():
        input = tensor(input)
    dims = spatial_rank(input.type.rank, None, kind)
    title = {"max_pool": "MaxPool", "avg_pool": "AvgPool"}[kind] + ("", "1D", "", "3D")[dims]
    return _pool(getattr(pooling, kind), dims, input, ksize, strides, padding, data_format, None,
                 name or title)  # fmt: skip


def pool(
    input: Any, window_shape: Sequence[int], pooling_type: str, padding: Any,
    dilation_rate: Any = None, strides: Any = None, name: Name = None,
    data_format: str | None = None, dilations: Any = None, *, ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Any:  # fmt: skip
    """Pooling of one to three spatial axes; pooling_type "MAX" or "AVG".

    Not in TensorFlow, in torch's and ONNX's meaning: ceil_mode (a last window may reach beyond the
    end), count_include_pad (a mean counts the padding's zeros).
    """
    kinds = {"MAX": (pooling.max_pool, "max_pool"), "AVG": (pooling.avg_pool, "avg_pool")}
    if pooling_type not in kinds:
        raise InvalidArgumentError(f"unknown pooling_type {pooling_type!r}", choices=tuple(kinds))
    kind, default = kinds[pooling_type]
    rate = one_of(dilation_rate, dilations, "dilation_rate", "dilations", "pool")
    rest: dict[str, Any] = {"ceil": ceil_mode}
    if pooling_type == "AVG" and count_include_pad:
        rest["counted"] = "padded"
    return _pool(kind, len(window_shape), input, window_shape, strides, padding, data_format, rate,
                 name or default, **rest)  # fmt: skip


def max_pool_with_argmax(
    input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = "NHWC",
    Targmax: Any = None, name: Name = None, output_dtype: Any = None,
    include_batch_in_index: bool = False,
) -> tuple[Any, Any]:  # fmt: skip
    """``max_pool``, and where each first largest element lies: (h * width + w) * channels + c
    within its image, or with include_batch_in_index the same counted through all images.

    Other formats than TensorFlow's NHWC, and one or three spatial axes, count row by row, too, in
    the order in which the format stores the elements.
    """
    graph = graph_of(input)
    with graph.as_default(), graph.name_scope(name or "MaxPoolWithArgmax") as scope:
        x = tensor(input)
        dims = len(data_format) - 2
        own = attributes(dims, strides, padding, None, data_format)
        size = steps(ksize, dims, data_format, "ksize")
        y = pooling.max_pool(x, size, *own, name=scope)
        dtype = output_dtype or Targmax or int64
        return y, pool_positions.max_positions(
            x, size, *own, within=_within(include_batch_in_index), dtype=dtype
        )


def _within(include_batch_in_index: bool) -> str:
    return "batch" if include_batch_in_index else "image"


def max_unpool(
    value: Any, argmax: Any, output_shape: Any, data_format: str = "NHWC",
    include_batch_in_index: bool = False, name: Name = None,
) -> Any:  # fmt: skip
    """Zeros of ``output_shape`` with ``value`` put back at ``argmax``: the inverse of
    ``max_pool_with_argmax`` and ``adaptive_max_pool``, whose positions it takes.

    Where windows overlap and chose one element, the last value put there stays.
    """
    graph = graph_of(value, argmax, output_shape)
    with graph.as_default(), graph.name_scope(name or "MaxUnpool") as scope:
        return pool_positions.max_unpool(
            tensor(value), tensor(argmax), extents(output_shape),
            _within(include_batch_in_index), data_format, name=scope,
        )  # fmt: skip


def lp_pool(
    input: Any, window_shape: Sequence[int], p: float = 2.0, padding: Any = "VALID",
    strides: Any = None, dilations: Any = None, data_format: str | None = None,
    ceil_mode: bool = False, name: Name = None,
) -> Any:  # fmt: skip
    """(sum of |x| ** p over every window) ** (1 / p), for one to three spatial axes (ONNX LpPool).

    The norm of a whole image is ``tf.norm(x, p, axis, keepdims=True)``.
    """
    return _pool(lp_pooling.lp_pool, len(window_shape), input, window_shape, strides, padding,
                 data_format, dilations, name or "LpPool", p=p, ceil=ceil_mode)  # fmt: skip


def _counts(output_size: Any, data_format: str | None) -> tuple[tuple[int, ...], str]:
    """The number of windows per spatial axis, and the format. Errors: InvalidArgumentError"""
    if isinstance(output_size, int):
        output_size = (output_size,) * (2 if data_format is None else len(data_format) - 2)
    counts = tuple(int(k) for k in output_size)
    if len(counts) not in FORMATS:
        raise InvalidArgumentError(f"output_size {counts}", expected="one to three numbers")
    return counts, data_format or FORMATS[len(counts)][0]


def adaptive_avg_pool(
    input: Any, output_size: Any, data_format: str | None = None, name: Name = None
) -> Any:
    """The means of ``output_size`` windows per spatial axis, as equal as they can be (torch)."""
    graph = graph_of(input)
    with graph.as_default(), graph.name_scope(name or "AdaptiveAvgPool") as scope:
        own = _counts(output_size, data_format)
        return adaptive_pooling.adaptive_avg_pool(tensor(input), *own, name=scope)


def adaptive_max_pool(
    input: Any, output_size: Any, data_format: str | None = None,
    include_batch_in_index: bool = False, output_dtype: Any = int64, name: Name = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The largest elements of ``output_size`` windows per spatial axis (torch), and where they lie,
    counted as in ``max_pool_with_argmax``."""
    graph = graph_of(input)
    with graph.as_default(), graph.name_scope(name or "AdaptiveMaxPool") as scope:
        own = _counts(output_size, data_format)
        return adaptive_pooling.adaptive_max_pool(
            tensor(input), *own, _within(include_batch_in_index), as_dtype(output_dtype), scope
        )


def dilation2d(
    input: Any, filter: Any = None, strides: Any = None, rates: Any = None, padding: Any = None,
    name: Name = None, filters: Any = None, dilations: Any = None,
) -> Any:  # fmt: skip
    """Largest input + filter of every window: input [n, h, w, c], filter [taps, taps, c]."""
    filter = one_of(filter, filters, "filter", "filters", "dilation2d")
    rates = one_of(rates, dilations, "rates", "dilations", "dilation2d")
    graph = graph_of(input, filter)
    with graph.as_default():
        own = attributes(2, strides, padding, rates, "NHWC")[:3]
        return morphology.dilation2d(tensor(input), tensor(filter), *own, name or "Dilation2D")


def erosion2d(
    value: Any, kernel: Any, strides: Any, rates: Any, padding: Any, name: Name = None
) -> Any:
    """Smallest value - kernel of every window, the kernel turned around."""
    graph = graph_of(value, kernel)
    with graph.as_default(), graph.name_scope(name or "erosion2d") as scope:
        turned = reverse(tensor(kernel, "kernel"), (0, 1), name="ReverseV2")
        least = negative(tensor(value, "value"), name="Neg")
        own = attributes(2, strides, padding, rates, "NHWC")[:3]
        return negative(morphology.dilation2d(least, turned, *own, scope), name="Neg")


def extract_image_patches(
    images: Any, ksizes: Any = None, strides: Any = None, rates: Any = None, padding: Any = None,
    name: Name = None, sizes: Any = None,
) -> Any:  # fmt: skip
    """Windows of [n, h, w, c] side by side: [n, o, o, taps * taps * c]."""
    ksizes = one_of(ksizes, sizes, "ksizes", "sizes", "extract_image_patches")
    return _patches(2, images, ksizes, strides, rates, padding, name or "ExtractImagePatches")


def extract_patches(
    images: Any, sizes: Any, strides: Any, rates: Any, padding: Any, name: Name = None
) -> Any:
    """``extract_image_patches`` under its later name."""
    return extract_image_patches(images, sizes, strides, rates, padding, name)


def extract_volume_patches(
    input: Any, ksizes: Any, strides: Any, padding: Any, name: Name = None
) -> Any:
    """Windows of [n, d, h, w, c] side by side: [n, o, o, o, taps * taps * taps * c]."""
    return _patches(3, input, ksizes, strides, None, padding, name or "ExtractVolumePatches")


def _patches(
    dims: int, images: Any, size: Any, strides: Any, rates: Any, padding: Any, name: Name
) -> Any:
    own = attributes(dims, strides, padding, rates, None)
    return patches(images, steps(size, dims, own[-1], "sizes"), *own, name=name)
