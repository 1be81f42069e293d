"""The legality of scalar expressions: arity and element types of every operation.

Main function: ``verify``, one table row per group of operations. Imports core and ir.scalar.
"""

from __future__ import annotations

from collections.abc import Callable

from tinyflow.core.dtype import DType, bool_, int32, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder


def verify(expr: Expr) -> None:
    """Errors: InternalError with the first sub-expression that breaks the grammar of nodes.py."""
    for node in postorder(expr):
        broken = broken_rule(node, node is expr)
        if broken is not None:
            received = {f"argument {n}": a.dtype.name for n, a in enumerate(node.args)}
            raise InternalError(
                f"scalar verify: {node.op}: {broken}",
                received={**received, "in": show_short(node)},
            )


def show_short(node: Expr) -> str:
    from tinyflow.ir.scalar.text import show

    text = show(node)
    return text if len(text) <= 200 else text[:200] + "..."


def broken_rule(node: Expr, is_root: bool) -> str | None:
    """What is wrong with this one node, or None."""
    rule = _RULES.get(node.op)
    if rule is None:
        return "unknown operation"
    if node.op == "reduce" and not is_root:
        return "stands only at the top of a tensor expression"
    return rule(node, *(a.dtype for a in node.args)) if _arity_fits(node) else "wrong arity"


_ARITY = {
    **dict.fromkeys(("const", "var", "fold"), 0),
    **dict.fromkeys((*s.UNARY, "cast", "bitcast"), 1),
    **dict.fromkeys((*s.BINARY, *s.COMPARE), 2),
    **dict.fromkeys(("fma", "dot_pairs", "select"), 3),
    "checked": 4,
}


def _arity_fits(node: Expr) -> bool:
    if node.op in ("load", "read"):
        return len(node.args) == len(node.attr.shape)
    if node.op == "reduce":
        return len(node.args) == (2 if node.attr.combiner == "dot" else 1)
    if node.op == "call":
        return len(node.args) >= 1
    return len(node.args) == _ARITY[node.op]


def _const(node: Expr) -> str | None:
    kinds = {"bool": bool, "int": int, "uint": int, "float": float}
    if type(node.attr) is not kinds[node.dtype.kind]:
        return f"a {node.dtype.name} holds {kinds[node.dtype.kind].__name__}, got {node.attr!r}"
    if node.dtype.is_integer and not node.dtype.min <= node.attr <= node.dtype.max:
        return f"{node.attr} is outside {node.dtype.name}"
    return None


def _same(*kinds: str) -> Callable[..., str | None]:
    """All arguments and the result have one dtype, of one of these kinds."""

    def rule(node: Expr, *types: DType) -> str | None:
        if any(t is not node.dtype for t in types):
            return f"arguments and result must have one dtype, the result is {node.dtype.name}"
        if node.dtype.kind not in kinds:
            return f"expected {' or '.join(kinds)}, got {node.dtype.name}"
        return None

    return rule


def _compare(node: Expr, a: DType, b: DType) -> str | None:
    if a is not b:
        return "compared values must have one dtype"
    return None if node.dtype is bool_ else "the result must be bool"


def _select(node: Expr, condition: DType, a: DType, b: DType) -> str | None:
    if condition is not bool_:
        return "the condition must be bool"
    return None if a is b is node.dtype else "both values must have the result's dtype"


def _bitcast(node: Expr, a: DType) -> str | None:
    return None if a.size_bytes == node.dtype.size_bytes else "sizes in bytes differ"


def _access(node: Expr, *indices: DType) -> str | None:
    if any(t is not int64 for t in indices):
        return "indices must be int64"
    same = node.dtype is node.attr.dtype
    return None if same else f"the result must be {node.attr.dtype.name}"


def _reduce(node: Expr, *bodies: DType) -> str | None:
    if node.attr.combiner not in s.COMBINERS:
        return f"the combiner must be one of {', '.join(s.COMBINERS)}, got {node.attr.combiner}"
    if any(t is not node.dtype for t in bodies):
        return "the body must have the result's dtype"
    if any(axis.op != "var" or axis.dtype is not int64 for axis, _ in node.attr.axes):
        return "axes must be int64 variables"
    return None


def _fold(node: Expr) -> str | None:
    return None if node.attr[0] in s.COMBINERS else f"unknown combiner {node.attr[0]!r}"


def _dot_pairs(node: Expr, *types: DType) -> str | None:
    return None if {node.dtype, *types} == {int32} else "the operands must be int32"


def _checked(node: Expr, value: DType, ok: DType, got: DType, limit: DType) -> str | None:
    if ok is not bool_ or got is not int64 or limit is not int64:
        return "expected (value, bool, int64, int64)"
    return None if value is node.dtype else "the result must have the value's dtype"


_RULES: dict[str, Callable[..., str | None]] = {
    "const": _const,
    "var": lambda node: None if isinstance(node.attr, str) else "a variable needs a name",
    **dict.fromkeys(("add", "sub", "mul", "min", "max"), _same("int", "uint", "float")),
    **dict.fromkeys(("div", "sqrt", "floor", "ceil", "rint", "trunc", "fma"), _same("float")),
    **dict.fromkeys(("floordiv", "mod", "truncdiv", "rem", "shl", "shr"), _same("int", "uint")),
    **dict.fromkeys(("and", "or", "xor", "not"), _same("bool", "int", "uint")),
    **dict.fromkeys(("neg", "abs"), _same("int", "uint", "float")),
    **dict.fromkeys(s.COMPARE, _compare),
    "dot_pairs": _dot_pairs,
    "select": _select,
    "cast": lambda node, a: None,
    "bitcast": _bitcast,
    "call": lambda node, *types: _same("float")(node, *types),
    "load": _access,
    "read": _access,
    "reduce": _reduce,
    "fold": _fold,
    "checked": _checked,
}
