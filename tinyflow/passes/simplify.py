"""The rule passes: stabilize (first, on the ops as written), simplify and choose_convolutions.

May import rewrite, passes.base and passes.rules.
"""

from __future__ import annotations

from tinyflow.ir.graph.nodes import Function
from tinyflow.passes.base import GraphPass
from tinyflow.passes.rules import (
    algebraic,
    convolution,
    domain,
    layout,
    pieces,
    products,
    stability,
    windows,
)
from tinyflow.rewrite import RuleSet


def rule_pass(name: str, rule_set: RuleSet, doc: str) -> GraphPass:
    """A pass that applies a rule set; its trace is kept in the pass record."""

    def run(fn: Function) -> Function:
        return rule_set.apply(fn)[0]

    return GraphPass(
        name, run, frozenset({"static_types"}), frozenset(), 1, doc, rule_set
    )


#: with the layout rules, because broadcasts and reshapes stand between the ops of the patterns;
#: without the algebraic ones, which would bring gradients into forms that the patterns do not know
STABILIZE = RuleSet("stabilize", [*layout.RULES, *stability.RULES])
SIMPLIFY = RuleSet(
    "simplify",
    [
        *layout.RULES,
        *pieces.RULES,
        *products.RULES,
        *algebraic.RULES,
        *domain.RULES,
        *windows.RULES,
    ],
)
CONVOLUTIONS = RuleSet("choose_convolutions", convolution.RULES)

stabilize = rule_pass(
    "stabilize", STABILIZE, "Forms that keep their value where the naive one overflows."
)
simplify = rule_pass("simplify", SIMPLIFY, "Algebraic identities, redundant casts and movements.")
choose_convolutions = rule_pass(
    "choose_convolutions", CONVOLUTIONS, "Winograd's and Fourier's forms, or the one asked for."
)
