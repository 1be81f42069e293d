"""Graph functions for readers: one aligned line per node, beside the user's lines.

Main types: ``Numbers`` (what a value is called in a listing); ``by_line``, ``listing``.
May import core and ir.graph.
"""

from __future__ import annotations

import dataclasses
import linecache
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from tinyflow.core.source import UNKNOWN, Source
from tinyflow.ir.graph.literals import Literals
from tinyflow.ir.graph.nodes import Function, Input, Node, Value
from tinyflow.tools.layout import WIDTH, shortened, table

_ATTRIBUTES_WIDTH = 48
_CONSTANT_ELEMENTS = 8


class Numbers:
    """``%0``, ``%1``, ... in the order of a function's nodes, as in its text form."""

    def __init__(self, fn: Function) -> None:
        values = (v for node in fn.nodes for v in node.outputs)
        self.of = {value: f"%{n}" for n, value in enumerate(values)}

    def __call__(self, value: Value) -> str:
        return self.of.get(value, repr(value))

    def expression(self, node: Node) -> str:
        """``%4 = MatMul(%0, %2) {transpose_b=true}``; a parameter says what it is bound to."""
        results = ", ".join(map(self, node.outputs))
        if isinstance(node.op, Input):
            return f"{results} = {node.op.role} {input_name(node.outputs[0])}"
        if node.op.type_name == "Constant":
            return f"{results} = {constant_text(node)}"
        attributes = attributes_text(node)
        operands = ", ".join(map(self, node.inputs))
        text = f"{results} = " if results else ""
        return f"{text}{node.op.type_name}({operands})" + (f" {attributes}" if attributes else "")


def constant_text(node: Node) -> str:
    """``Constant 0.5``; of big arrays nothing but the word: their type stands beside it."""
    array = node.op.reference()
    if array.size > _CONSTANT_ELEMENTS:
        return "Constant"
    return "Constant " + np.array2string(array, separator=", ").replace("\n", "")


def attributes_text(node: Node) -> str:
    """The attributes that differ from the op's defaults; long ones are cut."""
    op = node.op
    if not dataclasses.is_dataclass(op):
        return ""
    literals = Literals({})
    shown = []
    for field in dataclasses.fields(op):
        value = getattr(op, field.name)
        if field.default is not dataclasses.MISSING and _same(value, field.default):
            continue
        shown.append(f"{field.name}={literals.show(value)}")
    return "{" + shortened(", ".join(shown), _ATTRIBUTES_WIDTH) + "}" if shown else ""


def _same(value: Any, default: Any) -> bool:
    try:
        return bool(value is default or value == default)
    except ValueError:  # arrays have no single truth
        return False


def input_name(value: Value) -> str:
    """What an input of a function is bound to, in the user's words."""
    op = value.node.op
    key = op.key if isinstance(op, Input) else None
    name = getattr(getattr(key, "node", key), "name", None) or value.node.name
    return str(name or "?")


def value_name(value: Value) -> str:
    """The node's name, with the output's number where there are several."""
    node = value.node
    name = input_name(value) if isinstance(node.op, Input) else node.name or node.op.type_name
    return f"{name}:{value.index}" if len(node.outputs) > 1 else name


def is_gradient(node: Node) -> bool:
    return any(label == "gradient of" for label, _ in node.origin)


def source_text(source: Source) -> str:
    """The user's own line, as far as the file can be read."""
    return linecache.getline(source.file, source.line).strip() if source.line else ""


def main_file(nodes: Iterable[Node]) -> str:
    """The file that most nodes come from."""
    counts = Counter(node.source.file for node in nodes if node.source.line)
    return counts.most_common(1)[0][0] if counts else ""


def place(source: Source, file: str) -> str:
    """``:14`` in the main file, ``layers.py:3`` elsewhere."""
    if source is UNKNOWN or not source.line:
        return ""
    name = "" if source.file == file else os.path.basename(source.file)
    return f"{name}:{source.line}"


def places(sources: Iterable[Source], file: str) -> str:
    """``:14 :17 layers.py:3``, in order and without repetition."""
    found = dict.fromkeys(place(s, file) for s in sorted(sources, key=lambda s: (s.file, s.line)))
    return " ".join(p for p in found if p)


def by_line(fn: Function, nodes: Sequence[Node], numbers: Numbers) -> list[str]:
    """The nodes under the user's lines that made them."""
    groups: dict[tuple[str, int], list[Node]] = {}
    for node in nodes:
        groups.setdefault((node.source.file, node.source.line), []).append(node)
    rows = {
        node: (numbers.expression(node), ", ".join(map(str, node.types)), _own_name(node))
        for node in nodes
    }
    # One table for all lines, so that columns agree; then cut at the groups.
    order = [node for group in groups.values() for node in group]
    lines = table([rows[node] for node in order], "lll", indent="    ", flexible=(0, 1, 2))
    out: list[str] = []
    position = 0
    for group in groups.values():
        source = group[0].source
        where = f"{os.path.basename(source.file)}:{source.line}" if source.line else "(no line)"
        out.append("  " + shortened(f"{where}   {source_text(source)}", WIDTH - 2))
        out += lines[position : position + len(group)]
        position += len(group)
    return out


def _own_name(node: Node) -> str:
    if isinstance(node.op, Input):
        return ""
    name = node.name or ""
    return name.removeprefix("gradients/") if is_gradient(node) else name


def listing(fn: Function, numbers: Numbers, before: Function | None = None) -> list[str]:
    """All nodes in order: mark, expression, type, name, line; then what comes out.

    Marks: "+" for a node that ``before`` did not have, "g" for one that computes a gradient.
    """
    file = main_file(fn.nodes)
    known = Counter(map(_identity, before.nodes)) if before is not None else None
    rows = []
    for node in fn.nodes:
        mark = "g" if is_gradient(node) else " "
        if known is not None:
            key = _identity(node)
            mark = ("+" if known[key] <= 0 else " ") + mark
            known[key] -= 1
        rows.append(
            (
                mark, numbers.expression(node), ", ".join(map(str, node.types)),
                _own_name(node), place(node.source, file),
            )
        )  # fmt: skip
    return table(rows, "llllr", indent="    ", flexible=(1, 2, 3)) + outputs(fn, numbers)


def _identity(node: Node) -> tuple[Any, ...]:
    """Equal for what a reader would call the same node before and after a pass."""
    key = node.op if not isinstance(node.op, Input) else (node.op.role, node.op.key)
    return key, node.types, node.name, node.source


def outputs(fn: Function, numbers: Numbers) -> list[str]:
    """What the function returns: fetches, and new values of variables."""
    split = len(fn.outputs) - len(fn.updates)
    parts = [f"fetch {numbers(v)}" for v in fn.outputs[:split]]
    parts += [
        f"{getattr(key, 'name', key)} <- {numbers(fn.outputs[at])}"
        for key, at in fn.updates.items()
    ]
    parts += [f"run {node.name or node.op.type_name}" for node in fn.effects]
    return ["    => " + shortened("; ".join(parts), WIDTH - 7)] if parts else []
