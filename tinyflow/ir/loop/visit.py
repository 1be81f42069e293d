"""Walks over loop nests: order, rebuilding, substitution, what a body reads and writes.

Main functions: ``walk``, ``map_statements``, ``map_expressions``, ``substitute_vars``, ``collect``.
Imports core, ir.scalar and ir.loop.nodes. Walks recurse over loop nesting (bounded by the ranks of
the tensors involved) and are iterative over expressions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TypeVar

from tinyflow.ir.loop.nodes import (
    HINTS,
    WRITTEN,
    Alloc,
    Body,
    Buffer,
    Call,
    Extent,
    For,
    If,
    Stmt,
    Store,
)
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr

S = TypeVar("S", bound=Stmt)


def bodies(stmt: Stmt) -> tuple[Body, ...]:
    """The statement's own bodies, in order of execution."""
    if isinstance(stmt, (For, Alloc)):
        return (stmt.body,)
    if isinstance(stmt, If):
        return (stmt.then, stmt.orelse)
    return ()


def expressions(stmt: Stmt) -> tuple[Expr, ...]:
    """The expressions that stand directly in the statement, not in its bodies."""
    if isinstance(stmt, Store):
        return (*stmt.indices, stmt.value)
    if isinstance(stmt, For):
        return (stmt.extent,) if isinstance(stmt.extent, Expr) else ()
    if isinstance(stmt, If):
        return (stmt.condition,)
    if isinstance(stmt, Alloc):
        return tuple(d for d in stmt.buffer.shape if isinstance(d, Expr))
    if isinstance(stmt, Call):
        return tuple(a for a in stmt.arguments if isinstance(a, Expr))
    return ()


def walk(body: Iterable[Stmt]) -> Iterator[Stmt]:
    """Every statement, each before the statements inside it, in order of execution."""
    stack = list(reversed(tuple(body)))
    while stack:
        stmt = stack.pop()
        yield stmt
        for inner in reversed(bodies(stmt)):
            stack.extend(reversed(inner))


def collect(body: Iterable[Stmt], kind: type[S]) -> list[S]:
    """All statements of one class, in the order of ``walk``."""
    return [stmt for stmt in walk(body) if isinstance(stmt, kind)]


def with_bodies(stmt: Stmt, new: tuple[Body, ...]) -> Stmt:
    """The statement with other bodies (same number); the same object when nothing changed."""
    if new == bodies(stmt):
        return stmt
    if isinstance(stmt, For):
        return For(stmt.var, stmt.extent, stmt.kind, new[0])
    if isinstance(stmt, Alloc):
        return Alloc(stmt.buffer, new[0])
    assert isinstance(stmt, If)
    return If(stmt.condition, *new)


def map_statements(body: Body, fn: Callable[[Stmt], Stmt | Body]) -> Body:
    """``body`` rebuilt bottom-up: ``fn`` turns a statement (inside done) into one or several.

    An empty tuple deletes the statement.
    """
    out: list[Stmt] = []
    for stmt in body:
        inner = bodies(stmt)
        if inner:
            stmt = with_bodies(stmt, tuple(map_statements(b, fn) for b in inner))
        result = fn(stmt)
        out.extend(result if isinstance(result, tuple) else (result,))
    return tuple(out)


def map_expressions(body: Body, fn: Callable[[Expr], Expr]) -> Body:
    """``body`` with ``fn`` applied to every expression that stands in a statement.

    ``fn`` sees whole expressions (an index, a condition, a stored value, a symbolic extent).
    """

    def extent(value: Extent) -> Extent:
        if not isinstance(value, Expr):
            return value
        new = fn(value)
        return new.attr if new.op == "const" else new

    def one(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Store):
            return Store(stmt.buffer, tuple([fn(i) for i in stmt.indices]), fn(stmt.value))
        if isinstance(stmt, If):
            return If(fn(stmt.condition), stmt.then, stmt.orelse)
        if isinstance(stmt, For):
            return For(stmt.var, extent(stmt.extent), stmt.kind, stmt.body)
        if isinstance(stmt, Call):
            arguments = tuple(fn(a) if isinstance(a, Expr) else a for a in stmt.arguments)
            return Call(stmt.function, arguments)
        return stmt

    return map_statements(body, one)


def substitute_vars(body: Body, mapping: Mapping[Expr, Expr]) -> Body:
    """``body`` with variables (or any sub-expressions) replaced in all its expressions.

    Loop variables that the body binds itself must not be in ``mapping``. Local buffers keep their
    identity, so their shapes must not depend on replaced variables.
    """
    if not mapping:
        return body
    return map_expressions(body, lambda e: scalar_visit.substitute(e, mapping))


