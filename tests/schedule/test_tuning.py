"""Tuned parameters: found by kernel and machine, never a bit different, harmless when damaged."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from tinyflow import ops
from tinyflow.compile import compile_function
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import Function, Input, Node, TensorType
from tinyflow.ops.convolution import conv
from tinyflow.schedule import tuning
from tinyflow.schedule.targets import host_target
from tinyflow.schedule.tuning import ContractionTuning, SweepTuning


def normal(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype(np.float32)


def compiled(build, *arrays):
    with building(Builder()):
        types = [TensorType(a.dtype, a.shape) for a in arrays]
        inputs = [Node(Input(t), (), (t,)).outputs[0] for t in types]
        output = build(*inputs)
    return compile_function(Function("f", inputs, (output,)))


def texts(function):
    from tinyflow.compile.kernels import kernel_text

    return [kernel_text(k.kernel) + str(k.chunk) for k in function.plan.kernels]


def only(asked, kind):
    """The one signature with parameters of this kind."""
    (signature,) = [name for name, own in asked.items() if own is kind]
    return signature


def large_product(a, b):
    return ops.relu(ops.matmul(a, b))


def strided_convolution(x, w):
    return conv(x, w, (2, 2), "SAME")


def batched_product(a, b):
    return ops.matmul(a, b)


def sum_of_exp(x):
    return ops.exp(ops.multiply(x, x))


CASES = {
    "blocked product": (large_product, (normal(130, 700), normal(700, 260))),
    "small product": (large_product, (normal(20, 33), normal(33, 50))),
    "skinny product": (large_product, (normal(2, 300), normal(300, 70))),
    "long sum": (
        lambda a, b: ops.matmul(ops.transpose(a), b), (normal(3000, 17), normal(3000, 40)),
    ),
    "convolution": (strided_convolution, (normal(2, 15, 17, 19), normal(3, 3, 19, 35))),
    "batch": (batched_product, (normal(3, 21, 40), normal(3, 40, 37))),
}  # fmt: skip
TUNINGS = [
    ContractionTuning(rows=3),
    ContractionTuning(vectors=1, rows=5),
    ContractionTuning(form="blocked", kc=96, group=1, band_bytes=65536),
    ContractionTuning(form="blocked", kc=1000, rows=7, vectors=3),
    ContractionTuning(form="row_tiles"),
    ContractionTuning(form="panels", kc=50),
    ContractionTuning(form="panels", kc=128, rows=6),
    ContractionTuning(form="in_place", vectors=4, rows=4),
    ContractionTuning(form="panels", kc=64),
    ContractionTuning(form="panels", vectors=1, order="rows"),
    ContractionTuning(form="in_place", order="columns"),
]


@pytest.mark.parametrize("name", CASES)
def test_no_parameter_of_a_contraction_changes_a_bit(name):
    build, arrays = CASES[name]
    with tuning.recorded() as asked:
        default = compiled(build, *arrays)
    (want,) = default(*arrays)
    signature = only(asked, ContractionTuning)
    different = 0
    for chosen in TUNINGS:
        with tuning.override(signature, chosen):
            function = compiled(build, *arrays)
        different += texts(function) != texts(default)
        np.testing.assert_array_equal(function(*arrays)[0], want, err_msg=str(chosen))
    assert different >= 3


@pytest.mark.parametrize(
    "chosen", [SweepTuning(block=1024), SweepTuning(lanes=4), SweepTuning(lanes=64, prefetch=1)]
)
def test_no_parameter_of_a_map_changes_a_bit(chosen):
    x = normal(300, 1001)
    with tuning.recorded() as asked:
        default = compiled(sum_of_exp, x)
    signature = only(asked, SweepTuning)
    with tuning.override(signature, chosen):
        function = compiled(sum_of_exp, x)
    assert texts(function) != texts(default)
    np.testing.assert_array_equal(function(x)[0], default(x)[0])


# ---- the log -------------------------------------------------------------------------------------


def line(**changes):
    record = {
        "target": tuning.target_key(host_target()), "kernel": "dot x", "tuning": {"rows": 5},
        **changes,
    }  # fmt: skip
    return json.dumps(record)


def found_in(path, signature="dot x", target=None):
    with tuning.log_at(path):
        tuning.forget_log()
        return tuning.tuning_for(signature, target or host_target())


def test_a_line_of_the_log_is_found_again(tmp_path):
    path = tmp_path / "log.jsonl"
    assert found_in(path) == ContractionTuning()
    with tuning.log_at(path):
        tuning.append_log(path, json.loads(line()))
        tuning.append_log(path, json.loads(line(tuning={"rows": 7, "kc": 256})))
        tuning.append_log(path, json.loads(line(kernel="dot y", tuning={})))
    assert found_in(path) == ContractionTuning(rows=7, kc=256)
    assert found_in(path, "dot y") == ContractionTuning()
    assert found_in(path, "dot z") == ContractionTuning()


def test_another_kind_of_machine_has_its_own_lines(tmp_path):
    path = tmp_path / "log.jsonl"
    path.write_text(line())
    assert found_in(path, target=host_target().with_lanes(4)) == ContractionTuning()
    renamed = replace(host_target(), name="another name of the same machine")
    assert found_in(path, target=renamed) == ContractionTuning(rows=5)


@pytest.mark.parametrize(
    "text",
    [
        "", "no json", "[]", "{}", "null", '"a"', "{" * 5000,
        line(tuning=3), line(tuning={"rows": 0}), line(tuning={"rows": -4}),
        line(tuning={"rows": True}), line(tuning={"rows": 1e3}), line(tuning={"rows": "5"}),
        line(tuning={"form": "__import__"}), line(tuning={"columns": 4}),
        line(tuning={"band_bytes": 1 << 40}), line(kernel=7), line(target=None),
    ],
    ids=lambda text: text[-30:],
)  # fmt: skip
def test_damaged_lines_are_as_good_as_none(tmp_path, text):
    path = tmp_path / "log.jsonl"
    path.write_text(text + "\n")
    assert found_in(path) == ContractionTuning()
    path.write_text(text + "\n" + line() + "\n")
    assert found_in(path) == ContractionTuning(rows=5)


def test_a_log_that_is_no_file(tmp_path):
    assert found_in(tmp_path) == ContractionTuning()
    assert found_in(None) == ContractionTuning()


def test_where_the_log_is(tmp_path, monkeypatch):
    monkeypatch.setenv(tuning.TUNING_LOG, "")
    assert tuning.log_path() is None
    monkeypatch.setenv(tuning.TUNING_LOG, str(tmp_path / "mine"))
    assert tuning.log_path() == tmp_path / "mine"
    monkeypatch.delenv(tuning.TUNING_LOG)
    monkeypatch.setenv("TINYFLOW_CACHE", str(tmp_path))
    assert tuning.log_path() == tmp_path / "tuning.jsonl"


def test_compiled_steps_use_the_log(tmp_path):
    path = tmp_path / "log.jsonl"
    build, arrays = CASES["small product"]
    with tuning.recorded() as asked:
        default = compiled(build, *arrays)
    signature = only(asked, ContractionTuning)
    record = json.loads(line(kernel=signature, tuning={"rows": 3, "vectors": 1}))
    with tuning.log_at(path):
        tuning.append_log(path, record)
        tuned = compiled(build, *arrays)
    assert texts(tuned) != texts(default)
    assert "tile(i, j, 3, " in " ".join(tuned.plan.kernels[-1].steps)
    np.testing.assert_array_equal(tuned(*arrays)[0], default(*arrays)[0])
