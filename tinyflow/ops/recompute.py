"""The op that marks where a step computes a value again instead of keeping it.

Main class: ``Again``; main function: ``again``. May import core, ir.graph.builder, ops.convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from tinyflow.ir.graph.builder import emit
from tinyflow.ops.convert import Identity


@dataclass(frozen=True)
class Again(Identity):
    """y = x, the same memory; kernels are never joined across it.

    x: any dtype    Gradient: dx = dy
    ``passes.rematerialize`` puts one between a value that is kept and what is computed again from
    it. Its control inputs say what must be done before: the copy starts late, not at once.
    """

    onnx = None
    #: readers find the value in memory; see fusion.items.opaque_kind
    is_barrier: ClassVar[bool] = True


def again(x: Any, name: str | None = None) -> Any:
    """``x``, behind which everything is computed by kernels of its own. See Again."""
    return emit(Again(), x, name=name)
