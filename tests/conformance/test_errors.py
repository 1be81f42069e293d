"""Wrong inputs are refused when the node is made, with op, types and the user's line."""

from __future__ import annotations

import inspect
import os

import numpy as np
import pytest

from tests.conformance.cases import bad_samples_of, classes
from tinyflow.core.error import TinyFlowError
from tinyflow.ir.graph.builder import Builder, building, emit
from tinyflow.ir.graph.nodes import Input, Op, TensorType

BAD = [
    pytest.param(c, sample, error, id=f"{c.__name__}-{n}")
    for c in classes()
    for n, (sample, error) in enumerate(bad_samples_of(c))
]


@pytest.mark.parametrize(("op_class", "sample", "error"), BAD)
def test_bad_sample_is_refused(op_class: type[Op], sample: object, error: type) -> None:
    arrays = [np.asarray(a) for a in sample.arrays]  # type: ignore[attr-defined]
    types = [TensorType(a.dtype, a.shape) for a in arrays]
    op = op_class() if sample.op is None else sample.op  # type: ignore[attr-defined]
    with building(Builder()):
        inputs = [emit(Input(t)) for t in types]
        line = inspect.currentframe().f_lineno + 2  # type: ignore[union-attr]
        with pytest.raises(error) as caught:
            emit(op, *inputs)
    raised = caught.value
    assert isinstance(raised, TinyFlowError)
    text = str(raised)
    assert op_class.__name__ in text.splitlines()[0], text
    for type_ in types:
        assert str(type_) in text, text
    assert f"{os.path.basename(__file__)}:{line}" in text, text
