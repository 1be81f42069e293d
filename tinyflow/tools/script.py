"""Running a user's script: unchanged TensorFlow-1 programs under ``python -m tinyflow``.

Main functions: ``run_script``, ``alias_tensorflow``. Imports the standard library; the front end
when the script asks for it.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.machinery
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import CodeType, ModuleType, TracebackType
from typing import Any

_ALIAS, _OURS = "tensorflow", "tinyflow"


class _Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """``import tensorflow.a.b`` imports ``tinyflow.a.b`` and makes it known under both names."""

    def __init__(self) -> None:
        self.specs: dict[str, Any] = {}

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> Any:
        if fullname == _ALIAS or fullname.startswith(_ALIAS + "."):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        return None

    def create_module(self, spec: Any) -> ModuleType:
        ours = _OURS + spec.name[len(_ALIAS) :]
        try:
            module = importlib.import_module(ours)
        except ModuleNotFoundError as error:
            if error.name is None or not ours.startswith(error.name):
                raise
            raise ModuleNotFoundError(
                f"No module named '{spec.name}': here '{_ALIAS}' means TinyFlow, "
                f"which has no '{ours}'",
                name=spec.name,
            ) from None
        self.specs[spec.name] = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # The import system has just overwritten the module's own spec with the alias's.
        spec = module.__spec__
        if spec is not None and spec.name in self.specs:
            module.__spec__ = self.specs.pop(spec.name)


@contextlib.contextmanager
def alias_tensorflow() -> Iterator[None]:
    """Inside the block ``import tensorflow`` gives TinyFlow, whether or not the former exists."""
    finder = _Alias()
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)


class ScriptFailed(Exception):
    """The script ended with an exception or a non-zero exit. status: for ``sys.exit``."""

    def __init__(self, status: int) -> None:
        super().__init__(f"exit status {status}")
        self.status = status


def run_script(path: str, arguments: Sequence[str] = ()) -> dict[str, Any]:
    """Runs the file as ``__main__`` with ``sys.argv = [path, *arguments]``; its globals.

    Errors: ScriptFailed, after the script's own traceback was printed without our frames.
    """
    module = ModuleType("__main__")
    module.__file__ = path
    before = sys.argv, list(sys.path), sys.modules["__main__"]
    sys.argv = [path, *arguments]
    sys.path.insert(0, os.path.dirname(os.path.abspath(path)))
    sys.modules["__main__"] = module
    with alias_tensorflow():
        try:
            exec(_compiled(path), module.__dict__)
        except SystemExit as leaving:
            if status := _status(leaving.code):
                raise ScriptFailed(status) from None
        except BaseException as error:
            _print_error(error, path)
            raise ScriptFailed(130 if isinstance(error, KeyboardInterrupt) else 1) from None
        finally:
            sys.argv, sys.path[:], sys.modules["__main__"] = before
    return module.__dict__


def _compiled(path: str) -> CodeType:
    with open(path, "rb") as file:  # bytes: the compiler reads the encoding line
        return compile(file.read(), path, "exec", dont_inherit=True)


def _status(code: Any) -> int:
    """As the interpreter does it: None is 0, a text is printed and is 1."""
    if code is None or isinstance(code, int):
        return code or 0
    print(code, file=sys.stderr)
    return 1


def _print_error(error: BaseException, path: str) -> None:
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != path:
        frames = frames.tb_next
    sys.stdout.flush()
    report = traceback.TracebackException(type(error), error, frames)
    own = [frame for frame in report.stack if frame.filename != __file__]
    report.stack = traceback.StackSummary.from_list(own)
    print("".join(report.format()), end="", file=sys.stderr)
