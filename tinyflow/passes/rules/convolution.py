# mypy: disable-error-code="misc, override"
"""Convolutions in forms that take fewer products, and in the form that the user asks for.

Main names: ``RULES``, ``best_tiling``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, NamedTuple

from tinyflow.core import options
from tinyflow.core.shape import is_static
from tinyflow.ops import conv_forms, convolution
from tinyflow.ops.conv_forms import Tiling
from tinyflow.ops.conv_grads import ConvFilterGrad, ConvInputGrad
from tinyflow.ops.convolution import Conv
from tinyflow.ops.windows import channels_first
from tinyflow.passes.rules.layout import with_holes
from tinyflow.rewrite.rule import Approximate, Match, RealEqual, Rule

#: Operations of a matrix product that take as long as moving one byte: 230 GFLOP/s and 22 GB/s on
#: two cores. Both grow with the machine, so the choice depends on shapes only.
OPERATIONS_PER_BYTE = 10.5
#: Bytes of transformed image and products that no cache holds, and how much longer such ones take:
#: they go to memory between the kernels.
LARGE_BYTES, LARGE_FACTOR = 32 << 20, 2.2
#: The direct form must take so much longer.
GAIN = 1.2
#: Elements of a tile along one axis: Winograd's, and lengths with small factors for Fourier's.
WINOGRAD_POINTS = (4, 6)
FOURIER_POINTS = (8, 12, 16, 20, 24, 32, 48, 64)
#: A tile with one vector of channels fits into the second cache; one of at most NEAR_POINTS into
#: the first, and others take so much longer per byte.
MOST_POINTS, NEAR_POINTS, FAR_FACTOR = 1024, 640, 2


class Work(NamedTuple):
    """A convolution without stride, or one of its gradients.

    sizes: results per image that are computed tile by tile; taps: of the filter; size_bytes: of an
    element. gradient: "input", "filter" or none: their products read one factor transposed.
    """

    n: int
    sizes: tuple[int, ...]
    taps: tuple[int, ...]
    c: int
    k: int
    size_bytes: int
    gradient: str = ""

    @property
    def direct_cost(self) -> float:
        """Operations of the direct form."""
        return 2.0 * self.n * math.prod((*self.sizes, *self.taps, self.c, self.k))

    def tiled_cost(self, tiling: Tiling) -> float:
        """Operations of the tiled form, and the operations that run while its parts go to memory
        and back: the transformed image, the products and the transformed filter."""
        tiles = self.n * math.prod(tiling.tiles(self.sizes, self.taps))
        parts = self.size_bytes * tiling.planes * tiles * (self.c + self.k)
        moved = 2 * parts * (LARGE_FACTOR if parts > LARGE_BYTES else 1)
        weights = self.size_bytes * tiling.planes * self.c * self.k
        moved += 2 * weights
        if self.gradient:  # the factor is packed
            pixels = self.size_bytes * tiling.planes * tiles * self.c
            moved += weights if self.gradient == "input" else pixels
        if math.prod(tiling.points) > NEAR_POINTS:
            moved *= FAR_FACTOR
        # An operation on float64 takes as long as two on float32, like its bytes.
        own = 2.0 * tiling.planes * tiles * self.c * self.k
        return own + moved * OPERATIONS_PER_BYTE * 4 / self.size_bytes


def tilings(algorithm: str, taps: tuple[int, ...]) -> list[Tiling]:
    """All tiles that the algorithm knows for such a filter."""
    if algorithm == "winograd":
        return [Tiling(algorithm, (p, p)) for p in WINOGRAD_POINTS] if taps == (3, 3) else []
    lengths = [[p for p in FOURIER_POINTS if p > f] if f > 1 else [1] for f in taps]
    found = itertools.product(*lengths)
    return [Tiling(algorithm, p) for p in found if 1 < math.prod(p) <= MOST_POINTS]


def best_tiling(algorithm: str, work: Work) -> tuple[Tiling, float] | None:
    """The cheapest tiled form and its cost, None where the algorithm has none."""
    found = [(t, work.tiled_cost(t)) for t in tilings(algorithm, work.taps)]
    return min(found, key=lambda pair: pair[1]) if found else None


def work_of(m: Match) -> Work:
    taps, (c, k) = _taps(m), _filter(m).shape[-2:]
    image, result = _image(m), _result(m)
    gradient = {Conv: "", ConvInputGrad: "input", ConvFilterGrad: "filter"}[type(m.node.op)]
    sizes = (image if gradient == "input" else result).shape[1:-1]
    return Work(image.shape[0], sizes, taps, c, k, image.dtype.size_bytes, gradient)


def _image(m: Match) -> Any:
    """The type of the convolution's input."""
    return m.like.type if isinstance(m.node.op, ConvInputGrad) else m.x.type


