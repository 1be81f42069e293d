"""Interleaved timing of contestants, each in a worker process with its own Python.

Main types: Contest (one case of one workload), Timing (the rounds of one contestant).
May import: the standard library and the neighbours in this folder.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import statistics
import subprocess
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks import arrays
from benchmarks.rivals import interpreter

_ROOT = Path(__file__).resolve().parent.parent
# Thread pools spin for a while after their last work; the next contestant should not pay.
_SETTLE_SECONDS = 0.05
_ROUND_SECONDS = 0.15
# Contestants compute in different orders; more than this apart is a different program. A loss is a
# mean and moves little in five steps: it has to be closer. (PyTorch's Adam adds its epsilon after
# the correction of the bias, TensorFlow's before: 3e-4 on the perceptron.)
_AGREEMENT, _AGREEMENT_OF_LOSSES = 2e-3, 5e-4
# Longer than this no compiler gets; it is reported as trouble.
_PATIENCE_SECONDS = 900.0
# Where each contestant keeps what it compiled. JAX does so only when told to, and then only what
# took long unless told otherwise.
_CACHES = {
    "TINYFLOW_CACHE": "tinyflow",
    "TORCHINDUCTOR_CACHE_DIR": "inductor",
    "TRITON_CACHE_DIR": "triton",
    "JAX_COMPILATION_CACHE_DIR": "jax",
}
_CACHE_SETTINGS = {
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}


class WorkerError(RuntimeError):
    """A contestant cannot take part; `absent` when it is simply not installed."""

    def __init__(self, text: str, absent: bool = False) -> None:
        super().__init__(text)
        self.absent = absent


class Worker:
    """The process of one contestant. It computes only while `ask` waits for its answer."""

    def __init__(self, contestant: str, environment: dict[str, str] | None = None) -> None:
        self.contestant = contestant
        python = interpreter(contestant)
        if python is None:
            raise WorkerError("no Python named for it", absent=True)
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 (lives as long as the process)
        self._process = subprocess.Popen(
            [python, "-m", "benchmarks.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=_ROOT,
            env={**os.environ, "PYTHONPATH": str(_ROOT), **(environment or {})},
        )

    def ask(self, question: str, **details) -> dict:
        """Send one request of benchmarks.worker's protocol and wait. Errors: WorkerError."""
        patience = threading.Timer(_PATIENCE_SECONDS, self._process.kill)
        patience.start()
        try:
            self._process.stdin.write(json.dumps({"ask": question, **details}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        finally:
            late = not patience.is_alive()
            patience.cancel()
        if not line and late:
            raise WorkerError(f"stopped after {_PATIENCE_SECONDS:.0f} s")
        if not line:
            self._log.seek(0)
            words = self._log.read().strip().splitlines()[-1:] or ["it said nothing"]
            raise WorkerError(f"the worker ended: {words[0]}")
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"], answer.get("absent", False))
        return answer

    def close(self) -> None:
        # The pipe of a worker that died still holds the request it never read.
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._log.close()


@dataclass
class Timing:
    """The rounds of one contestant, in seconds per step; or why there are none.

    cold_seconds, warm_seconds: from the imported module to the end of the first step, with empty
        caches and with those that the cold one left
    memory_bytes: the most during the rounds, above what the imports had
    """

    contestant: str
    version: str = ""
    rounds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    trouble: str = ""
    cold_seconds: float | None = None
    warm_seconds: float | None = None
    memory_bytes: int | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.rounds) if self.rounds else math.nan


@dataclass
class Contest:
    """One case of one workload with the timings of all contestants."""

    title: str
    case_name: str
    case: dict
    unit: str
    timings: list[Timing]
    base: str = "tinyflow"  # what ratios are taken to


def caches_in(folder: str) -> dict[str, str]:
    """Environment variables that give every contestant a cache of its own in this folder."""
    return {**{key: f"{folder}/{name}" for key, name in _CACHES.items()}, **_CACHE_SETTINGS}


def first_step(worker: Worker, workload, case: dict) -> tuple[dict, float]:
    """Set a worker up and run one step: (answer to "setup", seconds for both)."""
    worker.ask("import", contestant=worker.contestant)
    ready = worker.ask("setup", workload=workload.__name__, contestant=worker.contestant, case=case)
    return ready, ready["seconds"] + worker.ask("run", count=1)["seconds"]


def measure(
    workload, case_name: str, *, rounds: int, seed: int = 0, only=(), compile_times: bool = False
) -> Contest:
    """Time every contestant of a workload module on one case.

    In each round every contestant runs once, in an order drawn anew, for about 0.15 s; a change
    in the machine's speed therefore meets all of them. only: names to take part (default: all).
    compile_times: start each contestant twice, with empty caches and again.
    """
    case = workload.CASES[case_name]
    names = [name for name in workload.CONTESTANTS if not only or name in only]
    timings = {name: Timing(name) for name in names}
    workers: dict[str, Worker] = {}
    counts: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {arrays.FOLDER: folder}
        if compile_times:
            environment.update(caches_in(folder))
        try:
            for name in names:
                timing = timings[name]
                try:
                    if compile_times:
                        timing.cold_seconds = _started_and_closed(name, environment, workload, case)
                    workers[name] = worker = Worker(name, environment)
                    ready, seconds = first_step(worker, workload, case)
                    if compile_times:
                        timing.warm_seconds = seconds
                    timing.version = ready["version"]
                    timing.values = worker.ask("check")["values"]
                    counts[name] = _steps_per_round(worker)
                    worker.ask("memory")  # what the compiler needed is forgotten
                except WorkerError as failure:
                    timing.trouble = trouble_of(failure)
                    if name in workers:
                        workers.pop(name).close()
            generator = random.Random(seed)
            for _ in range(rounds):
                for name in generator.sample(sorted(workers), len(workers)):
                    timings[name].rounds.append(_round(workers[name], counts[name]))
            for name, worker in workers.items():
                timings[name].memory_bytes = worker.ask("memory")["bytes"]
        finally:
            for worker in workers.values():
                worker.close()
    _note_disagreement(list(timings.values()), agreement(workload))
    return Contest(workload.TITLE, case_name, case, workload.UNIT, list(timings.values()))


def trouble_of(failure: WorkerError) -> str:
    """One line for a table."""
    return "absent" if failure.absent else str(failure).splitlines()[0]


def _started_and_closed(name: str, environment: dict[str, str], workload, case: dict) -> float:
    worker = Worker(name, environment)
    try:
        return first_step(worker, workload, case)[1]
    finally:
        worker.close()


def _round(worker: Worker, count: int) -> float:
    """Seconds per step."""
    time.sleep(_SETTLE_SECONDS)
    # The others have emptied the caches; a few steps bring this one's back.
    worker.ask("run", count=max(1, count // 20))
    return worker.ask("run", count=count)["seconds"] / count


def _steps_per_round(worker: Worker) -> int:
    count = 1
    while True:
        seconds = worker.ask("run", count=count)["seconds"]
        if seconds > _ROUND_SECONDS / 3:
            return max(1, round(count * _ROUND_SECONDS / seconds))
        count *= 4


def agreement(workload) -> float:
    """How far apart values may be, relative to their median."""
    return _AGREEMENT_OF_LOSSES if hasattr(workload, "PROGRAM") else _AGREEMENT


def _note_disagreement(timings: list[Timing], tolerance: float = _AGREEMENT) -> None:
    """Mark contestants whose checked values are not those of the middle of the field."""
    present = [timing for timing in timings if timing.values]
    for timing in present:
        found = _disagreement(timing.values, [other.values for other in present], tolerance)
        timing.trouble = found or timing.trouble


def first_disagreement(contestants: list[list[float]], tolerance: float) -> str:
    """What one of them has that the middle of the field has not; "" when all agree."""
    found = (_disagreement(one, contestants, tolerance) for one in contestants)
    return next(filter(None, found), "")


def _disagreement(values: list[float], contestants: list[list[float]], tolerance: float) -> str:
    found = ""
    scale_of_all = statistics.fmean(abs(value) for value in values) * 1e-3
    for position, value in enumerate(values):
        others = [other[position] for other in contestants]
        # A nan has no place in an order, so it must not take part in a median.
        middle = statistics.median([v for v in others if math.isfinite(v)] or [math.nan])
        if not abs(value - middle) <= tolerance * max(abs(middle), scale_of_all):
            found = f"disagrees: {value:.6g} where the median is {middle:.6g}"
    return found
