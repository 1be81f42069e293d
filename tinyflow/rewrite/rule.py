"""Rewrite rules and the promises they make about floating-point results.

Main types: ``Rule`` (a rule with a reason and a condition), ``rules`` (a table of identities),
``Contract``. May import core, ir.graph and rewrite.pattern.
"""

from __future__ import annotations

import enum
import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

from tinyflow.core.error import InternalError
from tinyflow.core.options import Options
from tinyflow.ir.graph.nodes import Node, Op, Value
from tinyflow.rewrite.pattern import (
    Apply,
    Literal,
    instantiate,
    match,
    may_be_uniform,
    trace_pattern,
    variants,
)


class Contract(enum.IntEnum):
    """How close the new value is to the old one, from the strongest promise to the weakest.

    BITWISE: the same bits (a NaN stays a NaN, its payload may differ).
    REAL_EQUAL: equal over the real numbers; rounding may differ, and where the old form overflows,
    underflows or meets 0 * inf the new one may give the true value.
    FINITE: REAL_EQUAL as long as no input or intermediate value is NaN or infinite.
    APPROXIMATE: a few ulp away.
    """

    BITWISE = 0
    REAL_EQUAL = 1
    FINITE = 2
    APPROXIMATE = 3


Bitwise, RealEqual, Finite, Approximate = Contract

#: the weakest contract that an optimisation level accepts; level 0 runs no rule
OF_LEVEL = {1: Contract.BITWISE, 2: Contract.REAL_EQUAL, 3: Contract.APPROXIMATE}


class Match:
    """What a pattern matched: ``m.x`` is the value or attribute in the hole named x.

    root: the value to be replaced. uses(value): how often a value is read in the function.
    """

    def __init__(
        self, root: Value, bindings: dict[str, Any], counts: dict[Value, int]
    ) -> None:
        self.__dict__.update(bindings)
        self.root: Any = root  # Any: a rule knows more about op and shape than the types say
        self.bindings = bindings
        self._counts = counts

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"the pattern has no hole named {name}")

    @property
    def node(self) -> Any:
        return self.root.node

    def uses(self, value: Value) -> int:
        return self._counts.get(value, 0)


class Rule:
    """pattern -> rewrite, where check allows it. The first docstring line is the statement.

    A subclass defines static functions: ``pattern(x, ...)`` with ordinary ops (or a list of
    patterns), ``rewrite(m)``, and if need be ``check(m)`` that returns None, or the reason why the
    rule does not apply here (the empty string: not worth a line in the trace).
    contract: see ``Contract``. tags: names by which options can switch groups of rules off.
    shared: interior nodes may have other readers (the new form pays off although they stay).
    example: a function that the rule rewrites, for the tests and for readers; its parameters'
    defaults are their types: ``def example(x="float32[2, 5]"): return log(softmax(x))``.
    """

    name: ClassVar[str] = ""
    contract: ClassVar[Contract] = Contract.BITWISE
    tags: ClassVar[frozenset[str] | set[str]] = frozenset()
    shared: ClassVar[bool] = False

    pattern: Callable[..., Any]
    rewrite: Callable[[Match], Any]
    example: Callable[..., Any] | None = None

    def __init_subclass__(cls, **keywords: Any) -> None:
        super().__init_subclass__(**keywords)
        cls.name = cls.__dict__.get("name") or cls.__name__
        for method in ("pattern", "check", "rewrite", "example", "asked_for"):
            function = cls.__dict__.get(method)
            if inspect.isfunction(function) and function.__code__.co_varnames[:1] != ("self",):
                setattr(cls, method, staticmethod(function))

    @staticmethod
    def check(m: Match) -> str | None:
        return None

    @staticmethod
    def asked_for(now: Options) -> bool:
        """Whether options name what the rule makes: then it runs at any level of rules."""
        return False

    @property
    def statement(self) -> str:
        """One line: what the rule does."""
        return inspect.cleandoc(type(self).__doc__ or self.name).splitlines()[0]

    def patterns(self) -> list[Apply]:
        """Every form that matches, commutative orders included."""
        found = trace_pattern(type(self).pattern)
        roots = found if isinstance(found, (list, tuple)) else [found]
        for root in roots:
            if not isinstance(root, Apply):
                raise InternalError(f"rule {self.name}: the pattern's root must be an op: {root!r}")
        return [variant for root in roots for variant in variants(root)]

    def compiled(self) -> list[Matcher]:
        return [Matcher(self, p) for p in self.patterns()]

    def __repr__(self) -> str:
        return f"<rule {self.name} ({self.contract.name}): {self.statement}>"


