"""Workload: the first step of softmax regression in a fresh process, with caches empty and full.

Counted: from the imported module to the end of the first step (building the graph included).
May import: the neighbours in this folder. Special: its steps are processes, so it measures itself.
"""

from __future__ import annotations

import tempfile

from benchmarks import softmax_regression
from benchmarks.harness import Contest, Timing, Worker, WorkerError

TITLE = "Compile time: softmax regression, from import to the end of the first step"
UNIT = "ms"
# JAX keeps compilations only when told to, and then only slow ones unless told otherwise.
_CACHES = {
    "TINYFLOW_CACHE": "tinyflow",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "JAX_COMPILATION_CACHE_DIR": "jax",
}
_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
_CONTESTANTS = ("tinyflow", "torch eager", "torch.compile", "jax.jit", "tensorflow")


def measure(rounds: int) -> list[Contest]:
    """Two contests: cold (empty cache folders), warm (the same folders again)."""
    cold = {name: Timing(name) for name in _CONTESTANTS}
    warm = {name: Timing(name) for name in _CONTESTANTS}
    for _ in range(rounds):
        for name in _CONTESTANTS:
            if cold[name].trouble:
                continue
            with tempfile.TemporaryDirectory() as folder:
                caches = {key: f"{folder}/{value}" for key, value in _CACHES.items()}
                for timing in (cold[name], warm[name]):
                    _first_step(timing, {**caches, **_SETTINGS})
    case_name = next(iter(softmax_regression.CASES))
    return [
        Contest(TITLE, f"{case_name}, {kind}", {}, UNIT, list(timings.values()))
        for kind, timings in (("cold", cold), ("warm cache", warm))
    ]


def _first_step(timing: Timing, environment: dict[str, str]) -> None:
    (case,) = softmax_regression.CASES.values()
    try:
        worker = Worker(timing.contestant, environment)
        try:
            worker.ask("import", contestant=timing.contestant)
            ready = worker.ask(
                "setup",
                workload=softmax_regression.__name__,
                contestant=timing.contestant,
                case=case,
            )
            first = worker.ask("run", count=1)["seconds"]
        finally:
            worker.close()
    except WorkerError as failure:
        timing.trouble = "absent" if failure.absent else str(failure)
    else:
        timing.version = ready["version"]
        timing.rounds.append(ready["seconds"] + first)
