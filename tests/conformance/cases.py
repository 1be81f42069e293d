"""The cases of the conformance suite: every op of the registry with every sample.

Main types: ``Case``; ``cases()`` lists them, ``graph_of`` builds the graph of one. A float32 sample
is also a float64 case: the op's attributes are widened with it.
"""

from __future__ import annotations

import dataclasses
import functools
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

import tinyflow.frontends.tf1.control  # these register every op
import tinyflow.frontends.tf1.state
import tinyflow.ops
import tinyflow.ops.placeholder
import tinyflow.passes.pipeline  # and these, what only rules make
from tinyflow.core.dtype import float32, float64
from tinyflow.ir.graph import interp
from tinyflow.ir.graph.builder import Builder, building
from tinyflow.ir.graph.nodes import REGISTRY, Effect, Function, Input, Op, TensorType, Value
from tinyflow.ir.graph.visit import result_values
from tinyflow.ops.base import Sample
from tinyflow.ops.state import StateOp, VariableRef
from tinyflow.passes.functionalize import functionalize
from tinyflow.passes.specialize import specialize

#: ops that cannot stand alone on arrays, and what tests them instead
NO_SAMPLES = {
    "Input": "a parameter; every case has some",
    "NoOp": "has neither inputs nor results; tests/frontends/tf1/test_graph.py",
    "InitializedValue": "asks a session; tests/frontends/tf1/test_variables.py",
    "Placeholder": "a feed; tests/passes/test_functionalize.py",
    "LoopVariable": "a parameter of a sub-function; tests/frontends/tf1/test_control_flow.py",
    "NewArray": "its elements are nothing yet; tests/ops/test_control.py",
    "NewArrayLike": "its elements are nothing yet; tests/ops/test_control.py",
    "ZeroArray": "has no inputs; tests/frontends/tf1/test_control_flow.py",
    "CountedExtent": "its type follows from a value; tests/frontends/tf1/test_segments.py",
    "ToldNumbers": "its types follow from values; tests/frontends/tf1/test_growing.py",
    "ToldShape": "its type follows from values; tests/compile/test_driven.py",
    "GrowRows": "its type follows from a value; tests/frontends/tf1/test_growing.py",
    "DynamicRange": "an inner op of DynamicShape; tests/ops/test_creation.py",
    "RandomUniform": "draws by a counter; test_state.py",
    "RandomStandardNormal": "draws by a counter; test_state.py",
    "TruncatedNormal": "draws by a counter; test_state.py",
    "RandomUniformInt": "draws by a counter; test_state.py",
}


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """One op on one sample.    id: ``MatMul-2-f64``"""

    id: str
    op: Op
    arrays: tuple[np.ndarray, ...]
    sample: Sample

    @property
    def types(self) -> tuple[TensorType, ...]:
        return tuple(TensorType(a.dtype, a.shape) for a in self.arrays)

    @property
    def is_state(self) -> bool:
        return isinstance(self.op, StateOp)

    @property
    def is_host(self) -> bool:
        return hasattr(self.op, "call_host")

    @property
    def static_inputs(self) -> frozenset[int]:
        """Positions of inputs that must be constants."""
        count = len(self.arrays)
        return frozenset(p % count for p in self.op.static_inputs) if count else frozenset()


def classes() -> list[type[Op]]:
    """Every op class of the package, by name."""
    found = [c for c in REGISTRY.values() if c.__module__.startswith("tinyflow.")]
    return sorted(found, key=lambda c: c.__name__)


def samples_of(op_class: type[Op]) -> Iterator[Sample]:
    """The class's samples. ``samples`` is a description of the class: it reads no attributes."""
    rng = np.random.default_rng(zlib.crc32(op_class.__name__.encode()))
    for sample in op_class.samples(object.__new__(op_class), rng):
        yield sample if isinstance(sample, Sample) else Sample(tuple(sample))


def bad_samples_of(op_class: type[Op]) -> Iterator[tuple[Sample, type[Exception]]]:
    for sample, error in op_class.bad_samples(object.__new__(op_class)):
        yield (sample if isinstance(sample, Sample) else Sample(tuple(sample))), error


