"""Ops between a value in memory and what reads it: kernels are never joined across them.

Main types: ``Stored``, ``Again``. May import core, ir.graph.builder, ops.convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinyflow.ir.graph.builder import emit
from tinyflow.ops.convert import Identity


@dataclass(frozen=True)
class Stored(Identity):
    """y = x, the same memory; kernels are never joined across it, so x is there as a whole.

    x: any dtype    Gradient: dx = dy
    """

    onnx = None
    #: readers find the value in memory; see fusion.items.opaque_kind
    is_barrier: ClassVar[bool] = True


def stored(x: Any, name: str | None = None) -> Any:
    """``x``, which no reader computes by itself. See Stored."""
    return emit(Stored(), x, name=name)


@dataclass(frozen=True)
class Again(Stored):
    """y = x, the same memory, in a copy of what is computed from x.

    x: any dtype    Gradient: dx = dy
    ``passes.rematerialize`` puts one between a value that is kept and what is computed again from
    it. Its control inputs say what must be done before: the copy starts late, not at once.
    """


def again(x: Any, name: str | None = None) -> Any:
    """``x``, behind which everything is computed by kernels of its own. See Again."""
    return emit(Again(), x, name=name)
