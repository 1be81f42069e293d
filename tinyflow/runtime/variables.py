"""Memory of a session's variables and random counters.

Main type: ``VariableStore``. May import core, runtime.arena. Not thread-safe: its session locks.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from tinyflow.runtime.arena import Shelf, aligned_empty


class VariableStore:
    """One aligned array per variable, at a fixed address for its whole life.

    Keys are the graph's variable references: anything with ``type`` (static) and ``name``.
    generation: grows when an array moves, so that programs know to look up addresses again.
    """

    def __init__(self) -> None:
        self._shelf = Shelf()
        self._arrays: dict[Any, np.ndarray[Any, Any]] = {}
        self._initialized: set[Any] = set()
        self._counters: dict[Any, np.ndarray[Any, Any]] = {}
        self.generation = 0

    def is_initialized(self, ref: Any) -> bool:
        return ref in self._initialized

    def array(self, ref: Any, shape: tuple[int, ...] | None = None) -> np.ndarray[Any, Any]:
        """The variable's own memory (uninitialised until marked), allocated on first use."""
        found = self._arrays.get(ref)
        wanted = ref.type.shape if shape is None else shape
        if found is None or (shape is not None and found.shape != shape):
            if ref in self._arrays:  # of a new shape, perhaps not for long: memory of its own
                found = aligned_empty(wanted, ref.type.dtype.numpy)
                self.generation += 1
            else:
                found = self._shelf.empty(wanted, ref.type.dtype.numpy)
            self._arrays[ref] = found
        return found

    def mark_initialized(self, ref: Any) -> None:
        self._initialized.add(ref)

    def read(self, ref: Any) -> np.ndarray[Any, Any]:
        """A copy of the value."""
        return np.array(self._arrays[ref])

    def write(self, ref: Any, value: Any) -> None:
        """Set the value; shape and dtype must be the variable's."""
        value = np.asarray(value)
        np.copyto(self.array(ref, value.shape), value, casting="no")
        self._initialized.add(ref)

    def counter(self, key: Any) -> np.ndarray[Any, Any]:
        """uint64[1]: how often the random node ``key`` has run in this session.

        A node without a seed starts anywhere, so that every session draws numbers of its own.
        """
        found = self._counters.get(key)
        if found is None:
            op = getattr(key, "op", None)
            unseeded = getattr(op, "seed", None) == 0 == getattr(op, "seed2", None)
            start = int.from_bytes(os.urandom(7), "little") if unseeded else 0
            found = self._counters[key] = np.array([start], np.uint64)
        return found

    def clear(self) -> None:
        self._arrays.clear()
        self._shelf = Shelf()
        self._initialized.clear()
        self._counters.clear()
