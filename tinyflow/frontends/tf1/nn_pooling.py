"""``tf.nn`` pooling: with TensorFlow-1's signatures, and kinds that only torch and ONNX have.

Main functions: ``max_pool``, ``avg_pool``, ``pool``, ``max_pool_with_argmax``, ``max_unpool``,
``lp_pool``, ``adaptive_avg_pool``, ``dilation2d``, ``extract_image_patches``.
May import core, ops, convert, nn_spatial.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tinyflow.core.dtype import as_dtype, int64
from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.titled import titled
from tinyflow.frontends.tf1.array_functions import one_of
from tinyflow.frontends.tf1.convert import extents, graph_of, scoped, tensor
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


class _Kind(NamedTuple):
    """One number of every window, in the words of TensorFlow's functions."""

    word: str
    function: Callable[..., Any]
    #: the default name of the node, by the number of spatial axes
    names: dict[int, str]
    #: what it gives, for ``help``
    gives: str

    def of(
        self, dims: int, value: Any, ksize: Any, strides: Any, padding: Any,
        data_format: str | None, name: Name,
    ) -> Any:  # fmt: skip
        return _pool(self.function, dims, value, ksize, strides, padding, data_format, None,
                     name or self.names[dims])  # fmt: skip

    def doc(self, dims: int) -> str:
        axes = ", ".join(FORMATS[dims][0].lower())
        return self.gives.format(f"every window of [{axes}]")


_MAX = _Kind("max_pool", pooling.max_pool, {1: "MaxPool1d", 2: "MaxPool", 3: "MaxPool3D"},
             "The largest element of {}.")  # fmt: skip
_AVG = _Kind("avg_pool", pooling.avg_pool, {1: "AvgPool1D", 2: "AvgPool", 3: "AvgPool3D"},
             "The mean of {}; padding does not count.")  # fmt: skip


def _pool_of_images(kind: _Kind) -> Callable[..., Any]:
    """The oldest form, which takes its input under two names."""

    @titled(kind.word, kind.doc(2))
    def function(
        value: Any = None, ksize: Any = None, strides: Any = None, padding: Any = None,
        data_format: str = "NHWC", name: Name = None, input: Any = None,
    ) -> Any:  # fmt: skip
        value = one_of(value, input, "value", "input", kind.word)
        return kind.of(2, value, ksize, strides, padding, data_format, name)

    return function


def _pool_of_axes(kind: _Kind, dims: int) -> Callable[..., Any]:
    @titled(f"{kind.word}{dims}d", kind.doc(dims))
    def function(
        input: Any, ksize: Any, strides: Any, padding: Any, data_format: str = FORMATS[dims][0],
        name: Name = None,
    ) -> Any:  # fmt: skip
        return kind.of(dims, input, ksize, strides, padding, data_format, name)

    return function


def _pool_by_rank(kind: _Kind) -> Callable[..., Any]:
    @titled(
        f"{kind.word}_nd",
        f"``{kind.word}`` of one to three spatial axes, as many as the input has.",
    )
    def function(
        input: Any, ksize: Any, strides: Any, padding: Any, data_format: str | None = None,
        name: Name = None,
    ) -> Any:  # fmt: skip
        with graph_of(input).as_default():
            input = tensor(input)
        dims = spatial_rank(input.type.rank, None, kind.word)
        return kind.of(dims, input, ksize, strides, padding, data_format, name)

    return function


max_pool, avg_pool = _pool_of_images(_MAX), _pool_of_images(_AVG)
max_pool1d, max_pool3d = (_pool_of_axes(_MAX, dims) for dims in (1, 3))
avg_pool1d, avg_pool3d = (_pool_of_axes(_AVG, dims) for dims in (1, 3))
max_pool_nd, avg_pool_nd = _pool_by_rank(_MAX), _pool_by_rank(_AVG)


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
    kinds = {"MAX": _MAX, "AVG": _AVG}
    if pooling_type not in kinds:
        raise InvalidArgumentError(f"unknown pooling_type {pooling_type!r}", choices=tuple(kinds))
    kind = kinds[pooling_type]
    rate = one_of(dilation_rate, dilations, "dilation_rate", "dilations", "pool")
    rest: dict[str, Any] = {"ceil": ceil_mode}
    if pooling_type == "AVG" and count_include_pad:
        rest["counted"] = "padded"
    return _pool(kind.function, len(window_shape), input, window_shape, strides, padding,
                 data_format, rate, name or kind.word, **rest)  # fmt: skip


@scoped("MaxPoolWithArgmax")
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
    x = tensor(input)
    dims = len(data_format) - 2
    own = attributes(dims, strides, padding, None, data_format)
    size = steps(ksize, dims, data_format, "ksize")
    y = pooling.max_pool(x, size, *own, name=name)
    dtype = output_dtype or Targmax or int64
    return y, pool_positions.max_positions(
        x, size, *own, within=_within(include_batch_in_index), dtype=dtype
    )


def _within(include_batch_in_index: bool) -> str:
    return "batch" if include_batch_in_index else "image"


@scoped("MaxUnpool")
def max_unpool(
    value: Any, argmax: Any, output_shape: Any, data_format: str = "NHWC",
    include_batch_in_index: bool = False, name: Name = None,
) -> Any:  # fmt: skip
    """Zeros of ``output_shape`` with ``value`` put back at ``argmax``: the inverse of
    ``max_pool_with_argmax`` and ``adaptive_max_pool``, whose positions it takes.

    Where windows overlap and chose one element, the last value put there stays.
    """
    return pool_positions.max_unpool(
        tensor(value), tensor(argmax), extents(output_shape), _within(include_batch_in_index),
        data_format, name=name,
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


@scoped("AdaptiveAvgPool")
def adaptive_avg_pool(
    input: Any, output_size: Any, data_format: str | None = None, name: Name = None
) -> Any:
    """The means of ``output_size`` windows per spatial axis, as equal as they can be (torch)."""
    own = _counts(output_size, data_format)
    return adaptive_pooling.adaptive_avg_pool(tensor(input), *own, name=name)


@scoped("AdaptiveMaxPool")
def adaptive_max_pool(
    input: Any, output_size: Any, data_format: str | None = None,
    include_batch_in_index: bool = False, output_dtype: Any = int64, name: Name = None,
) -> tuple[Any, Any]:  # fmt: skip
    """The largest elements of ``output_size`` windows per spatial axis (torch), and where they lie,
    counted as in ``max_pool_with_argmax``."""
    own = _counts(output_size, data_format)
    return adaptive_pooling.adaptive_max_pool(
        tensor(input), *own, _within(include_batch_in_index), as_dtype(output_dtype), name
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


@scoped("erosion2d")
def erosion2d(
    value: Any, kernel: Any, strides: Any, rates: Any, padding: Any, name: Name = None
) -> Any:
    """Smallest value - kernel of every window, the kernel turned around."""
    turned = reverse(tensor(kernel, "kernel"), (0, 1), name="ReverseV2")
    least = negative(tensor(value, "value"), name="Neg")
    own = attributes(2, strides, padding, rates, "NHWC")[:3]
    return negative(morphology.dilation2d(least, turned, *own, name), name="Neg")


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
