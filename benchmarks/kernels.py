"""What the kernel workloads share: one function of arrays, written into a buffer that stays.

Main names: contestants. Inputs live inside each system (variables, tensors), so that neither
feeding nor fetching is timed; the result goes to a variable where the system has them.
May import: see benchmarks.worker.
"""

from __future__ import annotations

import numpy as np

from benchmarks import rivals
from benchmarks.worker import Prepared


def contestants(inputs, formulas, shape):
    """The table of contestants for one formula in each system's own words.

    inputs(case) -> tuple of float32 arrays
    formulas: "tensorflow" f(tf, case, *values), "torch" the same with an `out` tensor,
              "compile" and "jax" likewise without it, "numpy" f(np, case, *arrays, out)
    shape(case) -> shape of the result
    """

    def checked(step, result, finish=None):
        def check():
            step()
            found = np.asarray(result(), np.float64).reshape(-1)
            return [np.abs(found).mean(), found[0], found[found.size // 3], found[-1]]

        return Prepared(step, check, finish)

    def numpy_eager(case):
        arrays = inputs(case)
        out = np.empty(shape(case), np.float32)
        formula = formulas["numpy"]
        return checked(lambda: formula(np, case, *arrays, out), lambda: out), np.__version__

    def session(tf, case):
        feeds = [tf.placeholder(tf.float32, array.shape) for array in inputs(case)]
        variables = [tf.Variable(feed) for feed in feeds]
        target = tf.Variable(tf.zeros(shape(case)))
        write = tf.assign(target, formulas["tensorflow"](tf, case, *variables))
        sess = tf.Session()
        # Filled through the initialisers: as constants the arrays would be part of the graph.
        sess.run(tf.global_variables_initializer(), dict(zip(feeds, inputs(case))))
        step = sess.make_callable(write.op)
        return checked(step, lambda: sess.run(target)), rivals.version(tf)

    def torch_eager(case):
        torch = rivals.torch()
        tensors = [torch.from_numpy(array) for array in inputs(case)]
        out = torch.empty(shape(case))
        formula = formulas["torch"]

        def step():
            with torch.inference_mode():
                formula(torch, case, *tensors, out)

        return checked(step, out.numpy), torch.__version__

    def torch_compile(case):
        torch = rivals.torch()
        tensors = [torch.from_numpy(array) for array in inputs(case)]
        out = torch.empty(shape(case))
        formula = formulas["compile"]

        @torch.compile
        def write(*values):
            out.copy_(formula(torch, case, *values))

        def step():
            with torch.no_grad():
                write(*tensors)

        return checked(step, out.numpy), torch.__version__

    def jax_jit(case):
        jax = rivals.jax()
        arrays = [jax.numpy.asarray(array) for array in inputs(case)]
        formula = formulas["jax"]

        # The donated result of the last call is where this one writes: no fresh pages to touch.
        def write(out, *values):
            return formula(jax, case, *values)

        call = jax.jit(write, donate_argnums=0, keep_unused=True)
        out = [jax.numpy.zeros(shape(case), jax.numpy.float32)]

        # Waited for at each step, like all others: independent calls would overlap otherwise.
        def step():
            out[0] = call(out[0], *arrays).block_until_ready()

        return checked(step, lambda: out[0]), jax.__version__

    return {
        "tinyflow": lambda case: session(rivals.tinyflow(), case),
        "numpy": numpy_eager,
        "torch eager": torch_eager,
        "torch.compile": torch_compile,
        "jax.jit": jax_jit,
        "tensorflow": lambda case: session(rivals.tensorflow(), case),
    }
