"""Random programs of the public language.

Main function: ``random_program(seed)``. May import tests.fuzz.programs and tests.fuzz.statements.
"""

from __future__ import annotations

import contextlib
from typing import Any

import ml_dtypes
import numpy as np

import tinyflow as tf
from tests.fuzz.programs import Program, defined, used
from tests.fuzz.statements import FAMILIES
from tinyflow.core.dtype import as_dtype
from tinyflow.core.error import UserError

EXTENTS = (1, 2, 3, 4, 5, 7, 8, 13, 17, 33)
#: per program: small sizes compile as much code as large ones and run in no time
MOST_ELEMENTS = 6_000
FLOATS = ("float32",) * 6 + ("float64", "bfloat16", "float16")
OPTIMIZERS = (
    "tf.train.GradientDescentOptimizer(0.1)", "tf.train.MomentumOptimizer(0.1, 0.9)",
    "tf.train.AdamOptimizer(0.01)", "tf.train.RMSPropOptimizer(0.01)",
    "tf.train.AdagradOptimizer(0.1)",
)  # fmt: skip


class Maker:
    """A program under construction: each statement runs at once, so its type is known."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = np.random.default_rng(seed)
        self.inputs: dict[str, np.ndarray] = {}
        self.variables: dict[str, np.ndarray] = {}
        self.lines: list[str] = []
        self.types: dict[str, tuple[str, tuple[int, ...]]] = {}
        self.names: dict[str, Any] = {"tf": tf, "np": np}
        self.rejected: list[str] = []
        self.extents = [int(e) for e in self.rng.choice(EXTENTS, 4)]
        if self.chance(0.06):
            self.extents[0] = 0
        self.float = self.pick(FLOATS)

    # ---- dice ------------------------------------------------------------------------------------
    def chance(self, share: float) -> bool:
        return bool(self.rng.random() < share)

    def pick(self, options: Any) -> Any:
        return options[int(self.rng.integers(len(options)))]

    def int(self, low: int, high: int) -> int:
        """From low to high, both included."""
        return int(self.rng.integers(low, high + 1))

    def extent(self) -> int:
        return int(self.pick(self.extents))

    def shape(self, low: int = 0, high: int = 3) -> tuple[int, ...]:
        return tuple(self.extent() for _ in range(self.int(low, high)))

    # ---- values ----------------------------------------------------------------------------------
    def array(self, dtype: str, shape: tuple[int, ...], limit: int | None = None) -> np.ndarray:
        """Normal floats (some with zeros and signed zeros), small integers, truth values."""
        if dtype == "bool":
            return self.rng.random(shape) < 0.5
        if dtype.startswith(("int", "uint")):
            low = 0 if dtype.startswith("u") or limit is not None else -6
            high = 6 if limit is None else max(limit, 1)
            return self.rng.integers(low, high, shape).astype(dtype)
        values = self.rng.normal(size=shape)
        if self.chance(0.15):
            values = np.where(self.rng.random(shape) < 0.3, -0.0 * values, values)
        kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
        return np.asarray(values.astype(kind))

    def input(self, dtype: str, shape: tuple[int, ...], limit: int | None = None) -> str:
        """A new placeholder. limit: integers lie in [0, limit) if it is given."""
        name = f"x{len(self.inputs)}"
        array = self.array(dtype, shape, limit)
        self.inputs[name] = array
        self.names[name] = tf.placeholder(as_dtype(array.dtype), shape, name=name)
        self.types[name] = (dtype, shape)
        return name

    def variable(self, dtype: str, shape: tuple[int, ...]) -> str:
        name = f"w{len(self.variables)}"
        self.variables[name] = self.array(dtype, shape)
        self.names[name] = tf.Variable(self.variables[name], name=name)
        self.types[name] = (dtype, shape)
        return name

    def parameter(self, shape: tuple[int, ...]) -> str:
        """An input, or (in some programs) a variable."""
        if self.variables and len(self.variables) < 3 and self.chance(0.5):
            return self.variable(self.float, shape)
        return self.input(self.float, shape)

    def find(self, dtype: str | None = None, low: int = 0, high: int = 5, **own: Any) -> str:
        """A value of that dtype (None: the program's float) and rank, recent ones rather."""
        dtype = dtype or self.float
        found = [
            n for n, (d, s) in self.types.items()
            if d == dtype and low <= len(s) <= high and ("shape" not in own or s == own["shape"])
        ]  # fmt: skip
        if found and self.chance(0.85):
            return str(self.pick(found[-5:]))
        shape = own["shape"] if "shape" in own else self.shape(low, min(high, 4))
        return self.parameter(shape) if dtype == self.float else self.input(dtype, shape)

    def fitting(self, name: str) -> str:
        """Something of the same dtype that broadcasts with ``name``."""
        dtype, shape = self.types[name]
        found = []
        for other, (d, s) in self.types.items():
            with contextlib.suppress(ValueError):
                if d == dtype and np.broadcast_shapes(s, shape) is not None:
                    found.append(other)
        if found and self.chance(0.75):
            return str(self.pick(found[-6:]))
        kept = tuple(e if self.chance(0.7) else 1 for e in shape)[self.int(0, len(shape)) :]
        return self.parameter(kept) if dtype == self.float else self.input(dtype, kept)

    def shape_of(self, name: str) -> tuple[int, ...]:
        return self.types[name][1]

    # ---- statements ------------------------------------------------------------------------------
    def emit(self, expression: str, count: int = 1) -> None:
        """``v.. = expression``, unless the library refuses it with an error of the user."""
        first = len(self.types)
        names = [f"v{first + n}" for n in range(count)]
        line = f"{', '.join(names)} = {expression}"
        try:
            exec(line, self.names)  # the text that is printed is the text that ran
            types = [self._type(self.names[n]) for n in names]
        except (UserError, ValueError, TypeError) as error:
            self.rejected.append(f"{line}: {type(error).__name__}: {str(error).splitlines()[0]}")
            return
        if any(t is None for t in types):
            return
        self.lines.append(line)
        self.types.update(zip(names, types, strict=True))  # type: ignore[arg-type]

    def _type(self, value: Any) -> tuple[str, tuple[int, ...]] | None:
        shape = value.type.shape
        if shape is None or not all(isinstance(e, int) for e in shape):
            return None
        if len(shape) > 5 or np.prod(shape, dtype=np.int64) > MOST_ELEMENTS:
            return None
        return value.type.dtype.name, tuple(shape)

    def ancestors(self, name: str) -> list[str]:
        needed = {name}
        for line in reversed(self.lines):
            if needed.intersection(defined(line)):
                needed.update(used(line))
        return sorted(needed - {name})

    def gradients(self) -> None:
        """The gradient of one value by some of those it comes from."""
        values = [n for n, (d, _) in self.types.items() if d == self.float and n[0] == "v"]
        if not values:
            return
        y = str(self.pick(values[-4:]))
        xs = [n for n in self.ancestors(y) if self.types[n][0] == self.float]
        if not xs:
            return
        xs = [str(x) for x in self.rng.permutation(xs)[: self.int(1, 3)]]
        xs_text = ", ".join(xs)
        self.emit(
            f"[tf.convert_to_tensor(g) for g in "
            f"tf.gradients({y}, [{xs_text}], unconnected_gradients='zero')]"
            + ("[0]" if len(xs) == 1 else ""),
            len(xs),
        )

    def training(self) -> str | None:
        """An update of the variables by some loss."""
        values = [n for n, (d, _) in self.types.items() if d == self.float and n[0] == "v"]
        values = [v for v in values if any(a[0] == "w" for a in self.ancestors(v))]
        if not values:
            return None
        y = str(self.pick(values[-3:]))
        read = [a for a in self.ancestors(y) if a[0] == "w"]
        if self.chance(0.3):
            w = str(self.pick(read))
            line = f"u0 = tf.assign_sub({w}, 0.125 * tf.gradients({y}, {w})[0]).op"
        else:
            rule = str(self.pick(OPTIMIZERS))
            own = ", ".join(read)
            line = f"u0 = {rule}.minimize(tf.reduce_sum(tf.tanh({y})), var_list=[{own}])"
        try:
            exec(line, self.names)
        except (UserError, ValueError, TypeError) as error:
            self.rejected.append(f"{line}: {str(error).splitlines()[0]}")
            return None
        self.lines.append(line)
        return "u0"

    def program(self, families: Any = FAMILIES) -> Program:
        if self.chance(0.25):
            self.variable(self.float, self.shape(1, 3))
        else:
            self.input(self.float, self.shape(1, 4))
        weights = np.array([share for _, share in families])
        for _ in range(self.int(2, 10)):
            family = families[int(self.rng.choice(len(families), p=weights / weights.sum()))][0]
            family(self)
        if self.chance(0.35):
            self.gradients()
        update = self.training() if self.variables and self.chance(0.8) else None
        computed = [n for n in self.types if n[0] == "v"] or list(self.types)
        read = {name for line in self.lines for name in used(line)}
        ends = [n for n in computed if n not in read]
        outputs = [str(n) for n in self.rng.permutation(ends)[:5]]
        outputs += [str(self.pick(computed)) for _ in range(self.int(0, 2))]
        outputs = list(dict.fromkeys(outputs))
        made = Program(
            self.inputs, tuple(self.lines), tuple(outputs), self.variables, update, self.seed
        )
        return made.sliced()


def random_program(seed: int, families: Any = FAMILIES) -> Program:
    """The program of that seed: 2 to 10 statements, gradients and updates now and then."""
    with tf.Graph().as_default():
        return Maker(seed).program(families)
