"""The legality of kernels: scopes, arity, element types, where each kind of loop may stand.

Main function: ``verify``. Imports core, ir.scalar and ir.loop.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from tinyflow.core.dtype import bool_, int64
from tinyflow.core.error import InternalError
from tinyflow.ir.loop.nodes import (
    KINDS,
    PARALLEL,
    SCOPES,
    UNROLL,
    VECTORIZE,
    Alloc,
    Barrier,
    Body,
    Buffer,
    Call,
    For,
    If,
    Kernel,
    Stmt,
    Store,
)
from tinyflow.ir.loop.text import show_head
from tinyflow.ir.loop.visit import buffers_read, expressions
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.verify import broken_rule
from tinyflow.ir.scalar.visit import free_vars, postorder


@dataclass(frozen=True)
class _Scope:
    """What a statement may use: variables with their loop kind, buffers; and where it stands."""

    variables: dict[Expr, str]
    buffers: frozenset[Buffer]
    names: frozenset[str]
    outermost: bool = True
    lane: Expr | None = None


def verify(kernel: Kernel) -> None:
    """Errors: InternalError naming the kernel, the first illegal statement and the broken rule."""
    names = [*(b.name for b in kernel.buffers), *(str(e.attr) for e in kernel.extents)]
    broken = _broken_head(kernel, names)
    if broken is not None:
        raise InternalError(f"loop verify: kernel {kernel.name}: {broken}")
    scope = _Scope(
        dict.fromkeys(kernel.extents, "extent"), frozenset(kernel.buffers), frozenset(names)
    )
    _Verifier(kernel).body(kernel.body, scope)


def _broken_head(kernel: Kernel, names: list[str]) -> str | None:
    if len(set(names)) != len(names):
        return "two parameters have one name"
    if any(e.op != "var" or e.dtype is not int64 for e in kernel.extents):
        return "extents must be int64 variables"
    if any(b.scope != "param" for b in kernel.buffers):
        return "parameters must have scope param"
    unknown = set(kernel.outputs) - {b.name for b in kernel.buffers}
    if unknown:
        return f"outputs are no parameters: {', '.join(sorted(unknown))}"
    past_caches = {b for b in kernel.buffers if b.nontemporal}
    if past_caches and past_caches.intersection(buffers_read(kernel.body)):
        return "nontemporal parameters may not be read"
    sizes = [d for b in kernel.buffers for d in b.shape] + [kernel.tasks]
    free = free_vars(*(d for d in sizes if isinstance(d, Expr)))
    if not set(free) <= set(kernel.extents):
        return "shapes and tasks may use extents only"
    parallel = [stmt for stmt in kernel.body if isinstance(stmt, For) and stmt.kind == PARALLEL]
    if parallel and len(kernel.body) > 1:
        return "a parallel loop must be the only outermost statement"
    if any(loop.extent != kernel.tasks for loop in parallel):
        return "tasks must be the extent of the parallel loop"
    if not parallel and kernel.tasks != 1:
        return "tasks must be 1 without a parallel loop"
    return None


class _Verifier:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.checked: set[Expr] = set()
        self.rules: dict[type[Stmt], Callable[..., str | None]] = {
            Store: self.store,
            For: self.loop,
            Alloc: self.alloc,
            If: self.condition,
            Call: lambda stmt, scope: None,
            Barrier: lambda stmt, scope: None,
        }

    def body(self, body: Body, scope: _Scope) -> None:
        for stmt in body:
            rule = self.rules.get(type(stmt))
            broken = "unknown statement" if rule is None else None
            for expr in expressions(stmt):
                broken = broken or self.expression(expr, scope)
            if broken is None and rule is not None:
                broken = rule(stmt, scope)
            if broken is not None:
                raise InternalError(
                    f"loop verify: kernel {self.kernel.name}: {broken}",
                    received={"statement": show_head(stmt) if rule else repr(stmt)},
                )
            self.inside(stmt, scope)

    def inside(self, stmt: Stmt, scope: _Scope) -> None:
        if isinstance(stmt, For):
            lane = stmt.var if stmt.kind == VECTORIZE else scope.lane
            variables = {**scope.variables, stmt.var: stmt.kind}
            names = scope.names | {str(stmt.var.attr)}
            self.body(stmt.body, _Scope(variables, scope.buffers, names, False, lane))
        elif isinstance(stmt, Alloc):
            buffers, names = scope.buffers | {stmt.buffer}, scope.names | {stmt.buffer.name}
            self.body(stmt.body, replace(scope, buffers=buffers, names=names))
        elif isinstance(stmt, If):
            inner = replace(scope, outermost=False)
            self.body(stmt.then, inner)
            self.body(stmt.orelse, inner)

    def expression(self, root: Expr, scope: _Scope) -> str | None:
        for node in postorder(root):
            if node.op == "var" and node not in scope.variables:
                return f"variable {node.attr} is not in scope"
            if node.op == "load":
                broken = self.access(node.attr, node.args, scope)
            elif node.op == "fold":
                broken = self.fold(node.attr[1], scope)
            elif node.op in ("read", "reduce"):
                broken = f"{node.op} is legal in tensor expressions only"
            else:
                broken = None
            if broken is None and node not in self.checked:
                broken = broken_rule(node, False)
                self.checked.add(node)
            if broken is not None:
                return broken
        return None

    def access(self, buffer: Buffer, indices: tuple[Expr, ...], scope: _Scope) -> str | None:
        if buffer not in scope.buffers:
            return f"buffer {buffer.name} is not in scope"
        if len(indices) != len(buffer.shape):
            return f"{buffer.name} has rank {len(buffer.shape)}, got {len(indices)} indices"
        if any(i.dtype is not int64 for i in indices):
            return f"indices of {buffer.name} must be int64"
        if buffer.scope == "register":
            for var in free_vars(*indices):
                if scope.variables.get(var) not in (UNROLL, VECTORIZE):
                    return (
                        f"register buffer {buffer.name} is indexed by {var.attr}, which is no "
                        "unroll or vectorize variable"
                    )
        return None

    def fold(self, buffer: Buffer, scope: _Scope) -> str | None:
        if buffer not in scope.buffers:
            return f"buffer {buffer.name} is not in scope"
        if buffer.scope != "register" or len(buffer.shape) != 1:
            return f"fold needs a register buffer of rank 1, got {buffer.name}"
        return None

    def store(self, stmt: Store, scope: _Scope) -> str | None:
        if stmt.value.dtype is not stmt.buffer.dtype:
            return f"{stmt.buffer.name} holds {stmt.buffer.dtype}, the value is {stmt.value.dtype}"
        if stmt.buffer.scope == "param" and stmt.buffer.name not in self.kernel.outputs:
            return f"{stmt.buffer.name} is written but is not an output"
        return self.access(stmt.buffer, stmt.indices, scope)

    def loop(self, stmt: For, scope: _Scope) -> str | None:
        if stmt.kind not in KINDS:
            return f"unknown kind of loop {stmt.kind!r}; kinds: {', '.join(KINDS)}"
        if stmt.var.op != "var" or stmt.var.dtype is not int64:
            return "the loop variable must be an int64 variable"
        if str(stmt.var.attr) in scope.names:
            return f"the name {stmt.var.attr} is already taken"
        if isinstance(stmt.extent, Expr) and stmt.extent.dtype is not int64:
            return "the extent must be int64"
        if stmt.kind == PARALLEL and not scope.outermost:
            return "a parallel loop stands only outermost"
        if stmt.kind in (UNROLL, VECTORIZE) and not isinstance(stmt.extent, int):
            return f"the extent of a loop of kind {stmt.kind} must be constant"
        if scope.lane is not None:
            if stmt.kind == VECTORIZE:
                return "a vectorize loop stands in another one"
            if isinstance(stmt.extent, Expr) and scope.lane in free_vars(stmt.extent):
                return "the extent depends on a vectorize variable"
        return None

    def alloc(self, stmt: Alloc, scope: _Scope) -> str | None:
        buffer = stmt.buffer
        if buffer.scope not in SCOPES or buffer.scope == "param":
            return f"a local buffer has scope stack or register, got {buffer.scope}"
        if buffer.name in scope.names:
            return f"the name {buffer.name} is already taken"
        if buffer.scope == "register" and not all(isinstance(d, int) for d in buffer.shape):
            return f"register buffer {buffer.name} needs a constant shape"
        if scope.lane is not None:
            # One buffer for all lanes: a private copy per lane is a dimension of the buffer.
            return "a buffer is allocated inside a vectorize loop"
        return None

    def condition(self, stmt: If, scope: _Scope) -> str | None:
        return None if stmt.condition.dtype is bool_ else "the condition must be bool"
