"""Whether a program means what it should, however it is run.

Main functions: ``check(program)`` (None, or the first difference found), ``shrunk(program, same)``.
May import tests.fuzz, core and runtime.
"""

from __future__ import annotations

import collections
import dataclasses
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

import tinyflow as tf
from tests.fuzz.oracle import Expected, expected
from tests.fuzz.programs import Program, defined, simple
from tinyflow.core.error import Unsupported, UserError
from tinyflow.ir.graph import interp
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

#: ways to run that promise the same bits as the first of their list
OPTIMIZED: tuple[dict[str, Any], ...] = (
    {}, {"fuse": False}, {"lanes": 4}, {"lanes": 8}, {"threads": 1}
)  # fmt: skip
PLAIN: tuple[dict[str, Any], ...] = ({"level": 1}, {"level": 0}, {"level": 1, "fuse": False})
APPROXIMATE: tuple[dict[str, Any], ...] = ({"level": 3},)
ALL = (OPTIMIZED, PLAIN, APPROXIMATE)
#: rules of these levels may give the true value where the graph as written overflows
REAL_LEVEL = 2


@dataclass
class Failure:
    """kind: what went wrong, in one word (kept while shrinking).   text: all about it."""

    kind: str
    text: str


@dataclass
class Coverage:
    """How much of what was compared a bound holds to: a wide bound proves nothing.

    unsupported: programs that stopped there.   symbolic: programs with a step for all row counts.
    """

    elements: int = 0
    tight: int = 0
    unsupported: int = 0
    symbolic: int = 0


def ways_of(seed: int) -> tuple[tuple[dict[str, Any], ...], ...]:
    """Three ways of running: fused and not, and another one by turns."""
    others = [*OPTIMIZED[2:], *PLAIN, *APPROXIMATE]
    other = others[seed % len(others)]
    if "level" not in other:
        return ((*OPTIMIZED[:2], other),)
    return OPTIMIZED[:2], (other,)


def check(
    program: Program,
    families: tuple[tuple[dict[str, Any], ...], ...] = ALL,
    coverage: Coverage | None = None,
    sizes: bool = False,
) -> Failure | None:
    """Compares every way of running with the oracle, and the ways of a family bit by bit."""
    coverage = coverage or Coverage()
    try:
        built = program.build()
        wanted = expected(built, program.seed or 0)
    except Unsupported:  # sizes from computed values, used as shapes: the oracle cannot tell
        coverage.unsupported += 1
        return None
    except Exception:
        return Failure("reference", traceback.format_exc(limit=-6))
    for family in families:
        first: list[np.ndarray] | None = None
        for way in family:
            try:
                results = built.run(**way)
            except Unsupported as error:
                coverage.unsupported += 1
                return Failure("unsupported", f"{way}: {error}")
            except Exception as error:
                text = f"{way}: {traceback.format_exc(limit=-8)}"
                return Failure(f"error {type(error).__name__}", text)
            exact = way.get("level", REAL_LEVEL) < REAL_LEVEL
            found = _compare(results, wanted, exact, coverage)
            if found:
                return Failure("value", f"{way}: {found}")
            if first is None:
                first = results
                continue
            for n, (x, y) in enumerate(zip(first, results, strict=True)):
                if bits(x) != bits(y):
                    return Failure("bits", f"{family[0]} and {way} differ in result {n}:\n{x}\n{y}")
    return check_sizes(program, coverage) if sizes else None


def check_sizes(program: Program, coverage: Coverage | None = None) -> Failure | None:
    """A step that serves all numbers of rows has the bits of one made for this number.

    Programs that say somewhere how many rows there are have nothing to compare.
    """
    counts = collections.Counter(a.shape[0] for a in program.inputs.values() if a.ndim and len(a))
    if program.variables or not counts:
        return None
    rows = counts.most_common(1)[0][0]
    longer = program.with_rows(rows, rows + 3)
    try:
        wanted = longer.build(rows + 3).run()
    except (UserError, Unsupported, ValueError, TypeError):
        return None
    except Exception as error:
        return Failure(f"sizes {type(error).__name__}", traceback.format_exc(limit=-8))
    try:
        built = program.build(rows)
        feeds = [*built.feeds.values()], [*longer.inputs.values()]
        with tf.Session(graph=built.graph) as session:
            for arrays in feeds:
                fed = dict(zip(built.feeds, arrays, strict=True))
                results = session.run(built.fetches, fed)
    except Exception as error:
        text = f"{rows} rows, then {rows + 3}: {traceback.format_exc(limit=-8)}"
        return Failure(f"sizes {type(error).__name__}", text)
    if coverage is not None:
        coverage.symbolic += any(f.symbolic for f in built.graph.steps.values())
    for n, (x, y) in enumerate(zip(results, wanted, strict=True)):
        x = np.asarray(x)
        if x.shape != y.shape or bits(x) != bits(y):
            return Failure(
                "sizes", f"{rows} rows, then {rows + 3}: result {n} is\n{x}\nexpected\n{y}"
            )
    return None


