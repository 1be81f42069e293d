"""Workload: the first step of softmax regression in a fresh process, with caches empty and full.

Counted: from the imported module to the end of the first step (building the graph included).
May import: the neighbours in this folder. Special: its steps are processes, so it measures itself.
"""

from __future__ import annotations

import tempfile

from benchmarks.harness import (
    Contest,
    Timing,
    Worker,
    WorkerError,
    caches_in,
    first_step,
    trouble_of,
)
from benchmarks.workloads import softmax_regression

TITLE = "Compile time: softmax regression, from import to the end of the first step"
UNIT = "ms"
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
                for timing in (cold[name], warm[name]):
                    _time_first_step(timing, caches_in(folder))
    case_name = next(iter(softmax_regression.CASES))
    return [
        Contest(TITLE, f"{case_name}, {kind}", {}, UNIT, list(timings.values()))
        for kind, timings in (("cold", cold), ("warm cache", warm))
    ]


def _time_first_step(timing: Timing, environment: dict[str, str]) -> None:
    (case,) = softmax_regression.CASES.values()
    try:
        worker = Worker(timing.contestant, environment)
        try:
            ready, seconds = first_step(worker, softmax_regression, case)
        finally:
            worker.close()
    except WorkerError as failure:
        timing.trouble = trouble_of(failure)
    else:
        timing.version = ready["version"]
        timing.rounds.append(seconds)
