"""Schedules of tensor expressions as text and as functions of NumPy arrays.

Main functions: ``lower`` (the loop nests), ``build`` (native code). May import core, ir, te,
schedule, runtime and compile.kernels.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.compile.kernels import kernel_address, kernel_assembly, kernel_llvm
from tinyflow.core.error import (
    DTypeError,
    InternalError,
    InvalidArgumentError,
    ShapeError,
    Unsupported,
)
from tinyflow.core.source import user_frame
from tinyflow.ir.loop import visit
from tinyflow.ir.loop.nodes import PARALLEL, Body, Buffer, Extent, For, Kernel
from tinyflow.ir.loop.text import show, show_body
from tinyflow.ir.loop.verify import verify
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.runtime.arena import aligned_empty
from tinyflow.runtime.launch_list import Launch, LaunchList
from tinyflow.runtime.thread_pool import default_pool
from tinyflow.schedule.pipelines import FuncSchedule
from tinyflow.schedule.regions import clean_guards
from tinyflow.schedule.stages import StageSchedule
from tinyflow.schedule.targets import Target, host_target
from tinyflow.te.tensor import Tensor

#: Calls with different extents whose launch lists a function keeps.
_KEPT_LISTS = 64


@dataclass(frozen=True)
class LoweredNest:
    """The finished loop nests of a schedule; ``print`` shows them.

    parameters: buffers and extents in the order of the arguments.   scratch: buffers of computed
    tensors that are not among them.   kernels: one, or one per outermost nest where threads share.
    """

    name: str
    parameters: tuple[Buffer | Expr, ...]
    extents: tuple[Expr, ...]
    scratch: tuple[Buffer, ...]
    body: Body
    kernels: tuple[Kernel, ...]
    simple_mode: bool = True

    def __str__(self) -> str:
        if self.simple_mode:
            return show_body(self.body)
        return "\n".join(show(kernel) for kernel in self.kernels)


def lower(
    schedule: StageSchedule,
    args: Sequence[Tensor | Expr],
    name: str = "main",
    simple_mode: bool = True,
) -> LoweredNest:
    """The loop nests of a schedule with the guards it really needs.

    args: the tensors (and extents) that the caller passes, inputs and results; other computed
    tensors live in scratch memory. simple_mode: print loops only, without the kernels' heads.
    Errors: InvalidArgumentError for what is missing in args or cannot run as scheduled.
    """
    parameters: list[Buffer | Expr] = []
    for arg in (tensor for given in args for tensor in schedule.tensors_of(given)):
        if isinstance(arg, Tensor) and arg in schedule.buffers:
            parameters.append(schedule.buffers[arg])
        elif isinstance(arg, Expr) and arg in schedule.extents:
            parameters.append(arg)
        else:
            raise InvalidArgumentError(
                f"lower: the schedule has no use for {arg!r}", source=user_frame(),
                choices=[*(t.name for t in schedule.buffers), *map(str, schedule.extents)],
            )  # fmt: skip
    buffers = [p for p in parameters if isinstance(p, Buffer)]
    if len(set(buffers)) != len(buffers):
        raise InvalidArgumentError("lower: a tensor stands twice in args", source=user_frame())
    body = clean_guards(schedule.body)
    read, written = visit.buffers_read(body), visit.buffers_written(body)
    used = dict.fromkeys(b for b in (*read, *written) if b.scope == "param")
    scratch = tuple(b for b in used if b not in buffers)
    for buffer in scratch:
        tensor = next((t for t, b in schedule.buffers.items() if b is buffer), None)
        if buffer not in written or tensor in schedule.outputs:
            raise InvalidArgumentError(
                f"lower: {buffer.name} is {'a result' if buffer in written else 'read'} "
                "and not among args", source=user_frame(), hint=f"pass {buffer.name}, too",
            )  # fmt: skip
    _check_extents(buffers, parameters, schedule.extents)
    kernels = _kernels(name, body, schedule.extents)
    for kernel in kernels:
        try:
            verify(kernel)
        except InternalError as error:
            raise InvalidArgumentError(
                f"lower: the schedule cannot run: {error.what.partition(': kernel ')[2]}",
                received=error.received, source=user_frame(),
            ) from error  # fmt: skip
    return LoweredNest(
        name, tuple(parameters), schedule.extents, scratch, body, kernels, simple_mode
    )


def _check_extents(
    buffers: Sequence[Buffer], parameters: Sequence[Any], extents: Sequence[Expr]
) -> None:
    """Every extent must follow from the arguments' shapes or be one of them."""
    known = {d for b in buffers for d in b.shape} | {p for p in parameters if isinstance(p, Expr)}
    for extent in extents:
        if extent not in known:
            raise InvalidArgumentError(
                f"lower: no argument says what {extent.attr} is", source=user_frame(),
                hint=f"pass {extent.attr} itself as an argument",
            )  # fmt: skip


