"""Contractions: register-tiled loop nests for sums of products.

Main function: ``lower_dot``. May import core, ir, te and schedule.lowering.

C[i, j] = epilogue(sum_k a(i, k) * b(k, j)), one chain acc = fma(a, b, acc) per element, k
ascending, or STRIPE such chains for narrow results: the canonical order of a contraction
(te/canonical.py), whatever the tiling. The limit is two fused multiply-adds per cycle, each with
one vector operand from a register and a broadcast scalar from memory. A tile of ``rows`` x
``vectors`` accumulators needs per k ``vectors`` vector loads and ``rows`` broadcasts for
rows*vectors fmas; it must fill the registers (to hide the latency of 4 cycles x 2 units) and no
more. The forms::

    direct     tiles read a where it is, and b there or from packed panels of a tile's width
    blocked    a is packed too: bands of rows, KC terms at a time
    paired     small integers, two terms in an int32: both operands packed, then as direct
    striped    narrow results: vectors run along k, or along the rows one stripe after the other
"""

from __future__ import annotations

from tinyflow.schedule.contraction.blocked import lower_blocked
from tinyflow.schedule.contraction.direct import a_is_turned, lower_direct
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
    # Bands of a transposed a are packed together where b is too large to pass for each tile of it.
    large = p.k * p.n * p.dtype.size_bytes > target.l2_bytes // 2 if p.k else False
    blocked = large and a_is_turned(p) and p.m >= 4 * p.rows
    if p.tuning.form is not None:
        blocked = p.tuning.form == "blocked"
    if p.is_plain and p.k and blocked:
        return lower_blocked(p)
    return lower_direct(p, target)