def bits(array: np.ndarray) -> bytes:
    """All bits but those of NaNs, whose sign and payload IEEE 754 leaves open."""
    if array.dtype.kind in "iub":
        return array.tobytes()
    return np.where(np.isnan(array), np.array(np.nan, array.dtype), array).tobytes()


def _compare(
    results: list[np.ndarray], wanted: list[Expected], exact: bool, coverage: Coverage
) -> str | None:
    if len(results) != len(wanted):
        return f"{len(results)} results, expected {len(wanted)}"
    for n, (got, want) in enumerate(zip(results, wanted, strict=True)):
        value, bound = want.value, want.bound
        if got.dtype != value.dtype or got.shape != value.shape:
            return f"result {n} is {got.dtype}{got.shape}, expected {value.dtype}{value.shape}"
        coverage.elements += value.size
        if value.dtype.kind in "iub":
            wrong = (got != value) & (bound == 0)
            coverage.tight += int(np.count_nonzero(bound == 0))
        else:
            wide, right = got.astype(np.float64), value.astype(np.float64)
            with np.errstate(all="ignore"):
                near = np.abs(wide - right) <= bound
                coverage.tight += int(np.count_nonzero(bound <= 1e-2 * np.abs(right) + 1e-6))
            alike = (wide == right) | (np.isnan(wide) & np.isnan(right)) | np.isinf(bound)
            if not exact:
                alike |= ~np.isfinite(right)
            wrong = ~(near | alike)
        if wrong.any():
            return (
                f"result {n}: {int(wrong.sum())} of {value.size} elements are wrong\n"
                f"got      {got[wrong].ravel()[:6]}\nexpected {value[wrong].ravel()[:6]}\n"
                f"bound    {np.asarray(bound)[wrong].ravel()[:6]}"
            )
    return None


# ---- making a failure small ----------------------------------------------------------------------


def shrunk(program: Program, fails: Callable[[Program], bool], most: int = 200) -> Program:
    """The smallest program found that still fails: fewer outputs, fewer statements, cut inputs."""
    tries = 0
    progress = True
    while progress:
        progress = False
        for smaller in _smaller(program):
            tries += 1
            if tries > most:
                return program
            if fails(smaller):
                program, progress = smaller, True
                break
    return program


def _smaller(program: Program) -> Iterator[Program]:
    if program.update:
        yield program.sliced(update=False)
    if len(program.outputs) > 1:
        for output in program.outputs:
            yield program.sliced([output])
        for output in program.outputs:
            yield program.sliced([o for o in program.outputs if o != output])
    elif program.update:
        yield program.sliced([])
    values = _values(program)
    for line in program.lines:  # an earlier value may be wrong already
        for name in defined(line):
            if name in values and (name,) != program.outputs and not program.update:
                yield program.sliced([name])
    for line in reversed(program.lines):
        names = defined(line)
        if all(n in values for n in names) and not set(names) & set(program.outputs):
            yield _cut(program, line, {n: values[n] for n in names})
    for name, array in program.inputs.items():
        if simple(array).tobytes() != array.tobytes():
            yield dataclasses.replace(program, inputs={**program.inputs, name: simple(array)})


def _cut(program: Program, line: str, arrays: dict[str, np.ndarray]) -> Program:
    """The statement's results become inputs."""
    return dataclasses.replace(
        program,
        lines=tuple(other for other in program.lines if other != line),
        inputs={**program.inputs, **arrays},
    ).sliced()


def _values(program: Program) -> dict[str, np.ndarray]:
    """What every statement computes, by the reference interpreter; {} if it cannot tell."""
    if program.variables:
        return {}
    wanted = [n for line in program.lines for n in defined(line) if n.startswith("v")]
    try:
        built = dataclasses.replace(program, outputs=tuple(wanted), update=None).build()
        written = functionalize(built.fetches, [], list(built.feeds))
        fn = specialize(written, [t.type for t in built.feeds])
        arrays = interp.run(fn, list(built.feeds.values()))
    except Exception:  # the program fails as it is: nothing to cut with
        return {}
    return dict(zip(wanted, map(np.asarray, arrays), strict=True))