def rename_buffers_in(expr: Expr, mapping: Mapping[Buffer, Buffer]) -> Expr:
    """The expression with loads from and folds of other buffers."""

    def one(node: Expr) -> Expr | None:
        if node.op == "load" and node.attr in mapping:
            return s.load(mapping[node.attr], *node.args)
        if node.op == "fold" and node.attr[1] in mapping:
            return s.fold(node.attr[0], mapping[node.attr[1]])
        return None

    return scalar_visit.transform(expr, one)


def substitute_buffers(body: Body, mapping: Mapping[Buffer, Buffer]) -> Body:
    """``body`` with buffers replaced wherever they are allocated, read, written or passed on."""
    if not mapping:
        return body

    def one(stmt: Stmt) -> Stmt:
        if isinstance(stmt, Store):
            return Store(mapping.get(stmt.buffer, stmt.buffer), stmt.indices, stmt.value)
        if isinstance(stmt, Alloc):
            return Alloc(mapping.get(stmt.buffer, stmt.buffer), stmt.body)
        if isinstance(stmt, Call):
            arguments = tuple(
                mapping.get(a, a) if isinstance(a, Buffer) else a for a in stmt.arguments
            )
            return Call(stmt.function, arguments)
        return stmt

    renamed = map_expressions(body, lambda e: rename_buffers_in(e, mapping))
    return map_statements(renamed, one)


def all_expressions(body: Iterable[Stmt]) -> Iterator[Expr]:
    """Every distinct sub-expression of the body, arguments before users."""
    roots = [expr for stmt in walk(body) for expr in expressions(stmt)]
    return scalar_visit.postorder(*roots)


def buffers_read(body: Iterable[Stmt]) -> tuple[Buffer, ...]:
    """Buffers that are loaded from, folded or passed to a call, in order of first use."""
    body = tuple(body)
    found: dict[Buffer, None] = {}
    for expr in all_expressions(body):
        if expr.op == "load":
            found[expr.attr] = None
        elif expr.op == "fold":
            found[expr.attr[1]] = None
    for call in collect(body, Call):
        if call.function not in HINTS:
            written = WRITTEN.get(call.function, ())
            found.update(
                (a, None)
                for n, a in enumerate(call.arguments)
                if isinstance(a, Buffer) and n not in written
            )
    return tuple(found)


def buffers_written(body: Iterable[Stmt]) -> tuple[Buffer, ...]:
    """Buffers that are stored to or passed to a call, in order of first use."""
    found: dict[Buffer, None] = {}
    for stmt in walk(body):
        if isinstance(stmt, Store):
            found[stmt.buffer] = None
        elif isinstance(stmt, Call) and stmt.function not in HINTS:
            written = WRITTEN.get(stmt.function, range(len(stmt.arguments)))
            found.update(
                (a, None)
                for n, a in enumerate(stmt.arguments)
                if isinstance(a, Buffer) and n in written
            )
    return tuple(found)


def allocated(body: Iterable[Stmt]) -> tuple[Buffer, ...]:
    """Local buffers, in order of their Alloc."""
    return tuple(stmt.buffer for stmt in collect(body, Alloc))


def free_vars(body: Iterable[Stmt]) -> tuple[Expr, ...]:
    """Variables the body needs from outside, in order of first use (extents of loads included)."""
    found: dict[Expr, None] = {}

    def visit(stmts: Iterable[Stmt], bound: frozenset[Expr]) -> None:
        for stmt in stmts:
            needed = scalar_visit.free_vars(*expressions(stmt))
            found.update((v, None) for v in needed if v not in bound)
            inner = bound | {stmt.var} if isinstance(stmt, For) else bound
            for body_ in bodies(stmt):
                visit(body_, inner)

    visit(body, frozenset())
    return tuple(found)


def bounds_condition(condition: Expr) -> bool:
    """Whether loads in an arm of ``select(condition, ...)`` happen only where it selects them.

    True when the condition compares integers or reads booleans, which can express "this index is
    inside the buffer"; a comparison of floats cannot, so its arms may load unconditionally (and
    fast). Interpreter and code generator both ask here.
    """
    for node in scalar_visit.postorder(condition):
        if node.op in s.COMPARE:
            if node.args[0].dtype.kind != "float":
                return True
        elif node.dtype.kind == "bool" and node.op in ("load", "cast", "var", "fold", "checked"):
            return True
    return False
