"""Shared variables: ``tf.variable_scope`` and ``tf.get_variable``.

Main types: ``VariableScope``, ``variable_scope``. May import core, variables, initializers, graph.
"""

from __future__ import annotations

import contextlib
import enum
import functools
from collections.abc import Callable, Sequence
from types import FunctionType, MethodType
from typing import Any

from tinyflow.core.dtype import as_dtype, float32
from tinyflow.core.error import (
    AlreadyExistsError,
    DTypeError,
    InvalidArgumentError,
    NameNotFoundError,
    ShapeError,
)
from tinyflow.core.frames import public_methods
from tinyflow.frontends.tf1.convert import graph_of
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.graph_keys import GraphKeys
from tinyflow.frontends.tf1.spelling import closest
from tinyflow.frontends.tf1.tensor_shape import TensorShape
from tinyflow.frontends.tf1.variables import Variable
from tinyflow.ir.graph.nodes import Value

__all__ = [
    "AUTO_REUSE", "VariableScope", "get_local_variable", "get_variable", "get_variable_scope",
    "no_regularizer", "variable_op_scope", "variable_scope",
]  # fmt: skip


class _Reuse(enum.Enum):
    AUTO_REUSE = 1


AUTO_REUSE = _Reuse.AUTO_REUSE


class DuplicateVariableError(AlreadyExistsError, ValueError):
    """``get_variable`` of a name that exists, without reuse."""


def no_regularizer(_: Any) -> None:
    """As a scope's regularizer: none, whatever the enclosing scope says."""


class _Store:
    """A graph's variables made by ``get_variable``, and the scopes opened so far."""

    def __init__(self) -> None:
        self.variables: dict[str, Any] = {}
        self.scope_counts: dict[str, int] = {}
        self.opened_inside: dict[str, set[str]] = {}
        self.current = VariableScope("", False)

    @staticmethod
    def of(graph: Graph) -> _Store:
        store = getattr(graph, "variable_store", None)
        if store is None:
            store = graph.variable_store = _Store()  # type: ignore[attr-defined]
        return store

    def open(self, name: str) -> None:
        self.scope_counts[name] = self.scope_counts.get(name, 0) + 1
        outer = name
        while outer:
            outer = outer.rpartition("/")[0]
            self.opened_inside.setdefault(outer, set()).add(name)

    def close_inner(self, name: str) -> None:
        for key in self.opened_inside.get(name, ()):
            self.scope_counts[key] = 0

    def unique(self, prefix: str) -> str:
        """``prefix`` inside the current scope, numbered when a scope of that name was opened."""
        name = f"{self.current.name}/{prefix}" if self.current.name else prefix
        if not self.scope_counts.get(name):
            return prefix
        number = 1
        while self.scope_counts.get(f"{name}_{number}"):
            number += 1
        return f"{prefix}_{number}"


@public_methods()
class VariableScope:
    """A prefix for names, and the defaults of the variables made under it."""

    def __init__(self, name: str, reuse: Any, original_name_scope: str = "", **defaults: Any):
        self.name = name
        self.reuse = reuse
        self.original_name_scope = original_name_scope
        self.initializer = defaults.get("initializer")
        self.regularizer = defaults.get("regularizer")
        self.partitioner = defaults.get("partitioner")
        self.custom_getter = defaults.get("custom_getter")
        self.caching_device = defaults.get("caching_device")
        self.constraint = defaults.get("constraint")
        self.dtype = as_dtype(defaults.get("dtype") or float32)
        self.use_resource = defaults.get("use_resource")

    def reuse_variables(self) -> None:
        """From here on ``get_variable`` finds variables instead of making them."""
        self.reuse = True

    def set_initializer(self, initializer: Any) -> None:
        self.initializer = initializer

    def set_regularizer(self, regularizer: Any) -> None:
        self.regularizer = regularizer

    def set_partitioner(self, partitioner: Any) -> None:
        self.partitioner = partitioner

    def set_custom_getter(self, custom_getter: Any) -> None:
        self.custom_getter = custom_getter

    def set_dtype(self, dtype: Any) -> None:
        self.dtype = as_dtype(dtype)

    def set_use_resource(self, use_resource: Any) -> None:
        self.use_resource = use_resource

    def get_collection(self, name: str) -> list[Any]:
        scope = self.name + "/" if self.name else ""
        return get_default_graph().get_collection(name, scope)

    def trainable_variables(self) -> list[Any]:
        return self.get_collection(GraphKeys.TRAINABLE_VARIABLES)

    def global_variables(self) -> list[Any]:
        return self.get_collection(GraphKeys.GLOBAL_VARIABLES)

    def local_variables(self) -> list[Any]:
        return self.get_collection(GraphKeys.LOCAL_VARIABLES)

    def get_variable(self, name: str, shape: Any = None, **keywords: Any) -> Any:
        return _get_in(self, name, shape, **keywords)


