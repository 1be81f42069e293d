"""Windows of an image side by side (im2col), and their sum back into an image (col2im).

Main types: ``Patches``, ``PatchesGrad``, each the gradient of the other. May import ops.base,
pool_windows and pooling. Shapes: x: [n, h.., c], patches: [n, o.., taps * c].
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow import te
from tinyflow.core.dtype import float32
from tinyflow.core.error import DTypeError, InvalidArgumentError, ShapeError, Unsupported
from tinyflow.ops.base import Sample, TensorType, Value, emit, ranged
from tinyflow.ops.padding import inside_all
from tinyflow.ops.pool_windows import PoolOp
from tinyflow.ops.windows import channels_first, check_windows

#: shape of x, attributes
CASES: tuple[Any, ...] = (
    ((2, 6, 5, 3), ((2, 3), (2, 1), "SAME")),
    ((1, 9, 8, 2), ((3, 2), (1, 2), "VALID", (2, 3))),
    ((2, 5, 4, 1), ((2, 2), (1, 1), ((1, 0), (0, 2)))),
    ((1, 5, 6, 17), ((1, 1), (2, 3))),
    ((3, 10, 2), ((4,), (3,), "SAME", (1,), "NWC")),
    ((1, 4, 5, 3, 2), ((2, 2, 3), (2, 1, 1), "SAME", (1, 1, 1), "NDHWC")),
    ((0, 4, 4, 2), ((2, 2), (1, 1))),
)


@dataclass(frozen=True)
class PatchOp(PoolOp, abstract=True):
    """What the two share: the windows of a pooling op; channels last."""

    def patch_type(self, x: TensorType) -> TensorType:
        """Errors: InvalidArgumentError for channels that come second, and those of a pooling op."""
        if len(self.data_format) > 1 and channels_first(self.data_format):
            raise InvalidArgumentError(
                f"patches of an image in {self.data_format}", expected="channels last"
            )
        result = self.output_type(x)
        if result.shape is None:
            return result
        return result.with_shape((*result.shape[:-1], result.shape[-1] * len(self.taps)))


@dataclass(frozen=True)
class Patches(PatchOp):
    """y[n, o, t * channels + c] = x[n, o*stride + t*dilation - before, c], 0 outside.

    x: number[n, h.., c]     y: [n, o.., taps * c]; taps count rows before columns
    Gradient: PatchesGrad       Errors: ShapeError, DTypeError, InvalidArgumentError; Unsupported
    where the channels are not known
    """

    def infer(self, images: TensorType) -> TensorType:
        return self.patch_type(images.require_number())

    def reference(self, x: Any) -> Any:
        padded, sizes = self.arrays(np.asarray(x), 0)
        return np.concatenate([self.seen(padded, sizes, tap) for tap in self.taps], axis=-1)

    def compute(self, x: te.Tensor) -> te.Tensor:
        channels = x.shape[-1]
        if type(channels) is not int:
            raise Unsupported("patches of an image with an unknown number of channels",
                              hint="give the placeholder its last extent")  # fmt: skip
        lines = self.lines(x.shape)
        shape = (x.shape[0], *(line.count for line in lines), len(self.taps) * channels)

        def element(*axes: Any) -> Any:
            tap, channel = axes[-1] // channels, axes[-1] % channels
            at: list[Any] = []
            fits: list[Any] = []
            for d in reversed(range(len(lines))):
                own, tap = (tap % lines[d].size, tap // lines[d].size) if d else (tap, tap)
                at.insert(0, lines[d].position(axes[d + 1], own))
                fits += lines[d].inside(at[0])
            here = x[(axes[0], *at, channel)]
            return te.select(inside_all(fits), here, te.const(0, x.dtype)) if fits else here

        return te.compute(shape, element, "patches")

    def vjp(self, dy: Value, y: Value, x: Value) -> tuple[Any, ...]:
        return (emit(PatchesGrad(*self.attributes_of()), dy, x),)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            yield Sample((ranged(rng, shape, "float", -2, 2),), Patches(*own))
        yield Sample((rng.integers(-9, 9, (2, 5, 4, 3)).astype(np.int32),), Patches())

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 5, 4, 3), np.float32)
        yield (x[0],), ShapeError
        yield (x[:, :1],), ShapeError
        yield Sample((x,), Patches(data_format="NCHW")), InvalidArgumentError
        yield Sample((x,), Patches((2,))), InvalidArgumentError


@dataclass(frozen=True)
class PatchesGrad(PatchOp):
    """dx[n, h, c] = sum over the windows o and taps t that fall on h of dy[n, o, t * channels + c].

    dy: number[n, o.., taps * c]   like: the image, only its shape matters    dx: type of like
    Gradient: Patches     Errors: ShapeError, DTypeError
    """

    def infer(self, dy: TensorType, like: TensorType) -> TensorType:
        dy.require_number()
        check_windows(self.patch_type(like), dy, "dy")
        return like

    def reference(self, dy: Any, like: Any) -> Any:
        padded, sizes = self.arrays(np.zeros(np.shape(like), dy.dtype), 0)
        for tap, part in zip(self.taps, np.split(dy, len(self.taps), axis=-1), strict=True):
            self.seen(padded, sizes, tap)[...] += part
        return self.middle(padded, like)

    def compute(self, dy: te.Tensor, like: te.Tensor) -> te.Tensor:
        channels = like.shape[-1]

        def element(at: tuple[Any, ...], tap: Any) -> Any:
            return dy[(*at[:-1], tap * channels + at[-1])]

        return self.gathered(dy, like, element, "patches_grad")

    def vjp(self, dz: Value, z: Value, dy: Value, like: Value) -> tuple[Any, ...]:
        return emit(Patches(*self.attributes_of()), dz), None

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for shape, own in CASES:
            y: Any = Patches(*own).infer(TensorType(float32, shape)).shape
            arrays = ranged(rng, y, "float", -1, 1), np.zeros(shape, np.float32)
            yield Sample(arrays, PatchesGrad(*own), ulp=8.0, scale=4.0)

    def bad_samples(self) -> Iterable[Any]:
        x = np.zeros((2, 4, 6, 3), np.float32)
        yield (x, x), ShapeError
        yield (x > 0, x > 0), DTypeError


def patches(
    x: Any, size: Any, strides: Any, padding: Any = "VALID", dilations: Any = (1, 1),
    data_format: str = "NHWC", name: str | None = "ExtractImagePatches",
) -> Any:  # fmt: skip
    """Windows of an image side by side. See Patches."""
    op = Patches(tuple(size), tuple(strides), padding, tuple(dilations), data_format)
    return emit(op, x, name=name)
