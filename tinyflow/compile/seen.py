"""Groups whose kernels an earlier plan or process made: their launches without any scheduling.

Main function: ``kernels_of``; main type: ``SeenKernel``, a kernel whose loop nest is made when
somebody looks at it. May import core, ir, passes, schedule, runtime and compile.kernels.

An entry lies in the kernel cache beside the machine code, under the hash of what the group
computes (``Grouping.signature``), the target, the findings of the autotuner and the sources of the
compiler. It is JSON: arguments, tasks, the printed steps, and the key of the machine code. A group
with symbolic extents or with attributes that have no canonical text has no entry.
"""

from __future__ import annotations

import enum
import functools
import hashlib
import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from tinyflow.compile.kernels import object_key
from tinyflow.core import options
from tinyflow.core.dtype import DType, as_dtype
from tinyflow.ir.graph.nodes import TensorType, Value
from tinyflow.ir.loop.nodes import Body, Buffer, Kernel
from tinyflow.ir.loop.visit import substitute_buffers
from tinyflow.ir.scalar import nodes as s
from tinyflow.passes.fusion import Group
from tinyflow.runtime.kernel_cache import cache_key, default_cache
from tinyflow.schedule import tuning
from tinyflow.schedule.lowering import LoweredKernel, Scratch, rebound
from tinyflow.schedule.targets import Target

#: Folders whose sources decide what a graph becomes.
_SOURCES = (
    "core", "ir", "rewrite", "te", "ops", "passes", "schedule", "codegen", "runtime", "compile",
)  # fmt: skip
_IMPORTED_NS = time.time_ns()
#: Imports take less.
_SETTLED_NS = 3_000_000_000


class NoText(Exception):
    """A part of a key has no text that is the same in every process."""


def kernels_of(
    signature: Any, group: Group, values: Sequence[Value], target: Target, fuse: bool,
    lower: Callable[[], list[LoweredKernel]],
) -> list[LoweredKernel]:  # fmt: skip
    """The group's kernels: from an entry, else from ``lower``, which schedules the group.

    signature, values: what ``Grouping.signature`` says; values are those read, then those made.
    """
    key = group_key(signature, target, fuse)
    if key is None:
        return lower()
    found = load(key, group, values, lower)
    if found is None:
        found = lower()
        save(key, found, values, target)
    return found or lower()


def group_key(signature: Any, target: Target, fuse: bool) -> str | None:
    """Hex key of a group's entry; None for groups that have none."""
    fingerprint = usable_fingerprint()
    if fingerprint is None:
        return None
    try:
        text = "".join(texts(signature))
    except NoText:
        return None
    found = findings_text(target)
    return cache_key(f"group {fuse} {fingerprint} {found} {text}", str(target))


def usable_fingerprint() -> str | None:
    """``compiler_fingerprint``; None where everything is to be made again, and looked at."""
    if options.current().verify or tuning.is_overridden():
        return None
    return compiler_fingerprint()


@functools.cache
def compiler_fingerprint() -> str | None:
    """Names, sizes and times of the compiler's source files, hashed: as Python's own cache does.

    None when a file changed after it was imported (or just before): what runs is not what it says.
    """
    package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    digest, newest = hashlib.sha256(), 0
    for folder in _SOURCES:
        for place, inner, names in os.walk(os.path.join(package, folder)):
            inner.sort()
            for name in sorted(names):
                if name.endswith(".py"):
                    path = os.path.join(place, name)
                    status = os.stat(path)
                    line = f"{os.path.relpath(path, package)} {status.st_size} {status.st_mtime_ns}"
                    digest.update(line.encode() + b"\n")
                    newest = max(newest, status.st_mtime_ns)
    return None if newest > _IMPORTED_NS - _SETTLED_NS else digest.hexdigest()[:16]


def findings_text(target: Target) -> str:
    """What the autotuner knows about this target; any new finding may change any schedule."""
    found = tuning.known_findings()
    if not found:
        return ""
    own = tuning.target_key(target)
    lines = sorted(f"{k} {v['tuning']}" for (t, k), v in found.items() if t == own)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def texts(part: Any) -> list[str]:
    """The canonical text of a key, in pieces. Recursion is as deep as free values are nested."""
    kind = type(part)
    if kind is tuple:
        out = ["("]
        for one in part:
            out += texts(one)
            out.append(",")
        out.append(")")
        return out
    if kind in (int, str, bool) or part is None:
        return [repr(part)]
    if kind is float:
        return [part.hex()]
    if kind is TensorType:
        return [str(part.dtype), *texts(part.shape)]
    if kind is DType:
        return [part.name]
    if isinstance(part, enum.Enum):
        return [f"{kind.__name__}.{part.name}"]
    if isinstance(part, (np.ndarray, np.generic)) and part.dtype.kind != "O":
        content = hashlib.sha256(np.ascontiguousarray(part).tobytes()).hexdigest()
        return [f"{part.dtype.str}{part.dtype.name}{part.shape}{content}"]
    names = _compared_fields(kind)  # type: ignore[arg-type]  # mypy: __hash__ of instances
    if names is None:
        raise NoText(kind)
    out = [f"{kind.__module__}.{kind.__qualname__}{{"]
    for name in names:
        out += [name, "=", *texts(getattr(part, name)), ","]
    return [*out, "}"]


