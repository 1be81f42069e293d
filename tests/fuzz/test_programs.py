"""Random programs through ``Session.run``: 500 with fixed seeds; 2,000 in every way marked slow.

The same by command, with any number and any first seed: ``python -m tests.fuzz.run``.
"""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from functools import partial

import numpy as np
import pytest

import tinyflow as tf
from tests.fuzz.check import Coverage, check, check_sizes, shrunk
from tests.fuzz.generator import Maker, random_program
from tests.fuzz.programs import Program
from tests.fuzz.run import failure_of
from tests.fuzz.statements import FAMILIES, LOOPS
from tinyflow.runtime.thread_pool import available_cores

COUNT, MANY = 500, 2000


def failures(seeds, every_way):
    """What is wrong with the programs of these seeds. Two processes: most of it is compiling."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(2, available_cores()), mp_context=spawn) as pool:
        found = pool.map(partial(failure_of, every_way=every_way), seeds, chunksize=10)
        return [text for text in found if text]


def test_programs():
    found = failures(range(COUNT), every_way=False)
    assert not found, "\n".join(found)


def test_loops_serve_all_row_counts():
    """Programs of loops, branches and their gradients, with an unknown number of rows."""
    coverage = Coverage()
    for seed in range(30):
        program = random_program(seed, LOOPS)
        found = check_sizes(program, coverage)
        assert found is None, f"{found.text}\n{program.text()}"
    assert coverage.symbolic >= 10


@pytest.mark.slow
def test_many_programs_in_every_way():
    found = failures(range(MANY), every_way=True)
    assert not found, "\n".join(found)


# ---- the fuzzer itself ---------------------------------------------------------------------------


def test_a_seed_is_a_program():
    assert random_program(17).text() == random_program(17).text() != random_program(18).text()


def test_every_kind_of_statement_is_made():
    """And hardly any of them is refused: a refused statement tests nothing."""
    for family, _ in FAMILIES:
        made = refused = 0
        for seed in range(40):
            with tf.Graph().as_default():
                maker = Maker(seed)
                family(maker)
                made, refused = made + len(maker.lines), refused + len(maker.rejected)
        assert made > 8 and refused <= made / 2, (family.__name__, made, refused)


def test_a_wrong_result_is_found_and_made_small(monkeypatch):
    """The kernel of tanh is replaced by one that is wrong in the fourth digit."""
    from tinyflow import te
    from tinyflow.ops.activation import Tanh

    monkeypatch.setattr(Tanh, "compute", lambda self, x: te.map(lambda v: te.tanh(v) * 1.0001, x))
    lines = ("v0 = x0 * 2.0", "v1 = tf.tanh(v0)", "v2 = tf.exp(v1)", "v3 = x0 + v2",
             "v4 = tf.sigmoid(x0)")  # fmt: skip
    program = Program({"x0": np.linspace(-1, 1, 6, dtype=np.float32)}, lines, ("v4", "v3"))
    found = check(program, (({},),))
    assert found is not None and found.kind == "value" and "expected" in found.text
    small = shrunk(program, lambda p: check(p, (({},),)) is not None)
    assert small.outputs == ("v1",) and small.lines == ("v1 = tf.tanh(v0)",)
    exec(small.text().replace("tanh", "negative"), {})  # the printed script runs


def test_bounds_are_narrow_where_rounding_is_harmless():
    x = np.linspace(-1, 1, 6, dtype=np.float32)
    coverage = Coverage()
    program = Program({"x0": x}, ("v0 = tf.exp(x0)", "v1 = tf.matmul([v0], [[x0[0]]] * 6)"),
                      ("v0", "v1"))  # fmt: skip
    assert check(program, (({},),), coverage) is None
    assert coverage.tight == coverage.elements == 7


def test_bounds_are_wide_where_a_rounding_error_decides():
    from tests.fuzz.oracle import expected

    lines = ("v0 = tf.exp(tf.log(x0))", "v1 = tf.where(v0 > x0, x0, -x0)", "v2 = v0 - x0")
    program = Program({"x0": np.array([1.5, 2.5, 3.25], np.float32)}, lines, ("v1", "v2"))
    sign, difference = expected(program.build(), seed=0)
    assert (sign.bound > 1).any()
    assert (difference.bound > 1e-7).all() and (difference.bound < 1e-4).all()
