"""One tree of exceptions: TensorFlow's codes, and Python's built-ins by inheritance (Q05)."""

from __future__ import annotations

import numpy as np
import pytest

import tinyflow as tf

#: name -> (status code of TensorFlow, the built-in it also is)
TREE = {
    "CancelledError": (1, Exception),
    "UnknownError": (2, Exception),
    "InvalidArgumentError": (3, ValueError),
    "DeadlineExceededError": (4, TimeoutError),
    "NotFoundError": (5, LookupError),
    "AlreadyExistsError": (6, Exception),
    "PermissionDeniedError": (7, PermissionError),
    "ResourceExhaustedError": (8, MemoryError),
    "FailedPreconditionError": (9, RuntimeError),
    "AbortedError": (10, Exception),
    "OutOfRangeError": (11, IndexError),
    "UnimplementedError": (12, NotImplementedError),
    "InternalError": (13, RuntimeError),
    "UnavailableError": (14, ConnectionError),
    "DataLossError": (15, OSError),
    "UnauthenticatedError": (16, Exception),
}
CODES = (
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS "
    "PERMISSION_DENIED RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED "
    "INTERNAL UNAVAILABLE DATA_LOSS UNAUTHENTICATED"
)


@pytest.mark.parametrize("name", TREE)
def test_classes(name):
    code, builtin = TREE[name]
    cls = getattr(tf.errors, name)
    assert issubclass(cls, tf.errors.OpError) and issubclass(cls, builtin)
    assert cls.error_code == code
    assert tf.errors.exception_type_from_error_code(code) is cls
    assert tf.errors.error_code_from_exception_type(cls) == code
    error = cls("what happened")
    assert error.message == str(error) == "what happened" and error.op is None


def test_codes():
    for number, name in enumerate(CODES.split()):
        assert getattr(tf.errors, name) == number


@pytest.mark.parametrize(
    ("program", "kinds"),
    [
        (lambda: tf.matmul(tf.ones([2, 3]), tf.ones([2, 3])), ["InvalidArgumentError", ValueError]),
        (lambda: tf.constant(1.0) + tf.constant(1), ["InvalidArgumentError", TypeError]),
        (lambda: tf.reduce_sum(tf.ones([2]), 3), ["InvalidArgumentError", IndexError, ValueError]),
        (lambda: tf.get_default_graph().get_tensor_by_name("a:0"), ["NotFoundError", KeyError]),
        (lambda: tf.Session().run(tf.Variable(1.0)), ["FailedPreconditionError", RuntimeError]),
        (lambda: tf.Session().run(tf.placeholder(tf.float32)), ["InvalidArgumentError"]),
        (lambda: tf.Session().run(tf.gather(np.ones(3, "f"), tf.constant([5]) * 1)),
         ["InvalidArgumentError"]),
        (lambda: tf.Session().run(tf.constant(1) // (tf.constant([1, 1]) * 0)),
         ["InvalidArgumentError"]),
    ],
)  # fmt: skip
def test_what_is_raised(program, kinds):
    tf.reset_default_graph()
    for kind in kinds:
        kind = getattr(tf.errors, kind) if isinstance(kind, str) else kind
        with pytest.raises(kind):
            program()


def test_our_limits_are_no_tensorflow_errors():
    with pytest.raises(NotImplementedError) as caught:
        tf.gather_nd(tf.zeros([2, 2]), [[0]], batch_dims=1)
    assert not isinstance(caught.value, tf.errors.OpError)
