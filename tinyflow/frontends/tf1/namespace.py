"""How ``tf.nn.softmax`` is found: names resolve through the table in ``symbols``, when first used.

Main functions: ``resolve``, ``install_import_hook``. May import core.frames and symbols.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import sys
from collections.abc import Sequence
from types import FunctionType, ModuleType
from typing import Any

from tinyflow.frontends.tf1.symbols import MODULES, NAMESPACES, TARGETS

_PACKAGE = "tinyflow"
_HERE = "tinyflow.frontends.tf1"
_COMPAT = "compat.v1"

#: the version of TensorFlow whose programs run here
VERSION = "1.15.5"
GIT_VERSION = "tinyflow"

_namespaces: dict[str, Namespace] = {}


class Namespace(ModuleType):
    """``tf.nn``, ``tf.train``: looks names up when they are used and keeps them."""

    def __init__(self, path: str) -> None:
        super().__init__(f"{_PACKAGE}.{path}", f"Public names of tf.{path}.")
        self.__dict__["__path__"] = []  # importable as a package
        self.__dict__["_path"] = path

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        try:
            found = self.__dict__[name] = resolve(f"{self._path}.{name}")
        except AttributeError as error:
            hide_frames(error)
            raise
        return found

    def __dir__(self) -> list[str]:
        return sorted(names_in(self._path))

    def __repr__(self) -> str:
        return f"<namespace 'tf.{self._path}'>"


def names_in(path: str) -> set[str]:
    """The public names of a namespace; "" is ``tf`` itself."""
    path = _plain(path)
    prefix = path + "." if path else ""
    every = [*TARGETS, *NAMESPACES, *MODULES]
    return {name[len(prefix) :].split(".")[0] for name in every if name.startswith(prefix)} - {""}


def _plain(path: str) -> str:
    """The path without ``compat.v1``, under which everything exists again."""
    while path == _COMPAT or path.startswith(_COMPAT + "."):
        path = path[len(_COMPAT) + 1 :]
    return path


def hide_frames(error: AttributeError) -> None:
    """The traceback of an unknown name ends at the user's line."""
    from tinyflow.core.frames import trim

    trim(error)


def resolve(path: str) -> Any:
    """The object behind a public name such as "nn.softmax". Errors: AttributeError with help."""
    plain = _plain(path)
    if path == _COMPAT or plain in NAMESPACES or not plain:
        found = _namespaces.get(path)
        if found is None:
            found = _namespaces[path] = Namespace(path)
        return found
    if plain in MODULES:
        return importlib.import_module(MODULES[plain], _HERE)
    target = TARGETS.get(plain)
    if target is not None:
        module, _, attribute = target.rpartition(".")
        full = _HERE + module if module.startswith(".") else f"{_PACKAGE}.{module}"
        return _public(getattr(importlib.import_module(full), attribute))
    from tinyflow.frontends.tf1.missing import missing

    raise missing(plain)


_wrapped: dict[Any, Any] = {}


def _public(target: Any) -> Any:
    """Functions with tracebacks that end at the caller; two names of one function stay one."""
    if not isinstance(target, FunctionType):
        return target
    found = _wrapped.get(target)
    if found is None:
        from tinyflow.core.frames import boundary

        found = _wrapped[target] = boundary(target)
    return found


def disable_v2_behavior(*ignored: Any) -> None:
    """Accepted: graphs and sessions are how this front end always works."""


def executing_eagerly() -> bool:
    """False: operations build a graph."""
    return False


class _Finder:
    """Makes public namespaces importable: ``import tinyflow.contrib.layers as layers``.

    A finder and loader in one (importlib.abc takes 8 ms to import). It comes last, so that real
    sub-packages of tinyflow are found first.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if not name.startswith(_PACKAGE + "."):
            return None
        public = name[len(_PACKAGE) + 1 :]
        plain = _plain(public)
        if plain in NAMESPACES or plain in MODULES or public == _COMPAT:
            spec = importlib.machinery.ModuleSpec
            return spec(name, self, is_package=True)  # type: ignore[arg-type]
        return None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return resolve(spec.name[len(_PACKAGE) + 1 :])  # type: ignore[no-any-return]

    def exec_module(self, module: ModuleType) -> None:
        """Nothing: names are looked up when they are used."""


def install_import_hook() -> None:
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())
