# mypy: disable-error-code="misc, override"
"""Convolutions in forms that take fewer products.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.shape import is_static
from tinyflow.ops import convolution
from tinyflow.ops.conv_grads import ConvInputGrad
from tinyflow.ops.convolution import Conv
from tinyflow.ops.winograd import F2, F4, WinogradTile, winograd_conv, winograd_input_grad
from tinyflow.passes.rules.layout import with_holes
from tinyflow.rewrite.rule import Approximate, Match, Rule

#: Operations of a matrix product that take as long as moving one byte: 230 GFLOP/s and 22 GB/s on
#: two cores. Both grow with the machine, so the choice depends on shapes only.
OPERATIONS_PER_BYTE = 10.5
#: Bytes of transformed image and products that no cache holds, and how much longer such ones take:
#: a transformation is several kernels, whose values in between go to memory, too.
LARGE_BYTES, LARGE_FACTOR = 32 << 20, 2.2
#: The direct form must take so much longer.
GAIN = 1.2


def direct_cost(n: int, places: int, c: int, k: int) -> float:
    """Operations of the direct form; places: results per image and channel."""
    return 2.0 * 9 * n * places * c * k


def tiled_cost(
    tile: WinogradTile, n: int, extents: tuple[int, int], c: int, k: int, size_bytes: int
) -> float:
    """Operations of the tiled form, and the operations that run while its parts go to memory and
    back: the transformed image, the products and the transformed filter."""
    tiles = n
    for extent in extents:
        tiles *= -(-extent // tile.size)
    points = (tile.size + 2) ** 2
    parts = size_bytes * points * tiles * (c + k)
    moved = 2 * parts * (LARGE_FACTOR if parts > LARGE_BYTES else 1)
    moved += 2 * size_bytes * points * c * k
    # An operation on float64 takes as long as two on float32, like its bytes.
    return 2.0 * points * tiles * c * k + moved * OPERATIONS_PER_BYTE * 4 / size_bytes


def best_tile(
    n: int, extents: tuple[int, int], c: int, k: int, size_bytes: int
) -> WinogradTile | None:
    """The cheapest tiled form, None where the direct one is not clearly slower."""
    cost, tile = min(
        ((tiled_cost(t, n, extents, c, k, size_bytes), t) for t in (F2, F4)),
        key=lambda found: found[0],
    )
    direct = direct_cost(n, extents[0] * extents[1], c, k)
    return tile if direct > GAIN * cost else None


class TiledConvolution(Rule):
    """conv(x, 3x3 filter) without stride -> Winograd's minimal filtering; the gradient for x, too

    Why: 2.25 or 4 times fewer products. 3x3 convolutions of ResNet-50 and VGG, 4 images, take 0.4
    to 0.7 of the direct form's time where many tiles share one transformed filter.
    Why Approximate: for 4x4 tiles the error is about 7 times that of the direct form, relative to
    the largest elements of a tile (for 2x2 tiles it is smaller than the direct form's); and one
    infinite element reaches the whole tile.
    """

    contract = Approximate

    def example(x="float32[4, 28, 28, 64]", w="float32[3, 3, 64, 64]"):  # type: ignore[no-untyped-def]
        return convolution.conv(x, w, padding="SAME")

    def pattern(x, w, like):  # type: ignore[no-untyped-def]
        return [with_holes(Conv, x, w), with_holes(ConvInputGrad, x, w, like)]

    def check(m: Match) -> str | None:
        op, image = m.node.op, _image(m)
        if op.data_format != "NHWC" or set(op.strides + op.dilations) != {1}:
            return "stride, dilation or channels first"
        if not (is_static(image.shape) and is_static(m.w.type.shape)):
            return "unknown extents"
        if m.w.type.shape[:2] != (3, 3) or m.w.type.shape[2] != image.shape[-1]:
            return "no 3x3 filter of all channels"
        if not image.dtype.is_floating or max(map(max, op.pads(image.shape, (3, 3)))) > 2:
            return "integers, or padding beyond the filter"
        if 0 in image.shape or 0 in m.root.type.shape:
            return "nothing to compute"
        return None if _tile(m) else "the direct form moves less memory"

    def rewrite(m: Match) -> Any:
        pads, tile = m.node.op.pads(_image(m).shape, (3, 3)), _tile(m)
        assert tile is not None
        if isinstance(m.node.op, Conv):
            return winograd_conv(m.x, m.w, pads, tile)
        return winograd_input_grad(m.x, m.w, pads, tile)


def _image(m: Match) -> Any:
    """The type of the convolution's input."""
    return m.x.type if isinstance(m.node.op, Conv) else m.like.type


def _tile(m: Match) -> WinogradTile | None:
    n, *extents, made = m.root.type.shape
    read = m.x.type.shape[-1]
    return best_tile(n, tuple(extents), read, made, m.root.type.dtype.size_bytes)


RULES: list[Any] = [TiledConvolution]