def get_variable_scope() -> VariableScope:
    """The innermost variable scope."""
    return _Store.of(get_default_graph()).current


@public_methods("__init__", "__enter__")
class variable_scope:
    """``with tf.variable_scope("layer1", reuse=...) as scope:`` a scope for ``get_variable``.

    name_or_scope: a name, a scope object (re-entered as it was), or None with ``default_name``
    (made unique). reuse: True, False, None (inherit) or ``tf.AUTO_REUSE``.
    """

    def __init__(
        self,
        name_or_scope: Any,
        default_name: str | None = None,
        values: Sequence[Any] | None = None,
        initializer: Any = None,
        regularizer: Any = None,
        caching_device: Any = None,
        partitioner: Any = None,
        custom_getter: Any = None,
        reuse: Any = None,
        dtype: Any = None,
        use_resource: Any = None,
        constraint: Any = None,
        auxiliary_name_scope: bool = True,
    ) -> None:
        if name_or_scope is None and default_name is None:
            raise InvalidArgumentError("If default_name is None then name_or_scope is required")
        if not isinstance(name_or_scope, (str, VariableScope, type(None))):
            raise TypeError("VariableScope: name_or_scope must be a string or VariableScope.")
        if reuse not in (True, False, None, AUTO_REUSE):
            raise InvalidArgumentError("The reuse parameter must be True or False or None.")
        if name_or_scope is None and reuse is True:
            raise InvalidArgumentError("reuse=True cannot be used without a name_or_scope")
        self._name_or_scope = name_or_scope
        self._default_name = default_name
        self._values = values or ()
        self._reuse = reuse
        self._auxiliary_name_scope = auxiliary_name_scope
        self._changes = {
            "initializer": initializer, "regularizer": regularizer, "partitioner": partitioner,
            "custom_getter": custom_getter, "caching_device": caching_device, "dtype": dtype,
            "use_resource": use_resource, "constraint": constraint,
        }  # fmt: skip
        self._block = contextlib.ExitStack()

    def __enter__(self) -> VariableScope:
        graph = graph_of(*self._values)
        store = _Store.of(graph)
        outer = store.current
        given = self._name_or_scope
        block = contextlib.ExitStack()
        block.enter_context(graph.as_default())
        if isinstance(given, VariableScope):
            name, short, base = given.name, given.name.split("/")[-1], given
        else:
            short = store.unique(self._default_name or "") if given is None else given
            name = f"{outer.name}/{short}" if outer.name and short else short or outer.name
            base = outer
        scope_name = graph.get_name_scope()
        scope_name = scope_name + "/" if scope_name else ""
        if self._auxiliary_name_scope and short:
            scope_name = block.enter_context(graph.name_scope(short))
        if isinstance(given, VariableScope) and not self._auxiliary_name_scope:
            scope_name = given.original_name_scope
        inner = self._inner(base, outer, name, scope_name)
        if isinstance(given, VariableScope):
            inner.original_name_scope = given.original_name_scope
        self._enter(store, inner, outer, block)
        return inner

    def _inner(
        self, base: VariableScope, outer: VariableScope, name: str, scope_name: str
    ) -> VariableScope:
        inner = VariableScope(name, False, scope_name)
        for key, value in self._changes.items():
            setattr(inner, key, getattr(base, key) if value is None else value)
        inner.dtype = as_dtype(inner.dtype)
        # reuse is inherited and cannot be taken back by an inner scope.
        inherited = base.reuse if isinstance(self._name_or_scope, VariableScope) else outer.reuse
        inner.reuse = self._reuse or inherited
        outer_getter, own_getter = base.custom_getter, self._changes["custom_getter"]
        if own_getter is not None and outer_getter is not None:
            inner.custom_getter = _compose(own_getter, outer_getter)
        return inner

    def _enter(self, store: _Store, inner: VariableScope, outer: VariableScope, block: Any) -> None:
        store.open(inner.name)
        reentered = isinstance(self._name_or_scope, VariableScope)
        old_counts = dict(store.scope_counts) if reentered else {}
        store.current = inner

        def leave() -> None:
            store.close_inner(inner.name)
            if reentered:
                store.scope_counts = old_counts
            store.current = outer

        block.callback(leave)
        self._block = block

    def __exit__(self, *exception: Any) -> None:
        self._block.close()


