"""The visible list of graph passes, each with the reason why it stands where it stands.

Main names: ``PIPELINE``, ``optimize``. May import core, ir.graph and passes.

A pass runs when ``options.level`` is at least its own level (0: needed for any code at all; 1: what
keeps every bit; rules choose by contract, see rewrite.rule) and its name is not switched off.
"""

from __future__ import annotations

from tinyflow.ir.graph.nodes import Function
from tinyflow.passes.base import PassRecord, Step, run_passes
from tinyflow.passes.cse import cse
from tinyflow.passes.decompose import decompose
from tinyflow.passes.fold_constants import fold_constants
from tinyflow.passes.hoist_invariants import hoist_invariants
from tinyflow.passes.join_pads import join_pads
from tinyflow.passes.layout import collapse_layouts, expand_layouts
from tinyflow.passes.loops import optimize_bodies, save_rows, trim_control
from tinyflow.passes.panel_products import panel_products
from tinyflow.passes.prune import prune
from tinyflow.passes.rematerialize import rematerialize
from tinyflow.passes.simplify import choose_convolutions, simplify, stabilize
from tinyflow.passes.widen import widen

PIPELINE: tuple[Step, ...] = (
    Step(prune, "feeds may have cut off variables; every later pass has less to do"),
    Step(fold_constants, "literals meet as single constants, which rules recognise"),
    Step(cse, "patterns see one softmax(x), not the forward pass's and the gradient's"),
    Step(stabilize, "needs the ops as written: log(softmax(x)) is gone after decompose"),
    Step(simplify, "cleans up what stabilize leaves: products with one, double negations"),
    Step(cse, "the stable forms of loss and gradient share their parts"),
    Step(stabilize, "patterns that appear only when those parts are one: 1 - sigmoid in gradients"),
    Step(join_pads, "gradients of slices; AddN still is one op"),
    Step(widen, "sums of 16-bit floats are sums of float32; composites still are one op"),
    Step(expand_layouts, "convolutions, pooling and batch norm still are one op with a format"),
    Step(collapse_layouts, "what remains of the transpositions becomes part of other kernels"),
    Step(choose_convolutions, "layouts are settled, and convolutions still are one op"),
    Step(decompose, "composite ops have no kernel"),
    Step(simplify, "parts of composites meet their neighbours"),
    Step(decompose, "of integers, x - x has become zeros_like(x)"),
    Step(fold_constants, "composites bring constants of their own"),
    Step(cse, "composites on equal inputs share parts: max and sum of one softmax"),
    Step(trim_control, "what no gradient reads need not be saved"),
    Step(save_rows, "saved values become arrays that loops carry"),
    Step(optimize_bodies, "all of the above for the bodies of loops and branches"),
    Step(hoist_invariants, "bodies are made of simple ops: what they repeat shows"),
    Step(panel_products, "what stays in a loop stays; no rule looks at products from here on"),
    Step(trim_control, "bodies may need less than before"),
    Step(cse, "two loops may have hoisted the same"),
    Step(prune, "what rules made superfluous must not be bound"),
    Step(rematerialize, "last: cse would take the copies for what they are"),
)


def optimize(fn: Function) -> tuple[Function, list[PassRecord]]:
    """``fn`` (static types, see ``specialize``) after the pipeline, and a record per pass."""
    return run_passes(fn, PIPELINE)
