"""A step run in parts: ``Session.partial_run_setup`` and ``partial_run``.

Main type: ``PartialRun``. May import core, ir.graph, fetches, feeds.
"""

from __future__ import annotations

from typing import Any

from tinyflow.core.error import InvalidArgumentError
from tinyflow.frontends.tf1.elements import Operation, Tensor
from tinyflow.frontends.tf1.feeds import flatten_feeds
from tinyflow.frontends.tf1.fetches import Fetches
from tinyflow.ir.graph.nodes import Effect

__all__ = ["PartialRun"]


class PartialRun:
    """Values known so far are fed to each next part, so that their operations do not run again.

    Beside the fetches a part also fetches what a second run would change: the results of random,
    stateful and host operations.
    """

    def __init__(self, session: Any, fetches: Any, feeds: Any) -> None:
        self.session = session
        graph = session.graph
        allowed = Fetches(graph, fetches)
        self.fetchable: set[Any] = {*allowed.values, *allowed.targets}
        self.feedable = {session._feed(key).tensor for key in feeds}
        self.known: dict[Tensor, Any] = {}
        self.finished: set[Operation] = set()

    def run(self, fetches: Any, feed_dict: Any) -> Any:
        keys, values = flatten_feeds(feed_dict or {})
        request = Fetches(self.session.graph, fetches)
        for key, value in zip(keys, values, strict=True):
            tensor = self.session._feed(key).tensor
            if tensor not in self.feedable:
                raise InvalidArgumentError(
                    f"Tensor {tensor.name} was not specified in partial_run_setup.",
                    source=tensor.node.source,
                )
            if tensor in self.known:
                raise InvalidArgumentError(
                    f"The tensor {tensor.name} has already been fed.", source=tensor.node.source
                )
            self.known[tensor] = value
        asked: list[Tensor | Operation] = [*request.values, *request.targets]
        for wanted in asked:
            if wanted not in self.fetchable:
                node = wanted.node if isinstance(wanted, Tensor) else wanted
                raise InvalidArgumentError(
                    f"Fetch {node.name} was not specified in partial_run_setup.",
                    source=node.source,
                )
        return request.build(self._values(request))

    def _values(self, request: Fetches) -> list[Any]:
        """The requested values, with everything that must not be computed twice remembered."""
        kept = self._stateful([v.node for v in request.values] + request.targets)
        targets = [t for t in request.targets if t not in self.finished and not self._is_done(t)]
        wanted = [v for v in dict.fromkeys([*request.values, *kept]) if v not in self.known]
        results, _ = self.session.run([wanted, targets], self.known)
        self.known.update(zip(wanted, results, strict=True))
        self.finished.update(targets)
        return [self.known[v] for v in request.values]

    def _is_done(self, operation: Operation) -> bool:
        """An operation has run when a part has fetched its results."""
        outputs = operation.outputs
        return bool(outputs) and all(v in self.known for v in outputs)

    def _stateful(self, roots: list[Operation]) -> list[Tensor]:
        found: list[Tensor] = []
        seen: set[Operation] = set()
        stack = list(roots)
        while stack:
            node = stack.pop()
            if node in seen or node in self.finished:
                continue
            seen.add(node)
            if node.op.effect is not Effect.NONE:
                found += [v for v in node.outputs if v not in self.known]
            stack += node.control_inputs  # type: ignore[arg-type]
            stack += [v.node for v in node.inputs if v not in self.known]
        return found