def variable_op_scope(
    values: Any, name_or_scope: Any, default_name: str | None = None, **keywords: Any
) -> variable_scope:
    """The argument order of 2016."""
    return variable_scope(name_or_scope, default_name, values, **keywords)


def _compose(inner: Callable[..., Any], outer: Callable[..., Any]) -> Callable[..., Any]:
    def getter(next_getter: Any, *args: Any, **keywords: Any) -> Any:
        def through_outer(*a: Any, **k: Any) -> Any:
            return outer(next_getter, *a, **k)

        return inner(through_outer, *args, **keywords)

    return getter


def get_variable(
    name: str,
    shape: Any = None,
    dtype: Any = None,
    initializer: Any = None,
    regularizer: Any = None,
    trainable: bool | None = None,
    collections: Any = None,
    caching_device: Any = None,
    partitioner: Any = None,
    validate_shape: bool = True,
    use_resource: Any = None,
    custom_getter: Any = None,
    constraint: Any = None,
    synchronization: Any = None,
    aggregation: Any = None,
) -> Any:
    """The variable of that name in the current ``variable_scope``: made once, then shared.

    A tensor as second argument is taken as the initializer. Errors: AlreadyExistsError (a
    ValueError) with the line of the first definition, NameNotFoundError under ``reuse=True`` for
    an unknown name, ShapeError and DTypeError when a shared variable is asked for as another type.
    """
    return get_variable_scope().get_variable(
        name, shape, dtype=dtype, initializer=initializer, regularizer=regularizer,
        trainable=trainable, collections=collections, caching_device=caching_device,
        partitioner=partitioner, validate_shape=validate_shape, use_resource=use_resource,
        custom_getter=custom_getter, constraint=constraint, synchronization=synchronization,
        aggregation=aggregation,
    )  # fmt: skip


def get_local_variable(name: str, *args: Any, **keywords: Any) -> Any:
    """``get_variable`` in the collection of local variables, not trainable."""
    keywords["trainable"] = False
    keywords["collections"] = [
        *(keywords.get("collections") or ()), GraphKeys.LOCAL_VARIABLES,
    ]  # fmt: skip
    return get_variable(name, *args, **keywords)


def _get_in(
    scope: VariableScope, name: str, shape: Any = None, *, dtype: Any = None,
    initializer: Any = None, regularizer: Any = None, partitioner: Any = None,
    custom_getter: Any = None, constraint: Any = None, caching_device: Any = None,
    **keywords: Any,
) -> Any:  # fmt: skip
    if isinstance(shape, Value) and initializer is None and not _is_shape(shape):
        # The lecture writes get_variable("bias", tf.zeros((100,))).
        shape, initializer = None, shape
    initializer = scope.initializer if initializer is None else initializer
    regularizer = scope.regularizer if regularizer is None else regularizer
    partitioner = scope.partitioner if partitioner is None else partitioner
    constraint = scope.constraint if constraint is None else constraint
    getter = scope.custom_getter if custom_getter is None else custom_getter
    if dtype is None and isinstance(initializer, Value):
        dtype = initializer.dtype
    full_name = f"{scope.name}/{name}" if scope.name else name
    arguments = {
        "shape": shape, "dtype": scope.dtype if dtype is None else as_dtype(dtype),
        "initializer": initializer, "regularizer": regularizer, "partitioner": partitioner,
        "reuse": scope.reuse, "constraint": constraint, **keywords,
    }  # fmt: skip
    graph = get_default_graph()
    with graph.name_scope(None):
        if getter is None:
            return _get_or_make(full_name, **arguments)
        return getter(_get_or_make, full_name, **arguments)


def _is_shape(value: Value) -> bool:
    return value.dtype.is_integer and value.type.rank in (0, 1)


