"""Running a graph: ``with tf.Session() as sess: sess.run(fetches, feed_dict={x: value})``.

Main types: ``Session``, ``InteractiveSession``. May import core, compile, runtime (when first run).
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from tinyflow.core import options as core_options
from tinyflow.core.error import (
    FailedPreconditionError,
    GraphError,
    InvalidArgumentError,
    NameNotFoundError,
    ShorterSlice,
    TinyFlowError,
)
from tinyflow.core.frames import public_methods, trim
from tinyflow.core.garbage import without_collections
from tinyflow.core.source import user_frame
from tinyflow.frontends.tf1.elements import Operation, Tensor
from tinyflow.frontends.tf1.feeds import Feed, flatten_feeds
from tinyflow.frontends.tf1.fetches import Fetches, FetchTypeError, fetch_key
from tinyflow.frontends.tf1.graph import Graph, get_default_graph
from tinyflow.frontends.tf1.growth import GrowthWatch
from tinyflow.ir.graph.nodes import TensorType

__all__ = ["InteractiveSession", "Session", "get_default_session"]

_ndarray = np.ndarray


class ClosedSessionError(FailedPreconditionError):
    """``run`` after ``close``."""


class _DefaultSessions(threading.local):
    def __init__(self) -> None:
        self.stack: list[BaseSession] = []


_defaults = _DefaultSessions()


def get_default_session() -> BaseSession | None:
    """The innermost session entered in this thread, or None."""
    return _defaults.stack[-1] if _defaults.stack else None


class _Plan:
    """One request (fetches, fed tensors) of one session: a bound native step per feed shapes."""

    __slots__ = (
        "bound",
        "build",
        "copies",
        "family",
        "feeds",
        "for_all_sizes",
        "lock",
        "request",
        "session",
        "single",
        "source_of",
    )

    def __init__(self, session: BaseSession, request: Fetches, feeds: list[Feed]) -> None:
        self.session = session
        self.request = request
        self.feeds = feeds
        self.bound: dict[Any, Callable[[list[Any]], list[Any]]] = {}
        self.family: Any = None  # the steps of this request, from the first run on
        self.for_all_sizes: dict[Any, Any] = {}  # steps that serve all sizes, bound
        self.lock = session._lock
        self.single = request.single
        self.build = request.build
        # A fed variable is fed to every operation that reads it.
        self.copies = [
            (i, other.outputs[0])
            for i, feed in enumerate(feeds)
            for other in session.graph.readers_of(feed.tensor)
        ]
        fed = {feed.tensor: i for i, feed in enumerate(feeds)}
        fed.update((copy, len(feeds) + n) for n, (_, copy) in enumerate(self.copies))
        # A fetched tensor that is fed comes back as it was fed; the rest is computed.
        computed = [v for v in request.values if v not in fed]
        self.source_of = (
            None
            if len(computed) == len(request.values)
            else [
                (True, fed[v]) if v in fed else (False, computed.index(v)) for v in request.values
            ]
        )

    def run(self, values: Any) -> Any:
        """The structure asked for, from the fed values in the order of ``feeds``."""
        arrays = []
        for feed, value in zip(self.feeds, values):  # noqa: B905 - lengths agree by construction
            if (
                type(value) is not _ndarray
                or value.dtype is not feed.numpy_dtype
                or not value.flags.c_contiguous
            ):
                value = feed.convert(value)
            arrays.append(value)
        if self.copies:
            arrays += [arrays[i] for i, _ in self.copies]
        step = self.bound.get(tuple([a.shape for a in arrays]))
        if step is None:
            step = self.bind(arrays)
        try:
            with self.lock:
                results = step(arrays)
        except ShorterSlice:
            step = self.cut_short(arrays)
            with self.lock:
                results = step(arrays)
        if self.source_of is not None:
            results = [arrays[i].copy() if is_fed else results[i] for is_fed, i in self.source_of]
        if self.single:
            result = results[0]
            return result if result.shape else result[()]
        return self.build([r if r.shape else r[()] for r in results])

    def cut_short(self, arrays: list[np.ndarray]) -> Callable[[list[Any]], list[Any]]:
        """As ``bind``, for slices that are as long as what there is of them."""
        self.family.cut_short()
        self.bound.clear()
        return self.bind(arrays)

    def bind(self, arrays: list[np.ndarray]) -> Callable[[list[Any]], list[Any]]:
        """As ``_bind``, with what the session's ConfigProto says about compiling."""
        budget = getattr(self.session._config, "memory_budget", None)
        if not budget:
            return self._bind(arrays)
        with core_options.override(memory_budget=int(budget)):
            return self._bind(arrays)

    @without_collections
    def _bind(self, arrays: list[np.ndarray]) -> Callable[[list[Any]], list[Any]]:
        """Checks shapes, compiles the step for them and binds it to the session's variables."""
        shapes = tuple([a.shape for a in arrays])
        for feed, shape in zip(self.feeds, shapes, strict=False):
            feed.check_shape(shape)
        request = self.request
        feeds = [feed.tensor for feed in self.feeds] + [copy for _, copy in self.copies]
        fetches = [v for v in request.values if v not in feeds]
        types = [TensorType(f.dtype, s) for f, s in zip(feeds, shapes, strict=True)]
        graph = self.session.graph
        key = (
            tuple(fetches), tuple(request.targets), tuple(feeds), core_options.current(),
        )  # fmt: skip
        with graph._lock:
            family = graph.steps.get(key)
            if family is None:
                from tinyflow.compile.step import StepFamily

                family = graph.steps[key] = StepFamily(fetches, list(request.targets), feeds)
            self.family = family
            step, sizes = family.at(types)
        with self.lock:
            if sizes is None:
                run = step.bind(self.session._store()).run
            else:
                every = self.for_all_sizes.get(step)
                if every is None:
                    every = self.for_all_sizes[step] = step.bind(self.session._store())
                run = functools.partial(every.run, sizes)
        self.bound[shapes] = run
        return run  # type: ignore[no-any-return]


