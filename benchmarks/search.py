"""How many measurements the strategies of the autotuner need: convolutions, side by side.

    python -m benchmarks.search [--layers N] [--tries N] [--seeds N] [--strategies NAME ...]

For each layer all strategies search at the same time, one measurement each in turn, so a machine
that slows down slows all. Then what each had found after 8, 16, 32 ... measurements runs in turns
with the default, many times; the table has time / time of the default, the geometric mean over
layers and seeds. "model" keeps what it learned from one layer to the next, as `tinyflow tune` does.

On one thread, by that thread's own CPU time, which other programs disturb least.
"""

from __future__ import annotations

import argparse
import math
import os
import random
import statistics
import sys
import time
from typing import Any

import numpy as np

from benchmarks.workloads import convolution
from tinyflow.compile import compile_function
from tinyflow.core.dtype import float32
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ops.convolution import conv
from tinyflow.schedule import tuning
from tinyflow.schedule.tuning import ContractionTuning, Tuning
from tinyflow.tune import Workload, space, workloads_of
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.search import Search
from tinyflow.tune.strategies import STRATEGIES, TAUGHT, Model, Random
from tinyflow.tune.workload import Bench

#: Turns of the final comparison.
TURNS = 21


def workload_of(
    build: Any, *shapes: tuple[int, ...], kind: type[Tuning] = ContractionTuning
) -> Workload:
    """The first kernel with such parameters in a function of float32 arrays."""
    with building(Builder()):
        types = [TensorType(float32, shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        function = compile_function(Function("f", inputs, (build(*inputs),)))
    times = dict.fromkeys(function.plan.grouping.groups, 1.0)
    return next(w for w in workloads_of(function.plan, times) if w.kind is kind)


def layer(extent: int, channels: int, filters: int, size: int, stride: int) -> Workload:
    """The forward pass of a layer of the convolution benchmark."""
    batch = convolution._BATCH
    return workload_of(
        lambda x, f: conv(x, f, (stride, stride), "SAME"),
        (batch, extent, extent, channels), (size, size, channels, filters),
    )  # fmt: skip


def undisturbed() -> None:
    """From now on benches count the time of this thread only. Needs a pool of one thread."""
    Bench.clock = staticmethod(time.thread_time)


def forget_defaults() -> None:
    """From now on no candidate leaves a parameter to the automatic scheduler."""
    known = space.choices
    space.choices = lambda kind, target: {n: v[1:] for n, v in known(kind, target).items()}


def checkpoints(tries: int) -> list[int]:
    return [n for n in (8, 16, 32, 64, 128, 256) if n < tries] + [tries]


def race(
    workload: Workload, strategies: list[str], tries: int, seed: int, model: CostModel, blind: bool
) -> dict[tuple[str, int], Tuning]:
    """(strategy, measurements) -> the best it knew of then."""
    searches = {name: Search(workload, name, random.Random(seed), model if name == "model"
                             else CostModel()) for name in strategies}  # fmt: skip
    if blind:
        for search in searches.values():
            _blindfold(search, seed)
    found: dict[tuple[str, int], Tuning] = {}
    for count in range(1, tries + 1):
        for name, search in searches.items():
            while search.tried < count and not search.exhausted:
                search.step()
            if count in checkpoints(tries):
                ratio, best = search.population[0][:2]
                found[name, count] = best if blind or ratio < 1 else workload.kind()
    return found


def _blindfold(search: Search, seed: int) -> None:
    """Starts from random values for all parameters instead of good guesses."""
    numbers, workload = random.Random(seed), search.workload
    starts = [space.drawn(workload.kind, workload.target, numbers) for _ in range(8)]
    strategy = search.strategy
    strategy.queue = [] if isinstance(strategy, Random) else starts
    if isinstance(strategy, Model):
        strategy.seeds = []
        strategy.queue = starts if len(strategy.model) < TAUGHT else []


def compared(workload: Workload, chosen: set[Tuning]) -> dict[Tuning, float]:
    """tuning -> time / time of the default: the median over turns in which each runs once."""
    default = workload.kind()
    benches = {one: workload.bench(one) for one in {*chosen, default}}
    order, times = list(benches), {one: [] for one in benches}
    for bench in benches.values():
        bench.run()
    shuffled = random.Random(0)
    for _ in range(TURNS):
        shuffled.shuffle(order)
        for one in order:
            times[one].append(benches[one].seconds())
    return {
        one: statistics.median(a / b for a, b in zip(own, times[default]))
        for one, own in times.items()
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__)
    parser.add_argument("--layers", type=int, default=5, help="how many, default 5")
    parser.add_argument("--tries", type=int, default=48, help="measurements of each, default 48")
    parser.add_argument("--seeds", type=int, default=2, help="searches of each layer, default 2")
    parser.add_argument("--strategies", nargs="+", choices=list(STRATEGIES),
                        default=list(STRATEGIES))  # fmt: skip
    parser.add_argument("--blind", action="store_true", help="start from random parameters and "
                        "never fall back on the default: its rules may be wrong")  # fmt: skip
    options = parser.parse_args(arguments)
    layers = [x for x in convolution._LAYERS if x[3] > 1 or x[1] > 64][: options.layers]
    logs: dict[tuple[str, int], list[float]] = {}
    undisturbed()
    if options.blind:
        forget_defaults()
    with tuning.log_at(None):
        for seed in range(options.seeds):
            model = CostModel()
            for extent, channels, filters, size, stride in layers:
                workload = layer(extent, channels, filters, size, stride)
                found = race(workload, options.strategies, options.tries, seed, model,
                             options.blind)  # fmt: skip
                ratios = compared(workload, set(found.values()))
                for key, chosen in found.items():
                    logs.setdefault(key, []).append(math.log(ratios[chosen]))
                shown = "  ".join(f"{name} {ratios[found[name, options.tries]]:.3f}"
                                  for name in options.strategies)  # fmt: skip
                print(f"{extent}x{extent} {channels}->{filters} {size}x{size}: {shown}",
                      file=sys.stderr, flush=True)  # fmt: skip
    counts = checkpoints(options.tries)
    print("| strategy | " + " | ".join(f"{n} measured" for n in counts) + " |")
    print("|---|" + "--:|" * len(counts))
    for name in options.strategies:
        means = [math.exp(float(np.mean(logs[name, n]))) for n in counts]
        print(f"| {name} | " + " | ".join(f"{x:.3f}" for x in means) + " |")
    return 0


if __name__ == "__main__":
    os.environ["TINYFLOW_NUM_THREADS"] = "1"
    sys.exit(main(sys.argv[1:]))
