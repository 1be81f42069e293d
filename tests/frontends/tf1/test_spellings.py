"""Names of 2016, of 2018 and ``tf.compat.v1`` mean the same (row A21); unknown ones get help."""

from __future__ import annotations

import importlib
import types

import numpy as np
import pytest

import tinyflow as tf
from tinyflow.frontends.tf1 import symbols


def old(t):
    """The names and argument names of 2016."""
    return types.SimpleNamespace(
        mul=t.mul, sub=t.sub, neg=t.neg, pack=t.pack, unpack=t.unpack, log=t.log, div=t.div,
        argmax=lambda x, d: t.arg_max(x, dimension=d), select=t.select, to_float=t.to_float,
        total=lambda x, i, k=False: t.reduce_sum(x, reduction_indices=i, keep_dims=k),
        mean=lambda x, i: t.reduce_mean(x, reduction_indices=i),
        largest=lambda x, i: t.reduce_max(x, reduction_indices=i, keep_dims=True),
        concat=lambda d, v: t.concat(d, v), split=lambda d, n, v: t.split(d, n, v),
        expand=lambda x, d: t.expand_dims(x, dim=d),
        squeeze=lambda x, d: t.squeeze(x, squeeze_dims=d),
        softmax=lambda x, d: t.nn.softmax(x, dim=d), matmul=t.batch_matmul,
        init=t.initialize_all_variables, everything=t.all_variables, pow=t.pow,
        sigmoid=t.nn.sigmoid, linspace=t.lin_space,
        cross=lambda y, x: t.nn.softmax_cross_entropy_with_logits(labels=y, logits=x, dim=-1),
        uniform=t.random_uniform, normal=t.random_normal, seed=t.set_random_seed, inv=t.inv,
        xavier=t.contrib.layers.xavier_initializer,
        step=t.contrib.framework.get_or_create_global_step,
        scope=lambda name, values: t.op_scope(values, name),
    )  # fmt: skip


def new(t):
    """The names of 2018."""
    return types.SimpleNamespace(
        mul=t.multiply, sub=t.subtract, neg=t.negative, pack=t.stack, unpack=t.unstack,
        log=t.math.log, div=t.divide, argmax=lambda x, d: t.argmax(x, axis=d), select=t.where,
        to_float=lambda x: t.cast(x, t.float32),
        total=lambda x, i, k=False: t.math.reduce_sum(x, axis=i, keepdims=k),
        mean=lambda x, i: t.reduce_mean(x, axis=i),
        largest=lambda x, i: t.reduce_max(x, axis=i, keepdims=True),
        concat=lambda d, v: t.concat(v, axis=d), split=lambda d, n, v: t.split(v, n, axis=d),
        expand=lambda x, d: t.expand_dims(x, axis=d), squeeze=lambda x, d: t.squeeze(x, axis=d),
        softmax=lambda x, d: t.nn.softmax(x, axis=d), matmul=t.linalg.matmul,
        init=t.global_variables_initializer, everything=t.global_variables, pow=t.math.pow,
        sigmoid=t.math.sigmoid, linspace=t.linspace, inv=t.math.reciprocal,
        cross=lambda y, x: t.nn.softmax_cross_entropy_with_logits_v2(y, x, axis=-1),
        uniform=t.random.uniform, normal=t.random.normal, seed=t.random.set_random_seed,
        xavier=t.initializers.glorot_uniform, step=t.train.get_or_create_global_step,
        scope=lambda name, values: t.name_scope(name, values=values),
    )  # fmt: skip


@pytest.mark.parametrize("names", [old, new], ids=["2016", "2018"])
@pytest.mark.parametrize("root", [tf, tf.compat.v1, tf.compat.v1.compat.v1],
                         ids=["tf", "compat.v1", "twice"])  # fmt: skip
