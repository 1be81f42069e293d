"""Attribute values of nodes as text and back, exactly.

Main type: ``Literals``; ``parse_type`` reads ``float32[N, 3]``. May import core and ir.graph.nodes.

Grammar::

    none | true | false | 12 | -0.5 | nan | inf | "text" | float32 | float32[N, 3] | dim(2*N+1)
    (a, b) | [a, b] | Op{field=...} | array(float32[2], 1.0 2.0) | base64(float32[2], "...") | @key
    <label>                         a Python object that has no text: a function, a variable
"""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from tinyflow.core import dtype as dtypes
from tinyflow.core import shape as shapes
from tinyflow.core.dtype import DType
from tinyflow.core.shape import Dim, Dimension
from tinyflow.ir.graph.nodes import REGISTRY, Node, Op, TensorType, Value

INLINE = 16  # elements up to which an array is printed in the line of its node
_DTYPES = {d.name: d for d in dtypes.ALL}


@dataclasses.dataclass(frozen=True)
class Opaque:
    """What a parsed text has in the place of a Python object."""

    label: str


class Literals:
    """Shows and parses attribute values.

    table: key -> array for arrays that are too big for a line.
    anonymous: number Python objects by first appearance instead of naming them.
    """

    def __init__(self, table: dict[str, Any], anonymous: bool = False) -> None:
        self.table = table
        self.anonymous = anonymous
        self.seen: dict[int, str] = {}
        self.numbers: dict[Value, str] = {}
        self.labels: dict[Node, str] = {}

    def show(self, value: Any) -> str:
        kind = type(value)
        simple = _SIMPLE.get(kind)
        if simple is not None:
            return str(simple(value))
        if kind is tuple:
            return "(" + ", ".join(map(self.show, value)) + ("," if len(value) == 1 else "") + ")"
        if kind is list:
            return "[" + ", ".join(map(self.show, value)) + "]"
        if isinstance(value, (np.ndarray, np.generic)):
            return self.show_array(np.asarray(value))
        if isinstance(value, Op) and dataclasses.is_dataclass(value):
            fields = ", ".join(f"{k}={self.show(v)}" for k, v in value.attributes.items())
            return f"{value.type_name}{{{fields}}}"
        array = getattr(value, "array", None)
        if isinstance(array, np.ndarray):  # a hashable wrapper around an array
            return self.show_array(array)
        return self.show_opaque(value)

    def show_opaque(self, value: Any) -> str:
        if isinstance(value, Opaque) and not self.anonymous:
            return f"<{value.label}>"
        kind = type(value).__name__
        if self.anonymous:
            return self.seen.setdefault(id(value), f"<{len(self.seen)}>")
        name = getattr(value, "name", None) or getattr(value, "__name__", "")
        if isinstance(value, Value):
            kind, name = "value", f"{value.node.name or value.node.op.type_name}:{value.index}"
        elif isinstance(value, Node):
            kind, name = "node", value.name or value.op.type_name
        return f"<{re.sub(r'[^ A-Za-z0-9_.:/-]', '_', f'{kind} {name}'.strip())}>"

    def show_array(self, array: np.ndarray[Any, Any]) -> str:
        declared = f"{_name_of(array.dtype)}{shapes.show(array.shape)}"
        if array.size <= INLINE and not np.isnan(array.astype(np.float64)).any():
            return f"array({declared}, {' '.join(map(_number, array.ravel().tolist()))})"
        content = np.ascontiguousarray(array).tobytes()
        if array.size <= INLINE:  # NaNs keep their payload
            return f'base64({declared}, "{base64.b64encode(content).decode()}")'
        key = "@" + hashlib.sha256(declared.encode() + content).hexdigest()[:24]
        self.table[key] = array
        return key

    def side_table(self) -> Iterator[str]:
        for key, array in self.table.items():
            content = base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()
            yield f'{key} = base64({_name_of(array.dtype)}{shapes.show(array.shape)}, "{content}")'

    def read_side_table(self, lines: Iterable[str]) -> None:
        for line in lines:
            if line.startswith("@"):
                key, _, literal = line.partition(" = ")
                self.table[key] = self.parse(literal)

    def parse(self, text: str) -> Any:
        """Errors: ValueError or KeyError, completed with the line by ``text.parse``."""
        text = text.strip()
        if text in _WORDS:
            return _WORDS[text]
        first = text[0]
        if first == '"':
            return json.loads(text)
        if first == "@":
            return self.table[text]
        if first == "<":
            return Opaque(text[1:-1])
        if first in "([":
            items = [self.parse(item) for item in split_top(text[1:-1])]
            return tuple(items) if first == "(" else items
        if first.isdigit() or first in "-+" or text in ("nan", "inf"):
            return float(text) if re.search(r"[.einf]", text) else int(text)
        head = re.match(r"\w+", text)
        if head is None:
            raise ValueError(f"not a literal: {text[:80]}")
        return self.parse_compound(head[0], text[head.end() :])

    def parse_compound(self, word: str, rest: str) -> Any:
        if word in _DTYPES:
            return parse_type(word + rest) if rest else _DTYPES[word]
        if word == "dim":
            return parse_dim(rest[1:-1])
        if word in ("array", "base64"):
            declared, content = (*split_top(rest[1:-1], maximum=2), "")[:2]  # may have no elements
            kind = parse_type(declared)
            if word == "base64":
                raw = base64.b64decode(json.loads(content), validate=True)
                flat = np.frombuffer(raw, kind.dtype.numpy)
            else:
                numbers = [_WORDS.get(n, n) for n in content.split()]
                exact = float if kind.dtype.kind == "float" else int
                flat = np.array(
                    [n if isinstance(n, bool) else exact(n) for n in numbers], kind.dtype.numpy
                )
            return flat.reshape(kind.shape)
        if rest.startswith("{"):
            fields = (item.partition("=") for item in split_top(rest[1:-1]))
            return REGISTRY[word](**{k.strip(): self.parse(v) for k, _, v in fields})
        raise ValueError(f"not a literal: {(word + rest)[:80]}")