def _kernels(name: str, body: Body, extents: tuple[Expr, ...]) -> tuple[Kernel, ...]:
    """One kernel; one per outermost statement where an outermost loop is parallel."""
    shared = any(isinstance(stmt, For) and stmt.kind == PARALLEL for stmt in body)
    parts = [(stmt,) for stmt in body] if shared and len(body) > 1 else [body]
    return tuple(
        _kernel(name if len(parts) == 1 else f"{name}_{n}", part, extents)
        for n, part in enumerate(parts)
    )


def _kernel(name: str, body: Body, extents: tuple[Expr, ...]) -> Kernel:
    written = [b for b in visit.buffers_written(body) if b.scope == "param"]
    used = dict.fromkeys(
        b for b in (*visit.buffers_read(body), *written) if b.scope == "param"
    )
    outer = body[0] if len(body) == 1 else None
    tasks: Extent = 1
    if isinstance(outer, For) and outer.kind == PARALLEL:
        tasks = outer.extent
    outputs = tuple(b.name for b in written)
    return Kernel(name, tuple(used), extents, body, outputs, tasks)


def build(
    schedule: StageSchedule | LoweredNest,
    args: Sequence[Tensor | Expr] = (),
    target: Target | str | None = None,
    name: str = "main",
) -> TensorFunction:
    """A native function of the arguments: ``build(s, [A, B, C])(a, b, c)`` writes ``c``.

    target: None, "cpu" or "llvm" for this machine, or a Target. Errors: as ``lower``; Unsupported
    for other targets.
    """
    if isinstance(target, str):
        if target not in ("cpu", "llvm"):
            raise Unsupported(
                f"build: no target {target!r}", choices=["cpu", "llvm"], source=user_frame()
            )
        target = None
    nest = schedule if isinstance(schedule, LoweredNest) else lower(schedule, args, name)
    return TensorFunction(nest, target or host_target())


def realize(
    schedule: FuncSchedule, inputs: Mapping[Tensor, Any] | None = None, target: Any = None
) -> Any:
    """The Funcs of a pipeline as new arrays: one, or a tuple where there are several values.

    inputs: an array for each tensor that they read. Errors: as ``build`` and its function.
    """
    given = dict(inputs or {})
    missing = [t.name for t in schedule.inputs if t not in given]
    if missing or len(given) != len(schedule.inputs):
        wanted = ", ".join(t.name for t in schedule.inputs) or "nothing"
        raise InvalidArgumentError(
            f"realize: expected arrays for {wanted}, "
            f"got {', '.join(t.name for t in given) or 'none'}", source=user_frame(),
        )  # fmt: skip
    results = [
        aligned_empty(tuple(_value(d, {}) for d in t.shape), t.dtype.numpy)
        for t in schedule.outputs
    ]
    function = build(schedule, [*schedule.inputs, *schedule.outputs], target)
    function(*(given[t] for t in schedule.inputs), *results)
    return tuple(results) if len(results) > 1 else results[0]


