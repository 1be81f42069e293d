"""From a group of nodes to scalar expressions over flat buffers.

Main types: ``LoweredKernel`` (a kernel and what its buffers are bound to), ``GroupExpressions``
(element expressions of a group's values at a point of its domain), ``merge_axes``.
May import core, ir, te, passes.fusion.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tinyflow.core.dtype import DType, int64
from tinyflow.core.shape import Dim, evaluate
from tinyflow.ir.graph.nodes import Value
from tinyflow.ir.loop import visit as loop_visit
from tinyflow.ir.loop.nodes import PARALLEL, Body, Buffer, For, Kernel, Stmt, Store
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.passes.fusion import Group, Grouping, Item, is_one

Axes = list[tuple[Expr, Any]]


@dataclass(frozen=True, eq=False)
class Scratch:
    """Temporary memory of a group, placed in the arena by the memory plan."""

    dtype: DType
    size: int
    name: str = "scratch"

    @property
    def size_bytes(self) -> int:
        return self.size * self.dtype.size_bytes


@dataclass(frozen=True, eq=False)
class LoweredKernel:
    """A kernel and its arguments.

    arguments: what each of ``kernel.buffers`` is bound to; None is the status record.
    steps: the schedule, one printable step per line.   flops, bytes: estimates for the roofline.
    chunk: tasks per claim of a thread; 0 runs the whole kernel in the calling thread.
    in_place: pairs (input, result) that may share memory: every element of the input is read at
    the element of the result being written, and not after it.
    extents: values of the kernel's symbolic extents.   tasks: its tasks for these extents.
    serial_below: (work, least work worth a thread) of a kernel that serves all sizes; flops, chunk
    and work may then be expressions, see ``at``.
    addresses: target -> native code, shared by kernels that are the same but for their arguments.
    """

    kernel: Kernel
    arguments: tuple[Value | Scratch | None, ...]
    steps: tuple[str, ...]
    flops: int
    bytes: int
    chunk: int = 0
    group: Group | None = field(default=None, compare=False)
    in_place: tuple[tuple[Value, Value], ...] = ()
    extents: tuple[int, ...] = ()
    tasks: int = 1
    addresses: dict[Any, int] = field(default_factory=dict, compare=False)
    serial_below: tuple[Any, int] = (0, 0)

    def at(self, sizes: Mapping[str, int], scratch: dict[Scratch, Scratch]) -> LoweredKernel:
        """The kernel for one set of sizes; its native code is the same for all.

        scratch: the temporary memory of this group for these sizes, filled on the way.
        """
        def argument(old: Value | Scratch | None) -> Value | Scratch | None:
            if not isinstance(old, Scratch):
                return old
            if old not in scratch:
                scratch[old] = replace(old, size=value_at(old.size, sizes))
            return scratch[old]

        # A kernel that no size enters may have arguments of its own, see schedule/offsets.py.
        own = zip([str(v.attr) for v in self.kernel.extents], self.extents, strict=False)
        known = {**dict(own), **sizes}
        work, least = self.serial_below
        chunk = max(1, value_at(self.chunk, sizes)) if value_at(work, sizes) >= least else 0
        return replace(
            self,
            arguments=tuple([argument(a) for a in self.arguments]),
            flops=value_at(self.flops, sizes),
            bytes=sum(
                value_at(a.size_bytes if isinstance(a, Scratch) else a.type.size_bytes, sizes)
                for a in self.arguments if a is not None
            ),
            chunk=0 if self.chunk == 0 else chunk,
            extents=tuple([known[str(v.attr)] for v in self.kernel.extents]),
            tasks=value_at(self.kernel.tasks, sizes),
        )  # fmt: skip


def value_at(number: Any, sizes: Mapping[str, int]) -> int:
    """A count (int, extent or expression over extents) for these sizes."""
    if isinstance(number, Expr):
        known = scalar_visit.substitute(number, {s.var(n): s.index(v) for n, v in sizes.items()})
        assert known.is_const, number
        return int(known.attr)
    found = evaluate(number, sizes)
    assert found is not None, number
    return found


def loop_extent(extent: Any) -> Any:
    """An extent as loops take it: a number or an expression."""
    return scalar_visit.plain(s.index(extent)) if isinstance(extent, Dim) else extent


def rebound(
    kernels: Sequence[LoweredKernel], group: Group, change: dict[Value, Value]
) -> list[LoweredKernel]:
    """The kernels of an equal group, applied to this group's values."""
    scratch: dict[Scratch, Scratch] = {}

    def argument(old: Value | Scratch | None) -> Value | Scratch | None:
        if isinstance(old, Scratch):
            return scratch.setdefault(old, Scratch(old.dtype, old.size, old.name))
        return None if old is None else change[old]

    nodes = [i.value.node for i in group.items]
    sources = tuple(dict.fromkeys(n.source for n in nodes))
    names = tuple(dict.fromkeys(n.name or n.op.type_name for n in nodes))
    return [
        replace(
            one,
            kernel=one.kernel.made_from(sources, names),
            arguments=tuple([argument(a) for a in one.arguments]),
            group=group,
            in_place=tuple((change[a], change[b]) for a, b in one.in_place),
        )
        for one in kernels
    ]