def test_the_same_program_in_every_spelling(names, root):
    n = names(root)
    n.seed(3)
    a = np.arange(1, 7, dtype=np.float32).reshape(2, 3)
    x = root.placeholder(root.float32, [2, 3])
    w = root.get_variable("w", [3, 2], initializer=n.xavier(seed=1))
    step = n.step()
    with n.scope("s", [x]) as scope:
        assert scope == "s/"
    drawn = n.uniform([100], 2.0, 3.0)
    probability = np.exp(a) / np.exp(a).sum(1, keepdims=True)
    cases = [
        (n.mul(x, x), a * a), (n.sub(x, 1.0), a - 1), (n.neg(x), -a), (n.log(x), np.log(a)),
        (n.div(x, 2.0), a / 2), (n.pow(x, 2.0), a**2), (n.sigmoid(x), 1 / (1 + np.exp(-a))),
        (n.pack([x, x]), np.stack([a, a])), (n.unpack(x)[1], a[1]), (n.argmax(x, 1), [2, 2]),
        (n.select(x > 2.0, x, -x), np.where(a > 2, a, -a)), (n.total(x, [1]), a.sum(1)),
        (n.total(x, 0, True), a.sum(0, keepdims=True)), (n.mean(x, 1), a.mean(1)),
        (n.largest(x, [0, 1]), [[6.0]]), (n.concat(1, [x, x]), np.concatenate([a, a], 1)),
        (n.split(0, 2, x)[1], a[1:]), (n.expand(x, 1), a[:, None]), (n.inv(x), 1 / a),
        (n.squeeze(n.expand(x, 0), [0]), a), (n.softmax(x, 1), probability),
        (n.matmul(x, n.neg(x), False, True), -a @ a.T),
        (n.to_float(root.constant([1, 2])), [1.0, 2.0]),
        (n.linspace(0.0, 1.0, 3), [0.0, 0.5, 1.0]),
        (n.cross(x, x), -(a * np.log(probability)).sum(1)),
    ]  # fmt: skip
    with root.Session() as sess:
        sess.run(n.init())
        for ours, expected in cases:
            np.testing.assert_allclose(sess.run(ours, {x: a}), expected, rtol=2e-5)
        assert sess.run(step) == 0 and len(n.everything()) == 2
        value = sess.run(drawn)
        assert value.min() >= 2 and value.max() < 3 and len(np.unique(value)) > 90
        assert sess.run(root.shape(w)).tolist() == [3, 2]


def test_an_alias_is_its_target():
    for alias, target in symbols.ALIASES.items():
        one, other = tf, tf
        for part in alias.split("."):
            one = getattr(one, part)
        for part in target.split("."):
            other = getattr(other, part)
        assert one is other or one == other, (alias, target)


def test_every_name_of_the_table_resolves():
    for name in symbols.TARGETS:
        found = tf
        for part in name.split("."):
            found = getattr(found, part)
        assert getattr(found, "__doc__", "") or not callable(found), f"tf.{name} has no docstring"
    assert {"matmul", "nn", "train", "compat", "errors"} <= set(dir(tf))
    assert "softmax" in dir(tf.nn)


def test_namespaces_are_importable():
    nn = importlib.import_module("tinyflow.nn")
    assert nn is tf.nn
    assert importlib.import_module("tinyflow.contrib.layers") is tf.contrib.layers
    assert importlib.import_module("tinyflow.compat.v1").placeholder is tf.placeholder
    assert importlib.import_module("tinyflow.errors").OpError is tf.errors.OpError
    from tinyflow.compat.v1.nn import softmax

    assert softmax is tf.nn.softmax
    assert importlib.import_module("tinyflow.te").__name__ == "tinyflow.te"  # a real package
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("tinyflow.nonsense")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("reduce_summ", "did you mean tf.reduce_sum?"),
        ("plaecholder", "did you mean tf.placeholder?"),
        ("Sesion", "did you mean tf.Session?"),
        ("variable", "did you mean tf.Variable?"),
        ("softmax", "did you mean tf.nn.softmax?"),
        ("nn.reul", "did you mean tf.nn.relu?"),
        ("train.GradientDecentOptimizer", "did you mean tf.train.GradientDescentOptimizer?"),
    ],
)
def test_misspelt_names(path, text):
    space, _, name = path.rpartition(".")
    holder = getattr(tf, space) if space else tf
    with pytest.raises(AttributeError) as caught:
        getattr(holder, name)
    assert text in str(caught.value) and "choices: " in str(caught.value)
    assert not hasattr(holder, name)
    assert len(caught.traceback) == 1  # the user's line, nothing of ours


@pytest.mark.parametrize("path", ["betainc", "nn.ctc_loss", "contrib.slim", "train.Saver"])
def test_known_names_that_are_missing_say_so(path):
    space, _, name = path.rpartition(".")
    holder = getattr(tf, space) if space else tf
    with pytest.raises(NotImplementedError) as caught:
        getattr(holder, name)
    assert "part of TensorFlow 1.15 but not supported yet" in str(caught.value)
    assert isinstance(caught.value, AttributeError)


def test_two_spellings_of_one_argument_at_once():
    x = tf.constant([[1.0]])
    for call in (
        lambda: tf.reduce_sum(x, axis=0, reduction_indices=0),
        lambda: tf.reduce_max(x, keepdims=True, keep_dims=True),
        lambda: tf.expand_dims(x, axis=0, dim=0),
        lambda: tf.argmax(x, axis=0, dimension=0),
    ):
        with pytest.raises(ValueError, match="Cannot specify both"):
            call()


@pytest.mark.parametrize("place", ["", "nn", "math", "layers", "train"])
def test_help_shows_the_name_that_programs_call(place):
    """Functions that a table makes are shown by their own names, not by their maker's."""
    module = getattr(tf, place) if place else tf
    shown = {
        name: function.__qualname__
        for name in dir(module)
        if callable(function := getattr(module, name)) and hasattr(function, "__qualname__")
    }
    assert not {name: title for name, title in shown.items() if "<locals>" in title}