def _filter(m: Match) -> Any:
    return m.like.type if isinstance(m.node.op, ConvFilterGrad) else m.w.type


def _result(m: Match) -> Any:
    """The type of the convolution's result."""
    if isinstance(m.node.op, Conv):
        return m.root.type
    return (m.x if isinstance(m.node.op, ConvInputGrad) else m.w).type


def _taps(m: Match) -> tuple[int, ...]:
    return tuple(_filter(m).shape[:-2])


def _pads(m: Match) -> list[tuple[int, int]]:
    return m.node.op.pads(_image(m).shape, _taps(m))  # type: ignore[no-any-return]


def _patterns(x: Any, w: Any, like: Any) -> list[Any]:
    """x and w: the operands in order, whatever they are."""
    return [
        with_holes(Conv, x, w), with_holes(ConvInputGrad, x, w, like),
        with_holes(ConvFilterGrad, x, w, like),
    ]  # fmt: skip


def _why_no_product(m: Match) -> str | None:
    """Why the convolution is none of plain matrices."""
    image, filter = _image(m), _filter(m)
    if channels_first(m.node.op.data_format):
        return "channels first"
    if not all(is_static(t.shape) for t in (image, filter, m.root.type)):
        return "unknown extents"
    if filter.shape[-2] != image.shape[-1]:
        return "a filter for groups of channels"
    if 0 in image.shape or 0 in _result(m).shape:
        return "nothing to compute"
    return None


def _why_not_tiled(m: Match) -> str | None:
    why = _why_no_product(m)
    if why is not None:
        return why
    op, taps = m.node.op, _taps(m)
    if set(op.strides + op.dilations) != {1}:
        return "stride or dilation"
    if len(taps) > 2:
        return "three spatial axes"
    if not _image(m).dtype.is_floating or _image(m).dtype.size_bytes < 4:
        return "no float32 or float64"
    if any(max(pad) >= f for pad, f in zip(_pads(m), taps, strict=True)):
        return "padding beyond the filter"
    return None


def _tiling(m: Match, algorithm: str) -> Tiling | str:
    """The tiles to take, or why none."""
    work, asked = work_of(m), options.current().convolution
    found = best_tiling(algorithm, work)
    if found is None:
        return f"no tiles for a filter of {'x'.join(map(str, work.taps))}"
    tiling, cost = found
    if asked == "auto" and work.direct_cost <= GAIN * cost:
        return (f"the direct form moves less memory: {work.direct_cost:.2g} operations, "
                f"as many as {cost:.2g} of tiles")  # fmt: skip
    return tiling


def _tiled(m: Match, algorithm: str) -> Any:
    tiling, op = _tiling(m, algorithm), m.node.op
    assert isinstance(tiling, Tiling)
    if isinstance(op, ConvFilterGrad):
        return conv_forms.tiled_filter_grad(m.x, m.w, _pads(m), tiling)
    make = conv_forms.tiled_conv if isinstance(op, Conv) else conv_forms.tiled_input_grad
    return make(m.x, m.w, _pads(m), tiling)