class TensorFunction:
    """``function(*arrays)`` runs the nests; results are written into the arrays passed for them.

    One thread at a time: others wait.
    """

    def __init__(self, nest: LoweredNest, target: Target) -> None:
        self.nest = nest
        self.target = target
        self._addresses = [kernel_address(kernel, target) for kernel in nest.kernels]
        self._buffers = [p for p in nest.parameters if isinstance(p, Buffer)] + list(nest.scratch)
        self._written = {name for kernel in nest.kernels for name in kernel.outputs}
        self._lists: dict[tuple[int, ...], tuple[LaunchList, list[np.ndarray[Any, Any]]]] = {}
        self._lock = threading.Lock()

    def llvm(self) -> str:
        """LLVM IR of the kernels."""
        return "\n".join(kernel_llvm(k, self.target, k.name) for k in self.nest.kernels)

    def assembly(self) -> str:
        return "\n".join(kernel_assembly(k, self.target) for k in self.nest.kernels)

    def __call__(self, *arguments: Any) -> None:
        parameters = self.nest.parameters
        if len(arguments) != len(parameters):
            raise InvalidArgumentError(
                f"{self.nest.name}: expected {len(parameters)} arguments, got {len(arguments)}",
                expected=", ".join(map(_shown, parameters)), source=user_frame(),
            )  # fmt: skip
        known: dict[Expr, int] = {}
        arrays: list[np.ndarray[Any, Any]] = []
        for parameter, given in zip(parameters, arguments, strict=True):
            if isinstance(parameter, Expr):
                self._learn(known, parameter, int(given), str(parameter.attr))
            else:
                arrays.append(self._checked(parameter, given, known))
        for buffer, array in zip(self._buffers, arrays, strict=False):
            self._check_shape(buffer, array, known)
        key = tuple(known[e] for e in self.nest.extents)
        with self._lock:
            found = self._lists.get(key)
            if found is None:
                if len(self._lists) >= _KEPT_LISTS:
                    self._lists.clear()
                found = self._lists[key] = self._launches(known)
            launches, scratch = found
            for slot, array in enumerate((*arrays, *scratch), 1):
                launches.table[slot] = array.ctypes.data
            if launches.run():
                status = launches.status
                raise InvalidArgumentError(
                    f"{self.nest.name}: bad value {status.value}, limit {status.limit}",
                    source=user_frame(),
                )

    def _checked(self, buffer: Buffer, array: Any, known: dict[Expr, int]) -> Any:
        if not isinstance(array, np.ndarray):
            raise DTypeError(
                f"{self.nest.name}: {buffer.name} must be a NumPy array, "
                f"got {type(array).__name__}", source=user_frame(),
            )  # fmt: skip
        if array.dtype != buffer.dtype.numpy:
            raise DTypeError(
                f"{self.nest.name}: {buffer.name} holds {buffer.dtype}, got {array.dtype}",
                source=user_frame(),
            )
        if array.ndim != len(buffer.shape):
            raise ShapeError(
                f"{self.nest.name}: {buffer.name} has shape {_shape(buffer)}, "
                f"got {list(array.shape)}", source=user_frame(),
            )  # fmt: skip
        if not array.flags.c_contiguous or (
            buffer.name in self._written and not array.flags.writeable
        ):
            raise InvalidArgumentError(
                f"{self.nest.name}: {buffer.name} must be contiguous"
                f"{' and writeable' if buffer.name in self._written else ''}",
                source=user_frame(), hint="np.ascontiguousarray(...) copies it",
            )  # fmt: skip
        for extent, size in zip(buffer.shape, array.shape, strict=True):
            if isinstance(extent, Expr) and extent.op == "var":
                self._learn(known, extent, size, f"{buffer.name}'s {extent.attr}")
        return array

    def _learn(self, known: dict[Expr, int], extent: Expr, size: int, where: str) -> None:
        if known.setdefault(extent, size) != size:
            raise ShapeError(
                f"{self.nest.name}: {where} is {size}, but {extent.attr} is {known[extent]}",
                source=user_frame(),
            )

    def _check_shape(
        self, buffer: Buffer, array: np.ndarray[Any, Any], known: dict[Expr, int]
    ) -> None:
        shape = tuple(_value(d, known) for d in buffer.shape)
        if array.shape != shape:
            raise ShapeError(
                f"{self.nest.name}: {buffer.name} has shape {_shape(buffer)} = {list(shape)}, "
                f"got {list(array.shape)}", source=user_frame(),
            )  # fmt: skip

    def _launches(
        self, known: dict[Expr, int]
    ) -> tuple[LaunchList, list[np.ndarray[Any, Any]]]:
        slots = {buffer: n for n, buffer in enumerate(self._buffers, 1)}
        extents = tuple(known[e] for e in self.nest.extents)
        launches = [
            Launch(
                address, _value(kernel.tasks, known), 1,
                tuple(slots[b] for b in kernel.buffers), extents, kernel.name,
                serial=kernel.tasks == 1,
            )
            for address, kernel in zip(self._addresses, self.nest.kernels, strict=True)
        ]  # fmt: skip
        scratch = [
            aligned_empty(tuple(_value(d, known) for d in b.shape), b.dtype.numpy)
            for b in self.nest.scratch
        ]
        return LaunchList(launches, len(slots) + 1, default_pool()), scratch


def _value(extent: Extent, known: dict[Expr, int]) -> int:
    if isinstance(extent, int):
        return extent
    found = scalar_visit.substitute(extent, {e: s.index(n) for e, n in known.items()})
    assert found.is_const, extent
    return int(found.attr)


def _shape(buffer: Buffer) -> str:
    return f"[{', '.join(map(str, buffer.shape))}]"


def _shown(parameter: Buffer | Expr) -> str:
    if isinstance(parameter, Expr):
        return str(parameter.attr)
    return f"{parameter.name}: {parameter.dtype.name}{_shape(parameter)}"
