"""What a learned cost model sees of kernels: counts of their loop nests, before any is compiled.

Main functions: ``features_of``, ``FEATURES`` names them. May import ir, schedule and NumPy.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tinyflow.ir.loop.nodes import HINTS, VECTORIZE, Alloc, Body, Call, Extent, For, If, Store
from tinyflow.ir.scalar import visit as scalar_visit
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.schedule.lowering import LoweredKernel, Scratch

Array = Any
#: Counts over a run of all kernels, vectors counted once; sizes; and how work is shared.
FEATURES = (
    "multiply_adds", "arithmetic", "loads", "stack_loads", "register_loads", "stores",
    "stack_stores", "calls", "hints", "iterations", "statements", "stack_bytes", "register_bytes",
    "scratch_bytes", "kernels", "tasks", "chunk", "waiting",
)  # fmt: skip
_ARITHMETIC = frozenset(("add", "sub", "mul", "div", "min", "max", "sqrt", "select", "neg", "abs"))


def features_of(kernels: Sequence[LoweredKernel], threads: int) -> Array:
    """One float per name in FEATURES: log2(1 + count).

    waiting: how much longer the last thread works than the mean one, tasks being alike.
    """
    counts: dict[str, float] = defaultdict(float, kernels=len(kernels))
    for lowered in kernels:
        known = dict(zip(lowered.kernel.extents, lowered.extents, strict=True))
        bounds: dict[Expr, scalar_visit.Bound] = {v: (n, n) for v, n in known.items()}
        _count(lowered.kernel.body, 1.0, bounds, counts)
        counts["tasks"] += lowered.tasks
        counts["chunk"] += lowered.chunk
        scratch = [a for a in lowered.arguments if isinstance(a, Scratch)]
        counts["scratch_bytes"] += sum(a.size_bytes for a in scratch)
        sharing = threads if lowered.chunk else 1
        claims = math.ceil(lowered.tasks / max(1, lowered.chunk))
        rounds = math.ceil(claims / sharing)
        counts["waiting"] += rounds * sharing / max(1, claims) - 1
    return np.array([math.log2(1 + counts[name]) for name in FEATURES])


def _count(
    body: Body, times: float, bounds: dict[Expr, scalar_visit.Bound], counts: dict[str, float]
) -> None:
    """Adds what ``body`` does when it runs ``times`` times."""
    for stmt in body:
        if isinstance(stmt, For):
            least, most = _range(stmt.extent, bounds)
            inner = {**bounds, stmt.var: (0, most - 1)}
            runs = times if stmt.kind == VECTORIZE else times * (least + most) / 2
            if stmt.kind not in (VECTORIZE, "unroll"):
                counts["iterations"] += runs
            _count(stmt.body, runs, inner, counts)
        elif isinstance(stmt, If):
            arms: list[dict[str, float]] = [defaultdict(float), defaultdict(float)]
            for arm, inside in zip(arms, (stmt.then, stmt.orelse), strict=True):
                _count(inside, times, bounds, arm)
            for name in {*arms[0], *arms[1]}:  # whole tiles and those at an edge
                counts[name] += max(arms[0][name], arms[1][name])
        elif isinstance(stmt, Alloc):
            size = math.prod(_range(n, bounds)[1] for n in stmt.buffer.shape)
            counts[f"{stmt.buffer.scope}_bytes"] += size * stmt.buffer.dtype.size_bytes
            _count(stmt.body, times, bounds, counts)
        elif isinstance(stmt, Store):
            counts["statements"] += 1
            prefix = "" if stmt.buffer.scope == "param" else "stack_"
            if stmt.buffer.scope != "register":
                counts[f"{prefix}stores"] += times
            _count_operations((stmt.value,), times, counts)
        elif isinstance(stmt, Call):
            kind = "hints" if stmt.function in HINTS else "calls"
            counts[kind] += times


def _count_operations(roots: Iterable[Expr], times: float, counts: dict[str, float]) -> None:
    for node in scalar_visit.postorder(*roots):
        if node.op == "load":
            scope = node.attr.scope
            name = "loads" if scope == "param" else f"{scope}_loads"
        elif node.op == "fma":
            name = "multiply_adds"
        elif node.op in _ARITHMETIC and node.dtype.kind == "float":
            name = "arithmetic"
        else:
            continue
        counts[name] += times


def _range(extent: Extent, bounds: Mapping[Expr, scalar_visit.Bound]) -> tuple[int, int]:
    """The least and the largest value of an extent; (1, 1) where nothing is known."""
    if isinstance(extent, int):
        return extent, extent
    low, high = scalar_visit.interval(extent, bounds)
    if not math.isfinite(high):
        return 1, 1
    most = max(0, int(high))
    return (min(most, max(0, int(low))) if math.isfinite(low) else most), most
