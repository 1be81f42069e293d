"""Every exception of the system.

Main types: ``UserError`` (the user can fix it), ``Unsupported`` (a limit of ours),
``InternalError`` (our bug). The ``tf.errors`` codes are subclasses of ``UserError``. Imports
core.source only.

Text follows one template::

    ShapeError: matmul: inner dimensions differ
      x: float32[32, 784]   w: float32[512, 10]
      expected x.shape[1] == w.shape[0], got 784 and 512
      created at train.py:41 in model()
      hint: did you mean matmul(x, w, transpose_b=True)?

Exceptions carry their parts as fields; the text is made only when somebody looks at it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tinyflow.core.source import Source


class TinyFlowError(Exception):
    """Base of all errors.

    what: one line, "op: what is wrong".      received: name -> type or value of each input.
    expected: the rule that was broken.       sources: label -> place in the user's code.
    hint: the likely fix.                     choices: the legal alternatives, when few.
    """

    def __init__(
        self,
        what: str,
        *,
        received: Mapping[str, Any] | None = None,
        expected: str | None = None,
        source: Source | None = None,
        sources: Mapping[str, Source] | None = None,
        hint: str | None = None,
        choices: Sequence[Any] | None = None,
    ) -> None:
        super().__init__(what)
        self.what = what
        self.received = dict(received or {})
        self.expected = expected
        self.sources: dict[str, Source] = dict(sources or {})
        if source is not None:
            self.sources = {"created at": source, **self.sources}
        self.hint = hint
        self.choices = choices

    def located(self, label: str, source: Source | None) -> TinyFlowError:
        """The same error with one more place in the user's code (kept if already known)."""
        if source is not None:
            self.sources.setdefault(label, source)
        return self

    @property
    def message(self) -> str:
        return str(self)

    def __str__(self) -> str:
        lines = [self.what]
        if self.received:
            lines.append("   ".join(f"{name}: {got}" for name, got in self.received.items()))
        if self.expected:
            lines.append(f"expected {self.expected}")
        lines += [f"{label} {source}" for label, source in self.sources.items()]
        if self.hint:
            lines.append(f"hint: {self.hint}")
        if self.choices is not None:
            lines.append("choices: " + ", ".join(str(c) for c in self.choices))
        return "\n  ".join(lines)


class Unsupported(TinyFlowError, NotImplementedError):
    """A limit of TinyFlow; the text says what works instead."""


class NeedsHost(Unsupported):
    """What native code cannot do before a size is known; Python can do it between native segments.

    op: the op of the step, by identity, that is to run there (the outermost loop or branch).
    """

    op: Any = None


class InternalError(TinyFlowError, RuntimeError):
    """A bug of TinyFlow; names the pass, the verifier's message and how to reproduce it."""


class UserError(TinyFlowError):
    """Something the user can fix. ``error_code`` is TensorFlow's status code."""

    error_code = 2
    node: Any = None

    @property
    def op(self) -> Any:
        """The operation that failed, when known (TensorFlow's ``OpError.op``)."""
        return self.node

    @property
    def node_def(self) -> Any:
        return self.node


# TensorFlow's fifteen status codes (tf.errors.*), each also the closest Python built-in.
class CancelledError(UserError):
    error_code = 1


class UnknownError(UserError):
    error_code = 2


class InvalidArgumentError(UserError, ValueError):
    error_code = 3


class ShorterSlice(InvalidArgumentError):
    """A slice that is compiled to lie inside its tensor does not. The step changed nothing; it runs
    again, compiled for slices of whatever length there is.
    """


class DeadlineExceededError(UserError, TimeoutError):
    error_code = 4


class NotFoundError(UserError, LookupError):
    error_code = 5


class AlreadyExistsError(UserError):
    error_code = 6


class PermissionDeniedError(UserError, PermissionError):
    error_code = 7


class ResourceExhaustedError(UserError, MemoryError):
    error_code = 8


class FailedPreconditionError(UserError, RuntimeError):
    error_code = 9


class AbortedError(UserError):
    error_code = 10


class OutOfRangeError(UserError, IndexError):
    error_code = 11


class UnimplementedError(UserError, NotImplementedError):
    error_code = 12


class TensorFlowInternalError(UserError, RuntimeError):
    """``tf.errors.InternalError``; kept apart from our own ``InternalError``."""

    error_code = 13


class UnavailableError(UserError, ConnectionError):
    error_code = 14


class DataLossError(UserError, OSError):
    error_code = 15


class UnauthenticatedError(UserError):
    error_code = 16


# What the user can get wrong about a value, in one word each.
class ShapeError(InvalidArgumentError):
    """Shapes do not fit the operation."""


class DTypeError(InvalidArgumentError, TypeError):
    """Element types do not fit the operation."""


class AxisError(ShapeError, IndexError):
    """An axis is outside the tensor's rank."""


class GraphError(InvalidArgumentError, RuntimeError):
    """A value of another graph, a finalised graph, a duplicate name."""


class NameNotFoundError(NotFoundError, KeyError, ValueError):
    """No tensor, operation or attribute of that name."""

    __str__ = TinyFlowError.__str__  # KeyError would print the repr


class SymbolicValueError(UserError, TypeError):
    """A value that has no number yet was used as a number."""
