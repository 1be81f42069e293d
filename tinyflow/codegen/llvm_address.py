"""From indices to addresses and to comparisons of lanes with a bound.

Main type: ``AddressWriter``. Imports core, ir.scalar and ir.loop.

An index is a polynomial: terms without the lane variable form a pointer, level by level, constants
come last as a displacement, and the lane variable's coefficient is the stride between lanes.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tinyflow.codegen import affine
from tinyflow.codegen.affine import ONE, Monomial, Polynomial, Polynomials
from tinyflow.codegen.llvm_expr import ExpressionWriter
from tinyflow.codegen.llvm_text import lane_numbers, memory_type, type_name
from tinyflow.codegen.writer import Value
from tinyflow.core.dtype import int64
from tinyflow.ir.loop.nodes import Buffer
from tinyflow.ir.scalar import nodes as s
from tinyflow.ir.scalar.nodes import Expr
from tinyflow.ir.scalar.visit import substitute

Terms = tuple[tuple[Monomial, int], ...]


class Access(NamedTuple):
    """An element number: sum(terms) + offset + stride * lane + vector terms.

    terms: without the lane variable.   stride: the lane variable's constant coefficient.
    vector: everything else that depends on the lane variable.
    """

    terms: Terms
    offset: int
    stride: int
    vector: Terms


#: An access without unrolled variables; terms of those to add, or the polynomial to split again.
_Plan = tuple[Access, list[tuple[int, Monomial]] | Polynomial | None]


class AddressWriter(ExpressionWriter):
    """Polynomials of indices, pointers, lane comparisons."""

    def __init__(self) -> None:
        super().__init__()
        self.polynomials = Polynomials()
        self.bindings: dict[Expr, int] = {}  # unrolled variables and their values
        self.bound_bits = 0
        self.lane_bit = 0
        self.bases: dict[Buffer, Value] = {}
        self.plans: dict[tuple[Buffer, tuple[Expr, ...]], _Plan] = {}
        self.plan_tables: dict[tuple[Expr | None, int], dict[Any, _Plan]] = {(None, 0): self.plans}

    # --- from indices to accesses -----------------------------------------------------------------

    def access(self, buffer: Buffer, indices: tuple[Expr, ...]) -> Access:
        key = (buffer, indices)
        plan = self.plans.get(key)
        if plan is None:
            plan = self.plans[key] = self.plan(self.polynomials.flattened(buffer, indices))
        access, bound = plan
        if bound is None:
            return access
        if isinstance(bound, dict):
            return self.split(bound)
        offset, bindings = access.offset, self.bindings
        for c, variables in bound:
            for var in variables:
                c *= bindings[var]
            offset += c
        return Access(access.terms, offset, access.stride, ())

    def use_plans(self, lane: Expr | None, lanes: int) -> None:
        """What an index means depends on which variable is the lane; unrolled loops ask often."""
        self.plans = self.plan_tables.setdefault((lane, lanes), {})

    def plan(self, polynomial: Polynomial) -> _Plan:
        """The access, and what unrolled variables add to it: nothing, a number, or everything."""
        free: Polynomial = {}
        bound: list[tuple[int, Monomial]] = []
        for monomial, c in polynomial.items():
            if monomial and all(atom in self.bindings for atom in monomial):
                bound.append((c, monomial))
                continue
            for atom in monomial:
                if self.describe(atom).variables & self.bound_bits:
                    return Access((), 0, 0, ()), polynomial
            free[monomial] = c
        access = self.split(free)
        if bound and access.vector:
            return access, polynomial
        return access, bound or None

    def split(self, polynomial: Polynomial) -> Access:
        """Constants of unrolled variables put in, terms sorted by how they depend on the lane."""
        special = self.bound_bits | self.lane_bit
        facts = self.facts
        offset, terms = 0, {}
        expanded: Polynomial = {}
        for monomial, c in polynomial.items():
            bits = 0
            for atom in monomial:
                known = facts.get(atom)
                bits |= (known or self.describe(atom)).variables
            if not bits & special:
                if monomial:
                    terms[monomial] = c
                else:
                    offset += c
            else:
                expanded = affine.add(expanded, self.expand(monomial, c))
        if not expanded:
            return Access(tuple(terms.items()), offset, 0, ())
        stride, vector = 0, []
        for monomial, c in expanded.items():
            if monomial == ONE:
                offset += c
            elif monomial == (self.lane,):
                stride = c
            elif any(self.describe(atom).variables & self.lane_bit for atom in monomial):
                vector.append((monomial, c))
            else:
                total = terms.get(monomial, 0) + c
                terms[monomial] = total
        return Access(tuple(t for t in terms.items() if t[1]), offset, stride, tuple(vector))

    def expand(self, monomial: Monomial, c: int) -> Polynomial:
        """A monomial with the values of unrolled variables."""
        out: Polynomial = {ONE: c}
        for atom in monomial:
            value = self.bindings.get(atom)
            if value is not None:
                factor: Polynomial = {ONE: value} if value else {}
            else:
                factor = self.expand_atom(atom)
            out = self.polynomials.multiply(out, factor)
        return out

    def expand_atom(self, atom: Expr) -> Polynomial:
        bits = self.describe(atom).variables
        if atom.op != "var" and bits & self.bound_bits:
            constants = {v: s.index(n) for v, n in self.bindings.items()}
            out: Polynomial = {}
            for monomial, c in self.polynomials.of(substitute(atom, constants)).items():
                out = affine.add(out, self.expand(monomial, c))
            return out
        if atom.op in ("floordiv", "mod") and bits & self.lane_bit:
            return self.split_quotient(atom)
        return {(atom,): 1}

    def split_quotient(self, atom: Expr) -> Polynomial:
        """(base + lane) // c is base // c where all lanes fall between two multiples of c."""
        whole: Polynomial = {(atom,): 1}
        divisor = atom.args[1]
        lane = self.lane
        if divisor.op != "const" or divisor.attr <= 0 or lane is None:
            return whole
        numerator = self.polynomials.of(atom.args[0])
        if numerator.get((lane,)) != 1:
            return whole
        common = divisor.attr
        for monomial, c in numerator.items():
            if monomial not in (ONE, (lane,)):
                common = math.gcd(common, c)
                if any(self.describe(a).variables & self.lane_bit for a in monomial):
                    return whole
        if numerator.get(ONE, 0) % common + self.lanes > common:
            return whole
        first = substitute(atom.args[0], {lane: s.index(0)})
        if atom.op == "floordiv":
            return self.polynomials.of(s.floordiv(first, divisor))
        return affine.add(self.polynomials.of(s.mod(first, divisor)), {(lane,): 1})

    # --- address arithmetic: index arithmetic does not wrap, hence nsw ----------------------------

    def is_stable(self, atoms: Monomial) -> bool:
        """Whether the value is the same wherever it is known, so that a key of its own is safe."""
        for atom in atoms:
            facts = self.describe(atom)
            if facts.reads or (facts.effects and self.mask is not None):
                return False
        return True

    def monomial(self, monomial: Monomial, c: int) -> Value:
        """c * product of the atoms; scalar or vector."""
        key = (monomial, c)
        found = self.memo.get(key)
        if found is not None:
            return found
        parts = sorted([self.value(atom) for atom in monomial], key=lambda v: v[2])
        ref, lanes, level = parts[0]
        for other in parts[1:]:
            wide = lanes or other[1]
            x, y = self.spread((ref, lanes, level), int64, wide), self.spread(other, int64, wide)
            lanes, level = wide, max(level, other[2])
            ref = self.emit(level, f"mul nsw {type_name(int64, lanes)} {x}, {y}")
        if c != 1:
            factor = f"splat (i64 {c})" if lanes else str(c)
            ref = self.emit(level, f"mul nsw {type_name(int64, lanes)} {ref}, {factor}")
        if self.is_stable(monomial):
            return self.remember(key, (ref, lanes, level))
        return ref, lanes, level

    def sum_of(self, values: list[Value]) -> Value:
        ref, lanes, level = values[0]
        for other in values[1:]:
            key = ("sum", ref, other[0])
            found = self.memo.get(key)
            if found is None:
                wide = lanes or other[1]
                x = self.spread((ref, lanes, level), int64, wide)
                y = self.spread(other, int64, wide)
                level = max(level, other[2])
                text = self.emit(level, f"add nsw {type_name(int64, wide)} {x}, {y}")
                found = self.remember(key, (text, wide, level))
            ref, lanes, level = found
        return ref, lanes, level

    def index_value(self, access: Access) -> Value:
        """The scalar part of an access as one number."""
        values = [self.monomial(m, c) for m, c in access.terms]
        values.sort(key=lambda v: v[2])
        if access.offset or not values:
            values.append((str(access.offset), 0, 0))
        return self.sum_of(values)

    def pointer(self, buffer: Buffer, terms: Terms, offset: int) -> Value:
        """Address of element sum(terms) + offset, one step per level of the loop nest."""
        key = ("pointer", buffer, terms)
        found = self.memo.get(key)
        if found is None:
            found = self.pointer_of_terms(buffer, terms)
            if all(self.is_stable(m) for m, _ in terms):
                self.remember(key, found)
        if offset == 0:
            return found
        return self.displaced(found, memory_type(buffer.dtype), str(offset), 0)

    def pointer_of_terms(self, buffer: Buffer, terms: Terms) -> Value:
        address = self.bases[buffer]
        groups: dict[int, list[Value]] = {}
        for monomial, c in terms:
            part = self.monomial(monomial, c)
            groups.setdefault(part[2], []).append(part)
        for level in sorted(groups):
            index = self.sum_of(groups[level])
            address = self.displaced(address, memory_type(buffer.dtype), index[0], index[2])
        return address

    def displaced(self, address: Value, element: str, index: str, level: int) -> Value:
        key = ("gep", address[0], index, element)
        found = self.memo.get(key)
        if found is None:
            level = max(level, address[2])
            text = f"getelementptr inbounds {element}, ptr {address[0]}, i64 {index}"
            found = self.remember(key, (self.emit(level, text), 0, level))
        return found

    def lane_pointers(self, buffer: Buffer, access: Access) -> Value:
        """A vector of addresses."""
        address = self.pointer(buffer, access.terms, access.offset)
        lanes, element = self.lanes, memory_type(buffer.dtype)
        if not access.vector:
            # 32-bit offsets let x86 gather twice as many elements per instruction.
            numbers = lane_numbers("i32", lanes, 0, access.stride)
            offsets: Value = (f"<{lanes} x i32> {numbers}", lanes, 0)
        else:
            parts = [self.monomial(m, c) for m, c in access.vector]
            if access.stride:
                parts.append((lane_numbers("i64", lanes, 0, access.stride), lanes, 0))
            total = self.sum_of(parts)
            offsets = (f"<{lanes} x i64> {self.spread(total, int64, lanes)}", lanes, total[2])
        # In the block of its use, where instruction selection finds base and 32-bit offsets.
        level = self.level
        text = f"getelementptr inbounds {element}, ptr {address[0]}, {offsets[0]}"
        return self.emit(level, text), lanes, level

    # --- comparisons of indices with a bound ------------------------------------------------------

    def lane_limit(self, expr: Expr) -> tuple[Value, bool] | None:
        """``lane op limit`` (True) or ``limit op lane`` (False) for an index comparison."""
        a, b = expr.args
        if a.dtype is not int64 or not self.describe(expr).variables & self.lane_bit:
            return None
        access = self.split(affine.add(self.polynomials.of(a), self.polynomials.of(b), -1))
        if access.vector or access.stride not in (1, -1):
            return None
        if access.stride == -1:  # base - lane < 0
            return self.index_value(access), False
        negated = tuple((m, -c) for m, c in access.terms)
        return self.index_value(Access(negated, -access.offset, 0, ())), True

    def lane_comparison(self, expr: Expr) -> Value | None:
        """base + lane < n as lane < n - base on 32-bit lanes: two cheap instructions."""
        found = self.lane_limit(expr)
        if found is None:
            return None
        (limit, _, level), lane_first = found
        lanes = self.lanes
        low = self.call_on(level, "smax", "i64", [limit, "-1"], "i64")
        both = self.call_on(level, "smin", "i64", [low, str(lanes)], "i64")
        narrow = self.emit(level, f"trunc i64 {both} to i32")
        bound = self.splat((narrow, 0, level), "i32", lanes)
        numbers = lane_numbers("i32", lanes)
        x, y = (numbers, bound) if lane_first else (bound, numbers)
        predicate = {"lt": "slt", "le": "sle"}.get(expr.op, expr.op)
        return self.emit(level, f"icmp {predicate} <{lanes} x i32> {x}, {y}"), lanes, level

    def every_lane(self, expr: Expr) -> Value | None:
        """Scalar: the condition holds in all lanes; None when that is not a cheap question."""
        if expr.op == "and":
            a = self.every_lane(expr.args[0])
            b = None if a is None else self.every_lane(expr.args[1])
            return None if a is None or b is None else self.conjunction(a, b)
        if not self.describe(expr).variables & self.lane_bit:
            found = self.value(expr)
            return None if found[1] else found
        if expr.op not in ("lt", "le"):
            return None
        comparison = self.lane_limit(expr)
        if comparison is None:
            return None
        (limit, _, level), lane_first = comparison
        # What holds for the last lane (or the first) holds for all.
        predicate = {"lt": "slt", "le": "sle"}[expr.op]
        x, y = (str(self.lanes - 1), limit) if lane_first else (limit, "0")
        return self.emit(level, f"icmp {predicate} i64 {x}, {y}"), 0, level
