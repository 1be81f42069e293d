"""Graph functions as text and back: ``show``, ``parse``, ``canonical``.

Main functions: those three; attributes are written and read by ir.graph.literals.
May import core and ir.graph; op classes are looked up in the registry.

One line per node, producers first; names and places are comments::

    function step
      %0 = Input() {type=float32[N, 3], role="feed", key="x:0"} : float32[N, 3]  # x, train.py:4
      %1 = Exp(%0) : float32[N, 3]  # Exp, train.py:6
      %2, %3 = Split(%1) {axis=0} : float32[A, 3], float32[B, 3]
      %4 = PyFunc(%1) {...} after %9 : float32[N, 3]
    inputs %0
    outputs %1, %4
    updates "W" -> 1
    effects %4
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.core.source import UNKNOWN, Source
from tinyflow.ir.graph.literals import Literals, parse_type, split_top, unquoted
from tinyflow.ir.graph.nodes import REGISTRY, Function, Node, Value


def show(fn: Function, table: dict[str, Any] | None = None) -> str:
    """The text of ``fn``. Arrays too big to print inline become ``@key``, stored in ``table``.

    Without a table big arrays are written as base64 at the end, so the text is complete.
    """
    own: dict[str, Any] = {} if table is None else table
    literals = Literals(own)
    lines = [f"function {fn.name}", *_node_lines(fn, literals, _comment), *_tail(fn, literals)]
    if table is None:
        lines += literals.side_table()
    return "\n".join(lines) + "\n"


def outline(fn: Function) -> str:
    """``show`` for people: big arrays stay ``@key`` and are not written out."""
    return show(fn, {})


def show_node(node: Node, numbers: dict[Value, str] | None = None) -> str:
    """One node's line; inputs without a number print as ``<name type>``."""
    return _line(node, numbers or {}, {}, Literals({}), _comment)


def canonical(fn: Function) -> str:
    """Text that is equal for equal computations: no names, places or keys of inputs.

    Big arrays are hashed. Python objects among the attributes (functions, variables) are numbered
    by first appearance, so the text says how they are shared, not which ones they are.
    """
    literals = Literals({}, anonymous=True)
    body = [*_node_lines(fn, literals, None), *_tail(fn, literals)]
    return "\n".join(body) + "\n"


def digest(fn: Function) -> str:
    """A short hash of ``canonical``."""
    return hashlib.sha256(canonical(fn).encode()).hexdigest()[:32]


def _comment(node: Node) -> str:
    name = (node.name or "").replace("\n", " ")
    place = "" if node.source is UNKNOWN or not node.source.line else str(node.source)
    origin = [f"{label} {where}" for label, where in node.origin]
    text = ", ".join(filter(None, [name, place, *origin]))
    return f"  # {text}" if text else ""


def _node_lines(fn: Function, literals: Literals, comment: Any) -> Iterator[str]:
    numbers: dict[Value, str] = {}
    labels: dict[Node, str] = {}
    for node in fn.nodes:
        for value in node.outputs:
            numbers[value] = f"%{len(numbers)}"
        if not node.outputs:
            labels[node] = f"!{len(labels)}"
        yield "  " + _line(node, numbers, labels, literals, comment)
    literals.numbers = numbers
    literals.labels = labels


def _line(
    node: Node,
    numbers: dict[Value, str],
    labels: dict[Node, str],
    literals: Literals,
    comment: Any,
) -> str:
    def number(value: Value) -> str:
        known = numbers.get(value)
        return known if known is not None else repr(value)

    results = ", ".join(number(v) for v in node.outputs) or labels.get(node, "!")
    operands = ", ".join(number(v) for v in node.inputs)
    line = f"{results} = {node.op.type_name}({operands})"
    attributes = node.op.attributes if hasattr(node.op, "__dataclass_fields__") else {}
    if literals.anonymous and "key" in attributes and node.op.type_name == "Input":
        attributes = {k: v for k, v in attributes.items() if k != "key"}
    if attributes:
        line += " {" + ", ".join(f"{k}={literals.show(v)}" for k, v in attributes.items()) + "}"
    if node.control_inputs:
        line += " after " + ", ".join(_control(c, numbers, labels) for c in node.control_inputs)
    if node.device and comment:
        line += f' on "{node.device}"'
    line += " : " + ", ".join(map(str, node.types))
    return line + (comment(node) if comment else "")


def _control(node: Node, numbers: dict[Value, str], labels: dict[Node, str]) -> str:
    if node.outputs:
        return numbers.get(node.outputs[0], repr(node.outputs[0]))
    return labels.get(node, "!")