def row_major(shape: Sequence[Any], indices: Sequence[Expr]) -> Expr:
    """Position of an element in memory, counted in elements."""
    position = s.index(0)
    for extent, i in zip(shape, indices, strict=True):
        if not is_one(extent):
            position = position * s.index(extent) + i
        elif scalar_visit.is_checked(i):  # 0, or an error
            position = position + i
    return position


_ZERO = s.index(0)


class GroupExpressions:
    """Expressions of a group's values; loads go to flat one-dimensional buffers.

    outer, inner: (variable, extent) per dimension of the group's domain.
    temporaries: value -> expression that replaces recomputing it (a load of what was stored).
    sizes: names of the extents that are arguments of the kernel -> sizes seen, for estimates.
    """

    def __init__(
        self, grouping: Grouping, group: Group, sizes: Mapping[str, int] | None = None
    ) -> None:
        self.grouping = grouping
        self.group = group
        self.sizes = sizes or {}
        self.outer: Axes = [(s.var(f"i{n}"), loop_extent(e)) for n, e in enumerate(group.outer)]
        self.inner: Axes = [(s.var(f"r{n}"), loop_extent(e)) for n, e in enumerate(group.inner)]
        self.extents: dict[Expr, Any] = {}  # of axes that have been estimated
        self.likely: dict[Expr, int] = {}  # estimates that decide about an order
        self.buffers: dict[Value, Buffer] = {}
        self.temporaries: dict[Value, Expr] = {}
        self.results = grouping.results(group)
        self.in_place: tuple[tuple[Value, Value], ...] = ()
        self._memo: dict[Value, Expr] = {}

    def estimated(self, axes: Axes) -> Axes:
        """The axes with a likely size for every extent that is an argument; see ``extents``."""
        self.extents.update(axes)
        return [(v, self.likely.get(v) or self.seen(n)) for v, n in axes]

    def seen(self, extent: Any) -> int:
        """The extent, or a likely size of one that is an argument."""
        return extent if isinstance(extent, int) else value_at(extent, self.sizes)

    @property
    def point(self) -> tuple[Expr, ...]:
        return tuple(v for v, _ in self.outer + self.inner)

    def forget(self) -> None:
        """Drop remembered expressions, after temporaries changed."""
        self._memo.clear()

    def contains(self, item: Item) -> bool:
        """Whether the item is computed here."""
        return item.group is self.group

    def buffer(self, value: Value) -> Buffer:
        """The flat parameter for a value outside the group or a result of it."""
        found = self.buffers.get(value)
        if found is None:
            item = self.grouping.items.get(value)
            kind = "out" if item is not None and self.contains(item) else "in"
            count = sum(b.name.startswith(kind) for b in self.buffers.values())
            size = loop_extent(value.type.size)
            found = Buffer(f"{kind}{count}", value.dtype, (size,))
            self.buffers[value] = found
        return found

    def element(self, value: Value, indices: tuple[Expr, ...]) -> Expr:
        """``value[indices]``."""
        item = self.grouping.items.get(value)
        if item is not None and value in self.group.copied:
            return self.inlined(item, dict(zip(item.tensor.axes, indices, strict=True)))  # type: ignore[union-attr]
        if item is None or not self.contains(item):
            return s.load(self.buffer(value), row_major(value.type.shape or (), indices))
        if value in self.group.inlined:
            return self.inlined(item, dict(zip(item.tensor.axes, indices, strict=True)))  # type: ignore[union-attr]
        return self.at_point(item)

    def inlined(self, item: Item, mapping: dict[Expr, Expr]) -> Expr:
        """The item's expression with its axes replaced."""
        assert item.tensor is not None and item.tensor.body is not None
        return self.resolve(scalar_visit.put_in(item.tensor.body, mapping))

    def resolve(self, body: Expr) -> Expr:
        def one(expr: Expr) -> Expr | None:
            if expr.op == "read":
                return self.element(self.grouping.placeholders[expr.attr], expr.args)
            return None

        return scalar_visit.transform(body, one)

    def axes_at_point(self, item: Item) -> dict[Expr, Expr]:
        """The item's axes in terms of the domain's variables."""
        assert item.tensor is not None
        turned = self.group.turned.get(item.value)
        point = iter(self.point if turned is None else [self.point[n] for n in turned])
        return {
            a: (_ZERO if is_one(n) else next(point))
            for a, n in zip(item.tensor.axes, item.tensor.shape, strict=True)
        }

    def at_point(self, item: Item) -> Expr:
        """The item's element at the current point of the domain."""
        known = self.temporaries.get(item.value)
        if known is None:
            known = self._memo.get(item.value)
        if known is None:
            # Recurses once per link of a chain: MAX_ITEMS of a group bounds the depth.
            known = self._memo[item.value] = self.inlined(item, self.axes_at_point(item))
        return known

    def reduction_body(self, item: Item, axes: Axes) -> tuple[Expr, ...]:
        """Bodies of a reduction at the point, its reduce axes replaced by the given ones."""
        assert item.tensor is not None and item.tensor.body is not None
        mapping = self.axes_at_point(item)
        own = iter(v for v, _ in axes)
        for var, extent in item.tensor.body.attr.axes:
            mapping[var] = _ZERO if is_one(extent) else next(own)
        return tuple(
            self.resolve(scalar_visit.substitute(b, mapping)) for b in item.tensor.body.args
        )

    def position(self, item: Item) -> Expr:
        """Where the item's element at the point lies in its buffer."""
        mapping = self.axes_at_point(item)
        return row_major(item.shape, [mapping[a] for a in item.tensor.axes])  # type: ignore[union-attr]

    def store_result(self, item: Item) -> Store:
        return Store(self.buffer(item.value), (self.position(item),), self.at_point(item))

    def generalize(self, body: Body, total: int, n: Expr) -> Body:
        """``body`` with ``total``-element parameters declared as n elements long."""
        mapping = {}
        for value, buffer in self.buffers.items():
            if buffer.shape == (total,):
                mapping[buffer] = Buffer(buffer.name, buffer.dtype, (n,), buffer.scope)
                self.buffers[value] = mapping[buffer]
        return loop_visit.substitute_buffers(body, mapping)

    def order_results(self) -> None:
        """The results that read most come first: an optimizer's new weight, which needs the old
        moments, is stored before the moments take their memory."""
        buffers = {r.value: len({e.attr for e in scalar_visit.loads(self.at_point(r))})
                   for r in self.results}  # fmt: skip
        self.results.sort(key=lambda r: -buffers[r.value])

    def find_in_place(self, statements: Sequence[Stmt]) -> None:
        """Sets ``in_place`` from the unscheduled statements, in their order of execution."""
        values = {b: v for v, b in self.buffers.items()}
        results = {i.value for i in self.results}
        last: dict[Buffer, int] = {}
        positions: dict[Buffer, set[tuple[Expr, ...]]] = {}
        for n, root in enumerate(statements):
            for expr in loop_visit.expressions(root):
                for load in scalar_visit.loads(expr):
                    last[load.attr] = n
                    positions.setdefault(load.attr, set()).add(load.args)
        pairs = []
        for n, stmt in enumerate(statements):
            if not isinstance(stmt, Store) or values.get(stmt.buffer) not in results:
                continue
            for buffer, value in values.items():
                if (
                    value not in results
                    and last.get(buffer, n + 1) <= n
                    and positions[buffer] == {stmt.indices}
                    and buffer.dtype is stmt.buffer.dtype
                    and buffer.shape == stmt.buffer.shape
                ):
                    pairs.append((value, values[stmt.buffer]))
        self.in_place = tuple(pairs)

    # ---- the finished kernel -------------------------------------------------------------------
    def kernel(
        self,
        body: Body,
        steps: Iterable[str],
        flops: int,
        chunk: Any = 0,
        scratch: Sequence[tuple[Buffer, Scratch]] = (),
        suffix: str = "",
        extents: tuple[tuple[Expr, int], ...] = (),
        work: tuple[Any, int] = (0, 0),
    ) -> LoweredKernel:
        """Collects what the body uses into a kernel's parameter list; work: see serial_below."""
        if self.sizes:
            extents = tuple((s.var(name), size) for name, size in self.sizes.items())
        read, written = loop_visit.buffers_read(body), loop_visit.buffers_written(body)
        used = dict.fromkeys(b for b in (*read, *written) if b.scope == "param")
        bound: dict[Buffer, Value | Scratch] = {b: v for v, b in self.buffers.items()}
        bound.update(dict(scratch))
        buffers, arguments = list(used), [bound[b] for b in used]
        if any(e.op == "checked" for e in loop_visit.all_expressions(body)):
            buffers.insert(0, Buffer("status", int64, (4,)))
            arguments.insert(0, None)  # type: ignore[arg-type]
        outer = body[0] if len(body) == 1 else None
        tasks = outer.extent if isinstance(outer, For) and outer.kind == PARALLEL else 1
        members = self.group.items
        kernel = Kernel(
            f"{self.group.kind}_{self.group.label}"[:48] + suffix,
            tuple(buffers),
            tuple(v for v, _ in extents),
            body,
            tuple(b.name for b in written if b.scope == "param"),
            tasks,
            tuple(dict.fromkeys(i.value.node.source for i in members)),
            tuple(dict.fromkeys(i.value.node.name or i.value.node.op.type_name for i in members)),
        )
        size_bytes = sum(a.size_bytes if isinstance(a, Scratch) else a.type.size_bytes
                         for a in arguments if a is not None)  # fmt: skip
        return LoweredKernel(
            kernel,
            tuple(arguments),
            tuple(steps),
            flops,
            size_bytes,
            chunk if tasks != 1 else 0,
            self.group,
            self.in_place,
            tuple(n for _, n in extents),
            _value_of(tasks, extents),
            serial_below=work,
        )


