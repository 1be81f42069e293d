"""A native segment: kernels in order, run by one foreign call.

Main types: Launch, LaunchList, ProfileRecord. Imports native, driver_ir, thread_pool and core.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from tinyflow.runtime import driver_ir, native
from tinyflow.runtime.driver_ir import FLAG_GANG, FLAG_ROW, GANG_FIELDS
from tinyflow.runtime.thread_pool import ThreadPool, default_pool

_PROFILE_RUNS = 64
_HEADER = len(driver_ir.PROFILE_HEADER)
_SEGMENT = {name: index for index, name in enumerate(driver_ir.SEGMENT_FIELDS)}


@dataclass(frozen=True)
class Launch:
    """One kernel call over the tasks [0, n_tasks), in claims of ``chunk`` tasks.

    arg_slots: table slot of each buffer; slot 0 is the status record. extents: the kernel's
    integers. flops, bytes: work and memory traffic of one call, for reports.
    serial: keep off the pool (the tasks depend on each other, or the kernel is tiny).
    """

    fn_address: int
    n_tasks: int
    chunk: int
    arg_slots: tuple[int, ...]
    extents: tuple[int, ...]
    name: str = ""
    source: str = ""
    flops: int = 0
    bytes: int = 0
    serial: bool = False
    flags: int = 0

    @classmethod
    def jump(cls, target: int, flag_slots: tuple[int, ...], when: bool) -> Launch:
        """A record that goes on at launch ``target`` if the bool in the slot is ``when``.

        Without a slot it always does. ``target`` may be the number of launches: the end.
        """
        flags = driver_ir.FLAG_JUMP | (driver_ir.FLAG_IF_TRUE if when else 0)
        if not flag_slots:
            flags |= driver_ir.FLAG_ALWAYS
        return cls(target, 0, 1, flag_slots or (0,), (), "jump", flags=flags)

    @classmethod
    def gang(cls, n_members: int) -> Launch:
        """A record whose tasks are ``n_members`` launches, run at the same time.

        Behind it stand a jump over them, and they themselves.
        """
        address = native.native_runtime().addresses["run_gang"]
        return cls(address, n_members, 1, (), (0, 0, 0), "gang", flags=FLAG_GANG)

    @classmethod
    def row(
        cls, slot: int, array: int, index: int, row_bytes: int, rows: int, index_bytes: int,
        code: int,
    ) -> Launch:  # fmt: skip
        """A record that lets ``slot`` show one of ``rows`` rows: array + index * row_bytes.

        array, index: their slots; index_bytes: 4 or 8. An index outside sets the status ``code``.
        """
        address = native.native_runtime().addresses["point_at_row"]
        extents = (0, slot, row_bytes, rows, index_bytes, code)
        return cls(
            address, 1, 1, (0, array, index), extents, "row", serial=True, flags=FLAG_ROW
        )


@dataclass(frozen=True)
class LaunchStatus:
    """What went wrong in the last run: code 0 means nothing; the rest is the kernel's word."""

    code: int
    launch_index: int
    value: int
    limit: int


@dataclass(frozen=True)
class LaunchProfile:
    """Times of one launch over the recorded runs, in ns (0 when it never ran under profile).

    Inside a loop a launch's time is that of all iterations of a run.
    """

    name: str
    source: str
    calls: int
    median_ns: int
    last_ns: int
    flops: int
    bytes: int


@dataclass(frozen=True)
class ProfileRecord:
    """native_calls: foreign calls since the list was made; runs: those recorded without error;
    median_ns: of a whole run, first kernel's start to last kernel's end."""

    native_calls: int
    runs: int
    median_ns: int
    launches: tuple[LaunchProfile, ...]


class _Owned(ctypes.c_void_p):
    """A pointer that keeps what it points to (ctypes subclasses take attributes)."""

    memory: tuple[object, ...]
    samples: object


