"""Steps from the cache: the same results without passes, and never those of another step."""

import shutil

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.compile import seen
from tinyflow.compile import step as step_module
from tinyflow.compile.step_cache import KnownPlan, content_of
from tinyflow.core import options
from tinyflow.ops.base import Unary
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize
from tinyflow.runtime import kernel_cache


def _use(monkeypatch, path):
    """This folder, with nothing in memory: as another process has it."""
    monkeypatch.setattr(seen, "compiler_fingerprint", lambda: "sources")
    monkeypatch.setattr(kernel_cache, "_default", kernel_cache.KernelCache(path))
    monkeypatch.setattr("tinyflow.compile.kernels._addresses", {})


@pytest.fixture(scope="module")
def cold(tmp_path_factory):
    """What ``_train`` computes with an empty cache, and the cache after that."""
    path = tmp_path_factory.mktemp("cold") / "kernels"
    with pytest.MonkeyPatch.context() as monkeypatch:
        _use(monkeypatch, path)
        return _train(), path


@pytest.fixture
def folder(monkeypatch, tmp_path, cold):
    """A copy of the cache that ``_train`` left, in use. Called, it forgets what is in memory."""
    path = tmp_path / "kernels"
    shutil.copytree(cold[1], path)

    def forget():
        _use(monkeypatch, path)
        return path

    forget()
    return forget


@pytest.fixture
def optimized(monkeypatch):
    """The functions that passes ran on."""
    found = []
    optimize = step_module.optimize

    def counted(fn):
        found.append(fn)
        return optimize(fn)

    monkeypatch.setattr(step_module, "optimize", counted)
    return found


@pytest.fixture
def bound():
    """The steps bound so far."""
    made = []

    def observe(step):
        if isinstance(step, step_module.BoundStep):
            made.append(step)

    step_module.observers.append(observe)
    yield made
    step_module.observers.remove(observe)


def _train(dtype=tf.float32, rate=0.1):
    """Everything that a program is told about: draws, slots, copies, fetches that are other things.

    The arrays of three steps.
    """
    with tf.Graph().as_default(), tf.Session() as session:
        tf.set_random_seed(3)
        x = tf.placeholder(dtype, [None, 6])
        table = tf.get_variable("table", [9, 6], dtype)
        w = tf.get_variable("w", [6, 4], dtype)
        unread = tf.Variable(np.zeros((2, 3)))
        rows = tf.gather(table, tf.constant([1, 1, 7, 0, 8]))
        hidden = tf.nn.dropout(tf.tanh(tf.matmul(x + rows, w)), rate=0.25, seed=5)
        loss = tf.reduce_mean(tf.square(hidden - 0.25))
        train = tf.train.AdamOptimizer(rate).minimize(loss, var_list=[table, w])
        write = tf.assign(unread, tf.ones([2, 3], tf.float64) * 4)
        session.run(tf.global_variables_initializer())
        batch = np.linspace(-1, 1, 30).reshape(5, 6).astype(dtype.as_numpy_dtype)
        fetches = [train, loss, loss, x, tf.constant([[2.5, 1]]), hidden, write, table]
        return [
            np.asarray(array)
            for _ in range(3)
            for array in [*session.run(fetches, {x: batch})[1:], session.run(w)]
        ]


def _assert_equal_bits(expected, found):
    for a, b in zip(expected, found, strict=True):
        assert a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def test_the_same_bits_without_passes(cold, folder, optimized, bound):
    _assert_equal_bits(cold[0], _train())
    assert not optimized
    assert all(isinstance(one.program._plan, KnownPlan) for one in bound)


def test_float64(folder, optimized):
    expected = _train(tf.float64)
    assert optimized and expected[0].dtype == np.float64
    del optimized[:]
    folder()
    _assert_equal_bits(expected, _train(tf.float64))
    assert not optimized


def _largest(bound):
    return max(bound, key=lambda one: len(one.program.launch_lists[0].launches)).program


