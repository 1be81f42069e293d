"""One contestant in a process of its own: prepares a workload, then runs it when told to.

Main types: Prepared. Speaks one JSON object per line on stdin and stdout (see `serve`).
May import: the standard library and the neighbours here. Runs under rivals' Pythons, 3.7 and up.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
import traceback


class Prepared:
    """A workload, ready to be timed.

    step(): one repetition, called again and again; returns what `finish` waits for.
    finish(last): blocks until the work behind the last step's result is done.
    check(): floats that every contestant must agree on; called once, before any timing.
    """

    def __init__(self, step, check, finish=None):
        self.step = step
        self.check = check
        self.finish = finish or (lambda last: None)


def repeat(prepared, count):
    """Seconds for `count` steps and the wait for the last."""
    step = prepared.step
    last = None
    start = time.perf_counter()
    for _ in range(count):
        last = step()
    prepared.finish(last)
    return time.perf_counter() - start


def serve(requests, answers):
    """Answer requests until the stream ends.

    {"ask": "import", "contestant": name}  -> {}; what is resident now is not counted as memory
    {"ask": "setup", "workload": module, "contestant": name, "case": {...}}
        -> {"version": text, "seconds": to make the workload ready, once its arrays are there}
    {"ask": "memory"}           -> {"bytes": the most since the last time it was asked}
    {"ask": "check"}            -> {"values": [float, ...]}
    {"ask": "run", "count": k}  -> {"seconds": float}
    Any failure                 -> {"error": text}; "absent" is true when an import failed.
    """
    from benchmarks import arrays, memory, rivals

    prepared = None
    resident = memory.resident_bytes()
    for line in requests:
        request = json.loads(line)
        try:
            if request["ask"] == "import":
                rivals.load(request["contestant"])
                resident = memory.resident_bytes()
                answer = {}
            elif request["ask"] == "setup":
                workload = importlib.import_module(request["workload"])
                if hasattr(workload, "PROGRAM"):
                    arrays.preload(request["case"], workload.PROGRAM.makers)
                start = time.perf_counter()
                prepared, version = workload.CONTESTANTS[request["contestant"]](request["case"])
                answer = {"version": version, "seconds": time.perf_counter() - start}
            elif request["ask"] == "check":
                answer = {"values": [float(value) for value in prepared.check()]}
            elif request["ask"] == "memory":
                answer = {"bytes": memory.peak_bytes() - resident}
                memory.forget_peak()
            else:
                answer = {"seconds": repeat(prepared, request["count"])}
        except Exception as failure:
            traceback.print_exc()
            answer = {
                "error": "{}: {}".format(type(failure).__name__, failure),
                "absent": isinstance(failure, ImportError),
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def main():
    # Affinity first: every library counts the cores it may use when it is imported.
    cores = os.environ.get("TINYFLOW_BENCH_CORES")
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {int(core) for core in cores.split(",")})
    # Libraries print to stdout; the protocol gets a descriptor of its own.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    serve(sys.stdin, answers)


if __name__ == "__main__":
    # The workloads import this file as benchmarks.worker; that copy's Prepared is the same code.
    main()
