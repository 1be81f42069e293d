"""Indices as polynomials, so that addresses split into loop-invariant parts and constants.

Main type: ``Polynomials``. Imports core, ir.scalar and ir.loop.

A polynomial is a dict from monomial to int; a monomial is a sorted tuple of atoms (variables and
whatever is not + - * : quotients, loads ...), () is the constant term. Index arithmetic does not
wrap, which is what makes the rewriting legal.
"""

from __future__ import annotations

from tinyflow.ir.loop.nodes import Buffer, Extent
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import postorder

Monomial = tuple[Expr, ...]
Polynomial = dict[Monomial, int]
ONE: Monomial = ()


def add(a: Polynomial, b: Polynomial, factor: int = 1) -> Polynomial:
    """a + factor * b"""
    out = dict(a)
    for monomial, c in b.items():
        _accumulate(out, monomial, c * factor)
    return out


def _accumulate(out: Polynomial, monomial: Monomial, c: int) -> None:
    """Adds c * monomial to ``out``, which never holds a coefficient of 0."""
    total = out.get(monomial, 0) + c
    if total:
        out[monomial] = total
    else:
        out.pop(monomial, None)


class Polynomials:
    """The polynomials of one kernel's indices, each computed once."""

    def __init__(self) -> None:
        self.known: dict[Expr, Polynomial] = {}
        self.order: dict[Expr, int] = {}  # atoms by first appearance: monomials are deterministic
        self.flat: dict[tuple[Buffer, tuple[Expr, ...]], Polynomial] = {}
        self.strides: dict[Buffer, list[Polynomial]] = {}

    def of(self, expr: Expr) -> Polynomial:
        known = self.known
        found = known.get(expr)
        if found is None:
            for node in postorder(expr):
                if node not in known:
                    known[node] = self._node(node)
            found = known[expr]
        return found

    def _node(self, node: Expr) -> Polynomial:
        op = node.op
        if op == "const":
            return {ONE: node.attr} if node.attr else {}
        if node.dtype.name == "int64":
            if op == "add":
                return add(self.known[node.args[0]], self.known[node.args[1]])
            if op == "sub":
                return add(self.known[node.args[0]], self.known[node.args[1]], -1)
            if op == "mul":
                return self.multiply(self.known[node.args[0]], self.known[node.args[1]])
            if op == "neg":
                return add({}, self.known[node.args[0]], -1)
        self.order.setdefault(node, len(self.order))
        return {(node,): 1}

    def multiply(self, a: Polynomial, b: Polynomial) -> Polynomial:
        out: Polynomial = {}
        for m, c in a.items():
            for n, d in b.items():
                if m and n:
                    product = tuple(sorted(m + n, key=self.order.__getitem__))
                else:
                    product = m or n
                _accumulate(out, product, c * d)
        return out

    def extent(self, extent: Extent) -> Polynomial:
        if isinstance(extent, Expr):
            return self.of(extent)
        return {ONE: extent} if extent else {}

    def flattened(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Polynomial:
        """The row-major element number of ``buffer[indices]``."""
        key = (buffer, indices)
        found = self.flat.get(key)
        if found is None:
            strides = self.strides.get(buffer)
            if strides is None:
                strides = self.strides[buffer] = self._strides(buffer)
            found = {}
            for index, stride in zip(indices, strides, strict=True):
                found = add(found, self.multiply(self.of(index), stride))
            self.flat[key] = found
        return found

    def _strides(self, buffer: Buffer) -> list[Polynomial]:
        strides: list[Polynomial] = []
        stride: Polynomial = {ONE: 1}
        for extent in reversed(buffer.shape):
            strides.insert(0, stride)
            stride = self.multiply(stride, self.extent(extent))
        return strides
