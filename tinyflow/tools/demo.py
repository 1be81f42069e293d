"""``python -m tinyflow demo``: trains softmax regression and shows the native kernels that did it.

Main functions: ``run_demo``, ``main``. May import everything below tools, and the examples.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from typing import Any, NamedTuple

from tinyflow.tools import layout
from tinyflow.tools.layout import heading, wrapped

STEPS, BATCH = 1000, 100
#: seconds that the demo waits for a download before it takes the digits instead
PATIENCE_S = 30.0
_BAR = 40


class Images(NamedTuple):
    """A data set and how to speak of it."""

    name: str
    splits: Any
    remark: str

    @property
    def features(self) -> int:
        return int(self.splits.train.images.shape[1])


def load_images(patience_s: float = PATIENCE_S) -> Images:
    """MNIST if it is here or comes within ``patience_s`` seconds, else the digits we ship."""
    from tinyflow.datasets import DatasetUnavailable, get_digits, get_mnist

    outcome: list[Any] = []

    def fetch() -> None:
        try:
            outcome.append(get_mnist(flatten=True, onehot=True))
        except DatasetUnavailable as error:
            outcome.append(error)

    # A thread of its own: nobody should wait for time-outs of a network that is not there.
    worker = threading.Thread(target=fetch, daemon=True)
    worker.start()
    worker.join(patience_s)
    found = outcome[0] if outcome else None
    if found is not None and not isinstance(found, DatasetUnavailable):
        return Images("MNIST", found, "")
    why = f"did not arrive within {patience_s:.0f} s" if found is None else "could not be had"
    return Images(
        "digits", get_digits(flatten=True, onehot=True),
        f"MNIST {why}; these 8x8 digits come with the package. To use MNIST, set TINYFLOW_DATA to "
        "a folder with its four files.",
    )  # fmt: skip


def run_demo(images: Images, steps: int = STEPS) -> float:
    """Builds, trains, judges and prints; the test accuracy."""
    import tinyflow as tf
    from tinyflow.examples import softmax_regression
    from tinyflow.tools.recording import Recording

    train, test = images.splits
    print("\n".join(heading("TinyFlow demo: softmax regression")))
    print(
        f"  data      {images.name}: {train.num_examples:,} images of {images.features} pixels to "
        f"learn from, {test.num_examples:,} to be judged by"
    )
    for line in wrapped(images.remark, "            ", "            ") if images.remark else ():
        print(line)
    print("  program   tinyflow/examples/softmax_regression.py: `import tinyflow as tf`")
    graph = tf.Graph()
    with graph.as_default(), Recording() as recording:
        start = time.perf_counter()
        model = softmax_regression.build(images.features)
        built_s = time.perf_counter() - start
        with tf.Session() as sess:
            times = _train(sess, model, train, steps)
            accuracy = float(
                sess.run(model.accuracy, {model.x: test.images, model.labels: test.labels})
            )
        step = recording.choose(None, {"train_step": model.train_step})
    median = statistics.median(times[1:]) if len(times) > 1 else times[0]
    print(
        f"  graph     {len(graph.get_operations())} operations, built in "
        f"{layout.duration(built_s)}; first step, with compilation, {layout.duration(times[0])}"
    )
    print(
        f"  training  {layout.plural(steps, 'step')} of {BATCH} images in "
        f"{layout.duration(sum(times))}; median of sess.run {layout.duration(median)}"
    )
    print(f"  accuracy  {accuracy:.4f} on the {images.name} test images")
    print("\n".join(kernels_of(step)))
    return accuracy


def _train(sess: Any, model: Any, train: Any, steps: int) -> list[float]:
    """Seconds of each step; a progress line with the loss while it goes."""
    times = []
    progress = Progress(steps)
    sess.run(model.initialize)
    for n in range(steps):
        images, labels = train.next_batch(BATCH)
        feed = {model.x: images, model.labels: labels}
        start = time.perf_counter()
        sess.run(model.train_step, feed_dict=feed)
        times.append(time.perf_counter() - start)
        if progress.due(n + 1):
            progress.show(n + 1, float(sess.run(model.loss, feed_dict=feed)))
    return times


class Progress:
    """A bar that is redrawn on a terminal; elsewhere a line for every quarter."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.redraws = sys.stdout.isatty()
        self.interval = max(1, total // (50 if self.redraws else 4))

    def due(self, done: int) -> bool:
        return done % self.interval == 0 or done == self.total

    def show(self, done: int, loss: float) -> None:
        filled = _BAR * done // self.total
        bar = "#" * filled + "." * (_BAR - filled)
        line = f"  training  [{bar}] step {done:>5,} of {self.total:,}, loss {loss:.4f}"
        if not self.redraws:
            print(line)
        else:
            print("\r" + line, end="\n" if done == self.total else "", flush=True)


def kernels_of(step: Any) -> list[str]:
    """The table of native kernels of the training step."""
    from tinyflow.examples import softmax_regression
    from tinyflow.tools.kernel_table import call_summary, kernel_table, legend
    from tinyflow.tools.machine_peak import machine_peaks

    peaks = machine_peaks()
    times = step.times
    lines = heading("native kernels of the training step")
    lines += kernel_table(times, peaks, softmax_regression.__file__)
    lines += ["", "  " + call_summary(times), *legend(peaks)]
    return [*lines, "  More of any script's inside: python -m tinyflow explain SCRIPT"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--steps", type=int, default=STEPS, help=f"training steps ({STEPS:,})")
    parser.add_argument(
        "--digits", action="store_true", help="use the digits of the package; look for no MNIST"
    )


def main(options: argparse.Namespace) -> int:
    if options.steps < 1:
        print(f"tinyflow demo: --steps must be 1 or more, got {options.steps}", file=sys.stderr)
        return 2
    if options.digits:
        from tinyflow.datasets import get_digits

        images = Images("digits", get_digits(flatten=True, onehot=True), "")
    else:
        images = load_images()
    run_demo(images, options.steps)
    return 0
