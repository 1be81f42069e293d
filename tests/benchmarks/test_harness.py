"""The benchmark harness: interleaving, absent and failing contestants, tables."""

import signal
import sys
import types

import pytest

from benchmarks import harness, memory, report, rivals
from benchmarks.harness import Contest, Timing, Worker, WorkerError
from benchmarks.work import Work
from benchmarks.workloads import call_overhead


@pytest.fixture(autouse=True)
def only_this_python(monkeypatch):
    """No rival from the caller's environment, and rounds that take no time."""
    for variable in rivals.INTERPRETERS.values():
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(harness, "_ROUND_SECONDS", 0.002)
    monkeypatch.setattr(harness, "_SETTLE_SECONDS", 0.0)


def test_measures_the_present_and_lists_the_absent(tmp_path, monkeypatch):
    # A Python with nothing installed: whatever this one has, torch is not there.
    monkeypatch.setenv("TINYFLOW_BENCH_PYTHON_TORCH", sys._base_executable)
    monkeypatch.setenv("PYTHONNOUSERSITE", "1")
    contest = harness.measure(
        call_overhead, "scalars", rounds=3, only=["numpy", "torch eager", "tensorflow 1.15"]
    )
    timings = {timing.contestant: timing for timing in contest.timings}
    assert len(timings["numpy"].rounds) == 3
    assert 0 < timings["numpy"].median < 1e-3
    assert timings["numpy"].values == [13]
    assert timings["tensorflow 1.15"].trouble == "absent"
    assert timings["torch eager"].rounds == []


def test_contestants_take_turns(monkeypatch):
    asked = []

    class Recorder:
        def __init__(self, contestant, environment):
            self.contestant = contestant

        def ask(self, question, **details):
            asked.append((question, self.contestant))
            return {"version": "1", "values": [1.0], "seconds": 1.0, "bytes": 7}

        def close(self):
            asked.append(("close", self.contestant))

    monkeypatch.setattr(harness, "Worker", Recorder)
    workload = types.SimpleNamespace(
        __name__="toy", TITLE="toy", UNIT="s", CASES={"one": {}}, CONTESTANTS=dict.fromkeys("abc")
    )
    contest = harness.measure(workload, "one", rounds=20)
    assert [timing.memory_bytes for timing in contest.timings] == [7, 7, 7]
    runs = [name for question, name in asked if question == "run"]
    assert runs[:6] == ["a", "a", "b", "b", "c", "c"]  # the first step, then the calibration
    runs = runs[6:]
    rounds = [runs[start : start + 6 : 2] for start in range(0, len(runs), 6)]
    assert all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert len({tuple(turn) for turn in rounds}) > 3
    assert asked[-3:] == [("close", name) for name in "abc"]


def test_failing_worker_reports_its_last_words(monkeypatch):
    monkeypatch.setattr(harness, "interpreter", lambda contestant: sys.executable)
    worker = Worker("numpy")
    try:
        with pytest.raises(WorkerError, match="KeyError: 'nobody'") as caught:
            worker.ask(
                "setup", workload="benchmarks.workloads.call_overhead", contestant="nobody", case={}
            )
        assert not caught.value.absent
        with pytest.raises(WorkerError, match="ModuleNotFoundError") as caught:
            worker.ask("setup", workload="benchmarks.nothing", contestant="numpy", case={})
        assert caught.value.absent
    finally:
        worker.close()


def test_worker_that_dies_is_an_error(monkeypatch):
    worker = Worker("numpy", {"TINYFLOW_BENCH_CORES": "not a number"})
    try:
        with pytest.raises(WorkerError, match="the worker ended: ValueError"):
            worker.ask("check")
    finally:
        worker.close()


def test_disagreement_is_marked():
    timings = [Timing(name, values=[1.0, value]) for name, value in zip("abc", (2, 2.001, 2.1))]
    timings.append(Timing("d", values=[1.0, float("nan")]))
    harness._note_disagreement(timings)
    assert [bool(timing.trouble) for timing in timings] == [False, False, True, True]