def test_what_is_looked_at_is_made_under_the_same_options(folder, optimized, bound):
    with options.override(level=1):
        _train()
        expected = [k.kernel.name for k in _largest(bound).plan.kernels]
        folder()
        del bound[:], optimized[:]
        _train()
    program = _largest(bound)
    assert not optimized and isinstance(program._plan, KnownPlan)
    kernels = program.plan.kernels  # made here, where the level is 2
    assert len(optimized) == 1 and len(kernels) > 3
    assert [k.kernel.name for k in kernels] == expected
    assert all(k.group is not None for k in kernels)
    launches = program.launch_actions
    assert [k for k in launches if hasattr(k, "kernel")] == kernels
    names = [one.name for found in program.record() for one in found.launches]
    assert [name for name in names if name != "gang"] == [
        k.kernel.name if hasattr(k, "kernel") else "copy" for k in launches
    ]


def test_profiles_name_the_lines(folder, bound):
    _train()
    places = [one.source for found in _largest(bound).record() for one in found.launches]
    del bound[:]
    with options.override(verify=True):  # planned anew
        _train()
    planned = _largest(bound)
    assert not isinstance(planned._plan, KnownPlan)
    assert places == [one.source for found in planned.record() for one in found.launches]
    assert any("test_step_cache.py" in place for place in places)


def _bad_index():
    with tf.Graph().as_default(), tf.Session() as session:
        index = tf.placeholder(tf.int32, [2])
        doubled = tf.gather(tf.constant([1.0, 2.0, 3.0]), index) * 2.0
        assert session.run(doubled, {index: [2, 0]}).tolist() == [6.0, 2.0]
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            session.run(doubled, {index: [1, 5]})
        return str(caught.value)


def test_errors_of_kernels_name_the_line(folder, bound):
    cold = _bad_index()
    folder()
    assert _bad_index() == cold and "index 5 is out of range" in cold
    assert "in _bad_index()" in cold
    assert isinstance(bound[-1].program._plan, KnownPlan)


