"""Contractions: register-tiled loop nests for sums of products.

Main function: ``lower_dot``. May import core, ir, te and schedule.lowering.

C[i, j] = epilogue(sum_k a(i, k) * b(k, j)), one chain acc = fma(a, b, acc) per element, k
ascending, or STRIPE such chains for narrow results: the canonical order of a contraction
(te/canonical.py), whatever the tiling. The limit is two fused multiply-adds per cycle, each with
one vector operand from a register and a broadcast scalar from memory. A tile of ``rows`` x
``vectors`` accumulators needs per k ``vectors`` vector loads and ``rows`` broadcasts for
rows*vectors fmas; it must fill the registers (to hide the latency of 4 cycles x 2 units) and no
more. The forms::

    paired     small integers, two terms in an int32: both operands packed
    striped    narrow results: vectors run along k, or along the rows one stripe after the other
    in_place   a and b are read where they are: small batches
    long       the same, a block of terms for all tiles after the other
    thin       the same in wide tiles, for a result larger than the caches and a few terms
    streamed   one tile of rows: b comes from memory once, pages of a few of its rows at a time
    row_tiles  tiles of a transposed a are packed on the stack, all panels of b pass each of them:
               few of them, or updates of parameters
    panels     each task packs its panel of b on its stack, a block of terms at a time
    blocked    both are packed beforehand: a transposed a whose terms are pages apart
"""

from __future__ import annotations

from tinyflow.schedule.contraction.blocked import lower_blocked
from tinyflow.schedule.contraction.direct import (
    is_streamed,
    is_thin,
    lower_in_place,
    lower_long,
    lower_streamed,
    thin,
)
from tinyflow.schedule.contraction.paired import packed_pairs, paired
from tinyflow.schedule.contraction.panels import (
    FAR,
    STACK_PANEL,
    TILES_PER_TASK,
    WIDE,
    in_single_vectors,
    in_wide_tiles,
    is_passing,
    lower_panels,
)
from tinyflow.schedule.contraction.problem import Problem, extent_of, problem_of
from tinyflow.schedule.contraction.row_tiles import a_is_turned, lower_row_tiles
from tinyflow.schedule.contraction.striped import lower_striped_rows, lower_striped_terms
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel
from tinyflow.schedule.targets import Target

__all__ = ["lower_dot"]

#: Distance of b's rows times passes over b up to which it is read where it is, though the rows are
#: far apart: a few such passes cost less than packing.
FAR_PASSES = 48 * 1024
#: Terms from which on a sum may be long.
LONG_SUM = 1024
#: Tiles along the rows from which on packing a panel costs nothing beside them.
MANY_USES = 128
#: Bytes (a page) between the terms of a transposed a up to which, and number of terms below which,
#: tiles read it where it is: beyond, its lines are too many for the cache's sets.
NEAR, FAR_TERMS = 4096, 512


def lower_dot(x: GroupExpressions, target: Target) -> list[LoweredKernel]:
    """The kernels of a contraction group: one, or packing and blocked product."""
    p = problem_of(x, target)
    if p.striped:
        return [lower_striped_rows(p) if p.swapped else lower_striped_terms(p)]
    pairs = paired(p, target) if p.tuning.form is None else None
    if pairs is not None:
        pack, element, scratch = packed_pairs(pairs)
        return [pack, lower_row_tiles(pairs, target, element, scratch)]
    form = _form_of(p, target) if p.tuning.form is None or not p.k else p.tuning.form
    if form == "blocked" and p.is_plain:
        return lower_blocked(p)
    if form in ("panels", "blocked"):
        return [lower_panels(in_single_vectors(p) if is_passing(p) else in_wide_tiles(p, target))]
    if form == "row_tiles" and len(p.row_axes) == 1 and p.rows <= p.lanes:
        return [lower_row_tiles(p, target)]
    if form == "streamed":
        return [lower_streamed(p)]
    if form == "long" and p.k > 1:
        return [lower_long(p, target)]
    return [lower_in_place(thin(p) if form == "thin" else p, target)]


def _form_of(p: Problem, target: Target) -> str:
    """The fastest form, by what was measured; nothing but time depends on it."""
    size, half = p.dtype.size_bytes, target.l2_bytes // 2
    row_bytes, apart = p.n * size, p.b_stride != 1 and p.n > 1
    if not p.k:
        return "in_place"
    # Updates of a parameter read and write several arrays, which is best done along their rows.
    updates = len(p.x.results) > 1
    if is_thin(p, target) and (updates or p.n > WIDE * p.lanes):
        return "thin"
    if a_is_turned(p) and not apart:
        if p.is_plain and p.k >= FAR_TERMS and (p.a_stride or 0) * size > NEAR:
            return "blocked" if p.m >= 4 * p.rows else "row_tiles"
        small = p.all_rows * row_bytes < half // 2 and extent_of(p.shared) % 2 == 0
        if small and p.k >= 4 * LONG_SUM:
            return "long"
        return "row_tiles" if updates or p.panel_uses < TILES_PER_TASK else "panels"
    if p.panel_uses == 1 and not apart:
        return "streamed" if is_streamed(p, target) else "in_place"
    few_passes = p.k * p.width * size <= STACK_PANEL and p.panel_uses * row_bytes <= FAR_PASSES
    along_rows = updates and p.k * row_bytes <= half
    if apart or (row_bytes >= FAR and not few_passes and not along_rows):
        return "panels"
    if not updates and p.panel_uses >= MANY_USES and p.k * p.width * size <= STACK_PANEL:
        return "panels"
    fits = p.k * (p.rows + p.width) * size <= half
    return "in_place" if fits or p.k < LONG_SUM else "long"