def _tail(fn: Function, literals: Literals) -> Iterator[str]:
    numbers, labels = literals.numbers, literals.labels
    yield " ".join(["inputs", ", ".join(numbers[v] for v in fn.inputs)]).rstrip()
    yield " ".join(["outputs", ", ".join(numbers[v] for v in fn.outputs)]).rstrip()
    for key, position in fn.updates.items():
        yield f"updates {literals.show(key)} -> {position}"
    if fn.effects:
        yield "effects " + ", ".join(_control(n, numbers, labels) for n in fn.effects)


class ParseError(InvalidArgumentError):
    """A text is not a graph function; names the line."""


_NODE = re.compile(
    r"(?P<results>[%!][\d, %]*) = (?P<op>\w+)\((?P<operands>[^()]*)\)(?P<rest>.*)", re.DOTALL
)


def parse(text: str, table: dict[str, Any] | None = None) -> Function:
    """The function that ``show`` printed. Comments are dropped, except a node's first name.

    table: arrays printed as ``@key``. Python objects (functions, variables) come back as
    ``literals.Opaque`` with their label. Errors: ParseError with the line.
    """
    literals = Literals(dict(table or {}))
    lines = text.splitlines()
    literals.read_side_table(lines)
    name, nodes = "main", _Parsed(literals)
    inputs: list[Value] = []
    outputs: list[Value] = []
    updates: dict[Any, int] = {}
    effects: list[Node] = []
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        try:
            if not line or line.startswith(("#", "@")):
                continue
            word, _, rest = line.partition(" ")
            if word[0] in "%!":
                nodes.add(line)
            elif word == "function":
                name = rest
            elif word in ("inputs", "outputs"):
                found = [nodes.values[v] for v in split_top(rest)]
                (inputs if word == "inputs" else outputs).extend(found)
            elif word == "updates":
                key, _, position = rest.rpartition(" -> ")
                updates[literals.parse(key)] = int(position)
            elif word == "effects":
                effects = [nodes.node(v) for v in split_top(rest)]
            else:
                raise ValueError(f"unknown word {word!r}")
        except (KeyError, ValueError, IndexError, AttributeError, TypeError) as error:
            raise ParseError(f"graph text, line {number}: {error!r} in: {line[:200]}") from error
    return Function(name, inputs, outputs, updates, effects)


class _Parsed:
    """The nodes read so far."""

    def __init__(self, literals: Literals) -> None:
        self.literals = literals
        self.values: dict[str, Value] = {}
        self.effects: dict[str, Node] = {}

    def node(self, label: str) -> Node:
        return self.effects[label] if label.startswith("!") else self.values[label].node

    def add(self, line: str) -> None:
        match = _NODE.match(line)
        if match is None:
            raise ValueError("not a node")
        rest, _, comment = _cut(match["rest"], "  # ")
        attributes: dict[str, Any] = {}
        if rest.startswith(" {"):
            end = _closing(rest, 1)
            for item in split_top(rest[2:end]):
                key, _, literal = item.partition("=")
                attributes[key.strip()] = self.literals.parse(literal)
            rest = rest[end + 1 :]
        before, _, types = _cut(rest, " : ")
        before, _, device = before.partition(' on "')
        controls = before.removeprefix(" after ").strip()
        op = REGISTRY[match["op"]](**attributes)
        node = Node(
            op,
            tuple(self.values[v] for v in split_top(match["operands"])),
            tuple(parse_type(t) for t in split_top(types)),
            _name_in(comment),
            tuple(self.node(v) for v in split_top(controls)),
            device.rstrip('"'),
        )
        labels = split_top(match["results"])
        if labels[0].startswith("!"):
            self.effects[labels[0]] = node
        else:
            self.values.update(zip(labels, node.outputs, strict=True))


def _name_in(comment: str) -> str | None:
    """The node's name in a comment: its first part unless that is a place (names have no colon)."""
    first = comment.split(", ")[0]
    return first if first and ":" not in first else None


def _cut(text: str, separator: str) -> tuple[str, str, str]:
    """``partition`` at the first separator that stands outside quotes and brackets."""
    depth = 0
    for i, c in unquoted(text):
        if depth == 0 and text.startswith(separator, i):
            return text[:i], separator, text[i + len(separator) :]
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
    return text, "", ""


def _closing(text: str, start: int) -> int:
    """Position of the bracket that closes the one at ``start``."""
    depth = 0
    for i, c in unquoted(text, start):
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
            if depth == 0:
                return i
    raise ValueError("a bracket is not closed")


def source_label(source: Source) -> str:
    """``train.py:6``, for messages."""
    return f"{os.path.basename(source.file)}:{source.line}"


__all__ = [
    "ParseError", "canonical", "digest", "outline", "parse", "show", "show_node", "source_label",
]  # fmt: skip