@pytest.mark.parametrize("damage", ["flip", "cut", "lose code", "lose all"])
def test_a_damaged_cache_costs_time_only(cold, folder, damage):
    paths = sorted(folder().glob("*.kernel"))
    assert len(paths) > 10
    for path in paths:
        content = bytearray(path.read_bytes())
        is_code = b"ELF" in content[:60] or b"\xcf\xfa\xed\xfe" in content[:60]
        if damage == "flip":
            content[len(content) * 2 // 3] ^= 4
            path.write_bytes(content)
        elif damage == "cut":
            path.write_bytes(content[: len(content) // 2])
        elif damage == "lose all" or is_code:
            path.unlink()
    _assert_equal_bits(cold[0], _train())


def test_other_sources_are_other_entries(folder, optimized, monkeypatch):
    monkeypatch.setattr(seen, "compiler_fingerprint", lambda: "other sources")
    _train()
    assert optimized


@pytest.mark.parametrize(
    "changes",
    [{"level": 0}, {"lanes": 4}, {"disabled_passes": {"cse"}}, {"convolution": "im2col"}],
)
def test_other_options_are_other_entries(folder, optimized, changes):
    with options.override(**{k: frozenset(v) if k == "disabled_passes" else v
                             for k, v in changes.items()}):  # fmt: skip
        _train()
    assert optimized


@pytest.mark.parametrize("changes", [{"verify": True}, {"dump": True}, {"memory_budget": 1 << 30}])
def test_who_wants_to_see_is_shown(folder, optimized, tmp_path, changes):
    if "dump" in changes:
        changes = {"dump": str(tmp_path / "dump")}
    with options.override(**changes):
        _train()
    assert optimized


def _content(build, types=None):
    """Of the step that fetches what ``build(x, y)`` returns."""
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [3, 4])
        y = tf.placeholder(tf.float32, [3, 4])
        fetches = build(x, y)
        fetches = list(fetches) if isinstance(fetches, (list, tuple)) else [fetches]
        written = functionalize(fetches, (), [x, y])
        return content_of(specialize(written, types or [x.type, y.type]))


_DIFFERENT = [
    lambda x, y: x - y,
    lambda x, y: y - x,
    lambda x, y: x + y,
    lambda x, y: x - x,
    lambda x, y: [x - y, x - y],
    lambda x, y: [x - y, x + y],
    lambda x, y: [x + y, x - y],
    lambda x, y: x - 1.0,
    lambda x, y: x - 2.0,
    lambda x, y: x - np.float32(0.0),
    lambda x, y: x - np.float32(-0.0),
    lambda x, y: tf.reduce_sum(x, axis=0),
    lambda x, y: tf.reduce_sum(x, axis=1),
    lambda x, y: tf.reduce_sum(x, axis=1, keepdims=True),
    lambda x, y: tf.nn.leaky_relu(x, 0.0),
    lambda x, y: tf.nn.leaky_relu(x, -0.0),
    lambda x, y: [tf.nn.leaky_relu(x, 0.0), tf.nn.leaky_relu(y, -0.0)],
    lambda x, y: [tf.nn.leaky_relu(x, 0.0), tf.nn.leaky_relu(y, 0.0)],
    lambda x, y: x * tf.zeros([3, 4]),
    lambda x, y: x * tf.ones([3, 4]),
    lambda x, y: tf.random_uniform([3, 4], seed=1) + x,
    lambda x, y: tf.random_uniform([3, 4], seed=2) + x,
    lambda x, y: tf.gradients(tf.exp(x), x)[0],
    lambda x, y: x - tf.get_variable("a", [3, 4]),
    lambda x, y: tf.assign(tf.get_variable("a", [3, 4]), x),
    lambda x, y: tf.assign_add(tf.get_variable("a", [3, 4]), x),
    lambda x, y: x + tf.get_variable("a", [4]) * tf.get_variable("b", [4]),
]


def test_different_steps_have_different_keys(folder):
    found = [_content(build) for build in _DIFFERENT]
    assert None not in found and len(set(found)) == len(found)


def test_names_and_lines_are_not_part_of_a_key(folder):
    with_names = _content(lambda x, y: tf.multiply(tf.identity(x, name="p"), y, name="q"))
    assert with_names is not None and with_names == _content(lambda a, b: tf.identity(a) * b)


def test_sizes_and_dtypes_are_part_of_a_key(folder):
    one = _content(lambda x, y: tf.cast(x, tf.float32) * 2.0)
    assert one != _content(lambda x, y: tf.cast(x, tf.float64) * 2.0)
    with tf.Graph().as_default():
        x = tf.placeholder(tf.float32, [None, 4])
        written = functionalize([x * 2.0], (), [x])
        keys = {
            content_of(specialize(written, [x.type.with_shape((rows, 4))])) for rows in (1, 2, 3)
        }
    assert len(keys) == 3 and None not in keys


def test_steps_that_have_no_entry(folder):
    big = np.arange(400_000, dtype=np.float32)
    assert _content(lambda x, y: tf.reduce_sum(x) + big) is None
    assert _content(lambda x, y: tf.reduce_sum(x) + np.ones_like(big)) is not None
    assert _content(lambda x, y: tf.py_func(np.copy, [x], tf.float32)) is None
    double = type("Double", (Unary,), {"compute": lambda self, x: x, "__module__": "elsewhere"})
    from tinyflow.ir.graph.builder import emit
    from tinyflow.ir.graph.nodes import REGISTRY

    try:
        assert _content(lambda x, y: emit(double(), x)) is None
    finally:
        REGISTRY.pop("Double")


def _loop():
    with tf.Graph().as_default(), tf.Session() as session:
        x = tf.placeholder(tf.float32, [])
        _, y = tf.while_loop(lambda n, v: n < 5, lambda n, v: (n + 1, v * 2.0 + x), [0, x])
        return [float(session.run(y, {x: value})) for value in (1.0, -2.0)]


def test_steps_with_loops_are_planned_again(folder, bound):
    cold = _loop()
    folder()
    assert _loop() == cold == [63.0, -126.0]
    assert not isinstance(bound[-1].program._plan, KnownPlan)
