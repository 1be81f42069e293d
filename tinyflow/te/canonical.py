"""The one order in which every reduction is done, a function of its extent alone.

Threads, vector width, fusion and target may not change a bit of a result, and float addition does
not associate; so the order is part of the meaning. For a reduction over R elements (several axes
are flattened, the last fastest):

* up to ``CHUNK`` elements: ``STRIPE`` partial results; element r goes to partial r mod STRIPE, in
  ascending r; then a binary tree: partial l with l + STRIPE/2, then l + STRIPE/4, ...
* more: chunks of CHUNK elements are reduced as above, and the chunk results again by this rule.

The striping vectorises along the reduced axis (one vector holds the 16 partials), across other axes
(16 vectors), and the tree is more accurate than a running sum: error O(log) instead of O(R).
A ``dot`` reduction (contractions) is one chain per output: acc = fma(a, b, acc), k ascending,
because a register tile has its parallelism in the outputs. Narrow contractions (last extent of the
result at most NARROW, at least LONG terms) have little there, so they are striped as above, each
partial being such a chain. A contraction over several declared axes (a convolution) is never
striped: its rows are many.

Imports nothing.
"""

NARROW = 16
LONG = 128

STRIPE = 16
CHUNK = 8192


def chunk_count(extent: int) -> int:
    """Number of chunks of a reduction over ``extent`` elements."""
    return max(1, -(-extent // CHUNK))


def is_striped_dot(last_extent: int, terms: int, axes: int = 1) -> bool:
    """Whether a contraction of so many terms is striped.

    last_extent: of its result's last axis.   axes: summed axes of its definition, those of extent 1
    among them.
    """
    return axes == 1 and last_extent <= NARROW and terms >= LONG
