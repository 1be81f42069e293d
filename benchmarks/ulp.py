"""How exact the elementary functions are: every float32, as native code, against float64.

    python -m benchmarks.ulp [function ...] [--sample N] [--write]

Without names all functions are swept over all 2**32 inputs, about a minute each on one core.
--sample N: N random inputs (bit patterns) of each instead.   --write: renews the rows of the table
in docs/functions.md. The oracle is NumPy or SciPy in float64, whose own error is below 1e-7 of a
unit in the last place of float32.
"""

from __future__ import annotations

import argparse
import math
import re
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import tinyflow.te as te
from tinyflow.core.dtype import float32, float64, int32, int64

PAGE = Path(__file__).resolve().parent.parent / "docs" / "functions.md"
#: Inputs that are looked at together; what they need stays in the cache.
CHUNK = 1 << 16
#: Sines of larger angles are bounded and mean nothing (tinyflow/ir/scalar/math.py).
LARGEST_ANGLE = 1e14
Array = Any


def _sigmoid(x: Array) -> Array:
    z = np.exp(-np.abs(x))
    return np.where(x < 0, z, 1) / (1 + z)


def _softplus(x: Array) -> Array:
    return np.log1p(np.exp(-np.abs(x))) + np.maximum(x, 0)


def _special(name: str) -> Callable[[Array], Array]:
    def function(x: Array) -> Array:
        from scipy import special

        return getattr(special, name)(x)

    return function


#: name -> function of float64
ORACLES: dict[str, Callable[..., Array]] = {
    "exp": np.exp, "exp2": np.exp2, "expm1": np.expm1, "log": np.log, "log2": np.log2,
    "log10": np.log10, "log1p": np.log1p, "sigmoid": _sigmoid, "softplus": _softplus,
    "rsqrt": lambda x: 1 / np.sqrt(x), "tanh": np.tanh, "sinh": np.sinh, "cosh": np.cosh,
    "asinh": np.arcsinh, "acosh": np.arccosh, "atanh": np.arctanh, "sin": np.sin, "cos": np.cos,
    "tan": np.tan, "asin": np.arcsin, "acos": np.arccos, "atan": np.arctan,
    "erf": _special("erf"), "erfc": _special("erfc"), "erfinv": _special("erfinv"),
    "pow": np.power, "atan2": np.arctan2,
}  # fmt: skip
ANGLES = ("sin", "cos", "tan")
#: Functions of two numbers: random pairs, there are 2**64.
PAIRS = ("pow", "atan2")
PAIR_SAMPLE = 1 << 28


class Measured(NamedTuple):
    """The largest error in units of the last place, where it is, and of how many inputs."""

    name: str
    ulp: float
    at: tuple[float, ...]
    inputs: int
    rounded: float  # share of the results that are the nearest float32


def native(name: str, count: int) -> Callable[..., None]:
    """f(x, ..., y): y = name(x, ...), each an array of ``count`` float32."""
    arguments = [te.placeholder((count,), name=f"x{n}") for n in range(1 + (name in PAIRS))]
    y = te.compute((count,), lambda i: te.call(name, *(x[i] for x in arguments)), name="y")
    return te.build(_vectorized(y), [*arguments, y])


def _vectorized(tensor: te.Tensor) -> Any:
    schedule = te.create_schedule(tensor)
    stage = schedule[tensor]
    stage.vectorize(stage.split(tensor.op.axis[0], 16)[1])
    return schedule


def error(count: int) -> Callable[..., None]:
    """f(y, exact, e): e = |y - exact| in units of the last place of ``exact`` as float32.

    0 where both are NaN or the same infinity; infinite where only one is.
    """
    y = te.placeholder((count,), name="y")
    exact = te.placeholder((count,), "float64", name="exact")

    def element(i: te.Tensor) -> Any:
        nearest = te.cast(exact[i], float32)
        exponent = te.bitcast(te.abs(nearest), int32) >> 23
        exponent = te.minimum(te.maximum(exponent, 1), 254)  # denormals; overflow: the last one
        unit = te.bitcast((te.cast(exponent, int64) + (1023 - 127 - 23)) << 52, float64)
        distance = te.cast(te.abs(te.cast(y[i], float64) - exact[i]) / unit, float32)
        both_nan = y[i].not_equal(y[i]) & exact[i].not_equal(exact[i])
        same = both_nan | y[i].equal(nearest)
        wrong = distance.not_equal(distance)
        rest = te.select(wrong, te.const(math.inf, float32), distance)
        # The nearest float is at most half a unit away, unless it is an infinity.
        return te.select(same & (rest > 0.5), te.const(0.0, float32), rest)

    e = te.compute((count,), element, name="e")
    return te.build(_vectorized(e), [y, exact, e])