def _get_or_make(
    name: str, shape: Any = None, dtype: Any = float32, initializer: Any = None,
    regularizer: Any = None, reuse: Any = None, trainable: bool | None = None,
    collections: Any = None, partitioner: Any = None, validate_shape: bool = True,
    constraint: Any = None, **ignored: Any,
) -> Any:  # fmt: skip
    graph = get_default_graph()
    store = _Store.of(graph)
    dtype = as_dtype(dtype)
    if name in store.variables:
        return _existing(store.variables[name], name, shape, dtype, reuse)
    if reuse is True:
        raise NameNotFoundError(
            f"Variable {name} does not exist, or was not created with tf.get_variable(). Did you "
            "mean to set reuse=tf.AUTO_REUSE in VarScope?",
            hint=_name_hint(store, name),
        )
    if partitioner is not None:
        from tinyflow.frontends.tf1.partitioned import partitioned

        made = partitioned(name, shape, dtype, initializer, partitioner, trainable, collections)
        if made is not None:
            store.variables[name] = made
            return made
    value = initial_value(name, shape, dtype, initializer)
    keep_dtype = dtype if not isinstance(value, Value) else None
    variable = Variable(
        value, trainable, collections, validate_shape, name=name, dtype=keep_dtype,
        constraint=constraint,
    )  # fmt: skip
    store.variables[name] = variable
    if regularizer is not None:
        with graph.name_scope(name + "/Regularizer/"):
            loss = regularizer(variable)
        if loss is not None:
            graph.add_to_collection(GraphKeys.REGULARIZATION_LOSSES, loss)
    return variable


def _existing(variable: Any, name: str, shape: Any, dtype: Any, reuse: Any) -> Any:
    if not reuse:
        raise DuplicateVariableError(
            f"Variable {name} already exists, disallowed. Did you mean to set reuse=True or "
            f"reuse=tf.AUTO_REUSE in VarScope?",
            sources={"Originally defined at": variable.source},
            hint=f"with tf.variable_scope(..., reuse=tf.AUTO_REUSE): tf.get_variable({name!r})",
        )
    if shape is not None and not isinstance(shape, Value):
        wanted = TensorShape(shape)
        if not wanted.is_compatible_with(variable.shape):
            raise ShapeError(
                f"Trying to share variable {name}, but specified shape {wanted} and found shape "
                f"{variable.shape}.",
                sources={"Originally defined at": variable.source},
            )
    if dtype is not variable.dtype:
        raise DTypeError(
            f"Trying to share variable {name}, but specified dtype {dtype} and found dtype "
            f"{variable.dtype}.",
            sources={"Originally defined at": variable.source},
        )
    return variable


def _name_hint(store: _Store, name: str) -> str | None:
    match = closest(name, store.variables)
    return None if match is None else f"did you mean {match!r}?"


def initial_value(name: str, shape: Any, dtype: Any, initializer: Any) -> Any:
    """A tensor, a literal, or a function that makes the initial value."""
    if initializer is None:
        from tinyflow.frontends.tf1.initializers import GlorotUniform, Zeros

        initializer = GlorotUniform() if dtype.is_floating else Zeros()
    if not callable(initializer) or isinstance(initializer, Value):
        if shape is not None:
            raise InvalidArgumentError(
                "If initializer is a constant, do not specify shape.",
                hint=f"tf.get_variable({name!r}, initializer=...)",
            )
        return initializer
    if isinstance(initializer, type):
        initializer = initializer()  # tf.zeros_initializer without parentheses
    static = TensorShape(shape)
    if (not static.is_fully_defined() and shape is not None) or shape is None:
        if shape is None and _takes_no_arguments(initializer):
            return initializer
        raise ShapeError(
            f"Shape of a new variable ({name}) must be fully defined, but instead was "
            f"{'<unknown>' if shape is None else static}.",
            hint=f"tf.get_variable({name!r}, [rows, columns])",
        )
    if _takes_no_arguments(initializer):
        return initializer
    extents = static.as_list()
    return lambda: initializer(extents, dtype=dtype)


def _takes_no_arguments(function: Any) -> bool:
    # Every variable asks, and most initializers are objects of a few classes.
    method = getattr(type(function), "__call__", None)  # noqa: B004 - the class's own function
    if isinstance(method, FunctionType):
        return _method_takes_no_arguments(method)
    return _all_optional(function)


@functools.lru_cache(maxsize=64)
def _method_takes_no_arguments(method: FunctionType) -> bool:
    return _all_optional(MethodType(method, object()))


def _all_optional(function: Any) -> bool:
    import inspect

    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    return not any(
        (p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD))
        or p.kind is p.VAR_POSITIONAL
        for p in parameters
    )
