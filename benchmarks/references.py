"""Values that the tests hold TinyFlow to: `python -m benchmarks.references [key ...]`.

Every rival that is installed, but for torch.compile, runs the tiny case of every workload; where
all of them agree, the middle one's values are kept. May import: the neighbours in this folder.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import sys
from pathlib import Path

from benchmarks.harness import Worker, WorkerError, agreement, first_disagreement, trouble_of
from benchmarks.run import STEPPED, workload_module

PATH = Path(__file__).resolve().parent.parent / "tests" / "benchmarks" / "references.json"
_DIGITS = 7
# torch.compile takes long and computes what PyTorch does; 1.15 is not everywhere.
_LEFT_OUT = ("torch.compile", "tensorflow 1.15")


def tiny_cases():
    """(key, module, case) of every workload; one that runs in several ways has several."""
    for name in STEPPED:
        module = workload_module(name)
        for attribute in sorted(vars(module)):
            if attribute.startswith("TINY"):
                yield f"{name}{attribute[4:].lower()}", module, getattr(module, attribute)


def _core() -> int:
    """One core is enough for what is tiny, and free of waiting for the others."""
    return min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0


def rivals_values(module, case) -> dict[str, list[float]]:
    """What each installed rival computes."""
    found = {}
    for contestant in module.CONTESTANTS:
        if contestant.startswith("tinyflow") or contestant in _LEFT_OUT:
            continue
        try:
            worker = Worker(contestant, {"TINYFLOW_BENCH_CORES": str(_core())})
            try:
                worker.ask("setup", workload=module.__name__, contestant=contestant, case=case)
                found[contestant] = worker.ask("check")["values"]
            finally:
                worker.close()
        except WorkerError as failure:
            print(f"{module.__name__}, {contestant}: {trouble_of(failure)}", file=sys.stderr)
    return found


def main() -> None:
    kept = json.loads(PATH.read_text()) if PATH.exists() else {}
    chosen = sys.argv[1:]
    for key, module, case in tiny_cases():
        if chosen and key not in chosen:
            continue
        found = rivals_values(module, case)
        trouble = first_disagreement(list(found.values()), agreement(module))
        if len(found) < 2 or trouble:
            sys.exit(f"{key}: {trouble or 'needs two rivals'}, {found}")
        middle = [statistics.median(values) for values in zip(*found.values(), strict=True)]
        kept[key] = {
            "by": sorted(found),
            "values": [_rounded(value) for value in middle],
        }
        print(key, kept[key]["values"])
        PATH.write_text(json.dumps(kept, indent=1) + "\n")


def _rounded(value: float) -> float:
    return value if value == 0 else round(value, _DIGITS - 1 - math.floor(math.log10(abs(value))))


if __name__ == "__main__":
    main()