def inputs_from(start: int) -> Array:
    """CHUNK floats with consecutive bit patterns."""
    return np.arange(start, start + CHUNK, dtype=np.int64).astype(np.uint32).view(np.float32)


def all_inputs() -> Iterator[tuple[Array, ...]]:
    return ((inputs_from(start),) for start in range(0, 1 << 32, CHUNK))


def some_inputs(count: int, arguments: int, seed: int = 0) -> Iterator[tuple[Array, ...]]:
    """Random bit patterns: every binary order of magnitude alike, with infinities and NaNs."""
    random_numbers = np.random.default_rng(seed)
    for _ in range(-(-count // CHUNK)):
        yield tuple(
            random_numbers.integers(0, 1 << 32, CHUNK, np.uint32).view(np.float32)
            for _ in range(arguments)
        )


def tame_pairs(name: str, count: int) -> Iterator[tuple[Array, ...]]:
    """Half of the pairs any floats; for pow the other half such that few results overflow."""
    for n, (x, y) in enumerate(some_inputs(count, 2)):
        if name == "pow" and n % 2:
            x = np.abs(x)
            with np.errstate(all="ignore"):
                y = (y / np.float32(2) ** 126 * 128 / np.log2(x.astype(np.float64))).astype("f")
        yield x, y


def measure(name: str, inputs: Iterator[tuple[Array, ...]]) -> Measured:
    """The worst of the inputs."""
    function, distance = native(name, CHUNK), error(CHUNK)
    y, e = np.empty(CHUNK, np.float32), np.empty(CHUNK, np.float32)
    worst, at, count, nearest = -1.0, (0.0,), 0, 0
    oracle = ORACLES[name]
    with np.errstate(all="ignore"):
        for arrays in inputs:
            if name in ANGLES:
                x = arrays[0]
                arrays = (np.where(np.abs(x) <= LARGEST_ANGLE, x, np.float32(0)),)
            function(*arrays, y)
            exact = np.asarray(oracle(*(a.astype(np.float64) for a in arrays)))
            distance(y, exact, e)
            count += len(y)
            nearest += int(np.count_nonzero(e <= 0.5))
            largest = float(e.max())
            if largest > worst:
                place = int(e.argmax())
                worst, at = largest, tuple(float(a[place]) for a in arrays)
    return Measured(name, worst, at, count, nearest / max(1, count))


def measured(name: str, sample: int | None) -> Measured:
    if name in PAIRS:
        return measure(name, tame_pairs(name, sample or PAIR_SAMPLE))
    return measure(name, some_inputs(sample, 1) if sample else all_inputs())


def row(found: Measured) -> str:
    place = ", ".join(f"{x:.9g}" for x in found.at)
    inputs = "all" if found.inputs == 1 << 32 else f"{found.inputs:,}"
    return (
        f"| `{found.name}` | {found.ulp:.3f} | {found.rounded:.2%} | {place} | {inputs} |"
    )


def write(rows: list[str], page: Path) -> None:
    """Puts the rows in the place of those of the same functions."""
    text = page.read_text(encoding="utf-8")
    for line in rows:
        name = line.split("`")[1]
        text = re.sub(rf"^\| `{name}` \|.*$", lambda _, line=line: line, text, flags=re.MULTILINE)
    page.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ulp", description=__doc__)
    parser.add_argument("functions", nargs="*", metavar="function", help=", ".join(ORACLES))
    parser.add_argument("--sample", type=int, metavar="N", help="N random inputs of each")
    parser.add_argument("--write", action="store_true", help="renew the table of the page")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.functions if name not in ORACLES]
    if unknown:
        parser.error(f"no function {unknown[0]}; there are {', '.join(ORACLES)}")
    print("| function | largest error, ulp | nearest float | at | inputs |\n|---|--:|--:|---|--:|")
    for name in options.functions or ORACLES:
        start = time.perf_counter()
        line = row(measured(name, options.sample))
        print(line, flush=True)
        print(f"{name}: {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)
        if options.write:
            write([line], PAGE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
