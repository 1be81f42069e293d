"""Errors name the operation, the types and the line, at construction and in a run (Q01, Q02)."""

from __future__ import annotations

import traceback

import numpy as np
import pytest

import tinyflow as tf
from tests.errors.programs import PROGRAMS
from tinyflow.core import options


@pytest.fixture(autouse=True)
def _fresh_graph():
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()


def arguments(program, known):
    """The program's makers of placeholders, the feeds for them, and their types as text."""
    feeds, types = {}, []

    def maker(dtype):
        def make(*shape):
            x = tf.placeholder(dtype, shape if known else [None] * len(shape))
            feeds[x] = np.ones(shape, dtype.as_numpy_dtype)
            types.append(f"{dtype.name}[{', '.join(map(str, shape))}]")
            return x

        return make

    makers = [maker(tf.float32), maker(tf.int32)][: program.__code__.co_argcount]
    return makers, feeds, types


def lines_of(program):
    code = program.__code__
    return {f"programs.py:{line}" for _, _, line in code.co_lines() if line}


def check(wrong, error, types):
    text = str(error)
    assert isinstance(error, wrong.error), type(error).__mro__
    for part in wrong.texts:
        assert part in text
    assert any(place in text for place in lines_of(wrong.program)), text
    if wrong.shapes:
        for type_ in types:
            assert type_ in text
    frames = [f.filename for f in traceback.extract_tb(error.__traceback__)]
    assert not any("/tinyflow/" in f and "/tests/" not in f for f in frames), frames


@pytest.mark.parametrize("name", PROGRAMS)
def test_at_construction(name):
    wrong = PROGRAMS[name]
    makers, _, types = arguments(wrong.program, known=True)
    with pytest.raises(wrong.error) as caught:
        wrong.program(*makers)
    check(wrong, caught.value, types)


@pytest.mark.parametrize("name", [n for n, w in PROGRAMS.items() if w.dynamic])
def test_in_a_run(name):
    wrong = PROGRAMS[name]
    makers, feeds, _ = arguments(wrong.program, known=False)
    result = wrong.program(*makers)  # nothing is known to be wrong yet
    with tf.Session() as sess:
        sess.run(tf.global_variables_initializer())
        with pytest.raises(tf.errors.InvalidArgumentError) as caught:
            sess.run(result, feeds)
    text = str(caught.value)
    assert any(place in text for place in lines_of(wrong.program)), text
    for part in wrong.texts:
        assert part in text
    for x in feeds:
        assert f"fed {x.op.name}: {x.dtype.name}[" in text


def test_there_are_enough_programs():
    assert len(PROGRAMS) >= 60 and sum(w.dynamic for w in PROGRAMS.values()) >= 30


def test_internal_frames_on_request():
    x = tf.placeholder(tf.float32, [2, 3])
    with options.override(show_internal_frames=True), pytest.raises(ValueError) as caught:
        tf.matmul(x, x)
    assert any("contraction.py" in f.filename for f in traceback.extract_tb(caught.tb))


def test_the_users_line_is_kept_through_the_gradient():
    x = tf.placeholder(tf.float32, [None, 3])
    y = tf.placeholder(tf.float32, [None, 3])
    product = x * y  # the line to blame
    (dx,) = tf.gradients(product, x)
    line = test_the_users_line_is_kept_through_the_gradient.__code__.co_firstlineno + 3
    with pytest.raises(ValueError) as caught:
        tf.Session().run(dx, {x: np.ones((2, 3)), y: np.ones((4, 3))})
    assert f"test_programs.py:{line}" in str(caught.value)
