"""Steps in stages: what several host calls return reaches the stages that asked for it."""

import numpy as np
import pytest

import tinyflow as tf


@pytest.mark.parametrize("counts", [(0, 0), (5, 5, 3), (1, 0, 4, 4)])
def test_every_run_gives_each_size_to_its_reader(counts):
    """The first run finds out, with one size in hand already, that it needs the other one too;
    later runs ask for them in the other order."""
    with tf.Graph().as_default(), tf.Session() as session:
        n = tf.placeholder(tf.int32, [])
        fetches = [tf.reduce_sum(tf.zeros([n, 3]) + 1), tf.unique(tf.range(n))[0]]
        for count in counts:
            total, found = session.run(fetches, {n: count})
            assert total == 3 * count
            np.testing.assert_array_equal(found, np.arange(count))
