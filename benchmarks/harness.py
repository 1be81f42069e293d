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
import time
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.rivals import interpreter

_ROOT = Path(__file__).resolve().parent.parent
# Thread pools spin for a while after their last work; the next contestant should not pay.
_SETTLE_SECONDS = 0.05
_ROUND_SECONDS = 0.15
# Contestants compute in different orders; more than this apart is a different program.
_AGREEMENT = 2e-3


class WorkerError(RuntimeError):
    """A contestant cannot take part; `absent` when it is simply not installed."""

    def __init__(self, text: str, absent: bool = False) -> None:
        super().__init__(text)
        self.absent = absent


class Worker:
    """The process of one contestant. It computes only while `ask` waits for its answer."""

    def __init__(self, contestant: str, environment: dict[str, str] | None = None) -> None:
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
        try:
            self._process.stdin.write(json.dumps({"ask": question, **details}) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
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
    """The rounds of one contestant, in seconds per step; or why there are none."""

    contestant: str
    version: str = ""
    rounds: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    trouble: str = ""

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


def measure(workload, case_name: str, *, rounds: int, seed: int = 0, only=()) -> Contest:
    """Time every contestant of a workload module on one case.

    In each round every contestant runs once, in an order drawn anew, for about 0.15 s; a change
    in the machine's speed therefore meets all of them. only: names to take part (default: all).
    """
    case = workload.CASES[case_name]
    names = [name for name in workload.CONTESTANTS if not only or name in only]
    timings = {name: Timing(name) for name in names}
    workers: dict[str, Worker] = {}
    counts: dict[str, int] = {}
    try:
        for name in names:
            try:
                workers[name] = worker = Worker(name)
                ready = worker.ask("setup", workload=workload.__name__, contestant=name, case=case)
                timings[name].version = ready["version"]
                timings[name].values = worker.ask("check")["values"]
                counts[name] = _steps_per_round(worker)
            except WorkerError as failure:
                timings[name].trouble = "absent" if failure.absent else str(failure)
                if name in workers:
                    workers.pop(name).close()
        generator = random.Random(seed)
        for _ in range(rounds):
            for name in generator.sample(sorted(workers), len(workers)):
                worker, count = workers[name], counts[name]
                time.sleep(_SETTLE_SECONDS)
                # The others have emptied the caches; a few steps bring this one's back.
                worker.ask("run", count=max(1, count // 20))
                timings[name].rounds.append(worker.ask("run", count=count)["seconds"] / count)
    finally:
        for worker in workers.values():
            worker.close()
    _note_disagreement(list(timings.values()))
    return Contest(workload.TITLE, case_name, case, workload.UNIT, list(timings.values()))


def _steps_per_round(worker: Worker) -> int:
    count = 1
    while True:
        seconds = worker.ask("run", count=count)["seconds"]
        if seconds > _ROUND_SECONDS / 3:
            return max(1, round(count * _ROUND_SECONDS / seconds))
        count *= 4


def _note_disagreement(timings: list[Timing]) -> None:
    """Mark contestants whose checked values are not those of the middle of the field."""
    present = [timing for timing in timings if timing.values]
    for timing in present:
        for position, value in enumerate(timing.values):
            found = [other.values[position] for other in present]
            # A nan has no place in an order, so it must not take part in a median.
            middle = statistics.median([v for v in found if math.isfinite(v)] or [math.nan])
            scale = max(abs(middle), statistics.fmean(abs(v) for v in timing.values) * 1e-3)
            if not abs(value - middle) <= _AGREEMENT * scale:
                timing.trouble = f"disagrees: {value:.6g} where the median is {middle:.6g}"
