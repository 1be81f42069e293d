"""Applies rules to functions: one pass over the nodes with a worklist of new ones.

Main types: ``RuleSet``, ``Trace``. May import core, ir.graph and rewrite.

Nodes are visited once, producers first, so a rule sees inputs that are already in their final
form. What a rewrite makes is visited at once, until no rule applies. There is no fixed point over
the whole function: the cost is one visit per node and a few per rewrite.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tinyflow.core import options
from tinyflow.core.error import InternalError, TinyFlowError
from tinyflow.core.source import Source
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Effect, Function, Node, Op, TensorType, Value
from tinyflow.ir.graph.visit import bind, map_controls, remap, use_counts
from tinyflow.rewrite.rule import OF_LEVEL, Match, Matcher, Rule

#: rewrites of one place in a row; more means that two rules undo each other
LONGEST_CHAIN = 60
#: events that a trace keeps; later refusals are only counted
LONGEST_TRACE = 20_000


@dataclass(frozen=True)
class Event:
    """A rewrite (reason is None) or a refusal with its reason, at one node of the function."""

    rule: str
    op: str
    name: str | None
    source: Source
    reason: str | None = None

    def __str__(self) -> str:
        place = f" at {self.source}" if self.source.line else ""
        verb = "applied to" if self.reason is None else "refused for"
        why = "" if self.reason is None else f": {self.reason}"
        return f"{self.rule} {verb} {self.op} {self.name or ''}".rstrip() + place + why


@dataclass
class Trace:
    """What rules did to one function, in order."""

    events: list[Event] = field(default_factory=list)
    dropped: int = 0

    def add(self, event: Event) -> None:
        if len(self.events) < LONGEST_TRACE:
            self.events.append(event)
        else:
            self.dropped += 1

    @property
    def rewrites(self) -> list[Event]:
        return [e for e in self.events if e.reason is None]

    @property
    def refusals(self) -> list[Event]:
        return [e for e in self.events if e.reason is not None]

    def __str__(self) -> str:
        return "".join(f"{e}\n" for e in self.events)


class _Candidates:
    """The matchers of one root class, in order, and which of them can match at all, by the op
    classes of the inputs that they look at: asked once, as layers of a network repeat.
    """

    def __init__(self) -> None:
        self.matchers: list[Matcher] = []
        self.depth = 0
        self._known: dict[tuple[type[Op], ...], list[Matcher]] = {}

    def add(self, matcher: Matcher) -> None:
        self.matchers.append(matcher)
        self.depth = max(self.depth, matcher.depth)

    def of(self, node: Node) -> list[Matcher]:
        """Those that may match the node."""
        classes = tuple([type(v.node.op) for v in node.inputs[: self.depth]])
        found = self._known.get(classes)
        if found is None:
            found = self._known[classes] = [m for m in self.matchers if m.may_match(classes)]
        return found


Index = dict[type[Op], _Candidates]


class RuleSet:
    """Rules indexed by the op class of their root; earlier rules are tried first."""

    def __init__(self, name: str, rules: Iterable[Rule | type[Rule]]) -> None:
        self.name = name
        self.rules = [r() if isinstance(r, type) else r for r in rules]
        names = [r.name for r in self.rules]
        if len(set(names)) != len(names):
            doubled = sorted({n for n in names if names.count(n) > 1})
            raise InternalError(f"rule set {name}: two rules are called {', '.join(doubled)}")
        self._index: dict[Any, Index] = {}
        self._matchers: list[Matcher] | None = None

    def __add__(self, other: RuleSet) -> RuleSet:
        return RuleSet(f"{self.name}+{other.name}", [*self.rules, *other.rules])

    def index(self) -> Index:
        """The matchers that the current options allow, by root class."""
        now = options.current()
        key = now.level, now.disabled_passes, now.convolution
        found = self._index.get(key)
        if found is None:
            if self._matchers is None:
                self._matchers = [m for rule in self.rules for m in rule.compiled()]
            weakest = OF_LEVEL.get(min(now.level, 3), -1)
            found = {}
            for matcher in self._matchers:
                rule = matcher.rule
                switched_off = rule.name in now.disabled_passes or any(
                    tag in now.disabled_passes for tag in rule.tags
                )
                wanted = weakest >= 0 and rule.asked_for(now)
                if (rule.contract <= weakest or wanted) and not switched_off:
                    found.setdefault(matcher.root_class, _Candidates()).add(matcher)
            self._index[key] = found
        return found

    def apply(self, fn: Function, limit: int | None = None) -> tuple[Function, Trace]:
        """``fn`` after all rewrites (``fn`` itself if none applied), and the trace.

        limit: stop after that many rewrites (bisecting). Errors: InternalError when rules undo each
        other, naming the last two.
        """
        run = _Run(self.index(), limit, fn)
        return run.rewrite(fn), run.trace


class _Recorder(Builder):
    """Remembers the nodes that a rewrite makes."""

    def __init__(self) -> None:
        self.created: list[Node] = []

    def make_node(
        self, op: Op, values: tuple[Value, ...], types: tuple[TensorType, ...], name: str | None
    ) -> Node:
        node = Node(op, values, types, name, (), "", self.place(), self.origin)
        self.created.append(node)
        return node


class _Run:
    """The state of one application: who reads what, and what has been done."""

    def __init__(
        self, index: Index, limit: int | None, fn: Function
    ) -> None:
        self.index = index
        self.trace = Trace()
        self.left = limit if limit is not None else 20 * len(fn.nodes) + 1000
        self.exact_limit = limit is not None
        self.counts = use_counts(fn)
        self.builder = _Recorder()
        self.chain: list[str] = []

    def rewrite(self, fn: Function) -> Function:
        new_values: dict[Value, Value] = {}
        index = self.index
        with building(self.builder):
            for node in fn.nodes:
                current = node
                if new_values:
                    inputs = node.inputs
                    for value in inputs:
                        if value in new_values:
                            inputs = tuple([new_values.get(v, v) for v in inputs])
                            break
                    controls = node.control_inputs
                    if controls:
                        controls = map_controls(controls, new_values)
                    if inputs is not node.inputs or controls is not node.control_inputs:
                        current = self.moved(node, inputs, controls)
                results: Sequence[Value] = current.outputs
                if type(current.op) in index and current.op.effect is Effect.NONE:
                    results = self.settle(current)
                if results is not node.outputs:
                    bind(node, results, new_values)
        return remap(fn, new_values) if new_values else fn

    def moved(
        self, node: Node, inputs: tuple[Value, ...], controls: tuple[Node, ...]
    ) -> Node:
        """The node on new inputs, read by the same readers."""
        new = node.moved(inputs, controls)
        counts = self.counts
        for old, value in zip(node.outputs, new.outputs):  # noqa: B905 - as many, by construction
            counts[value] = counts.pop(old, 0)
        return new

    def settle(self, node: Node) -> Sequence[Value]:
        """What stands for the results of ``node`` when no rule applies any more."""
        found = self.first_match(node)
        if found is None:
            return node.outputs
        rule, result, created = found
        self.chain.append(rule.name)
        if len(self.chain) > LONGEST_CHAIN:
            raise InternalError(
                f"rewriting does not end: rules {self.chain[-2]} and {self.chain[-1]} "
                f"undo each other at {node.op.type_name} {node.name or ''}".rstrip(),
                source=node.source,
                hint=f"TINYFLOW_DISABLE={self.chain[-1]} switches one of them off",
            )
        self.trace.add(Event(rule.name, node.op.type_name, node.name, node.source))
        self.replace(node, result, created)
        local: dict[Value, Value] = {}
        for new in created:
            inputs = tuple([local.get(v, v) for v in new.inputs]) if local else new.inputs
            current = new if inputs == new.inputs else self.moved(new, inputs, ())
            if type(current.op) in self.index and self.counts.get(current.outputs[0], 0):
                bind(new, self.settle(current), local)
            elif current is not new:
                bind(new, current.outputs, local)
        self.chain.pop()
        return (local.get(result, result),)

    def first_match(self, node: Node) -> tuple[Rule, Value, list[Node]] | None:
        """The first rule that matches and is allowed, with its result and the nodes it made."""
        for matcher in self.index[type(node.op)].of(node):
            found = matcher.match(node)
            if found is None:
                continue
            bindings, interior = found
            rule = matcher.rule
            m = Match(node.outputs[0], bindings, self.counts)
            reason = rule.check(m)
            if reason is None:
                reason = self.refusal(rule, interior)
            if reason is not None:
                if reason:
                    self.refuse(rule, node, reason)
                continue
            if self.left <= 0:
                if self.exact_limit:
                    return None
                raise InternalError(
                    f"rewriting takes too many steps; the last rule was {rule.name}",
                    source=node.source,
                )
            made = self.make(rule, m, node)
            if made is not None:
                self.left -= 1
                return rule, *made
        return None

    def refusal(self, rule: Rule, interior: Sequence[Value]) -> str | None:
        if not rule.shared:
            for value in interior:
                if self.counts.get(value, 0) > interior.count(value):
                    return f"{value!r} inside the pattern has other readers"
        return None

    def make(self, rule: Rule, m: Match, node: Node) -> tuple[Value, list[Node]] | None:
        """Runs the rewrite on behalf of ``node``; None when the result has another type."""
        builder = self.builder
        builder.created = []
        builder.source, builder.origin = node.source, node.origin
        try:
            result = rule.rewrite(m)
        except TinyFlowError as error:
            self.refuse(rule, node, f"the new form is illegal: {error.what}")
            return None
        declared = node.types[0]
        if not isinstance(result, Value) or result.type != declared:
            got = getattr(result, "type", result)
            self.refuse(rule, node, f"the new form is {got} instead of {declared}")
            return None
        created = builder.created
        if created and result.node is created[-1]:
            result.node.name = node.name
        for new in created:
            new.device = node.device
        return result, created

    def replace(self, node: Node, result: Value, created: Sequence[Node]) -> None:
        """Moves the readers of ``node`` to ``result`` and forgets what nobody reads any more."""
        counts = self.counts
        for new in created:
            for value in new.inputs:
                counts[value] = counts.get(value, 0) + 1
        counts[result] = counts.get(result, 0) + counts.pop(node.outputs[0], 0)
        dead = [new for new in reversed(created) if not any(map(counts.get, new.outputs))]
        dead.append(node)
        while dead:
            gone = dead.pop()
            for value in gone.inputs:
                left = counts[value] = counts.get(value, 0) - 1
                producer = value.node
                if left == 0 and not any(map(counts.get, producer.outputs)):
                    dead.append(producer)

    def refuse(self, rule: Rule, node: Node, reason: str) -> None:
        self.trace.add(Event(rule.name, node.op.type_name, node.name, node.source, reason))