def _name_of(numpy_dtype: Any) -> str:
    return dtypes.as_dtype(numpy_dtype).name


def _number(value: Any) -> str:
    return ("true" if value else "false") if isinstance(value, bool) else repr(value)


_WORDS: dict[str, Any] = {"none": None, "true": True, "false": False}
_SIMPLE: dict[type, Any] = {
    type(None): lambda v: "none",
    bool: lambda v: "true" if v else "false",
    int: repr,
    float: repr,
    str: json.dumps,
    DType: str,
    TensorType: str,
    Dim: lambda v: f"dim({v})",
}


def parse_type(text: str) -> TensorType:
    """``float32[N, 3]`` -> TensorType; ``[...]`` is an unknown rank."""
    name, _, rest = text.strip().partition("[")
    inside = rest.removesuffix("]")
    if not rest.endswith("]"):
        raise ValueError(f"not a type: {text}")
    if inside == "...":
        return TensorType(_DTYPES[name], None)
    return TensorType(_DTYPES[name], tuple(parse_dim(d) for d in split_top(inside)))


def parse_dim(text: str) -> Dimension:
    """``12``, ``N``, ``2*N*M-1``, ``max(3,N)``: the inverse of ``str(dim)``."""
    total: Dimension = 0
    for sign, term in re.findall(r"([+-]?)((?:\([^()]*(?:\([^()]*\)[^()]*)*\)|[^+()-])+)", text):
        product: Dimension = -1 if sign == "-" else 1
        for factor in split_top(term, "*"):
            product = product * (int(factor) if factor.isdigit() else Dim.symbol(factor))
        total = total + product
    return total


def unquoted(text: str, start: int = 0) -> Iterator[tuple[int, str]]:
    """(position, character) of all that stands outside of quotes."""
    quoted, i = False, start
    while i < len(text):
        c = text[i]
        if c == '"':
            quoted = not quoted
        elif not quoted:
            yield i, c
        elif c == "\\":
            i += 1
        i += 1


def split_top(text: str, separator: str = ",", maximum: int = 0) -> list[str]:
    """Parts of ``text`` between separators outside brackets and quotes, stripped, none empty."""
    parts: list[str] = []
    depth, start = 0, 0
    for i, c in unquoted(text):
        if c in "([{<":
            depth += 1
        elif c in ")]}>":
            depth -= 1
        elif c == separator and depth == 0 and (not maximum or len(parts) < maximum - 1):
            parts.append(text[start:i])
            start = i + 1
    parts.append(text[start:])
    return [p.strip() for p in parts if p.strip()]


__all__ = ["Literals", "Opaque", "parse_dim", "parse_type", "split_top", "unquoted"]