@functools.cache
def _compared_fields(kind: type) -> tuple[str, ...] | None:
    """Names of a dataclass's fields that its equality looks at; None for other classes."""
    if not is_dataclass(kind) or issubclass(kind, type):
        return None
    return tuple([field.name for field in fields(kind) if field.compare])


# ---- kernels -------------------------------------------------------------------------------------
class SeenKernel(Kernel):
    """A kernel whose machine code is known by ``object_key``; the loop nest is made on demand."""

    object_key: str
    _make_body: Callable[[], Body]

    def __getattr__(self, name: str) -> Any:
        if name != "body":
            raise AttributeError(name)
        body = self._make_body()
        self.__dict__["body"] = body
        return body

    def made_from(self, sources: tuple[Any, ...], ops: tuple[str, ...]) -> Kernel:
        """The same kernel, made from other nodes."""
        return seen_kernel({**self.__dict__, "sources": sources, "ops": ops})


def seen_kernel(attributes: dict[str, Any]) -> SeenKernel:
    kernel: SeenKernel = object.__new__(SeenKernel)
    kernel.__dict__.update(attributes)
    return kernel


def save(
    key: str, kernels: Sequence[LoweredKernel], values: Sequence[Value], target: Target
) -> None:
    """Writes the entry of a group that has just been scheduled."""
    number = {value: n for n, value in enumerate(values)}
    scratch: dict[Scratch, int] = {}
    try:
        records = [_record(one, number, scratch, target) for one in kernels]
    except (NoText, KeyError):
        records = []  # scheduled every time: its sizes are arguments
    memory = [[one.dtype.name, one.size, one.name] for one in scratch]
    if not all(type(size) is int for _, size, _ in memory):
        records = []
    text = json.dumps({"kernels": records, "scratch": memory if records else []},
                      separators=(",", ":"))  # fmt: skip
    default_cache().put(key, text.encode())


def _record(
    one: LoweredKernel, number: dict[Value, int], scratch: dict[Scratch, int], target: Target
) -> dict[str, Any]:
    kernel = one.kernel
    counts = (one.flops, one.bytes, one.chunk, one.tasks, kernel.tasks, *one.serial_below)
    sizes = [n for b in kernel.buffers for n in b.shape]
    if any(type(n) is not int for n in (*counts, *sizes, *one.extents)):
        raise NoText

    def argument(value: Value | Scratch | None) -> Any:
        if isinstance(value, Scratch):
            return [scratch.setdefault(value, len(scratch))]
        return None if value is None else number[value]

    return {
        "name": kernel.name,
        "buffers": [[b.name, b.dtype.name, list(b.shape), b.scope] for b in kernel.buffers],
        "outputs": list(kernel.outputs),
        "counts": counts,
        "extents": [[str(v.attr), n] for v, n in zip(kernel.extents, one.extents, strict=True)],
        "arguments": [argument(a) for a in one.arguments],
        "in_place": [[number[a], number[b]] for a, b in one.in_place],
        "steps": list(one.steps),
        "object": object_key(kernel, target),
    }


def load(
    key: str, group: Group, values: Sequence[Value], lower: Callable[[], list[LoweredKernel]]
) -> list[LoweredKernel] | None:
    """The kernels of a group that has an entry, applied to ``values``; else None. An empty list
    where the entry says that they have to be scheduled.

    lower: schedules the group after all, for whoever looks at a loop nest.
    """
    payload = default_cache().get(key)
    if payload is None:
        return None
    entry = json.loads(payload)
    if not entry["kernels"]:
        return []
    scratch = [Scratch(as_dtype(d), size, name) for d, size, name in entry["scratch"]]
    lowered = functools.cache(lower)
    found = [
        _loaded(record, n, group, values, scratch, lowered)
        for n, record in enumerate(entry["kernels"])
    ]
    return rebound(found, group, dict(zip(values, values, strict=True)))


def _loaded(
    record: dict[str, Any], position: int, group: Group, values: Sequence[Value],
    scratch: Sequence[Scratch], lowered: Callable[[], list[LoweredKernel]],
) -> LoweredKernel:  # fmt: skip
    flops, size_bytes, chunk, tasks, kernel_tasks, work, least = record["counts"]
    buffers = tuple(
        Buffer(name, as_dtype(dtype), tuple(shape), scope)
        for name, dtype, shape, scope in record["buffers"]
    )

    def body() -> Body:
        made = lowered()[position].kernel
        return substitute_buffers(made.body, dict(zip(made.buffers, buffers, strict=True)))

    kernel = seen_kernel({
        "name": record["name"], "buffers": buffers, "tasks": kernel_tasks,
        "extents": tuple([s.var(v) for v, _ in record["extents"]]),
        "outputs": tuple(record["outputs"]), "sources": (), "ops": (),
        "object_key": record["object"], "_make_body": body,
    })  # fmt: skip

    def argument(number: Any) -> Value | Scratch | None:
        if isinstance(number, list):
            return scratch[number[0]]
        return None if number is None else values[number]

    return LoweredKernel(
        kernel,
        tuple([argument(a) for a in record["arguments"]]),
        tuple(record["steps"]),
        flops,
        size_bytes,
        chunk,
        group,
        tuple([(values[a], values[b]) for a, b in record["in_place"]]),
        tuple([n for _, n in record["extents"]]),
        tasks,
        serial_below=(work, least),
    )
