"""Names of operations by TensorFlow-1's rules: unique, in scopes, case set aside.

Main type: ``Naming`` (a part of ``Graph``). May import core and ir.graph.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator

from tinyflow.core.error import InvalidArgumentError
from tinyflow.ir.graph.nodes import Node, Op

_FIRST_SCOPE = re.compile(r"[A-Za-z0-9.][A-Za-z0-9_.\\\-/]*")
_INNER_SCOPE = re.compile(r"[A-Za-z0-9_.\\\-/]*")

#: default names that are not the name of the op's class
_DEFAULT_NAMES = {"Constant": "Const"}


class Naming:
    """The names in use and the scope that new names go to."""

    #: the node whose gradient is being built (set by autodiff)
    forward: Node | None = None

    def __init__(self) -> None:
        self._names_in_use: dict[str, int] = {}
        self._scope = ""
        self._lock = threading.RLock()

    def claim(self, name: str | None, op: Op) -> str:
        """The unique full name of a new node; ``scope/`` (from ``name_scope``) is taken as is."""
        if name is None:
            kind = op.type_name
            return self.unique_name(_DEFAULT_NAMES.get(kind, kind))
        if name.endswith("/"):
            return name[:-1]
        self._check_scope_name(name)
        return self.unique_name(name)

    def _claim_result(self, name: str | None, op: Op) -> str:
        """``claim``; what belongs to the gradient of a node lives in the scope ``<node>_grad``."""
        if self.forward is None or self.forward.name is None:
            return self.claim(name, op)
        outer = self._scope
        self._scope = f"{outer}/{self.forward.name}_grad" if outer else f"{self.forward.name}_grad"
        try:
            return self.claim(name, op)
        finally:
            self._scope = outer

    def unique_name(self, name: str, mark_as_used: bool = True) -> str:
        """``name`` in the current scope, with ``_1``, ``_2`` ... when it is taken.

        Case is set aside, as TensorFlow does: after ``mul`` comes ``Mul_1``.
        """
        if self._scope:
            name = f"{self._scope}/{name}"
        key = name.lower()
        in_use = self._names_in_use
        with self._lock:
            count = in_use.get(key, 0)
            if mark_as_used:
                in_use[key] = count + 1
            if count == 0:
                return name
            candidate = f"{key}_{count}"
            while candidate in in_use:
                count += 1
                candidate = f"{key}_{count}"
            if mark_as_used:
                in_use[candidate] = 1
            return f"{name}_{count}"

    def _absolute_unique(self, name: str) -> str:
        outer, self._scope = self._scope, ""
        try:
            return self.unique_name(name)
        finally:
            self._scope = outer

    def reserve(self, *names: str) -> None:
        """Counts names of helper operations that TensorFlow makes and that are not needed here,
        so that the names of what follows agree."""
        for name in names:
            self.unique_name(name)

    def _check_scope_name(self, name: str) -> None:
        pattern = _INNER_SCOPE if self._scope else _FIRST_SCOPE
        if pattern.fullmatch(name) is None:
            raise InvalidArgumentError(
                f"'{name}' is not a valid scope name",
                expected="letters, digits and . _ - / (no leading _ outside a scope)",
                hint=f"for example '{re.sub(r'[^A-Za-z0-9_.-]', '_', name).lstrip('_') or 'x'}'",
            )

    @contextlib.contextmanager
    def name_scope(self, name: str | None) -> Iterator[str]:
        """``with g.name_scope("layer1") as scope``; ``"layer1/"`` re-enters, None is the root."""
        outer = self._scope
        if name is None or name == "":
            inner = ""
        elif not isinstance(name, str):
            raise TypeError(f"name for name_scope must be a string, got {name!r}")
        elif name.endswith("/"):
            self._check_scope_name(name)
            inner = name[:-1]
        else:
            self._check_scope_name(name)
            inner = self.unique_name(name)
        self._scope = inner
        try:
            yield inner + "/" if inner else ""
        finally:
            self._scope = outer

    def get_name_scope(self) -> str:
        return self._scope
