"""``infer`` tells the truth: for known, symbolic and unknown shapes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.conformance.cases import Case, cases, ids, reference_results
from tinyflow.core.shape import Dim
from tinyflow.ir.graph.nodes import TensorType
from tinyflow.ops.base import DynamicShape

PURE = [c for c in cases() if not c.is_state]


def inferred(case: Case, types: tuple[TensorType, ...]) -> tuple[TensorType, ...]:
    result = case.op.infer(*types)
    return result if isinstance(result, tuple) else (result,)


def holds(declared: TensorType, array: np.ndarray, extents: dict[str, int]) -> bool:
    """Whether an inferred type is true of an array, given the extents of the inputs' symbols."""
    if declared.dtype.numpy != array.dtype:
        return False
    if declared.shape is None:
        return True
    if len(declared.shape) != array.ndim:
        return False
    return all(
        value_of(d, extents) in (n, None)
        for d, n in zip(declared.shape, array.shape)
    )


def value_of(dim: object, extents: dict[str, int]) -> int | None:
    """The dimension's number; None if it has a symbol of its own (an unknown of the op)."""
    if not isinstance(dim, Dim):
        return int(dim)  # type: ignore[call-overload, no-any-return]
    if not dim.symbols <= set(extents):
        return None
    total = 0
    for monomial, coefficient in dim.terms:
        for name in monomial:
            coefficient *= extents[name]
        total += coefficient
    return total


@pytest.mark.parametrize("case", PURE, ids=ids(PURE))
def test_infer_is_exact(case: Case) -> None:
    results = reference_results(case.op, case.arrays)
    declared = inferred(case, case.types)
    assert len(declared) == len(results)
    for type_, array in zip(declared, results):
        if not isinstance(case.op, DynamicShape):
            assert (type_.dtype.numpy, type_.shape) == (array.dtype, array.shape)
        assert holds(type_, array, {})


@pytest.mark.parametrize("case", PURE, ids=ids(PURE))
def test_infer_with_symbols(case: Case) -> None:
    """Each extent above 1 replaced by a symbol, equal extents by the same one."""
    extents = {f"n{n}": n for a in case.arrays for n in a.shape if n > 1}
    types = tuple(
        TensorType(a.dtype, [Dim.symbol(f"n{n}") if n > 1 else n for n in a.shape])
        if p not in case.static_inputs
        else TensorType(a.dtype, a.shape)
        for p, a in enumerate(case.arrays)
    )
    for type_, array in zip(inferred(case, types), reference_results(case.op, case.arrays)):
        assert holds(type_, array, extents), f"{type_} for a result of shape {array.shape}"


@pytest.mark.parametrize("case", PURE, ids=ids(PURE))
def test_infer_with_unknown_rank(case: Case) -> None:
    types = tuple(
        TensorType(a.dtype, a.shape if p in case.static_inputs else None)
        for p, a in enumerate(case.arrays)
    )
    for type_, array in zip(inferred(case, types), reference_results(case.op, case.arrays)):
        assert holds(type_, array, {}), f"{type_} for a result of shape {array.shape}"
