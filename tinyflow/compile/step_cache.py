"""Steps that an earlier process compiled: what runs, without passes, fusion and schedules.

Main functions: ``content_of``, ``load``, ``save``; main type: ``KnownPlan``. May import core, ir,
passes, schedule, runtime and the neighbours in compile.

An entry lies in the kernel cache under the hash of the step's function with static types (ops,
attributes, which value goes where, the labels of origins), the options, the target, the findings of
the autotuner and the sources of the compiler. It says what a program needs: kernels by the keys of
their machine code, places in memory, constants. Names and lines are the new function's. Only steps
of kernels and copies have entries; those with loops, host calls or ops from elsewhere are planned.
"""

from __future__ import annotations

import hashlib
import json
from array import array
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np

from tinyflow.compile.gangs import Gang
from tinyflow.compile.kernels import known_address, object_key
from tinyflow.compile.plan import CopyKernel, Plan
from tinyflow.compile.seen import NoText, findings_text, seen_kernel, texts, usable_fingerprint
from tinyflow.core import options
from tinyflow.core.dtype import as_dtype
from tinyflow.ir.graph.nodes import Effect, Function, Input, Node, Op, TensorType, Value
from tinyflow.ops.creation import Constant
from tinyflow.passes.cse import has_attributes
from tinyflow.passes.plan_memory import MemoryPlan, Place
from tinyflow.runtime.kernel_cache import cache_key, default_cache
from tinyflow.schedule.lowering import LoweredKernel
from tinyflow.schedule.targets import Target, current_target

#: Steps with more bytes of constants are planned: hashing and storing weights pays for nothing.
MOST_CONSTANT_BYTES = 1 << 20
_COPY = "copy"
#: Options that other parts of the key have, or without an entry, or of the run alone.
_DECIDES_NOTHING = frozenset((
    "fuse", "lanes", "threads", "verify", "dump", "stop_after", "memory_budget",
    "show_internal_frames",
))  # fmt: skip


@dataclass(eq=False)
class KnownPlan(Plan):
    """A plan that has only what runs. Its function has the inputs and updates of the real one, its
    kernels' arguments are places.   make: the real plan, for whoever looks or has to report.
    """

    make: Callable[[], Plan] = None  # type: ignore[assignment]

    @property
    def full(self) -> Plan:
        return self.make()


# ---- keys ----------------------------------------------------------------------------------------
def content_of(fn: Function) -> str | None:
    """Hash of all that decides what becomes of ``fn``; None when it has no canonical text."""
    if fn.effects or usable_fingerprint() is None:
        return None
    try:
        stream, parts = _numbered(fn)
    except (NoText, TypeError):  # an attribute without a text or a hash
        return None
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update(stream.tobytes())
    return digest.hexdigest()


def _numbered(fn: Function) -> tuple[array[int], list[str]]:
    """The nodes as a row of numbers, and what the numbers of ops, types and so on stand for."""
    keys = _key_numbers(fn)
    known: dict[Hashable, int] = {}
    parts: list[str] = []
    values: dict[Value, int] = {}
    nodes: dict[Node, int] = {}
    stream = array("q")

    def number(part: Hashable, show: Callable[[], list[str]]) -> int:
        found = known.get(part)
        if found is None:
            found = known[part] = len(parts)
            parts.append("".join(show()))
        return found

    for node in fn.nodes:
        op, types = node.op, node.types
        if isinstance(op, Input):
            stream.append(number((op.role, op.type), lambda: texts((op.role, op.type))))  # noqa: B023
            stream.append(keys[op.key])
        else:
            stream.append(number(_exactly(op), lambda: _op_text(op)))  # noqa: B023
        stream.append(number(types, lambda: texts(types)))  # noqa: B023
        if node.origin or node.device or node.control_inputs:
            rest = (tuple([label for label, _ in node.origin]), node.device)
            stream.append(number(rest, lambda: texts(rest)))  # noqa: B023
            stream.extend([-2 - nodes[n] for n in node.control_inputs])
        stream.append(-1)
        stream.extend([values[v] for v in node.inputs])
        stream.append(-1)
        nodes[node] = len(nodes)
        for value in node.outputs:
            values[value] = len(values)
    stream.extend([values[v] for v in fn.outputs])
    for key, position in fn.updates.items():
        stream.extend((-1, keys[key], position))
    return stream, parts


def _key_numbers(fn: Function) -> dict[Any, int]:
    """What inputs and updates are bound to, numbered; the function cannot be one without."""
    keys: dict[Any, int] = {}
    for value in fn.inputs:
        key = value.node.op.key  # type: ignore[attr-defined]
        if key is None:
            raise NoText(value)
        keys.setdefault(key, len(keys))
    for key in fn.updates:
        keys.setdefault(key, len(keys))
    return keys