def test_tables():
    contest = Contest(
        "toy",
        "one",
        {"size": 2},
        "us",
        [
            Timing("tinyflow", "0.1", [2e-6, 1e-6, 4e-6]),
            Timing("rival", "2.0", [5e-6]),
            Timing("other", trouble="absent"),
        ],
    )
    # 2,000 bytes in 2 us are 1 GB/s, half of what the machine can do.
    lines = report.rows(contest, Work(0, 2000), (1e9, 2e9))
    assert lines == [
        ["contestant", "median us", "min - max", "/ tinyflow", "GB/s", "of roofline", "version"],
        ["tinyflow", "2.00", "1.00 - 4.00", "1.00x", "1.00", "50%", "0.1"],
        ["rival", "5.00", "5.00 - 5.00", "2.50x", "0.400", "20%", "2.0"],
        ["other", "-", "-", "-", "-", "-", "absent"],
    ]
    assert report.table(lines).splitlines()[1].split() == [
        "tinyflow", "2.00", "1.00", "-", "4.00", "1.00x", "1.00", "50%", "0.1"
    ]  # fmt: skip
    rule = "| --- | ---: | ---: | ---: | ---: | ---: | --- |"
    assert report.markdown(lines).splitlines()[1] == rule


def test_rate_is_that_of_the_limit():
    contest = Contest("toy", "one", {}, "ms", [Timing("tinyflow", "1", [1e-3])])
    work = Work(flops=3_000_000, size_bytes=1_000_000)
    slow_memory, slow_arithmetic = (10e9, 2e9), (4e9, 2e9)
    assert report.rows(contest, work, slow_memory)[0][4] == "GB/s"
    assert report.rows(contest, work, slow_memory)[1][4:6] == ["1.00", "50%"]
    assert report.rows(contest, work, slow_arithmetic)[0][4] == "GFLOP/s"
    assert report.rows(contest, work, slow_arithmetic)[1][4:6] == ["3.00", "75%"]


def test_columns_of_compilation_and_memory_appear_when_measured():
    timing = Timing("tinyflow", "1", [1e-3], cold_seconds=2, warm_seconds=0.25, memory_bytes=3e6)
    contest = Contest("toy", "one", {}, "ms", [timing, Timing("rival", "1", [1e-3])])
    head, mine, rival = report.rows(contest, Work(0, 1000), (1e9, 1e9))
    assert head[-4:] == ["cold s", "warm s", "peak MB", "version"]
    assert mine[-4:] == ["2.00", "0.250", "3.00", "1"]
    assert rival[-4:] == ["-", "-", "-", "1"]


def test_a_worker_that_takes_too_long_is_stopped(monkeypatch):
    monkeypatch.setattr(harness, "_PATIENCE_SECONDS", 0.2)
    slow = types.SimpleNamespace(__name__="no_such_module")
    worker = Worker("numpy")
    try:
        worker._process.send_signal(signal.SIGSTOP)
        with pytest.raises(WorkerError, match="stopped after 0 s"):
            harness.first_step(worker, slow, {})
    finally:
        worker.close()


def test_memory_is_counted_from_the_last_question():
    memory.forget_peak()
    before = memory.peak_bytes()
    block = bytearray(64 << 20)
    block[::4096] = bytes(len(block[::4096]))
    assert memory.peak_bytes() - before > 48 << 20
    del block
    if memory.resident_bytes() < memory.peak_bytes():
        memory.forget_peak()
        assert memory.peak_bytes() - before < 48 << 20


@pytest.mark.parametrize(
    ("contestant", "family"),
    [
        ("tensorflow 1.15", "tensorflow 1"),
        ("tensorflow make_callable", "tensorflow"),
        ("torch.compile", "torch"),
        ("numpy by hand", "numpy"),
    ],
)
def test_interpreter_by_family(contestant, family, monkeypatch):
    monkeypatch.setenv(rivals.INTERPRETERS[family], "/some/python")
    assert rivals.family(contestant) == family
    assert rivals.interpreter(contestant) == "/some/python"
