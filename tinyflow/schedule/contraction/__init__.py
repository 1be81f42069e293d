"""Contractions: register-tiled loop nests for sums of products.

Main function: ``lower_dot``. May import core, ir, te and schedule.lowering.

C[i, j] = epilogue(sum_k a(i, k) * b(k, j)), one chain acc = fma(a, b, acc) per element, k
ascending, or STRIPE such chains for narrow results: the canonical order of a contraction
(te/canonical.py), whatever the tiling. The limit is two fused multiply-adds per cycle, each with
one vector operand from a register and a broadcast scalar from memory. A tile of ``rows`` x
``vectors`` accumulators needs per k ``vectors`` vector loads and ``rows`` broadcasts for
rows*vectors fmas; it must fill the registers (to hide the latency of 4 cycles x 2 units) and no
more. The forms::

    direct     b fits in the second-level cache: tiles read a and b where they are
    blocked    b is packed once into panels of a tile's width; bands of rows, KC terms at a time
    striped    narrow results: vectors run along k, or along the rows one stripe after the other
"""

from __future__ import annotations

from tinyflow.schedule.contraction.blocked import lower_blocked
from tinyflow.schedule.contraction.direct import lower_direct
from tinyflow.schedule.contraction.problem import problem_of
from tinyflow.schedule.contraction.striped import lower_striped_rows, lower_striped_terms
from tinyflow.schedule.lowering import GroupExpressions, LoweredKernel
from tinyflow.schedule.targets import Target

__all__ = ["lower_dot"]


def lower_dot(x: GroupExpressions, target: Target) -> list[LoweredKernel]:
    """The kernels of a contraction group: one, or packing and blocked product."""
    p = problem_of(x, target)
    if p.striped:
        return [lower_striped_rows(p) if p.swapped else lower_striped_terms(p)]
    b_bytes = p.k * p.n * p.dtype.size_bytes
    big = b_bytes > target.l2_bytes * 3 // 4 and p.m >= 4 * p.rows
    if p.k > 0 and not p.outer and (big or (not p.b_contiguous and p.m >= 8)):
        return lower_blocked(p)
    return [lower_direct(p)]
