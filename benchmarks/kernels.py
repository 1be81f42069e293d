"""What the kernel workloads share: a function of arrays, its results in buffers that stay.

Main names: contestants. Inputs live inside each system (variables, tensors), so that neither
feeding nor fetching is timed; results go to variables where the system has them.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks import rivals
from benchmarks.worker import Prepared


def contestants(inputs, formulas, shapes, checked=None):
    """The table of contestants for one formula in each system's own words.

    inputs(case) -> tuple of float32 arrays
    formulas: "tensorflow" f(tf, case, *values) -> result or tuple of results; "compile" and "jax"
              likewise; "torch" the same with buffers `*out` behind the values: it writes into them
              or returns results of its own; "numpy" f(np, case, *arrays, *out), may be left out
    shapes(case) -> list of the results' shapes
    checked(case, results): floats to agree on; by default some elements and a mean of each
    """
    checked = checked or _samples

    def prepared(case, step, results, finish=None):
        def check():
            last = step()
            if finish:
                finish(last)
            return checked(case, [np.asarray(array, np.float64) for array in results()])

        return Prepared(step, check, finish)

    def numpy_eager(case):
        arrays = inputs(case)
        out = [np.empty(shape, np.float32) for shape in shapes(case)]
        formula = formulas["numpy"]
        step = lambda: formula(np, case, *arrays, *out)  # noqa: E731
        return prepared(case, step, lambda: out), np.__version__

    def session(tf, case):
        arrays = inputs(case)
        feeds = [tf.placeholder(tf.float32, array.shape) for array in arrays]
        variables = [tf.Variable(feed) for feed in feeds]
        targets = [tf.Variable(tf.zeros(shape)) for shape in shapes(case)]
        results = _sequence(formulas["tensorflow"](tf, case, *variables))
        write = tf.group(*[tf.assign(t, result).op for t, result in zip(targets, results)])
        sess = tf.Session()
        # Filled through the initialisers: as constants the arrays would be part of the graph.
        sess.run(tf.global_variables_initializer(), dict(zip(feeds, arrays)))
        step = sess.make_callable(write)
        return prepared(case, step, lambda: sess.run(targets)), rivals.version(tf)

    def xla(case):
        tf2, tf = rivals.tensorflow2()
        values = [tf2.constant(array) for array in inputs(case)]
        targets = [tf2.Variable(tf2.zeros(shape)) for shape in shapes(case)]

        @tf2.function(jit_compile=True)
        def write(values):
            for target, result in zip(
                targets, _sequence(formulas["tensorflow"](tf, case, *values))
            ):
                target.assign(result)

        return prepared(case, lambda: write(values), lambda: targets), tf2.__version__

    def torch_eager(case):
        torch = rivals.torch()
        tensors = [torch.from_numpy(array) for array in inputs(case)]
        out = [torch.empty(shape) for shape in shapes(case)]
        formula = formulas["torch"]

        def step():
            found = formula(torch, case, *tensors, *out)
            if found is not None:
                # Kept until the next step, as a program would.
                out[:] = _sequence(found)

        return prepared(case, step, lambda: [each.detach() for each in out]), torch.__version__

    def torch_compile(case):
        torch = rivals.torch()
        tensors = [torch.from_numpy(array) for array in inputs(case)]
        out = [torch.empty(shape) for shape in shapes(case)]
        formula = formulas["compile"]

        @torch.compile
        def write(*values):
            for target, result in zip(out, _sequence(formula(torch, case, *values))):
                target.copy_(result)

        def step():
            with torch.no_grad():
                write(*tensors)

        return prepared(case, step, lambda: out), torch.__version__

    def jax_jit(case):
        jax = rivals.jax()
        arrays = [jax.numpy.asarray(array) for array in inputs(case)]
        formula = formulas["jax"]

        # The donated results of the last call are where this one writes: no fresh pages to touch.
        def write(out, *values):
            return _sequence(formula(jax, case, *values))

        call = jax.jit(write, donate_argnums=0, keep_unused=True)
        out = [[jax.numpy.zeros(shape, jax.numpy.float32) for shape in shapes(case)]]

        # Waited for at each step, like all others: independent calls would overlap otherwise.
        def step():
            out[0] = jax.block_until_ready(call(out[0], *arrays))

        return prepared(case, step, lambda: out[0]), jax.__version__

    def tinyflow(case):
        tf = rivals.tinyflow()
        tf.reset_default_graph()
        return session(tf, case)

    table = {
        "tinyflow": tinyflow,
        "numpy": numpy_eager,
        "torch eager": torch_eager,
        "torch.compile": torch_compile,
        "jax.jit": jax_jit,
        "tensorflow": lambda case: session(rivals.tensorflow(), case),
        "tensorflow xla": xla,
    }
    if "numpy" not in formulas:
        del table["numpy"]
    return table


def _sequence(results):
    return list(results) if isinstance(results, (list, tuple)) else [results]


def _samples(case, results):
    found = []
    for array in results:
        flat = array.reshape(-1)
        found += [np.abs(flat).mean(), flat[0], flat[flat.size // 3], flat[-1]]
    return found