def _exactly(op: Op) -> Hashable:
    """Something that only ops equal to the last bit share; for attributes 0.0 equals -0.0 and 1."""
    kind: Any = type(op)
    if not has_attributes(kind):
        return kind  # type: ignore[no-any-return]
    return "".join(_op_text(op))


def _op_text(op: Op) -> list[str]:
    if op.effect is Effect.HOST or not type(op).__module__.startswith("tinyflow."):
        raise NoText(op)
    if isinstance(op, Constant):
        if op.value.size > 1 and op.number is not None:  # initial values are often zeros
            return [type(op).__name__, *texts((op.value.shape, op.number))]
        if op.value.nbytes > MOST_CONSTANT_BYTES:
            raise NoText(op)
    return texts(op)


def _entry_key(content: str | None, fuse: bool, target: Target) -> str | None:
    now, fingerprint = options.current(), usable_fingerprint()
    if content is None or fingerprint is None or now.dump or now.stop_after or now.memory_budget:
        return None
    # Any option may decide what becomes of a step; a new one does until it is known not to.
    switches = {name: value for name, value in vars(now).items() if name not in _DECIDES_NOTHING}
    switches["disabled_passes"] = sorted(now.disabled_passes)
    return cache_key(
        f"step {fuse} {switches} {fingerprint} {findings_text(target)} {content}", str(target)
    )


# ---- writing -------------------------------------------------------------------------------------
def save(content: str | None, fuse: bool, fn: Function, plan: Plan) -> None:
    """Writes the entry of a plan of ``fn`` that was made just now, if it can have one."""
    key = _entry_key(content, fuse, plan.target)
    if key is None:
        return
    try:
        head, constants = _Writer(fn, plan).entry()
    except NoText:
        return
    text = json.dumps(head, separators=(",", ":")).encode()
    default_cache().put(key, b"".join([len(text).to_bytes(8, "little"), text, *constants]))


class _Writer:
    def __init__(self, fn: Function, plan: Plan) -> None:
        self.plan = plan
        self.keys = _key_numbers(fn)
        self.lines: dict[Any, int] = {}
        for n, node in enumerate(fn.nodes):
            self.lines.setdefault(node.source, n)
        self.numbers: dict[Place, int] = {}
        self.places: list[list[Any]] = []
        self.constants: dict[Any, int] = {}
        self.object_keys: dict[int, str] = {}

    def entry(self) -> tuple[dict[str, Any], list[bytes]]:
        plan, fn = self.plan, self.plan.fn
        dtypes = [v.dtype.numpy for v in (*plan.constants, *plan.results)]
        if plan.sizes or fn.effects or any(dtype.hasobject for dtype in dtypes):
            raise NoText(fn)
        actions = [self.action(one) for one in plan.actions]
        for place in plan.memory.places.values():
            if place.kind != "arena":
                self.place(place)
        stored = [_stored(value, plan.constants[value]) for value in self.constants]
        if sum(array.nbytes for array in stored) > MOST_CONSTANT_BYTES:
            raise NoText(fn)
        split = len(fn.outputs) - len(fn.updates)
        head = {
            "actions": actions,
            "places": self.places,
            "arena": plan.memory.arena_bytes,
            "inputs": [[v.node.op.role, self.keys[v.node.op.key]] for v in fn.inputs],  # type: ignore[attr-defined]
            "updates": [self.keys[key] for key in fn.updates],
            "results": [[v.dtype.name, list(v.type.shape)] for v in plan.results],  # type: ignore[arg-type]
            "outputs": [plan.results.index(v) for v in fn.outputs[:split]],
            "constants": [
                [v.dtype.name, list(plan.constants[v].shape), a.size]
                for v, a in zip(self.constants, stored, strict=True)
            ],
        }
        return head, [a.tobytes() for a in stored]

    def action(self, one: Any) -> list[Any]:
        if isinstance(one, Gang):
            return [self.action(member) for member in one.members]
        if isinstance(one, CopyKernel):
            return [_COPY, self.placed(one.source), self.placed(one.target), one.size_bytes]
        if not isinstance(one, LoweredKernel):
            raise NoText(one)
        numbers = (one.tasks, one.chunk, one.flops, one.bytes, *one.extents)
        if any(type(n) is not int for n in numbers):
            raise NoText(one)
        arguments = [-1 if a is None else self.placed(a) for a in one.arguments]
        lines = [self.lines.get(source, -1) for source in one.kernel.sources]
        if -1 in lines:
            raise NoText(one)
        # Kernels that differ in their arguments share this; the text of each is long to print.
        same = id(one.addresses)
        if same not in self.object_keys:
            self.object_keys[same] = object_key(one.kernel, self.plan.target)
        return [self.object_keys[same], one.kernel.name, arguments, lines, numbers]

    def placed(self, value: Any) -> int:
        return self.place(value if isinstance(value, Place) else self.plan.memory.places[value])

    def place(self, place: Place) -> int:
        found = self.numbers.get(place)
        if found is None:
            kind, key = place
            if kind == "constant":
                key = self.constants.setdefault(key, len(self.constants))
            elif kind in ("feed", "variable", "counter", "initialized"):
                key = self.keys[key]
            elif kind not in ("arena", "fetch"):
                raise NoText(place)
            found = self.numbers[place] = len(self.places)
            self.places.append([kind, key])
        return found


