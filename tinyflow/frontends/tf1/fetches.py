"""What ``Session.run`` was asked for: nested structures of tensors, operations, names.

Main types: ``Fetches``; ``fetch_key`` makes its cache key. May import core, elements, graph.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tinyflow.core.error import (
    GraphError,
    InvalidArgumentError,
    NameNotFoundError,
    SymbolicValueError,
    TinyFlowError,
)
from tinyflow.frontends.tf1.elements import Operation, Tensor

__all__ = ["FetchTypeError", "Fetches", "fetch_key"]


class FetchTypeError(InvalidArgumentError, TypeError):
    """Something that is no tensor, operation, variable or name was fetched or used as a feed."""


def fetch_key(fetches: Any) -> Any:
    """A hashable key, equal for requests that mean the same structure of the same elements."""
    kind = type(fetches)
    if kind is Tensor or kind is Operation:
        return fetches
    if isinstance(fetches, (list, tuple)):
        return (kind, *[fetch_key(f) for f in fetches])
    if isinstance(fetches, Mapping):
        return (kind, tuple(fetches), *[fetch_key(f) for f in fetches.values()])
    element = getattr(fetches, "_as_graph_element", None)
    return fetches if element is None else element()


class Fetches:
    """A request taken apart.

    values: the distinct tensors, in order of first appearance.   targets: distinct operations.
    build: results of ``values`` (scalars as NumPy scalars) -> the structure that was asked for.
    single: the request is one tensor.
    """

    def __init__(self, graph: Any, fetches: Any) -> None:
        self.graph = graph
        self.values: list[Tensor] = []
        self.targets: list[Operation] = []
        self._position: dict[Tensor, int] = {}
        self.build = self._builder(fetches)
        self.single = len(self.values) == 1 and isinstance(_plain(fetches), (Tensor, str))

    def _builder(self, fetch: Any) -> Callable[[list[Any]], Any]:
        if isinstance(fetch, (list, tuple)):
            parts = [self._builder(f) for f in fetch]
            kind: Any = type(fetch)
            if hasattr(fetch, "_fields"):
                return lambda results: kind(*[part(results) for part in parts])
            if kind is list:
                return lambda results: [part(results) for part in parts]
            return lambda results: kind([part(results) for part in parts])
        if isinstance(fetch, Mapping):
            keys, parts = list(fetch), [self._builder(f) for f in fetch.values()]
            kind = type(fetch)

            def build(results: list[Any]) -> Any:
                pairs = [(k, part(results)) for k, part in zip(keys, parts, strict=True)]
                try:
                    return kind(pairs)
                except TypeError:  # e.g. defaultdict, whose first argument is a function
                    return dict(pairs)

            return build
        if hasattr(fetch, "finish"):  # several tensors behind one fetch, and a last step in Python
            parts = [self._builder(f) for f in fetch.fetched]
            return lambda results: fetch.finish([part(results) for part in parts])
        return self._leaf(fetch)

    def _leaf(self, fetch: Any) -> Callable[[list[Any]], Any]:
        element = self._element(fetch)
        if isinstance(element, Operation):
            if element not in self.targets:
                self.targets.append(element)
            return lambda results: None
        position = self._position.setdefault(element, len(self.values))
        if position == len(self.values):
            self.values.append(element)
        return lambda results: results[position]

    def _element(self, fetch: Any) -> Tensor | Operation:
        if fetch is None:
            raise FetchTypeError(
                f"Fetch argument None has invalid type {type(None)}",
                hint="an optimizer's minimize() or a tf.gradients entry may be None when nothing "
                "connects the loss to the variable",
            )
        try:
            element = self.graph.as_graph_element(fetch)
        except NameNotFoundError as error:
            raise _chained(
                NameNotFoundError,
                f"Fetch argument {fetch!r} cannot be interpreted as a Tensor.",
                error,
            ) from None
        except GraphError as error:
            raise _chained(
                GraphError, f"Fetch argument {fetch!r} cannot be interpreted as a Tensor.", error
            ) from None
        except SymbolicValueError:
            raise
        except TypeError as error:
            if isinstance(error, TinyFlowError):
                raise
            raise FetchTypeError(
                f"Fetch argument {fetch!r} has invalid type {type(fetch)}, must be a string or "
                f"Tensor. ({error})",
                hint=_number_hint(fetch),
            ) from None
        if not self.graph.is_fetchable(element):
            raise InvalidArgumentError(
                f"Operation {element.name!r} has been marked as not fetchable."
            )
        return element


def _plain(fetch: Any) -> Any:
    element = getattr(fetch, "_as_graph_element", None)
    return fetch if element is None else element()


def _number_hint(fetch: Any) -> str | None:
    if hasattr(fetch, "dtype") or isinstance(fetch, (int, float)):
        return (
            "this is already a number: a name may have been overwritten by the result of an "
            "earlier run, as in `loss = sess.run(loss)`"
        )
    if callable(fetch):
        return "this is a function: did you forget to call it?"
    return None


def _chained(kind: Any, what: str, error: TinyFlowError) -> TinyFlowError:
    return kind(  # type: ignore[no-any-return]
        f"{what} ({error.what})", sources=error.sources, hint=error.hint, choices=error.choices
    )
