"""Loop nests over buffers: what a kernel does, in which order.

Main types: ``Buffer``, ``Kernel`` and the statements ``For``, ``Store``, ``Alloc``, ``If``,
``Call``, ``Barrier``. Imports core and ir.scalar.

Grammar::

    kernel = Kernel(name, buffers, extents, body, tasks)
    stmt   = For(var, extent, kind, body)     kind: serial | parallel | vectorize | unroll
           | Store(buffer, indices, value)
           | Alloc(buffer, body)              a local buffer that lives while body runs
           | If(condition, then, orelse)
           | Call(function, arguments)        a named native function; on CPUs only
                                              prefetch(buffer, index), prefetch_read(...): hints
                                              in_order(): loads below stay below (register pressure)
                                              for a store or a load, no effect on values
           | Barrier()                        all threads of a block arrive (GPU targets only)
    body   = tuple of stmt

A ``parallel`` loop stands only outermost; its range is what the runtime hands to threads. A
``vectorize`` or ``unroll`` loop has a constant extent. Inside a ``vectorize`` loop a condition that
depends on its variable becomes a lane mask: masked-off lanes neither load nor store.
Value semantics of a vectorised loop: all lanes of one statement run before the next statement.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tinyflow.core.dtype import DType
from tinyflow.core.source import UNKNOWN, Source
from tinyflow.ir.scalar.nodes import Expr

Extent = Expr | int
SERIAL, PARALLEL, VECTORIZE, UNROLL = "serial", "parallel", "vectorize", "unroll"
KINDS = (SERIAL, PARALLEL, VECTORIZE, UNROLL)

#: param: passed by the caller; stack: scratch memory, row-major; register: constant indices only,
#: becomes machine registers.
SCOPES = ("param", "stack", "register")


@dataclass(frozen=True, eq=False, slots=True, weakref_slot=True)
class Buffer:
    """Row-major memory with a name, an element type and one extent per dimension.

    nontemporal: a parameter that the kernel only writes, and that will have left the caches before
    anyone reads it: whole vectors may be stored past the caches. A hint, no effect on values.
    """

    name: str
    dtype: DType
    shape: tuple[Extent, ...]
    scope: str = "param"
    nontemporal: bool = False

    def __str__(self) -> str:
        return self.name


class Stmt:
    """Base of statements."""

    __slots__ = ()


Body = tuple[Stmt, ...]


@dataclass(frozen=True, slots=True)
class For(Stmt):
    """for var in range(extent): body"""

    var: Expr
    extent: Extent
    kind: str
    body: Body


@dataclass(frozen=True, slots=True)
class Store(Stmt):
    """buffer[indices] = value"""

    buffer: Buffer
    indices: tuple[Expr, ...]
    value: Expr


@dataclass(frozen=True, slots=True)
class Alloc(Stmt):
    """A local buffer (scope stack or register) that lives while body runs; not initialised."""

    buffer: Buffer
    body: Body


@dataclass(frozen=True, slots=True)
class If(Stmt):
    condition: Expr
    then: Body
    orelse: Body = ()


#: Functions of ``Call`` that neither read nor write.
HINTS = ("prefetch", "prefetch_read", "in_order")

#: Functions of ``Call`` that every back end has, and the positions of the buffers they write.
#: transpose(target, at, target_stride, source, start, source_stride, lanes):
#: target[at + i * target_stride + j] = source[start + j * source_stride + i] for i, j < lanes.
WRITTEN = {"transpose": (0,)}


@dataclass(frozen=True, slots=True)
class Call(Stmt):
    function: str
    arguments: tuple[Expr | Buffer, ...]


@dataclass(frozen=True, slots=True)
class Barrier(Stmt):
    pass


@dataclass(frozen=True)
class Kernel:
    """A native function.

    buffers: parameters in call order.   extents: int64 variables passed at run time.
    outputs: names of the buffers that are written.
    tasks: the extent of the outermost parallel loop (1 when there is none).
    sources: the user's lines this kernel was made from.   ops: names of the graph nodes.
    """

    name: str
    buffers: tuple[Buffer, ...]
    extents: tuple[Expr, ...]
    body: Body
    outputs: tuple[str, ...]
    tasks: Extent = 1
    sources: tuple[Source, ...] = field(default=(UNKNOWN,), compare=False)
    ops: tuple[str, ...] = field(default=(), compare=False)

    def made_from(self, sources: tuple[Source, ...], ops: tuple[str, ...]) -> Kernel:
        """The same kernel, made from other nodes."""
        return replace(self, sources=sources, ops=ops)
