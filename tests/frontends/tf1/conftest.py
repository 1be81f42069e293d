"""Every test of the front end starts with an empty default graph."""

from __future__ import annotations

import pytest

import tinyflow as tf


@pytest.fixture(autouse=True)
def _fresh_graph():
    tf.reset_default_graph()
    yield
    tf.reset_default_graph()