class WinogradConvolution(Rule):
    """conv(x, 3x3 filter) without stride -> Winograd's minimal filtering; the gradient for x, too

    Why: 2.25 or 4 times fewer products. 3x3 convolutions of ResNet-50 and VGG, 4 images, take 0.4
    to 0.7 of the direct form's time where many tiles share one transformed filter.
    Why Approximate: for 4x4 tiles the error is about 7 times that of the direct form, relative to
    the largest elements of a tile (for 2x2 tiles it is smaller than the direct form's); and one
    infinite element reaches the whole tile.
    """

    contract = Approximate

    def asked_for(now: options.Options) -> bool:
        return now.convolution == "winograd"

    def example(x="float32[4, 28, 28, 64]", w="float32[3, 3, 64, 64]"):  # type: ignore[no-untyped-def]
        return convolution.conv(x, w, padding="SAME")

    def pattern(x, w, like):  # type: ignore[no-untyped-def]
        return _patterns(x, w, like)[:2]

    def check(m: Match) -> str | None:
        if options.current().convolution not in ("auto", "winograd"):
            return ""
        why = _why_not_tiled(m)
        tiling = _tiling(m, "winograd") if why is None else why
        return tiling if isinstance(tiling, str) else None

    def rewrite(m: Match) -> Any:
        return _tiled(m, "winograd")


class FourierConvolution(Rule):
    """conv(x, large filter) without stride -> products of spectra; both gradients, too

    Why: a tile of T x T elements makes (T - f + 1)**2 results with 1.5 * T**2 products per pair of
    channels, where the direct form takes f**2 per result. 7x7, 9x9 and 11x11 filters on images of
    4 x 56 x 56 x 64 take 0.15 to 0.3 of the direct form's time, gradients alike.
    Why Approximate: errors are relative to the norm of a tile, not to the single result, and one
    infinite element reaches the whole tile. |error| is at most about (6 log2(T**2) + c) u times
    the sum over channels of ||tile|| ||filter||, u = 2**-24 in float32: each transform adds
    O(log T) u in the 2-norm (Higham, Accuracy and Stability of Numerical Algorithms, 2nd ed.,
    theorem 24.2) and the product of complex numbers by three real ones a few u more (23.2.4).
    Where all elements are alike the sums of c terms are more exact than the direct ones of
    f**2 * c: 2 u against 4 to 9 u for 7x7 filters of 64 channels.
    """

    contract = Approximate

    def asked_for(now: options.Options) -> bool:
        return now.convolution == "fft"

    def example(x="float32[4, 28, 28, 64]", w="float32[9, 9, 64, 64]"):  # type: ignore[no-untyped-def]
        return convolution.conv(x, w, padding="SAME")

    def pattern(x, w, like):  # type: ignore[no-untyped-def]
        return _patterns(x, w, like)

    def check(m: Match) -> str | None:
        if options.current().convolution not in ("auto", "fft"):
            return ""
        why = _why_not_tiled(m)
        tiling = _tiling(m, "fourier") if why is None else why
        return tiling if isinstance(tiling, str) else None

    def rewrite(m: Match) -> Any:
        return _tiled(m, "fourier")


class PatchesConvolution(Rule):
    """conv(x, filter) -> patches(x) @ filter, and both gradients alike; only when asked for

    Why: the form of many papers and libraries (im2col), to compare with. It stores every element of
    x as often as there are taps.
    """

    contract = RealEqual

    def asked_for(now: options.Options) -> bool:
        return now.convolution == "im2col"

    def example(x="float32[2, 9, 8, 3]", w="float32[3, 2, 3, 4]"):  # type: ignore[no-untyped-def]
        return convolution.conv(x, w, padding="SAME")

    def pattern(x, w, like):  # type: ignore[no-untyped-def]
        return _patterns(x, w, like)

    def check(m: Match) -> str | None:
        if options.current().convolution != "im2col":
            return ""
        if m.root.type.dtype is not m.x.type.dtype:
            return "operands of another type"
        return _why_no_product(m)

    def rewrite(m: Match) -> Any:
        op = m.node.op
        if isinstance(op, Conv):
            return conv_forms.im2col(op, m.x, m.w)
        if isinstance(op, ConvInputGrad):
            return conv_forms.im2col_input_grad(op, m.x, m.w, m.like)
        return conv_forms.im2col_filter_grad(op, m.x, m.w, m.like.type.shape)


RULES: list[Any] = [WinogradConvolution, FourierConvolution, PatchesConvolution]