class LaunchList:
    """Owns the packed launches, the pointer table and the status record.

    ``table[slot] = address`` sets a buffer (slots 1 .. n_slots - 1; 0 is the status record). The
    caller keeps the buffers alive. ``run()`` executes all launches by exactly one foreign call,
    without the GIL, and returns 0 or the code a kernel has set; see ``status``. A list has one
    table, so one thread at a time may run it. With pool=None the default pool is used.
    """

    run: Callable[[], int]
    table: memoryview

    def __init__(
        self, launches: Sequence[Launch], n_slots: int, pool: ThreadPool | None = None
    ) -> None:
        self.launches = tuple(launches)
        self.pool = pool if pool is not None else default_pool()
        _check(self.launches, n_slots)
        n_launches = len(self.launches)
        slots = np.array([s for one in self.launches for s in one.arg_slots], dtype=np.int32)
        extents = np.array([e for one in self.launches for e in one.extents], dtype=np.int64)
        packed = _pack(self.launches, slots.ctypes.data, extents.ctypes.data)
        self._status = np.zeros(len(driver_ir.STATUS_FIELDS), dtype=np.int64)
        table = np.zeros(n_slots, dtype=np.uint64)
        table[0] = self._status.ctypes.data
        self._gangs = _Gangs(self.launches, packed, extents, table.ctypes.data)
        _tell_rows(self.launches, extents, table.ctypes.data)
        # Element stores from Python: memoryview 22 ns, ctypes array 27, array.array 31, numpy 34.
        self.table = memoryview(table)  # type: ignore[arg-type]  # numpy's stubs hide the buffer
        self._segment = np.array(
            [packed.ctypes.data, n_launches, table.ctypes.data, self.pool.pointer, 0, 0],
            dtype=np.int64,
        )
        self._samples = np.zeros(0, dtype=np.int64)
        pointer = _Owned(self._segment.ctypes.data)
        pointer.memory = (packed, slots, extents, table, self._status, self._segment, self.pool)
        # A partial has no Python frame of its own: the call costs what ctypes costs.
        self.run = functools.partial(native.native_runtime().run_packed, pointer)
        self._pointer = pointer

    @property
    def status(self) -> LaunchStatus:
        """The status record as the last run left it."""
        return LaunchStatus(*(int(word) for word in self._status))

    def profile(self, enabled: bool) -> None:
        """Start or stop taking times (20 ns per launch); starting forgets older times."""
        if enabled:
            row = 2 * len(self.launches)
            self._samples = np.zeros(_HEADER + _PROFILE_RUNS * row, dtype=np.int64)
            self._samples[1] = _PROFILE_RUNS
            self._pointer.samples = self._samples
        self._segment[_SEGMENT["profile"]] = self._samples.ctypes.data if enabled else 0
        self._gangs.profile(enabled)

    def gang_spans(self) -> list[list[tuple[str, int, int]]]:
        """Per gang its members' names with begin and end (ns) in the last run under profile."""
        return [
            [
                (self.launches[n].name, int(begin), int(end))
                for n, (begin, end) in zip(members, times, strict=True)
            ]
            for members, times in zip(self._gangs.members, self._gangs.times, strict=True)
        ]

    def record(self) -> ProfileRecord:
        """Number of foreign calls, and times of the last runs made under ``profile(True)``."""
        n_launches = len(self.launches)
        runs = int(self._samples[0]) if self._samples.size else 0
        kept = min(runs, _PROFILE_RUNS)
        times = self._samples[_HEADER:].reshape(-1, n_launches, 2)[:kept] if kept else None
        median_ns = 0
        if times is not None and n_launches:
            whole = times[:, -1, 1] - times[:, 0, 0]
            if any(one.flags & driver_ir.FLAG_JUMP for one in self.launches):
                whole = (times[:, :, 1] - times[:, :, 0]).sum(1)  # of all iterations
            median_ns = int(np.median(whole))
        reports = []
        for index, one in enumerate(self.launches):
            median = last = 0
            if times is not None:
                spans = times[:, index, 1] - times[:, index, 0]
                median, last = int(np.median(spans)), int(spans[(runs - 1) % _PROFILE_RUNS])
            if index in self._gangs.span_of and runs:  # a member's time is that of the last run
                median = last = self._gangs.span_of[index]()
            reports.append(
                LaunchProfile(one.name, one.source, runs, median, last, one.flops, one.bytes)
            )
        return ProfileRecord(
            int(self._segment[_SEGMENT["n_calls"]]), runs, median_ns, tuple(reports)
        )


