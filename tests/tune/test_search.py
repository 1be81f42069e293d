"""The search: it stays in its time, keeps only what wins, and replays what it knows."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest

import tinyflow as tf
from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.schedule import tuning
from tinyflow.schedule.tuning import ContractionTuning, SweepTuning
from tinyflow.tools import tune as tool
from tinyflow.tune import search, space, tune, workloads_of
from tinyflow.tune.search import replayed


def workload(build, *shapes):
    with building(Builder()):
        types = [TensorType(np.float32, shape) for shape in shapes]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        function = compile_function(Function("f", inputs, (build(*inputs),)))
    seconds = dict.fromkeys(function.plan.grouping.groups, 1e-3)
    return workloads_of(function.plan, seconds)[0]


@pytest.fixture
def product():
    return workload(ops.matmul, (48, 100), (100, 64))


def test_what_a_search_finds_is_measured_and_logged(product, tmp_path):
    log = tmp_path / "log.jsonl"
    seen = []
    start = time.perf_counter()
    with tuning.log_at(log):
        finding = tune(product, 2.0, log, lambda share, text: seen.append(share))
        spent = time.perf_counter() - start
        assert spent < 6.0
        assert finding.tried > 3 and finding.default_s > 0
        assert finding.ratio <= 1.0 and finding.ratio > 0.05
        assert (finding.tuning == ContractionTuning()) == (finding.ratio == 1.0)
        assert seen == sorted(seen) and seen[-1] == 1.0
        (record,) = map(json.loads, log.read_text().splitlines())
        assert record["kernel"] == product.signature and record["tried"] == finding.tried
        again = replayed(product)
    assert again is not None and again.replayed
    assert again.tuning == finding.tuning and again.tried == 0
    with tuning.log_at(tmp_path / "another"):
        assert replayed(product) is None


class Scripted:
    """A bench whose time is given: measurements without a machine."""

    def __init__(self, text, times):
        self.text, self.times = text, times

    def run(self):
        pass

    def seconds(self):
        return self.times() if callable(self.times) else self.times


@pytest.mark.parametrize(
    "best, kept",
    [(0.5, True), (0.97, True), (0.995, False), (1.0, False), (1.3, False)],
)
def test_only_a_winner_of_the_duel_is_kept(product, monkeypatch, best, kept):
    chosen = ContractionTuning(rows=2)

    def bench(given):
        return Scripted(str(given), best if given == chosen else 1.0 if given == product.kind()
                        else 1.5)  # fmt: skip

    monkeypatch.setattr(product, "bench", bench)
    monkeypatch.setattr(space, "seeds", lambda kind, target: [chosen])
    finding = tune(product, 0.05)
    assert (finding.tuning == chosen) == kept
    assert finding.ratio == (best if kept else 1.0)


def test_a_lucky_first_look_is_not_enough(product, monkeypatch):
    chosen, looks = ContractionTuning(rows=2), iter([0.5] * (search.LOOK + search.COMPARE))

    def bench(given):
        return Scripted(str(given), (lambda: next(looks, 1.1)) if given == chosen else 1.0)

    monkeypatch.setattr(product, "bench", bench)
    monkeypatch.setattr(space, "seeds", lambda kind, target: [chosen])
    assert tune(product, 0.05).tuning == ContractionTuning()


def test_equal_code_is_not_measured_twice(product, monkeypatch):
    measured = []

    def bench(given):
        measured.append(given)
        return Scripted("the same", 1.0)

    monkeypatch.setattr(product, "bench", bench)
    assert tune(product, 0.2).tried == 0
    assert len(measured) == len(set(measured))


def test_tiles_fit_into_the_registers(product):
    import random

    numbers = random.Random(0)
    parent = ContractionTuning()
    for _ in range(300):
        parent = space.mutated(parent, product.target, numbers)
        assert tuning.checked_tuning(ContractionTuning, tuning.settings(parent)) == parent
        if parent.rows and parent.vectors:
            assert (parent.rows + 1) * parent.vectors < product.target.vector_registers


def test_maps_and_rows_have_parameters_too():
    assert workload(ops.exp, (200, 1000)).kind is SweepTuning
    assert workload(ops.softmax, (200, 1000)).kind is SweepTuning


SCRIPT = """\
import sys
import numpy as np
import tensorflow as tf

x = tf.placeholder(tf.float32, [64, 200])
w = tf.Variable(tf.ones([200, 96]))
y = tf.nn.relu(tf.matmul(x, w))
with tf.Session() as session:
    session.run(tf.global_variables_initializer())
    for _ in range(5):
        out = session.run(y, {x: np.ones((64, 200), np.float32)})
print("result", out[0, 0], *sys.argv[1:])
"""


def main(command):
    """As in a process of its own: the script finds a graph that nobody has built in."""
    from tinyflow.__main__ import main

    with tf.Graph().as_default():
        return main(command)


def test_the_command(tmp_path, capsys):
    script, log = tmp_path / "script.py", tmp_path / "log.jsonl"
    script.write_text(SCRIPT)
    command = ["tune", "--seconds", "2", "--log", str(log), str(script), "--", "its argument"]
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "result 200.0 its argument" in first and "1 kernel searched" in first
    assert len(log.read_text().splitlines()) == 1
    start = time.perf_counter()
    assert main(command) == 0
    assert time.perf_counter() - start < 2.0
    second = capsys.readouterr().out
    assert "0 kernels searched, 1 kernel taken from the log" in second
    assert len(log.read_text().splitlines()) == 1


def test_the_command_with_a_script_that_fails(tmp_path, capsys):
    script = tmp_path / "script.py"
    script.write_text("raise SystemExit(3)")
    assert main(["tune", str(script), "--log", str(tmp_path / "log")]) == 3
    script.write_text("pass")
    assert main(["tune", str(script), "--log", str(tmp_path / "log")]) == 0
    assert "ran no step" in capsys.readouterr().out
    assert main(["tune", str(script), "--seconds", "-1"]) == 2


def test_a_bar_is_drawn_on_terminals_only():
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    file, terminal = io.StringIO(), Terminal()
    for stream in (file, terminal):
        bar = tool.ProgressBar(stream)
        bar.label = "1/2 dot"
        bar.show(0.5, "rows=4 (1.20x)")
        bar.end()
    assert file.getvalue() == ""
    assert "1/2 dot [############............]  50% rows=4 (1.20x)" in terminal.getvalue()
