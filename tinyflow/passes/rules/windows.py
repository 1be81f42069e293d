# mypy: disable-error-code="misc, override"
"""Windows of images whose extents are known, in runs of elements.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.shape import is_static
from tinyflow.ir.graph.builder import emit
from tinyflow.ops.movement import reshape
from tinyflow.ops.patch_rows import PatchRows, PatchRowsGrad, flattened, row_bytes
from tinyflow.ops.patches import Patches, PatchesGrad, patches
from tinyflow.passes.rules.layout import with_holes
from tinyflow.rewrite.rule import Bitwise, Match, RealEqual, Rule

#: A padded row stays in the first cache, besides the windows that are made of it.
MOST_BYTES = 24 << 10
#: Bytes of patches that no cache holds.
LARGE_BYTES = 10 << 20


class PatchesByRows(Rule):
    """patches(x), extents known -> runs of padded rows

    Why: no division per element and no test per tap. 5x5 windows of 3 channels take a sixth of the
    time, nearly that of a copy.
    """

    contract = Bitwise

    def example(x="float32[2, 9, 8, 3]"):  # type: ignore[no-untyped-def]
        return patches(x, (3, 2), (1, 1), "SAME")

    def pattern(x):  # type: ignore[no-untyped-def]
        return with_holes(Patches, x)

    def check(m: Match) -> str | None:
        return _why_not(m.node.op, m.x.type)

    def rewrite(m: Match) -> Any:
        shape = m.x.type.shape
        op = PatchRows(*m.node.op.attributes_of(), channels=shape[-1])
        return emit(op, reshape(m.x, flattened(shape)))


class PatchesGradByRows(Rule):
    """the gradient of large patches, extents known -> sums of runs

    Why: the general form adds, per element, one element of each window, which lie a patch apart;
    it reads every line of memory several times. 5x5 windows of 3 channels, 20 MB, take a fifth of
    the time.
    Why RealEqual: sums run over rows of taps and then over windows.
    """

    contract = RealEqual

    def example(y="float32[8, 64, 60, 108]", x="float32[8, 64, 60, 12]"):  # type: ignore[no-untyped-def]
        return emit(PatchesGrad((3, 3), (1, 1), "SAME"), y, x)

    def pattern(y, like):  # type: ignore[no-untyped-def]
        return with_holes(PatchesGrad, y, like)

    def check(m: Match) -> str | None:
        like, slopes = m.like.type, m.y.type
        why = _why_not(m.node.op, like)
        if why is None and (like.shape[-1] == 1 or like.dtype.size_bytes < 4):
            return "one channel, or small numbers with wider sums"
        if why is None and slopes.size * slopes.dtype.size_bytes < LARGE_BYTES:
            return "a cache holds the patches"
        return why

    def rewrite(m: Match) -> Any:
        flat = emit(PatchRowsGrad(*m.node.op.attributes_of()), m.y, m.like)
        return reshape(flat, m.like.type.shape)


def _why_not(op: Any, image: Any) -> str | None:
    if not is_static(image.shape):
        return "unknown extents"
    if 0 in image.shape:
        return "nothing to compute"
    return None if row_bytes(op, image) <= MOST_BYTES else "rows are longer than the first cache"


RULES: list[Any] = [PatchesByRows, PatchesGradByRows]
