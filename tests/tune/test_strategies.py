"""What is measured next: strategies, and the cost model that one of them learns."""

from __future__ import annotations

import random

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.core.error import InternalError
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ops.convolution import conv
from tinyflow.schedule.tuning import ContractionTuning, SweepTuning
from tinyflow.tune import search, space, strategies, workloads_of
from tinyflow.tune.cost_model import CostModel
from tinyflow.tune.features import FEATURES, features_of
from tinyflow.tune.search import Search
from tinyflow.tune.strategies import STRATEGIES


def workload(build, *shapes, kind=ContractionTuning):
    with building(Builder()):
        types = [TensorType(np.float32, shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        function = compile_function(Function("f", inputs, (build(*inputs),)))
    seconds = dict.fromkeys(function.plan.grouping.groups, 1e-3)
    return next(w for w in workloads_of(function.plan, seconds) if w.kind is kind)


@pytest.fixture(scope="module")
def layer():
    return workload(lambda x, f: conv(x, f, (1, 1), "SAME"), (1, 14, 14, 32), (1, 1, 32, 48))


# ---- features ------------------------------------------------------------------------------------


def test_features_count_what_the_loops_do():
    """64 x 96 by 96 x 80 in vectors of 16: 64 * 96 * 80 / 16 multiply-adds, whatever the tile."""
    product = workload(ops.matmul, (64, 96), (96, 80))
    lanes = product.target.lanes
    for chosen in (ContractionTuning(), ContractionTuning(rows=2, vectors=1, form="in_place"),
                   ContractionTuning(rows=4, vectors=1, kc=64, form="blocked")):  # fmt: skip
        counts = dict(zip(FEATURES, 2 ** features_of(product.kernels(chosen), 2) - 1))
        assert counts["multiply_adds"] == pytest.approx(64 * 96 * 80 / lanes, rel=0.35)
        assert counts["stores"] > 0 and counts["iterations"] > 0
    small = features_of(product.kernels(ContractionTuning(rows=1, vectors=1, form="in_place")), 2)
    large = features_of(product.kernels(ContractionTuning(rows=8, vectors=2, form="in_place")), 2)
    loads = FEATURES.index("loads")
    assert small[loads] > large[loads] + 0.5  # a larger tile reads every operand less often


def test_sweeps_have_features_too():
    rows = workload(ops.softmax, (200, 1000), kind=SweepTuning)
    found = features_of(rows.kernels(SweepTuning()), 2)
    assert len(found) == len(FEATURES) and np.isfinite(found).all() and found.max() > 5


# ---- the model -----------------------------------------------------------------------------------


def taught(count, seed=0, noise=0.0):
    """Times of a made-up machine: slow for many loads, and beyond a threshold of registers."""
    numbers = np.random.default_rng(seed)
    rows = numbers.uniform(0, 10, (count, 6))
    times = np.exp(0.1 * rows[:, 0] + np.where(rows[:, 3] > 6, 0.7, 0.0))
    times *= np.exp(noise * numbers.normal(size=count))
    return rows, times


def test_a_model_learns_to_rank():
    model = CostModel()
    for row, seconds in zip(*taught(60, noise=0.05)):
        model.add(row, seconds)
    rows, times = taught(200, seed=1)
    guesses = model.predict(rows)
    assert np.corrcoef(guesses, np.log(times))[0, 1] > 0.95
    best = np.argsort(guesses)[:10]
    assert np.log(times[best]).max() < np.median(np.log(times))


def test_a_model_without_evidence_says_the_mean():
    model = CostModel()
    np.testing.assert_array_equal(model.predict(np.zeros((3, 4))), 0)
    for _ in range(8):
        model.add(np.ones(4), np.e)  # nothing to tell apart
    np.testing.assert_allclose(model.predict(np.zeros((2, 4))), 1)
    assert len(model) == 8


# ---- strategies ----------------------------------------------------------------------------------


class Scripted:
    """A bench whose time is a formula of the features: measurements without a machine."""

    def __init__(self, kernels, default):
        self.text = "\n".join(str(k.kernel) + str(k.chunk) for k in kernels)
        counts = dict(zip(FEATURES, features_of(kernels, 1) - default))
        slow = 0.3 * counts["loads"] + 0.2 * counts["iterations"] + 0.1 * counts["stack_stores"]
        self.time = float(np.exp(slow))

    def run(self):
        pass

    def seconds(self):
        return self.time


@pytest.fixture
def simulated(layer, monkeypatch):
    default = features_of(layer.kernels(layer.kind()), 1)
    monkeypatch.setattr(layer, "bench", lambda c: Scripted(layer.kernels(c), default))
    return layer


def best_after(workload, strategy, tries, seed, model=None):
    found = Search(workload, strategy, random.Random(seed), model)
    found.strategy.queue = []
    for _ in range(6 * tries):
        if found.tried >= tries:
            break
        found.step()
    return found.population[0][0]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_search_finds_something_and_repeats(simulated, strategy):
    found = best_after(simulated, strategy, 10, 3)
    assert found <= best_after(simulated, strategy, 3, 3)
    assert found == best_after(simulated, strategy, 10, 3)


def test_a_model_needs_fewer_measurements_than_evolution(simulated):
    """On the simulated machine; benchmarks/search.py compares them on this one."""
    learned = CostModel()
    best_after(simulated, "model", 16, 9, learned)
    few = [best_after(simulated, "model", 6, seed, learned) for seed in range(2)]
    more = [best_after(simulated, "evolution", 12, seed) for seed in range(2)]
    assert np.log(few).mean() <= np.log(more).mean() + 0.01


def test_what_cannot_be_lowered_is_not_proposed(layer, monkeypatch):
    model = CostModel()
    for row, seconds in zip(*taught(20)):
        model.add(np.resize(row, 2 * len(FEATURES)), seconds)
    kernels = layer.kernels

    def picky(chosen):
        if chosen.form is not None:
            raise InternalError("no such form here")
        return kernels(chosen)

    monkeypatch.setattr(layer, "kernels", picky)
    strategy = strategies.Model(layer, random.Random(0), model)
    asked = [strategy.next([]) for _ in range(16)]
    assert {c.form for c in asked} == {None}
    assert len(set(asked)) == len(asked)


def test_neighbours_differ_in_one_parameter(layer):
    parent = ContractionTuning(rows=6, vectors=2)
    found = space.neighbours(parent, layer.target)
    assert len(set(found)) == len(found) > 30
    for child in found:
        fields = ContractionTuning.__dataclass_fields__
        assert sum(getattr(child, n) != getattr(parent, n) for n in fields) == 1
        assert space.is_sensible(child, layer.target)


def test_the_strategy_is_written_down(simulated, tmp_path):
    log = tmp_path / "log.jsonl"
    search.tune(simulated, 0.2, log, strategy="beam")
    assert '"strategy": "beam"' in log.read_text()
