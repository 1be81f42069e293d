"""Growing loops and computed sizes: values and gradients are those of TensorFlow 1.15."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tinyflow as tf
from tests.frontends.tf1.growing_programs import CASES, run

#: written by growing_programs.py with TensorFlow 1.15
NUMBERS: dict[str, Any] = json.loads(
    Path(__file__).with_name("growing_numbers.json").read_text("utf-8")
)


@pytest.mark.parametrize("name", CASES)
def test_same_as_tensorflow(name: str) -> None:
    found = run(tf, name)
    expected = NUMBERS[name]
    assert [shape for shape, _ in found] == [shape for shape, _ in expected]
    for (_, own), (_, theirs) in zip(found, expected, strict=True):
        np.testing.assert_allclose(own, theirs, rtol=2e-4, atol=2e-5)