class TableRule(Rule):
    """One line of a ``rules`` table."""

    def __init__(
        self,
        name: str,
        left: Apply,
        right: Any,
        contract: Contract,
        when: Callable[[Match], str | None] | None,
        tags: Iterable[str],
        shared: bool,
    ) -> None:
        self.name = name  # type: ignore[misc]
        self.left, self.right = left, right
        self.contract = contract  # type: ignore[misc]
        self.tags = frozenset(tags)  # type: ignore[misc]
        self.shared = shared  # type: ignore[misc]
        if when is not None:
            self.check = when  # type: ignore[method-assign, assignment]

    @property
    def statement(self) -> str:
        return f"{self.left!r} -> {self.right!r}"

    def patterns(self) -> list[Apply]:
        return list(variants(self.left))

    def rewrite(self, m: Match) -> Any:
        return instantiate(self.right, m.bindings)


def rules(
    contract: Contract,
    when: Callable[[Match], str | None] | None = None,
    tags: Iterable[str] = (),
    shared: bool = False,
) -> Callable[[Callable[..., list[tuple[Any, ...]]]], list[Rule]]:
    """A table of identities: ``rules(contract=Bitwise)(lambda x: [("double_neg", -(-x), x)])``.

    Each line is (name, left, right), or (left, right) named by its left side. The parameters of the
    lambda are the holes. when: a condition on every line. shared: for lines without own arithmetic
    inside, so that other readers of the interior do not matter.
    """

    def declare(table: Callable[..., list[tuple[Any, ...]]]) -> list[Rule]:
        found: list[Rule] = []
        for line in trace_pattern(table):
            left, right = line[-2:]
            name = line[0] if len(line) == 3 else repr(left)
            found.append(TableRule(name, left, right, contract, when, tags, shared))
        return found

    return declare


class Matcher:
    """One form of a rule's pattern, with what can be asked before a full match."""

    __slots__ = ("children", "equal", "literals", "pattern", "root_class", "rule")

    def __init__(self, rule: Rule, pattern: Apply) -> None:
        self.rule = rule
        self.pattern = pattern
        self.root_class: type[Op] = type(pattern.op)
        self.children = tuple(
            (position, type(argument.op))
            for position, argument in enumerate(pattern.arguments)
            if isinstance(argument, Apply)
        )
        self.literals = tuple(
            [n for n, argument in enumerate(pattern.arguments) if isinstance(argument, Literal)]
        )
        #: pairs of inputs that must be one value: x * x, x - x
        self.equal = tuple(
            (first, second)
            for first, second in itertools.combinations(range(len(pattern.arguments)), 2)
            if pattern.arguments[first] is pattern.arguments[second]
        )

    @property
    def depth(self) -> int:
        """How many inputs ``may_match`` looks at."""
        positions = [position for position, _ in self.children]
        positions += [second for _, second in self.equal]
        return 1 + max((*positions, *self.literals), default=-1)

    def may_match(self, classes: Sequence[type[Op]]) -> bool:
        """Whether a node whose inputs come from ops of these classes can match at all."""
        return (
            self.depth <= len(classes)
            and all(classes[position] is wanted for position, wanted in self.children)
            and all(may_be_uniform(classes[position]) for position in self.literals)
        )

    def match(self, node: Node) -> tuple[dict[str, Any], list[Value]] | None:
        """The full match; the driver asks only where ``may_match``."""
        inputs = node.inputs
        for first, second in self.equal:
            if inputs[first] is not inputs[second]:
                return None
        return match(self.pattern, node.outputs[0])
