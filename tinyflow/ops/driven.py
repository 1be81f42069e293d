"""Loops and branches that Python drives: their sub-functions are steps of their own.

Main type: ``Driven``. May import ops.control, ops.host.

A loop runs like this where native code cannot run it as a whole: its body calls Python, or the
shapes of its variables differ from iteration to iteration. compile/driven.py runs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from tinyflow.ops.base import Op, TensorType
from tinyflow.ops.control import ControlOp, If, While
from tinyflow.ops.host import HostOp


@dataclass(frozen=True, eq=False)
class Driven(HostOp):
    """The results of ``control``, a loop or branch, with Python between its iterations.

    inputs, results: those of ``control``; a saved value of a loop is a list of rows, which may
    differ in shape and which only another driven loop reads    reason: why it is not native
    """

    control: ControlOp
    reason: str
    #: what follows can be compiled only when this has run (see compile/staged.py)
    tells_shapes: ClassVar[bool] = True
    not_differentiable = "it is made when a step is compiled, after gradients"

    def infer(self, *types: TensorType) -> Any:
        return self.control.infer(*types)

    def call_host(self, *arrays: Any) -> Any:
        """As the reference; compiled steps run the sub-functions instead."""
        return self.control.reference(*arrays)

    def samples(self, rng: np.random.Generator) -> Iterable[Any]:
        for kind in (While, If):
            sample: Any
            for sample in object.__new__(kind).samples(rng):
                yield replace(sample, op=Driven(sample.op, "a sample"))

    def bad_samples(self) -> Iterable[Any]:
        for kind in (While, If):
            sample: Any
            for sample, error in object.__new__(kind).bad_samples():
                yield replace(sample, op=Driven(sample.op, "a sample")), error


def native_or_driven(op: ControlOp) -> Op:
    """``op`` itself, or driven by Python if its sub-functions call Python."""
    calls = [node for fn in op.functions for node in fn.effects]
    if not calls:
        return op
    first = calls[0]
    called = first.op.control.type_name if isinstance(first.op, Driven) else first.op.type_name
    name = f" '{first.name}'" if first.name else ""
    return Driven(op, f"{called}{name} runs in Python")


__all__ = ["Driven", "native_or_driven"]
