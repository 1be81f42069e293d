"""Workload: the price of a call. a * b + 3 with scalars, from host numbers to a host number.

Nothing to compute, so the time is what each system spends around a computation.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks import rivals
from benchmarks.worker import Prepared

TITLE = "Call overhead: a * b + 3 with float32 scalars, host to host"
UNIT = "us"
CASES = {"scalars": {}}
TINY = {}
_A, _B = np.float32(2), np.float32(5)


def _prepare(step):
    return Prepared(step, lambda: [step()])


def _scalar_graph(tf):
    a = tf.placeholder(tf.float32, [])
    b = tf.placeholder(tf.float32, [])
    return tf.Session(), a, b, a * b + 3


def _session_run(tf):
    sess, a, b, result = _scalar_graph(tf)
    return _prepare(lambda: sess.run(result, feed_dict={a: _A, b: _B})), rivals.version(tf)


def _session_callable(tf):
    sess, a, b, result = _scalar_graph(tf)
    call = sess.make_callable(result, feed_list=[a, b])
    return _prepare(lambda: call(_A, _B)), rivals.version(tf)


def numpy_eager(case):
    return _prepare(lambda: _A * _B + 3), np.__version__


def tinyflow_run(case):
    return _session_run(rivals.tinyflow())


def tinyflow_callable(case):
    return _session_callable(rivals.tinyflow())


def tensorflow_run(case):
    return _session_run(rivals.tensorflow())


def tensorflow_callable(case):
    return _session_callable(rivals.tensorflow())


def torch_eager(case):
    torch = rivals.torch()
    a, b = float(_A), float(_B)
    return _prepare(lambda: (torch.tensor(a) * torch.tensor(b) + 3).item()), torch.__version__


def torch_compile(case):
    torch = rivals.torch()
    call = torch.compile(lambda a, b: a * b + 3)
    a, b = float(_A), float(_B)
    return _prepare(lambda: call(torch.tensor(a), torch.tensor(b)).item()), torch.__version__


def jax_jit(case):
    jax = rivals.jax()
    call = jax.jit(lambda a, b: a * b + 3)
    return _prepare(lambda: float(call(_A, _B))), jax.__version__


CONTESTANTS = {
    "tinyflow": tinyflow_run,
    "tinyflow make_callable": tinyflow_callable,
    "numpy": numpy_eager,
    "torch eager": torch_eager,
    "torch.compile": torch_compile,
    "jax.jit": jax_jit,
    "tensorflow": tensorflow_run,
    "tensorflow make_callable": tensorflow_callable,
    "tensorflow 1.15": tensorflow_run,
}
