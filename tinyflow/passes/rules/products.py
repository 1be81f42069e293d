# mypy: disable-error-code="misc, override"
"""Matrix products: the order of a chain by cost, transposed factors of batches.

Main name: ``RULES``. May import core, ir.graph, ops and rewrite.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tinyflow.ir.graph.builder import emit
from tinyflow.ir.graph.nodes import Value
from tinyflow.ops import contraction, movement
from tinyflow.ops.contraction import BatchMatMul, MatMul
from tinyflow.ops.movement import Transpose
from tinyflow.passes.rules.layout import with_holes, without_transpose
from tinyflow.passes.rules.pieces import RuleOfNode
from tinyflow.rewrite.rule import Bitwise, Finite, Match, Rule

#: Finding the best order takes the cube of the number of factors.
MOST_FACTORS = 24


class TransposeIntoBatchMatMul(Rule):
    """matmul(transpose(x), y) -> matmul(x, y, adj_x=not adj_x) for batches, the same for y

    Why: the kernel packs its operands anyway, so it reads the transposed one for free.
    """

    contract = Bitwise
    shared = True

    def example(x="float32[4, 2, 5]", y="float32[4, 2, 3]"):  # type: ignore[no-untyped-def]
        return contraction.matmul(movement.transpose(x, (0, 2, 1)), y)

    def pattern(x, y, perm, a, b):  # type: ignore[no-untyped-def]
        matmul = with_holes(BatchMatMul, x, y, adj_a=a, adj_b=b).op
        turned = emit(Transpose(perm), x)
        return [emit(matmul, turned, y), emit(matmul, y, turned)]

    def check(m: Match) -> str | None:
        rank = len(m.x.type.shape)
        swap = (*range(rank - 2), rank - 1, rank - 2)
        return None if Transpose(m.perm).axes(rank) == swap else ""

    def rewrite(m: Match) -> Any:
        return without_transpose(m, "adj_a", "adj_b")


class Factor(NamedTuple):
    """A matrix of a product; flip: it enters transposed."""

    value: Value
    flip: bool

    @property
    def extents(self) -> Any:
        shape = self.value.type.shape
        assert shape is not None
        return shape[::-1] if self.flip else shape


def factors_of(m: Match) -> tuple[list[Factor], int]:
    """The chain of factors that the root multiplies, and the multiplications it takes as written.

    Products inside of it are opened where nothing else reads them.
    """
    found: list[Factor] = []
    written = 0
    stack = [Factor(m.root, False)]
    while stack:
        factor = stack.pop()
        value, flip = factor
        node = value.node
        opened = value is m.root or (
            isinstance(node.op, MatMul) and m.uses(value) == 1 and not node.control_inputs
        )
        if not opened:
            found.append(factor)
            continue
        op: Any = node.op
        parts = [Factor(node.inputs[0], op.transpose_a), Factor(node.inputs[1], op.transpose_b)]
        rows, inner = parts[0].extents
        written += rows * inner * parts[1].extents[1] if _is_known(parts) else 0
        if flip:  # (a b)^T = b^T a^T
            parts = [Factor(part.value, not part.flip) for part in reversed(parts)]
        stack += reversed(parts)
    return found, written


def _is_known(parts: list[Factor]) -> bool:
    return all(type(n) is int for part in parts for n in part.extents)


def best_order(factors: list[Factor]) -> tuple[int, dict[tuple[int, int], int]]:
    """Fewest multiplications, and for each stretch of factors [i, j) where its last product is.

    Source: Cormen et al., Introduction to Algorithms, section 15.2 (matrix-chain multiplication)
    """
    extents = [factors[0].extents[0], *(f.extents[1] for f in factors)]
    count = len(factors)
    cost = {(i, i + 1): 0 for i in range(count)}
    split: dict[tuple[int, int], int] = {}
    for length in range(2, count + 1):
        for i in range(count - length + 1):
            j = i + length
            cost[i, j], split[i, j] = min(
                (cost[i, k] + cost[k, j] + extents[i] * extents[k] * extents[j], k)
                for k in range(i + 1, j)
            )
    return cost[0, count], split


def _check_chain(m: Match) -> str | None:
    factors, written = factors_of(m)
    if not 3 <= len(factors) <= MOST_FACTORS or not _is_known(factors):
        return ""
    return None if best_order(factors)[0] < written else ""


def _reorder(m: Match) -> Any:
    factors, _ = factors_of(m)
    split = best_order(factors)[1]

    def product(i: int, j: int) -> Factor:
        """Recurses at most MOST_FACTORS deep."""
        if j - i == 1:
            return factors[i]
        left, right = product(i, split[i, j]), product(split[i, j], j)
        return Factor(emit(MatMul(left.flip, right.flip), left.value, right.value), False)

    return product(0, len(factors)).value


class MatrixChain(RuleOfNode):
    """(a b) c -> a (b c), where that takes fewer multiplications, for chains of any length

    Why: (A B) x costs n**3, A (B x) 2 n**2.
    Not below the third level: another order may overflow in between.
    """

    contract = Finite
    root = MatMul

    def example(a="float32[7, 5]", b="float32[5, 6]", c="float32[6, 1]"):  # type: ignore[no-untyped-def]
        return contraction.matmul(contraction.matmul(a, b), c)

    check = staticmethod(_check_chain)
    rewrite = staticmethod(_reorder)


class IntegerMatrixChain(RuleOfNode):
    """(a b) c -> a (b c) for integers, where that takes fewer multiplications

    Why at any level: sums and products that wrap associate exactly.
    """

    contract = Bitwise
    root = MatMul

    def example(a="int32[7, 5]", b="int32[5, 6]", c="int32[6, 1]"):  # type: ignore[no-untyped-def]
        return contraction.matmul(contraction.matmul(a, b), c)

    def check(m: Match) -> str | None:
        return _check_chain(m) if m.root.dtype.is_integer else ""

    rewrite = staticmethod(_reorder)


RULES: list[Any] = [TransposeIntoBatchMatMul, IntegerMatrixChain, MatrixChain]