@public_methods("__init__", "make_callable", "partial_run", "partial_run_setup")
class BaseSession:
    """Owns the values of a graph's variables; see ``Session``."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        if graph is not None and not isinstance(graph, Graph):
            raise FetchTypeError(f"graph must be a tf.Graph, but got {type(graph)}")
        self._graph = get_default_graph() if graph is None else graph
        self._config = config
        self._target = target
        self._closed = False
        self._lock = threading.RLock()
        self._variables: Any = None
        self._options = core_options.current()
        self._plans: dict[Any, _Plan] = {}
        self._plans_of: dict[Any, dict[Any, _Plan]] = {self._options: self._plans}
        self._growth = GrowthWatch(self._graph)

    @property
    def graph(self) -> Graph:
        return self._graph

    @property
    def sess_str(self) -> str:
        return self._target

    def run(
        self, fetches: Any, feed_dict: Any = None, options: Any = None, run_metadata: Any = None
    ) -> Any:
        """Computes ``fetches`` (a tensor, operation, variable, name, or nested structure of them).

        feed_dict: tensor, variable or name -> value; what only fed tensors need is not computed.
        Returns the same structure: arrays that the caller owns, NumPy scalars for rank 0, None for
        operations. Errors: InvalidArgumentError for an unfed placeholder, FailedPreconditionError
        for an uninitialised variable, ValueError and TypeError for feeds that do not fit.
        """
        try:
            return self._run(fetches, feed_dict)
        except TinyFlowError as error:
            error.located("in the run at", user_frame(2))
            trim(error)
            raise

    def _run(self, fetches: Any, feed_dict: Any) -> Any:
        plans = self._plans
        if core_options.current() is not self._options:
            plans = self._plans_of.setdefault(core_options.current(), {})
        key = fetches if type(fetches) is Tensor else fetch_key(fetches)
        try:
            plan = plans.get((key, tuple(feed_dict)) if feed_dict else key)
        except TypeError:
            plan = None
        if plan is None:
            plan, values = self._new_plan(plans, key, fetches, feed_dict)
        else:
            values = feed_dict.values() if feed_dict else ()
        if len(self._graph._operations) != self._growth.seen:
            self._growth.look()
        return plan.run(values)

    def _new_plan(
        self, plans: dict[Any, _Plan], key: Any, fetches: Any, feed_dict: Any
    ) -> tuple[_Plan, Any]:
        self._check_open()
        keys, values = ([], []) if feed_dict is None else flatten_feeds(feed_dict)
        known = plans.get((key, tuple(keys))) if len(keys) != len(feed_dict or ()) else None
        if known is not None:
            return known, values
        request = Fetches(self._graph, fetches)
        feeds = [self._feed(k) for k in keys]
        tensors = [feed.tensor for feed in feeds]
        if len(set(tensors)) < len(tensors):
            twice = next(t for t in tensors if tensors.count(t) > 1)
            raise InvalidArgumentError(f"feed_dict: Tensor '{twice.name}' is fed twice")
        plan = _Plan(self, request, feeds)
        if not feed_dict:
            plans[key] = plan
        else:  # keys that stand for several tensors are kept as those
            plans[key, tuple(keys)] = plan
        return plan, values

    def _feed(self, key: Any) -> Feed:
        try:
            tensor = self._graph.as_graph_element(key, allow_operation=False)
        except (NameNotFoundError, GraphError) as error:
            raise FetchTypeError(
                f"Cannot interpret feed_dict key as Tensor: {error.what}",
                sources=error.sources, hint=error.hint,
            ) from None  # fmt: skip
        except TypeError as error:
            raise FetchTypeError(
                f"Cannot interpret feed_dict key as Tensor: {error}",
                hint="an operation has no value to replace; feed one of its outputs"
                if isinstance(key, Operation) else None,
            ) from None  # fmt: skip
        if not self._graph.is_feedable(tensor):
            raise InvalidArgumentError(
                f"Tensor {tensor} may not be fed.",
                source=tensor.node.source,  # type: ignore[union-attr]
            )
        return Feed(tensor)  # type: ignore[arg-type]

    def _store(self) -> Any:
        if self._variables is None:
            from tinyflow.runtime.variables import VariableStore

            with self._lock:
                if self._variables is None:
                    self._variables = VariableStore()
        return self._variables

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedSessionError(
                "Attempted to use a closed Session.",
                hint="run inside the `with tf.Session() as sess:` block, or open a new session",
            )
        if not self._graph._operations:
            raise FailedPreconditionError(
                "The Session graph is empty.  Add operations to the graph before calling run().",
                hint="the operations may be in another graph: tf.Session(graph=g)",
            )

    def make_callable(
        self, fetches: Any, feed_list: Any = None, accept_options: bool = False
    ) -> Callable[..., Any]:
        """A function of the values of ``feed_list`` that runs ``fetches`` without planning."""
        self._check_open()
        if feed_list is not None and not isinstance(feed_list, (list, tuple)):
            raise FetchTypeError("`feed_list` must be a list or tuple.")
        feeds = [self._feed(k) for k in feed_list or ()]
        plan = _Plan(self, Fetches(self._graph, fetches), feeds)
        run, count = plan.run, len(feeds)

        def call(*values: Any, options: Any = None, run_metadata: Any = None) -> Any:
            if len(values) != count:
                raise InvalidArgumentError(
                    f"the callable takes {count} values, got {len(values)}",
                    received={f.tensor.name: f.tensor.type for f in feeds},
                )
            if self._closed:
                self._check_open()
            try:
                return run(values)
            except TinyFlowError as error:
                error.located("in the run at", user_frame(2))
                trim(error)
                raise

        return call

    def partial_run_setup(self, fetches: Any, feeds: Any = None) -> Any:
        """A handle for a step that is run in parts: what may be fetched and fed in it."""
        from tinyflow.frontends.tf1.partial import PartialRun

        self._check_open()
        return PartialRun(self, fetches, feeds or ())

    def partial_run(self, handle: Any, fetches: Any, feed_dict: Any = None) -> Any:
        """Continues the step: earlier feeds and results stay, nothing stateful runs twice."""
        return handle.run(fetches, feed_dict)

    # ------------------------------------------------------------------ life

    def as_default(self) -> Any:
        """``with sess.as_default():`` makes it the session of ``t.eval()`` and ``op.run()``."""
        return _entered(self)

    def close(self) -> None:
        """Frees the variables; ``run`` is an error from here on."""
        self._closed = True
        self._plans = {}
        self._plans_of = {self._options: self._plans}
        self._variables = None

    def list_devices(self) -> list[str]:
        return ["/job:localhost/replica:0/task:0/device:CPU:0"]


@contextlib.contextmanager
def _entered(session: BaseSession) -> Iterator[BaseSession]:
    _defaults.stack.append(session)
    try:
        yield session
    finally:
        _remove(session)


def _remove(session: BaseSession) -> None:
    stack = _defaults.stack
    for position in reversed(range(len(stack))):
        if stack[position] is session:
            del stack[position]
            return


class Session(BaseSession):
    """``Session(target='', graph=None, config=None)``: runs operations, owns variables' values.

    As a context manager it is the default session, its graph the default graph, and it is closed
    at the end.
    """

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        super().__init__(target, graph, config)
        self._blocks: list[contextlib.ExitStack] = []

    def __enter__(self) -> Session:
        block = contextlib.ExitStack()
        block.enter_context(self._graph.as_default())
        block.enter_context(self.as_default())
        self._blocks.append(block)
        return self

    def __exit__(self, *exception: Any) -> None:
        self._blocks.pop().close()
        self.close()

    @staticmethod
    def reset(target: str, containers: Any = None, config: Any = None) -> None:
        """Accepted; there is no server whose containers could be reset."""


class InteractiveSession(BaseSession):
    """A session that is the default one from its creation until ``close``."""

    def __init__(self, target: str = "", graph: Graph | None = None, config: Any = None) -> None:
        super().__init__(target, graph, config)
        self._block = contextlib.ExitStack()
        if graph is not None:
            self._block.enter_context(graph.as_default())
        _defaults.stack.append(self)

    def close(self) -> None:
        super().close()
        _remove(self)
        self._block.close()