def _stored(value: Value, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """What an entry has of a constant: one element where all are that."""
    number = getattr(value.node.op, "number", None)
    return array if number is None else np.asarray(number)


# ---- reading -------------------------------------------------------------------------------------
def load(
    content: str | None, fuse: bool, fn: Function, make: Callable[[], Plan]
) -> KnownPlan | None:
    """The plan of an equal function as an entry tells it, for ``fn``; None without one.

    make: the real plan of ``fn``.
    """
    target = current_target()
    key = _entry_key(content, fuse, target)
    payload = None if key is None else default_cache().get(key)
    if payload is None:
        return None
    size = int.from_bytes(payload[:8], "little")
    head = json.loads(payload[8 : 8 + size])
    known: dict[str, int | None] = {
        one[0]: known_address(one[0])
        for action in head["actions"]
        for one in _members(action)
        if one[0] != _COPY
    }
    if None in known.values():  # machine code is dropped when the cache is full
        return None
    return _Reader(fn, target, head, known).plan(payload[8 + size :], make)


def _members(action: list[Any]) -> list[Any]:
    return action if isinstance(action[0], list) else [action]


class _Reader:
    def __init__(
        self, fn: Function, target: Target, head: dict[str, Any], known: dict[str, Any]
    ) -> None:
        self.fn, self.target, self.head, self.known = fn, target, head, known
        self.keys = list(_key_numbers(fn))
        self.places = [self.place(kind, key) for kind, key in head["places"]]
        self.kernels: dict[str, Any] = {}

    def place(self, kind: str, key: int) -> Place:
        named = kind in ("feed", "variable", "counter", "initialized")
        return Place(kind, self.keys[key] if named else key)

    def plan(self, content: bytes, make: Callable[[], Plan]) -> KnownPlan:
        head = self.head
        of_key = {(v.node.op.role, v.node.op.key): v for v in self.fn.inputs}  # type: ignore[attr-defined]
        inputs = [of_key[role, self.keys[n]] for role, n in head["inputs"]]
        results = [_stand_in(as_dtype(d), shape) for d, shape in head["results"]]
        updates = {self.keys[n]: len(head["outputs"]) + i for i, n in enumerate(head["updates"])}
        outputs = [results[n] for n in head["outputs"]]
        outputs += [_stand_in(as_dtype("bool"), ()) for _ in updates]
        # A feed's value says which one it is; the others are found by their places.
        feeds = {("feed", v.node.op.key): v for v in inputs if v.node.op.role == "feed"}  # type: ignore[attr-defined]
        memory = MemoryPlan(
            {feeds.get(place, place): place for place in self.places}, arena_bytes=head["arena"]
        )
        return KnownPlan(
            Function(self.fn.name, inputs, outputs, updates), None, self.target,  # type: ignore[arg-type]
            [self.action(one) for one in head["actions"]], memory, results,
            self.constants(content), make=make,
        )  # fmt: skip

    def constants(self, content: bytes) -> dict[Any, np.ndarray[Any, Any]]:
        found: dict[Any, np.ndarray[Any, Any]] = {}
        start = 0
        for number, (dtype, shape, size) in enumerate(self.head["constants"]):
            flat = np.frombuffer(content, as_dtype(dtype).numpy, size, start)
            one = flat.reshape(()) if size == 1 else flat.reshape(shape)
            found[number] = np.broadcast_to(one, shape)
            start += flat.nbytes
        return found

    def action(self, one: list[Any]) -> Any:
        if isinstance(one[0], list):
            return Gang([self.action(member) for member in one])
        if one[0] == _COPY:
            return CopyKernel(self.places[one[1]], self.places[one[2]], one[3])
        key, name, arguments, lines, (tasks, chunk, flops, size_bytes, *extents) = one
        nodes, places = self.fn.nodes, self.places
        kernel = seen_kernel({
            "name": name, "object_key": key, "sources": tuple([nodes[n].source for n in lines]),
        })  # fmt: skip
        return LoweredKernel(
            kernel, tuple([None if a < 0 else places[a] for a in arguments]),  # type: ignore[misc]
            (), flops, size_bytes, chunk, extents=tuple(extents), tasks=tasks,
            addresses={self.target: self.known[key]},
        )  # fmt: skip


def _stand_in(dtype: Any, shape: Any) -> Value:
    """A result of which only the type is known."""
    type_ = TensorType(dtype, tuple(shape))
    return Node(Input(type_, "result"), (), (type_,)).outputs[0]
