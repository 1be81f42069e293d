"""Windows that slide over the spatial axes of an image: their extents, paddings and positions.

Main functions: ``output_extent``, ``pad_pair``, ``spatial_axes``. May import core and te.

Along one axis of extent h, window o covers the positions o*stride - before + tap*dilation for
tap < size. Data formats: "NHWC" has the channels last, "NCHW" second; likewise "NWC" ... "NCDHW".
"""

from __future__ import annotations

from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.error import InvalidArgumentError, ShapeError, TinyFlowError, Unsupported
from tinyflow.core.shape import merge_shapes, show

#: "SAME", "VALID", or (before, after) for each spatial axis
Padding = Any

FORMATS = {1: ("NWC", "NCW"), 2: ("NHWC", "NCHW"), 3: ("NDHWC", "NCDHW")}


def channels_first(data_format: str) -> bool:
    return data_format[1] == "C"


def channel_axis(data_format: str) -> int:
    """The axis of the channels of an array in this format."""
    return 1 if channels_first(data_format) else len(data_format) - 1


def spatial_axes(data_format: str) -> tuple[int, ...]:
    first = 2 if channels_first(data_format) else 1
    return tuple(range(first, first + len(data_format) - 2))


def assemble(data_format: str, batch: Any, places: Any, channels: Any) -> tuple[Any, ...]:
    """A shape or an index in the order of the format; each part is a sequence."""
    if channels_first(data_format):
        return (*batch, *channels, *places)
    return (*batch, *places, *channels)


def check_attributes(
    strides: tuple[int, ...], padding: Padding, dilations: tuple[int, ...], data_format: str
) -> None:
    """Errors: InvalidArgumentError, for what no input could make right."""
    dims = len(strides)
    if data_format not in FORMATS.get(dims, ()):
        raise InvalidArgumentError(
            f"unknown data_format {data_format!r} for {dims} spatial axes",
            choices=FORMATS.get(dims, ()),
        )
    for word, steps in (("strides", strides), ("dilations", dilations)):
        if len(steps) != dims or any(s < 1 for s in steps):
            raise InvalidArgumentError(f"{word} must be {dims} numbers >= 1, got {steps}")
    if isinstance(padding, str):
        if padding not in ("SAME", "VALID"):
            raise InvalidArgumentError(f"unknown padding {padding!r}", choices=("SAME", "VALID"))
    elif len(padding) != dims or any(len(pair) != 2 or min(pair) < 0 for pair in padding):
        raise InvalidArgumentError(
            f"explicit padding must be (before, after) >= 0 for each spatial axis, got {padding}"
        )


def require_shape(given: Any, wanted: Any, problem: str, expected: str) -> None:
    """Errors: ShapeError when the type ``given`` has not the shape of ``wanted``, which ends the
    line of what is expected."""
    try:
        merge_shapes(wanted.shape, given.shape)
    except TinyFlowError:
        raise ShapeError(problem, expected=f"{expected} {show(wanted.shape)}") from None


def check_windows(wanted: Any, given: Any, what: str) -> None:
    """Errors: ShapeError when ``given`` has not the shape of ``wanted``."""
    require_shape(
        given, wanted, f"{what} has shape {show(given.shape)}", "one element per window:"
    )


def padding_of(padding: Padding, axis: int) -> Any:
    """The padding of one spatial axis: "SAME" or a pair."""
    if padding == "SAME":
        return "SAME"
    return (0, 0) if padding == "VALID" else padding[axis]


def output_extent(
    extent: Any, size: int, stride: int, dilation: int, padding: Any, ceil: bool = False
) -> Any:
    """Number of windows along an axis. Errors: ShapeError when a window does not fit.

    SAME: ceil(extent / stride); otherwise floor((extent + before + after - reach) / stride) + 1,
    with reach = (size - 1) * dilation + 1. ceil: the quotient is rounded up, but no window begins
    behind the last element (what torch and ONNX call ceil_mode).
    """
    if padding == "SAME":
        return (extent + (stride - 1)) // stride
    reach = (size - 1) * dilation + 1
    room = extent + (padding[0] + padding[1] - reach)
    if type(room) is int and room < 0:
        raise ShapeError(
            f"a window of {reach} does not fit into {extent + padding[0] + padding[1]} positions",
            expected=f"an extent of at least {reach} with the padding",
            hint='padding="SAME" adds the zeros that are missing',
        )
    if not ceil:
        return room // stride + 1
    # min(ceil(room / stride) + 1, ceil((extent + before) / stride)), the minimum drawn inside.
    last = padding[0] + min(padding[1] + stride - reach, 0)
    return (extent + (last + stride - 1)) // stride


def pad_pair(extent: Any, size: int, stride: int, dilation: int, padding: Any) -> tuple[int, int]:
    """Zeros before and after an axis; SAME puts the odd one behind, as TensorFlow does.

    Errors: Unsupported for SAME with a stride when the extent is not known.
    """
    if padding != "SAME":
        return tuple(padding)  # type: ignore[return-value]
    reach = (size - 1) * dilation + 1
    if stride == 1:
        total = reach - 1
    elif type(extent) is int:
        total = max((-(-extent // stride) - 1) * stride + reach - extent, 0)
    else:
        raise Unsupported(
            f'padding="SAME" with stride {stride} needs a known extent, got {extent}',
            hint="give the placeholder its height and width",
        )
    return total // 2, total - total // 2


def before(extent: Any, size: int, stride: int, dilation: int, padding: Any) -> Any:
    """``pad_pair(...)[0]``, as an expression where the extent is one."""
    if type(extent) is int or padding != "SAME" or stride == 1:
        return pad_pair(extent, size, stride, dilation, padding)[0]
    count = (extent + (stride - 1)) // stride
    total = (count - 1) * stride + ((size - 1) * dilation + 1) - extent
    return te.maximum(total, te.index(0)) // 2


def to_last(array: Any, data_format: str) -> Any:
    """A NumPy view with the channels last."""
    return np.moveaxis(array, 1, -1) if channels_first(data_format) else np.asarray(array)


def from_last(array: Any, data_format: str) -> Any:
    return np.moveaxis(array, -1, 1) if channels_first(data_format) else array


def covered(
    tap: tuple[int, ...], sizes: Any, strides: Any, dilations: Any, begin: Any = None
) -> tuple[slice, ...]:
    """NumPy index of the positions that ``tap`` of every window falls on, channels last."""
    begin = begin or (0,) * len(tap)
    own = zip(begin, tap, sizes, strides, dilations, strict=True)
    return (
        slice(None),
        *(slice(b + t * r, b + t * r + (n - 1) * s + 1 if n > 0 else b + t * r, s)
          for b, t, n, s, r in own),
    )  # fmt: skip
