"""Finds the pass, and within it the rewrite, that breaks a property of a function.

Main function: ``bisect(fn, is_good)``. May import core, ir.graph and passes.

A step gives wrong numbers: make its function with ``functionalize`` and ``specialize``, and ask ::

    bisect(fn, lambda f: np.allclose(interp.run(f, arrays), expected))
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tinyflow.core import options
from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.graph.nodes import Function
from tinyflow.passes.base import GraphPass, PassRecord, Step, run_passes
from tinyflow.passes.pipeline import PIPELINE
from tinyflow.rewrite import Event

Predicate = Callable[[Function], bool]


@dataclass(frozen=True)
class Culprit:
    """What made a good function bad.

    record: the first bad pass (with the function after it). before: the last good function.
    rewrite: for a rule pass, the single rewrite that did it.
    """

    record: PassRecord
    before: Function
    rewrite: Event | None = None

    def __str__(self) -> str:
        text = f"pass {self.record.number:03d} {self.record.name}"
        if self.rewrite is not None:
            text += f": {self.rewrite}"
        name = self.record.name if self.rewrite is None else self.rewrite.rule
        return f"{text}\n  TINYFLOW_DISABLE={name} leaves it out"


def bisect(
    fn: Function, is_good: Predicate, steps: Sequence[Step] = PIPELINE
) -> Culprit | None:
    """The first pass after which ``is_good`` fails; None when it holds to the end.

    An exception in ``is_good`` counts as bad. Passes run once, ``is_good`` about
    log2(passes) + log2(rewrites) times. Errors: InvalidArgumentError if ``fn`` is bad already.
    """
    if not _holds(is_good, fn):
        raise InvalidArgumentError("bisect: the function is bad before the first pass")
    records = _records(fn, steps)
    functions = [fn, *(r.fn for r in records)]
    if _holds(is_good, functions[-1]):
        return None
    first = _first_bad(lambda i: _holds(is_good, functions[i]), 0, len(records))
    record, before = records[first - 1], functions[first - 1]
    graph_pass = steps[record.number - 1].graph_pass
    return Culprit(record, before, _bad_rewrite(graph_pass, before, is_good))


def _records(fn: Function, steps: Sequence[Step]) -> list[PassRecord]:
    """Records of the passes, without the verifier: it would stop at what is searched for."""
    with options.override(verify=False, dump=None):
        return run_passes(fn, steps)[1]


def _first_bad(good_at: Callable[[int], bool], good: int, bad: int) -> int:
    """The first bad index, between an index that is good and one that is bad."""
    while bad - good > 1:
        middle = (good + bad) // 2
        if good_at(middle):
            good = middle
        else:
            bad = middle
    return bad


def _bad_rewrite(graph_pass: GraphPass, before: Function, is_good: Predicate) -> Event | None:
    rule_set = graph_pass.rule_set
    if rule_set is None:
        return None
    rewrites = rule_set.apply(before)[1].rewrites
    first = _first_bad(
        lambda n: _holds(is_good, rule_set.apply(before, limit=n)[0]), 0, len(rewrites)
    )
    return rewrites[first - 1] if rewrites else None


def _holds(is_good: Predicate, fn: Function) -> bool:
    try:
        return bool(is_good(fn))
    except Exception:  # whatever fails is what is searched for
        return False
