"""Discrete Fourier transforms of short real lines, as scalar expressions.

Main functions: ``spectrum``, ``samples``, ``left_factors``, ``right_factors``, ``product_parts``.
Imports te.

The frequencies are odd: with N = T / 2, X[s] = sum over t < T of x[t] w**((4s + 1) t) for s < N and
w = exp(-i pi / T). These N complex numbers hold all of x, none of them is real by itself, and their
products are those of polynomials modulo z**T + 1: a filter of f taps moves over T elements as it
should, but for the first f - 1 results. Since w**T/2 = -i at all of them,
X = DFT_N((x[t] - i x[t + N]) w**t for t < N): N rotations and one transform of half the length.
A line's spectrum is stored as N real and then N imaginary parts. None stands for a zero that is
known beforehand. Complexity: O(T log T) operations where T has small factors.
Source: Nussbaumer, Fast Fourier Transform and Convolution Algorithms, 1982 (odd DFTs, real data)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from tinyflow import te

#: an expression (or, in references, an array), or None for zero
Term = Any
#: (real, imaginary)
Complex = tuple[Term, Term]


# ---- arithmetic with known zeros -----------------------------------------------------------------
def _plus(a: Term, b: Term) -> Term:
    return b if a is None else a if b is None else a + b


def _minus(a: Term, b: Term) -> Term:
    return (None if b is None else -b) if a is None else a if b is None else a - b


def _times(a: Term, factor: float) -> Term:
    return None if a is None else a * factor


def _added(total: Term, a: Term, factor: float) -> Term:
    """total + a * factor."""
    if a is None or total is None:
        return _plus(total, _times(a, factor))
    return te.fma(a, te.const(factor, a.dtype), total)


def _rotated(z: Complex, turn: float) -> Complex:
    """z * exp(2 pi i turn); quarters of a turn cost nothing."""
    (a, b), eighths = z, turn % 1 * 8
    if eighths == 0:
        return z
    if eighths == 2:
        return _minus(None, b), a
    if eighths == 4:
        return _minus(None, a), _minus(None, b)
    if eighths == 6:
        return b, _minus(None, a)
    c, s = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    return _added(_times(a, c), b, -s), _added(_times(a, s), b, c)


# ---- complex transforms of any length ------------------------------------------------------------
def _transformed(z: Sequence[Complex], sign: int) -> list[Complex]:
    """sum over t of z[t] exp(sign 2 pi i s t / N) for s < N = len(z), by the factors of N.

    Source: Cooley and Tukey, Math. Comp. 19, 1965
    """
    count = len(z)
    if count == 1:
        return list(z)
    prime = next(p for p in range(2, count + 1) if count % p == 0)
    parts = [_transformed(z[first::prime], sign) for first in range(prime)]
    found: list[Any] = [None] * count
    for s in range(count // prime):
        column = [_rotated(part[s], sign * first * s / count) for first, part in enumerate(parts)]
        found[s :: count // prime] = _butterfly(column, sign)
    return found


def _butterfly(z: list[Complex], sign: int) -> list[Complex]:
    """The transform of a prime length: x[t] and x[p - t] meet one cosine, and opposite sines."""
    first, prime = z[0], len(z)
    if prime == 2:
        return [_sum(z[0], z[1]), _difference(z[0], z[1])]
    pairs = [(_sum(z[t], z[-t]), _difference(z[t], z[-t])) for t in range(1, prime // 2 + 1)]
    found: list[Any] = [None] * prime
    total = first
    for both, _ in pairs:
        total = _sum(total, both)
    found[0] = total
    for s in range(1, prime // 2 + 1):
        even: Complex = first
        odd: Complex = (None, None)
        for t, (both, apart) in enumerate(pairs, 1):
            angle = sign * 2 * math.pi * s * t / prime
            c, d = math.cos(angle), math.sin(angle)
            even = _added(even[0], both[0], c), _added(even[1], both[1], c)
            odd = _added(odd[0], apart[0], d), _added(odd[1], apart[1], d)
        turned = _rotated(odd, 0.25)
        found[s], found[-s] = _sum(even, turned), _difference(even, turned)
    return found


def _sum(x: Complex, y: Complex) -> Complex:
    return _plus(x[0], y[0]), _plus(x[1], y[1])


def _difference(x: Complex, y: Complex) -> Complex:
    return _minus(x[0], y[0]), _minus(x[1], y[1])


# ---- real lines ----------------------------------------------------------------------------------
def spectrum(values: Sequence[Term], points: int) -> list[Term]:
    """X of ``points`` elements, of which those beyond ``values`` are zero."""
    half = points // 2
    x = [*values, *[None] * (points - len(values))]
    z = [_rotated((x[t], _minus(None, x[t + half])), -t / (2 * points)) for t in range(half)]
    found = _transformed(z, -1)
    return [re for re, _ in found] + [im for _, im in found]


def samples(parts: Sequence[Term], points: int, count: int) -> list[Term]:
    """x[points - count:] * points / 2, from its spectrum."""
    half = points // 2
    z = _transformed(list(zip(parts[:half], parts[half:], strict=True)), 1)
    turned = [_rotated(value, t / (2 * points)) for t, value in enumerate(z)]
    return [
        turned[t][0] if t < half else _minus(None, turned[t - half][1])
        for t in range(points - count, points)
    ]


def spectrum_matrix(points: int) -> Any:
    """float64[points, points], whose product with x is ``spectrum(x)``."""
    s, t = np.arange(points // 2)[:, None], np.arange(points)
    angles = np.pi / points * ((4 * s + 1) * t % (2 * points))  # a small angle is exact
    return np.concatenate([np.cos(angles), -np.sin(angles)])


# ---- products of spectra -------------------------------------------------------------------------
def _complex_of(parts: Sequence[Term]) -> list[Complex]:
    """The complex numbers that the parts of a spectrum hold.

    parts: of one axis (R, I); of two (RR, RI, IR, II), the first letter for the first axis. With
    i for the imaginary unit of the first axis and j for that of the second, j = i and j = -i give
    two numbers, from which the four parts follow.
    """
    if len(parts) == 2:
        return [(parts[0], parts[1])]
    rr, ri, ir, ii = parts
    return [(rr - ii, ri + ir), (rr + ii, ir - ri)]


def left_factors(parts: Sequence[Term]) -> list[Term]:
    """(a + b, a, b) of every a + i b: see ``product_parts``."""
    return [factor for a, b in _complex_of(parts) for factor in (a + b, a, b)]


def right_factors(parts: Sequence[Term], scale: float) -> list[Term]:
    """(c, d - c, c + d) of every c + i d, times ``scale``."""
    pairs = [(c * scale, d * scale) for c, d in _complex_of(parts)]
    return [factor for c, d in pairs for factor in (c, d - c, c + d)]


def product_parts(products: Sequence[Term]) -> list[Term]:
    """The parts of a product of spectra from the products of left and right factors; with two axes
    twice as large. For p = c (a + b), q = a (d - c) and r = b (c + d),
    (a + ib)(c + id) = (p - r) + i (p + q): three products instead of four (Gauss).
    """
    triples = [products[n : n + 3] for n in range(0, len(products), 3)]
    found = [(p - r, p + q) for p, q, r in triples]
    if len(found) == 1:
        return [*found[0]]
    (a, b), (c, d) = found
    return [a + c, b - d, b + d, c - a]