def _value_of(extent: Any, extents: tuple[tuple[Expr, int], ...]) -> int:
    if isinstance(extent, int):
        return extent
    known = scalar_visit.substitute(extent, {v: s.index(n) for v, n in extents})
    assert known.is_const, extent
    return int(known.attr)


def affine_parts(roots: Iterable[Expr], variables: Sequence[Expr]) -> list[dict[Expr, Any]]:
    """Coefficients of every maximal affine int64 expression that depends on the variables."""
    wanted = frozenset(variables)
    found: list[dict[Expr, Any]] = []
    stack, seen = list(roots), set()
    while stack:
        expr = stack.pop()
        if expr in seen or (not expr.args and expr not in wanted):
            continue
        seen.add(expr)
        if expr.dtype is int64:
            form = scalar_visit.linear(expr, variables)
            if form is not None:
                if form.coefficients:
                    found.append(form.coefficients)
                    continue
                if expr.op != "load":
                    continue
        stack.extend(expr.args)
    return found


def merge_axes(
    roots: Iterable[Expr], axes: Axes, boundaries: frozenset[int] = frozenset()
) -> tuple[Axes, dict[Expr, Expr]]:
    """Neighbouring loops that every access walks as one become one loop.

    (i, j) merge when in each affine index coefficient(i) == coefficient(j) * extent(j).
    boundaries: positions before which no merge may happen. Returns the remaining axes and what
    replaces the old variables.
    """
    variables = [v for v, _ in axes]
    forms = affine_parts(roots, variables)
    merged: Axes = []
    mapping: dict[Expr, Expr] = {}
    for n, (var, extent) in enumerate(axes):
        if merged and n not in boundaries:
            last, count = merged[-1]
            wide = s.index(extent)
            if all(
                s.index(f.get(last, 0)) is s.index(f.get(var, 0)) * wide for f in forms
            ):
                mapping[last] = _ZERO
                merged[-1] = (var, count * extent)
                continue
        merged.append((var, extent))
    return merged, mapping


def single_axis(axes: Axes, name: str) -> tuple[Expr, Any, dict[Expr, Expr]]:
    """One loop instead of several: its variable, extent, and the old ones by // and %."""
    var = s.var(name)
    if len(axes) == 1:
        return var, axes[0][1], {axes[0][0]: var}
    total: Any = 1
    mapping: dict[Expr, Expr] = {}
    rest: Expr = var
    for old, extent in reversed(axes[1:]):
        mapping[old] = rest % s.index(extent)
        rest = rest // s.index(extent)
        total = total * extent
    if axes:
        mapping[axes[0][0]] = rest
        total = total * axes[0][1]
    return var, total, mapping


def roots_of(statements: Iterable[Stmt]) -> list[Expr]:
    """The expressions that stand in statements; their parts are not among them."""
    return [e for st in loop_visit.walk(statements) for e in loop_visit.expressions(st)]


def operations(statements: Iterable[Stmt]) -> int:
    """Floating-point operations of one pass over the statements (a call counts as 10)."""
    total = 0
    for expr in scalar_visit.postorder(*roots_of(statements)):
        if expr.dtype.kind == "float" and expr.args and expr.op not in ("load", "select"):
            total += {"call": 10, "fma": 2}.get(expr.op, 1)
    return total
