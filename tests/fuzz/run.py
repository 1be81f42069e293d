"""Random programs, many of them: ``python -m tests.fuzz.run --count 2000``.

Each failure is made small and printed as a program that shows it. May import tests.fuzz.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback

from tests.fuzz.check import ALL, Coverage, Failure, check, shrunk, ways_of
from tests.fuzz.generator import random_program
from tests.fuzz.programs import Program


def failure_of(seed: int, every_way: bool = True, coverage: Coverage | None = None) -> str | None:
    """What is wrong with the program of that seed, shrunk and printed; None if nothing is."""
    try:
        program = random_program(seed)
    except Exception:
        return f"seed {seed}: building fails\n{traceback.format_exc(limit=-8)}"
    families = ALL if every_way else ways_of(seed)
    sizes = every_way or seed % 3 == 0
    found = check(program, families, coverage, sizes)
    if found is None:
        return None
    last: list[Failure] = [found]

    def fails(smaller: Program) -> bool:
        failure = check(smaller, families, sizes=sizes)
        if failure is None or failure.kind != last[0].kind:
            return False
        last[0] = failure
        return True

    small = shrunk(program, fails)
    return f"seed {seed}: {last[0].kind}\n{last[0].text}\n{small.text()}\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=500)
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--quick", action="store_true", help="three ways per program, not all")
    options = parser.parse_args(arguments)
    coverage, failures, started = Coverage(), 0, time.monotonic()
    for seed in range(options.start, options.start + options.count):
        text = failure_of(seed, not options.quick, coverage)
        if text is not None:
            failures += 1
            print(text, flush=True)
    took = time.monotonic() - started
    share = coverage.tight / max(coverage.elements, 1)
    print(
        f"{options.count} programs, {failures} failures, {took:.0f} s; {coverage.elements} elements"
        f" compared, {share:.1%} with a tight bound; {coverage.symbolic} steps for all row counts;"
        f" {coverage.unsupported} programs left out as unsupported"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
