"""Small programs in the public language: inputs, statements as text, outputs.

Main types: ``Program`` (printable, runnable), ``Built`` (its graph). May import public names and
core.options.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

import tinyflow as tf
from tinyflow.core import options
from tinyflow.core.dtype import as_dtype

_NAME = re.compile(r"\b[vwxu]\d+\b")
#: how often a program with an update runs: the second step sees the first one's variables
STEPS = 2


def defined(line: str) -> list[str]:
    """The names that a statement gives values to."""
    return _NAME.findall(line.partition(" = ")[0])


def used(line: str) -> list[str]:
    """The names that a statement reads."""
    return _NAME.findall(line.partition(" = ")[2])


@dataclass
class Built:
    """A program's graph. fetches: tensors; feeds: tensor -> array; variables: their reads."""

    graph: tf.Graph
    fetches: list[Any]
    feeds: dict[Any, np.ndarray]
    variables: list[Any]
    update: Any
    init: Any

    def requests(self) -> list[tuple[list[Any], dict[Any, np.ndarray]]]:
        """What a session is asked for, in order."""
        if not self.variables:
            return [(self.fetches, self.feeds)]
        step = self.fetches + ([] if self.update is None else [self.update])
        steps = [(step, self.feeds)] * (1 if self.update is None else STEPS)
        return [([self.init], {}), *steps, (self.variables, {})]

    def run(self, **changes: Any) -> list[np.ndarray]:
        """All fetched arrays of a fresh session under the given options."""
        found: list[np.ndarray] = []
        with options.override(**changes), tf.Session(graph=self.graph) as session:
            for fetches, feeds in self.requests():
                results = session.run(fetches, feeds)
                found += [np.asarray(r) for r in results if r is not None]
        return found


@dataclass(frozen=True)
class Program:
    """inputs x0, x1 ... and variables w0, w1 ... with their arrays; statements in order.

    outputs: names of fetched values.   update: name of an operation that writes variables.
    """

    inputs: dict[str, np.ndarray]
    lines: tuple[str, ...]
    outputs: tuple[str, ...]
    variables: dict[str, np.ndarray] = field(default_factory=dict)
    update: str | None = None
    seed: int | None = None

    def names(self, unknown: int | None = None) -> dict[str, Any]:
        """Runs the statements in the current graph: every name and what it stands for.

        unknown: inputs of that many rows are declared without saying how many.
        """
        found: dict[str, Any] = {"tf": tf, "np": np}
        for name, array in self.inputs.items():
            shape: Any = array.shape
            if shape[:1] == (unknown,):
                shape = (None, *shape[1:])
            found[name] = tf.placeholder(as_dtype(array.dtype), shape, name=name)
        for name, array in self.variables.items():
            found[name] = tf.Variable(array, name=name)
        for line in self.lines:
            exec(line, found)  # the text that is printed is the text that ran
        return found

    def build(self, unknown: int | None = None) -> Built:
        graph = tf.Graph()
        with graph.as_default():
            names = self.names(unknown)
            reads = [tf.identity(names[w]) for w in self.variables]
            return Built(
                graph, [tf.convert_to_tensor(names[o]) for o in self.outputs],
                {names[x]: array for x, array in self.inputs.items()}, reads,
                names[self.update] if self.update else None, tf.global_variables_initializer(),
            )  # fmt: skip

    def with_rows(self, old: int, new: int) -> Program:
        """Inputs of ``old`` rows get ``new`` ones, by repetition."""
        changed = {
            name: np.concatenate([array] * (new // old + 1))[:new]
            if array.shape[:1] == (old,) else array
            for name, array in self.inputs.items()
        }  # fmt: skip
        return dataclasses.replace(self, inputs=changed)

    def sliced(self, outputs: Sequence[str] | None = None, update: bool = True) -> Program:
        """Only what ``outputs`` (default: the same) and the update need."""
        outputs = self.outputs if outputs is None else tuple(outputs)
        needed = {*outputs} | ({self.update} if self.update and update else set())
        lines = []
        for line in reversed(self.lines):
            if needed.intersection(defined(line)):
                lines.append(line)
                needed.update(used(line))
        return dataclasses.replace(
            self, lines=tuple(reversed(lines)), outputs=outputs,
            inputs={k: a for k, a in self.inputs.items() if k in needed},
            variables={k: a for k, a in self.variables.items() if k in needed},
            update=self.update if update else None,
        )  # fmt: skip

    def text(self) -> str:
        """The program as a Python script that prints its outputs compiled and not optimised."""
        head = [
            f"# seed {self.seed}", "import numpy as np", "import tinyflow as tf",
            "from tinyflow.core import options", "inf, nan = np.inf, np.nan",
        ]  # fmt: skip
        feeds = []
        for name, array in self.inputs.items():
            head.append(f"{name} = tf.placeholder(tf.{array.dtype.name}, {array.shape})")
            feeds.append(f"{name}: {_literal(array)}")
        head += [f"{w} = tf.Variable({_literal(array)})" for w, array in self.variables.items()]
        fetches = ", ".join([*self.outputs, *([self.update] if self.update else [])])
        tail = [
            "for level in (2, 0):",
            "    with options.override(level=level), tf.Session() as session:",
            "        session.run(tf.global_variables_initializer())",
            f"        for _ in range({STEPS if self.update else 1}):",
            f"            print(session.run([{fetches}], {{{', '.join(feeds)}}}))",
            *[f"        print(session.run({w}))" for w in self.variables],
        ]
        return "\n".join([*head, *self.lines, *tail])


def simple(array: np.ndarray) -> np.ndarray:
    """An array of that type with few different elements, which prints in a few characters."""
    few = np.array([0.5, -0.25, 1.5, 0.75, -1.0, 0.0, 2.0])
    if array.dtype.kind in "iub":
        few = np.unique(array)[:3]
    return np.asarray(np.resize(few, array.shape).astype(array.dtype))


def _literal(array: np.ndarray) -> str:
    kind = f"tf.{array.dtype.name}.as_numpy_dtype"
    if not array.size:
        return f"np.zeros({array.shape}, {kind})"
    exact = array.astype(np.float64) if array.dtype.kind not in "iub" else array
    flat = exact.ravel()
    for length in range(1, min(8, flat.size)):
        if np.array_equal(np.resize(flat[:length], flat.shape), flat):
            return f"np.resize(np.array({flat[:length].tolist()}, {kind}), {array.shape})"
    return f"np.array({exact.tolist()}, {kind})"
