"""Text of scalar expressions, and back: ``parse(show(e), names) is e``.

Main functions: ``show``, ``show_let`` (shared sub-expressions printed once), ``parse``.
Imports core and ir.scalar.

Syntax::

    3   3i32   7u8   0.5   0.5f64   0x1.8p-3   -inf   nan_f64   true     bare: int64 and float32
    i   `odd name`   A[i, j + 1]   A[]                                   load and read
    -a  ~a  *  /  //  %  +  -  <<  >>  &  ^  |  <  <=  ==  !=            binding as in Python
    min(a, b)  truncdiv(a, b)  rem(a, b)  fma(a, b, c)  select(c, a, b)  sqrt(a)  exp(a)
    dot_pairs(a, b, c)
    f32(a)  cast     bitcast_i32(a)     checked(value, ok, got, limit, 2)
    sum(body, axis=[k:784, m:N])     dot(a, b, axis=[k:64])     fold_sum(P)
    {t0 = a * b; t1 = t0 + t0; t1 * t1}                                  what show prints when large
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import pairwise
from typing import Any

import numpy as np

from tinyflow.core.dtype import ALL, DType, bool_, float32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder

#: Above this many nodes, counted as a tree, ``show`` prints shared sub-expressions once.
TREE_LIMIT = 2000
#: A sub-expression with a longer text gets a name of its own in ``show_let``.
LINE_LIMIT = 1000

_SHORT = {d.name: d.name.replace("float", "f").replace("uint", "u").replace("int", "i")
          for d in ALL}  # fmt: skip
_SHORT["bfloat16"] = "bf16"
_DTYPES = {short: d for d in ALL for short in [_SHORT[d.name]]}

#: op -> (sign, how tightly it binds); all associate to the left, comparisons not at all.
_INFIX = {
    "lt": ("<", 1), "le": ("<=", 1), "eq": ("==", 1), "ne": ("!=", 1),
    "or": ("|", 2), "xor": ("^", 3), "and": ("&", 4), "shl": ("<<", 5), "shr": (">>", 5),
    "add": ("+", 6), "sub": ("-", 6),
    "mul": ("*", 7), "div": ("/", 7), "floordiv": ("//", 7), "mod": ("%", 7),
}  # fmt: skip
_PREFIX = {"neg": "-", "not": "~"}
_PREFIX_BINDING, _ATOM = 8, 9
_FUNCTIONS = {"min": 2, "max": 2, "truncdiv": 2, "rem": 2, "fma": 3, "dot_pairs": 3, "select": 3,
              "abs": 1, "sqrt": 1, "floor": 1, "ceil": 1, "rint": 1, "trunc": 1}  # fmt: skip


# --- printing -------------------------------------------------------------------------------------


def show(expr: Expr) -> str:
    """The text of one expression: ``{t0 = ...; ...; root}`` when sharing makes the tree large."""
    sizes: dict[Expr, int] = {}
    order = list(postorder(expr))
    for node in order:
        sizes[node] = 1 + sum(sizes[a] for a in node.args)
    if sizes[expr] > TREE_LIMIT:
        lines, roots = show_let((expr,))
        return "{" + "; ".join([*lines, roots[0]]) + "}"
    texts: _Texts = {}
    for node in order:
        texts[node] = _show_node(node, texts)
    return texts[expr][0]


def show_let(exprs: Iterable[Expr], prefix: str = "t") -> tuple[list[str], list[str]]:
    """(lines "t0 = ...", texts of the roots): every operation that is used twice is printed once.

    The order is that of the roots' postorder, so equal expressions give equal text in every run.
    """
    roots = tuple(exprs)
    order = list(postorder(*roots))
    uses: Counter[Expr] = Counter(a for node in order for a in node.args)
    uses.update(roots)
    taken = {_name_of(node) for node in order}
    texts: _Texts = {}
    lines: list[str] = []
    number = 0
    for node in order:
        text, binding = _show_node(node, texts)
        shared = uses[node] > 1 and node.op not in ("const", "var")
        if shared or len(text) > LINE_LIMIT:
            while f"{prefix}{number}" in taken:
                number += 1
            name, number = f"{prefix}{number}", number + 1
            lines.append(f"{name} = {text}")
            text, binding = name, _ATOM
        texts[node] = text, binding
    return lines, [texts[root][0] for root in roots]


_Texts = dict[Expr, tuple[str, int]]  # the text and how tightly its outermost operation binds


def _name_of(node: Expr) -> str | None:
    if node.op == "var":
        return str(node.attr)
    if node.op in ("load", "read"):
        return str(node.attr.name)
    return None


def _show_node(node: Expr, texts: _Texts) -> tuple[str, int]:
    if node.op in _INFIX and len(node.args) == 2:  # else: the verifier shows a broken one
        return _show_infix(node, texts)
    if node.op in _PREFIX and len(node.args) == 1:
        inner, binding = texts[node.args[0]]
        # -(5) is the operation, -5 the constant; --x would be hard to read.
        bare = binding > _PREFIX_BINDING and node.args[0].op != "const"
        return _PREFIX[node.op] + (inner if bare else f"({inner})"), _PREFIX_BINDING
    if node.op == "const":
        text = show_const(node.attr, node.dtype)
        return text, _PREFIX_BINDING if text.startswith("-") else _ATOM
    args = [texts[a][0] for a in node.args]
    if node.op == "var":
        return show_name(node.attr), _ATOM
    if node.op in ("load", "read"):
        return f"{show_name(node.attr.name)}[{', '.join(args)}]", _ATOM
    return f"{_function_name(node)}({', '.join(args + _extra_arguments(node))})", _ATOM


def _function_name(node: Expr) -> str:
    if node.op == "cast":
        return _SHORT[node.dtype.name]
    if node.op == "bitcast":
        return f"bitcast_{_SHORT[node.dtype.name]}"
    if node.op == "call":
        return str(node.attr)
    if node.op == "reduce":
        return str(node.attr.combiner)
    return f"fold_{node.attr[0]}" if node.op == "fold" else node.op


def _extra_arguments(node: Expr) -> list[str]:
    if node.op == "reduce":
        axes = [f"{show_name(v.attr)}:{_show_extent(e)}" for v, e in node.attr.axes]
        return [f"axis=[{', '.join(axes)}]"]
    if node.op == "fold":
        return [show_name(node.attr[1].name)]
    return [str(node.attr)] if node.op == "checked" else []


def _show_extent(extent: Expr | int) -> str:
    return show(extent) if isinstance(extent, Expr) else str(extent)


def _show_infix(node: Expr, texts: _Texts) -> tuple[str, int]:
    sign, binding = _INFIX[node.op]
    a, b = node.args
    # i + -1 is how nodes.py keeps i - 1; parsing the latter gives the former.
    if node.op == "add" and b.op == "const" and node.dtype.kind == "int" and b.attr < 0:
        sign, b_text, b_binding = "-", show_const(-b.attr, b.dtype), _ATOM
        if -b.attr > node.dtype.max:
            sign, b_text = "+", texts[b][0]
    else:
        b_text, b_binding = texts[b]
    a_text, a_binding = texts[a]
    if a_binding < binding or (a_binding == binding == 1):
        a_text = f"({a_text})"
    if b_binding <= binding:
        b_text = f"({b_text})"
    return f"{a_text} {sign} {b_text}", binding


def show_const(value: Any, dtype: DType) -> str:
    """A literal that parses back to the same bits (for NaN: to a NaN of the same sign)."""
    if dtype is bool_:
        return "true" if value else "false"
    suffix = _SHORT[dtype.name]
    if dtype.kind != "float":
        return f"{value}" if dtype is int64 else f"{value}{suffix}"
    if not math.isfinite(value):
        sign = "-" if math.copysign(1.0, value) < 0 else ""
        name = "nan" if math.isnan(value) else "inf"
        return f"{sign}{name}" if dtype is float32 else f"{sign}{name}_{suffix}"
    text = str(np.float32(value)) if dtype is float32 else repr(value)
    if s.const(float(text), dtype).attr != value:
        text = float(value).hex()
    return text if dtype is float32 else text + suffix


_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.]*\Z")
_LITERALS: dict[str, Expr] = {"true": s.const(True, bool_), "false": s.const(False, bool_)}
for _d in ALL:
    if _d.kind == "float":
        _tail = "" if _d is float32 else f"_{_SHORT[_d.name]}"
        _LITERALS["inf" + _tail] = s.make("const", (), _d, math.inf)
        _LITERALS["nan" + _tail] = s.make("const", (), _d, math.nan)


def show_name(name: str) -> str:
    """``name``, in backquotes if it does not look like one."""
    plain = _PLAIN_NAME.match(name) and name not in _LITERALS
    return name if plain else f"`{name}`"


# --- parsing --------------------------------------------------------------------------------------

_TOKEN = re.compile(
    r"""\s*(?:
      (?P<number>(?:0[xX][0-9a-fA-F]+(?:\.[0-9a-fA-F]*)?[pP][+-]?\d+
                  |\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)(?P<suffix>(?:bf|[fiu])\d+)?)
    | (?P<name>[A-Za-z_][A-Za-z0-9_.]*|`[^`]*`)
    | (?P<sign><<|>>|<=|==|!=|//|[-+*/%&^|~<(){}\[\],:;=])
    )""",
    re.VERBOSE,
)
_SIGNS = {sign: op for op, (sign, _) in _INFIX.items()}
_Token = tuple[str, str, str]  # kind, text, suffix of a number


def parse(text: str, names: Mapping[str, Any] | None = None) -> Expr:
    """The expression with this text.

    names: variables (Expr), buffers and tensors by name; axes of a ``reduce`` need no entry.
    Operations are built by the constructors of nodes.py, as the printed expression was.
    Errors: InternalError naming the place in the text.
    """
    known = dict(names or {})
    tokens = _tokenize(text)
    for (kind, name, _), (_, colon, _) in pairwise(tokens):
        if kind == "name" and colon == ":":
            known.setdefault(name.strip("`"), s.var(name.strip("`")))
    if tokens and tokens[0][1] == "{":
        parts = _split(tokens[1:-1], ";")
        for part in parts[:-1]:
            known[part[0][1].strip("`")] = _Parser(text, part[2:], known).parse()
        tokens = parts[-1]
    return _Parser(text, tokens, known).parse()


def _tokenize(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    position, text = 0, text.rstrip()
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise InternalError(f"scalar text: cannot read {text[position : position + 30]!r}")
        kind = match.lastgroup if match.lastgroup != "suffix" else "number"
        tokens.append((kind or "", match[kind or 0], match["suffix"] or ""))
        position = match.end()
    return tokens


def _split(tokens: list[_Token], separator: str) -> list[list[_Token]]:
    parts: list[list[_Token]] = [[]]
    for token in tokens:
        if token[1] == separator and token[0] == "sign":
            parts.append([])
        else:
            parts[-1].append(token)
    return parts


class _Parser:
    """Operator precedence with explicit stacks, so that nesting has no depth limit.

    values: operands (also buffers, and the axes of a reduce as a tuple).
    pending: (kind, sign or name, binding or number of values when it opened).
    """

    def __init__(self, text: str, tokens: list[_Token], names: Mapping[str, Any]) -> None:
        self.text, self.tokens, self.names = text, tokens, names
        self.values: list[Any] = []
        self.pending: list[tuple[str, Any, int]] = []
        self.position = 0

    def fail(self, why: str) -> InternalError:
        near = " ".join(t[1] for t in self.tokens[max(0, self.position - 6) : self.position + 1])
        return InternalError(f"scalar text: {why}, near {near[-60:]!r}")

    def peek(self, ahead: int = 0) -> str:
        where = self.position + ahead
        in_range = where < len(self.tokens)
        return self.tokens[where][1] if in_range and self.tokens[where][0] == "sign" else ""

    def parse(self) -> Expr:
        operand = True
        while self.position < len(self.tokens):
            operand = self.operand() if operand else self.operator()
            self.position += 1
        if operand:
            raise self.fail("an operand is missing at the end")
        self.reduce_to(0)
        if self.pending or len(self.values) != 1 or not isinstance(self.values[0], Expr):
            raise self.fail("incomplete expression")
        return self.values[0]

    def operand(self) -> bool:
        """Reads one token where an operand starts; returns whether another operand must follow."""
        kind, text, suffix = self.tokens[self.position]
        if kind == "number":
            self.values.append(self.number(text, suffix))
            return False
        if kind == "name":
            return self.name(text)
        if text in ("-", "~"):
            following = self.tokens[self.position + 1 : self.position + 2]
            if text == "-" and following and following[0][0] == "number":
                self.position += 1
                self.values.append(s.unary("neg", self.number(*following[0][1:])))
                return False
            self.pending.append(("prefix", "neg" if text == "-" else "not", _PREFIX_BINDING))
            return True
        if text == "(":
            self.pending.append(("(", None, len(self.values)))
            return True
        if text == "]" and self.pending[-1:] and self.pending[-1][0] == "[":
            self.close("]")  # no indices: A[]
            return False
        raise self.fail(f"expected an operand, got {text!r}")

    def operator(self) -> bool:
        """Reads one token after an operand; returns whether an operand must follow."""
        kind, text, _ = self.tokens[self.position]
        if kind == "sign" and text in (")", "]"):
            self.close(text)
            return False
        if kind == "sign" and text in (",", ":"):
            self.reduce_to(0)
            if text == "," and self.peek(2) == "=":
                self.position += 3  # ", axis = ["
                self.pending.append(("[", "axis", len(self.values)))
            return True
        if kind == "sign" and text in _SIGNS:
            binding = _INFIX[_SIGNS[text]][1]
            self.reduce_to(binding)
            self.pending.append(("infix", _SIGNS[text], binding))
            return True
        raise self.fail(f"expected an operator, got {text!r}")

    def number(self, text: str, suffix: str) -> Expr:
        digits = text.removesuffix(suffix)
        if suffix:
            dtype = _DTYPES[suffix]
        else:
            dtype = int64 if digits.isdigit() else float32
        if dtype.kind != "float":
            return s.const(int(digits), dtype)
        is_hex = digits[:2] in ("0x", "0X")
        return s.const(float.fromhex(digits) if is_hex else float(digits), dtype)

    def name(self, text: str) -> bool:
        following = self.peek(1)
        if following == "(" and not text.startswith("`"):
            self.position += 1
            self.pending.append(("(", text, len(self.values)))
            return True
        name = text.strip("`")
        value = _LITERALS.get(text)
        if value is None:
            value = self.names.get(name)
        if value is None:
            raise self.fail(f"unknown name {name!r}")
        if following == "[":
            self.position += 1
            self.pending.append(("[", value, len(self.values)))
            return True
        self.values.append(value)
        return False

    def reduce_to(self, binding: int) -> None:
        """Applies the pending operators that bind at least as tightly."""
        while self.pending and self.pending[-1][0] in ("infix", "prefix"):
            kind, op, own = self.pending[-1]
            if own < binding:
                return
            self.pending.pop()
            if kind == "prefix":
                self.values.append(s.unary(op, self.values.pop()))
                continue
            b, a = self.values.pop(), self.values.pop()
            compared = op in s.COMPARE
            self.values.append(s.compare(op, a, b) if compared else s.binary(op, a, b))

    def close(self, sign: str) -> None:
        self.reduce_to(0)
        if not self.pending or self.pending[-1][0] != {")": "(", "]": "["}[sign]:
            raise self.fail(f"unmatched {sign!r}")
        _, head, base = self.pending.pop()
        args, self.values[base:] = self.values[base:], []
        if head == "axis" and sign == "]":
            # int extents, as te writes them
            ends = [e.attr if e.op == "const" else e for e in args[1::2]]
            self.values.append(tuple(zip(args[::2], ends, strict=True)))
        elif sign == "]":
            # Buffers have a scope, tensors of tensor expressions have none.
            op = s.load if hasattr(head, "scope") else s.read
            self.values.append(op(head, *args))
        elif head is None and len(args) == 1:
            self.values.append(args[0])
        else:
            self.values.append(self.function(head, args))

    def function(self, name: str | None, args: list[Any]) -> Expr:
        if name is None or not args:
            raise self.fail("wrong number of arguments")
        if isinstance(args[-1], tuple):
            return s.reduce(name, args[-1], *args[:-1])
        if name.startswith("fold_"):
            return s.fold(name.removeprefix("fold_"), args[0])
        if _FUNCTIONS.get(name, len(args)) != len(args):
            raise self.fail(f"{name} takes {_FUNCTIONS[name]} arguments, got {len(args)}")
        if name in _DTYPES:
            return s.cast(args[0], _DTYPES[name])
        if name.startswith("bitcast_") and name.removeprefix("bitcast_") in _DTYPES:
            return s.bitcast(args[0], _DTYPES[name.removeprefix("bitcast_")])
        if name == "fma":
            return s.fma(*args)
        if name == "dot_pairs":
            return s.dot_pairs(*args)
        if name == "select":
            return s.select(*args)
        if name == "checked":
            value, ok, got, limit, code = args
            return s.checked(value, ok, got, limit, code.attr)
        if name in _FUNCTIONS:
            return s.binary(name, *args) if len(args) == 2 else s.unary(name, *args)
        return s.call(name, *args)