def widened(part: Any) -> Any:
    """float32 types among an op's attributes as float64."""
    if isinstance(part, TensorType):
        return part.with_dtype(float64) if part.dtype is float32 else part
    if isinstance(part, VariableRef):
        return VariableRef(part.name, widened(part.type), part.source, part.trainable)
    if isinstance(part, tuple):
        return tuple(map(widened, part))
    return part


def _wide_op(op: Op) -> Op:
    changed = {k: widened(v) for k, v in op.attributes.items() if widened(v) is not v}
    return dataclasses.replace(op, **changed) if changed else op  # type: ignore[type-var]


@functools.cache
def cases() -> tuple[Case, ...]:
    """All cases in a fixed order: ids end in f32 or f64, or int where no float is involved."""
    found: list[Case] = []
    for op_class in classes():
        for n, sample in enumerate(samples_of(op_class)):
            op = op_class() if sample.op is None else sample.op
            arrays = tuple(np.asarray(a) for a in sample.arrays)
            floating = any(a.dtype == np.float32 for a in arrays) or isinstance(op, StateOp)
            label = f"{op_class.__name__}-{n}"
            found.append(Case(f"{label}-{'f32' if floating else 'int'}", op, arrays, sample))
            if floating:
                wide = tuple(a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays)
                found.append(Case(f"{label}-f64", _wide_op(op), wide, sample))
    return tuple(found)


def graph_of(case: Case, role: str = "argument") -> tuple[Function, list[np.ndarray]]:
    """The op as a function, and the arrays of its inputs.

    Inputs that must be known when the step is compiled are constants, and folded into attributes.
    """
    builder = Builder()
    inputs: list[Value] = []
    arrays: list[np.ndarray] = []
    arguments: list[Value] = []
    with building(builder):
        for position, (array, type_) in enumerate(zip(case.arrays, case.types)):
            if position in case.static_inputs:
                arguments.append(builder.constant(array, None, None))
                continue
            value = builder.emit(Input(type_, role, f"{role}{position}"), (), f"x{position}")
            inputs.append(value)
            arguments.append(value)
            arrays.append(array)
        outputs = result_values(builder.emit(case.op, tuple(arguments), case.id))
    fn = Function(case.id, inputs, list(outputs))
    if case.static_inputs and is_pure(case.op):
        fn = specialize(functionalize(fn.outputs, (), inputs), [v.type for v in inputs])
    return fn, arrays


def reference_results(op: Op, arrays: Any) -> list[np.ndarray]:
    """The op's meaning in NumPy, as a list."""
    with np.errstate(all="ignore"):
        result = interp.apply(op, list(arrays))
    results = result if isinstance(result, (tuple, list)) else (result,)
    return [np.asarray(r) for r in results]


def expected_results(case: Case) -> list[np.ndarray]:
    """Reference results; float32 ones computed in float64 and rounded once."""
    own = reference_results(case.op, case.arrays)
    if not case.id.endswith("f32"):
        return own
    try:
        wide_arrays = [a.astype(np.float64) if a.dtype == np.float32 else a for a in case.arrays]
        wide = reference_results(_wide_op(case.op), wide_arrays)
    except Exception:
        return own
    return [
        w.astype(o.dtype) if o.dtype == np.float32 and w.dtype == np.float64 else o
        for o, w in zip(own, wide)
    ]


def is_pure(op: Op) -> bool:
    """Whether arrays in, arrays out is all there is to the op."""
    return op.effect is Effect.NONE


def pick(chosen: list[Case], first: int) -> list[Case]:
    """The first few cases of each op and dtype: a fixed selection for the default run."""
    kept, seen = [], {}
    for case in chosen:
        name, _, kind = case.id.split("-")
        seen[name, kind] = seen.get((name, kind), 0) + 1
        if seen[name, kind] <= first:
            kept.append(case)
    return kept


def ids(chosen: list[Case]) -> list[str]:
    return [c.id for c in chosen]


__all__ = [
    "NO_SAMPLES", "Case", "bad_samples_of", "cases", "classes", "expected_results", "graph_of",
    "ids", "is_pure", "pick", "reference_results", "samples_of", "tinyflow", "widened",
]  # fmt: skip
