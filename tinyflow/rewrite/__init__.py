"""The one rule engine: patterns, rules with float contracts, the driver and its trace."""

from tinyflow.rewrite.driver import Event, RuleSet, Trace
from tinyflow.rewrite.pattern import is_number, uniform
from tinyflow.rewrite.rule import (
    Approximate,
    Bitwise,
    Contract,
    Finite,
    Match,
    RealEqual,
    Rule,
    rules,
)

__all__ = [
    "Approximate", "Bitwise", "Contract", "Event", "Finite", "Match", "RealEqual", "Rule",
    "RuleSet", "Trace", "is_number", "rules", "uniform",
]  # fmt: skip