def _tell_rows(launches: Sequence[Launch], extents: np.ndarray, table: int) -> None:
    """Launches that set an entry of the pointer table learn where it is."""
    position = 0
    for one in launches:
        if one.flags & FLAG_ROW:
            extents[position] = table
        position += len(one.extents)


class _Gangs:
    """The records of a list's gangs. members: per gang the numbers of its launches.

    times: per gang (begin, end) of each member in the last profiled run.
    span_of: number of a member's launch -> a function that returns its time in ns.
    """

    def __init__(
        self, launches: Sequence[Launch], packed: np.ndarray, extents: np.ndarray, table: int
    ) -> None:
        self.members: list[range] = []
        self.times: list[np.ndarray] = []
        self.span_of: dict[int, Callable[[], int]] = {}
        self._records: list[np.ndarray] = []
        position = 0
        for n, one in enumerate(launches):
            if one.flags & FLAG_GANG:
                behind = range(n + 2, n + 2 + one.n_tasks)
                times = np.zeros((one.n_tasks, 2), dtype=np.int64)
                record = extents[position : position + len(GANG_FIELDS)]
                record[:] = packed[behind[0]].ctypes.data, table, 0
                for k, member in enumerate(behind):
                    self.span_of[member] = functools.partial(_span, times, k)
                self.members.append(behind)
                self.times.append(times)
                self._records.append(record)
            position += len(one.extents)

    def profile(self, enabled: bool) -> None:
        for record, times in zip(self._records, self.times, strict=True):
            times[:] = 0
            record[GANG_FIELDS.index("times")] = times.ctypes.data if enabled else 0


def _span(times: np.ndarray, n: int) -> int:
    return int(times[n, 1] - times[n, 0])


def _check(launches: Sequence[Launch], n_slots: int) -> None:
    """Native code trusts these numbers, so they are checked here."""
    if n_slots < 1:
        raise ValueError(f"launch list: expected at least 1 slot (the status), got {n_slots}")
    for n, one in enumerate(launches):
        if one.flags & FLAG_GANG:
            skip = launches[n + 1] if n + 1 < len(launches) else one
            if skip.fn_address != n + 2 + one.n_tasks or not skip.flags & driver_ir.FLAG_ALWAYS:
                raise ValueError("gang: expected a jump over its members behind it")
        if one.flags & driver_ir.FLAG_JUMP:
            if not 0 <= one.fn_address <= len(launches):
                raise ValueError(f"jump: no launch {one.fn_address} among {len(launches)}")
        elif one.fn_address <= 0 or one.n_tasks < 0 or one.chunk < 1:
            raise ValueError(
                f"launch {one.name!r}: expected fn_address > 0, n_tasks >= 0 and chunk >= 1, "
                f"got {one.fn_address}, {one.n_tasks} and {one.chunk}"
            )
        own = (one.extents[1],) if one.flags & FLAG_ROW else ()
        if any(not 0 <= slot < n_slots for slot in (*one.arg_slots, *own)):
            raise ValueError(
                f"launch {one.name!r}: expected slots below {n_slots}, got {one.arg_slots}"
            )


def _pack(launches: Sequence[Launch], slots_address: int, extents_address: int) -> np.ndarray:
    """The launches as records of ``driver_ir.LAUNCH_FIELDS``: int64[n, 7]."""
    rows = []
    any_parallel = False
    for one in launches:
        any_parallel |= not one.serial and one.n_tasks > one.chunk
        rows.append(
            (
                one.fn_address,
                one.n_tasks,
                one.chunk,
                len(one.arg_slots),
                slots_address,
                extents_address,
                one.flags | (driver_ir.FLAG_SERIAL if one.serial else 0),
            )
        )
        slots_address += 4 * len(one.arg_slots)
        extents_address += 8 * len(one.extents)
    packed = np.array(rows, dtype=np.int64).reshape(len(rows), len(driver_ir.LAUNCH_FIELDS))
    if any_parallel:
        packed[0, driver_ir.LAUNCH_FIELDS.index("flags")] |= driver_ir.FLAG_ARM
    return packed
