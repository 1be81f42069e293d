"""Transforms of short lines against NumPy's FFT, and products of spectra against polynomials."""

from __future__ import annotations

import numpy as np
import pytest

from tinyflow.core.dtype import as_dtype
from tinyflow.ir.scalar import nodes as scalar
from tinyflow.ir.scalar.interp import evaluate_all
from tinyflow.ops import fourier

LENGTHS = [2, 4, 6, 8, 10, 12, 14, 16, 20, 24, 30, 32, 48, 64]


def run(make, values):
    """The expressions that ``make`` builds of float64 variables, at ``values``."""
    names = [scalar.var(f"x{n}", as_dtype("float64")) for n in range(len(values))]
    found = make(names)
    return np.array(evaluate_all(found, {n: np.float64(v) for n, v in zip(names, values)}))


def wanted(x):
    """The odd frequencies 4 s + 1 over 2 T by NumPy: of a rotated line, every second one."""
    turned = np.fft.fft(x * np.exp(-1j * np.pi * np.arange(x.size) / x.size))[::2]
    return np.concatenate([turned.real, turned.imag])


@pytest.mark.parametrize("points", LENGTHS)
def test_a_spectrum_is_numpys_at_odd_frequencies(points):
    x = np.random.default_rng(points).normal(size=points)
    got = run(lambda v: fourier.spectrum(v, points), x)
    np.testing.assert_allclose(got, wanted(x), atol=1e-14 * points)
    np.testing.assert_allclose(fourier.spectrum_matrix(points) @ x, wanted(x), atol=1e-14 * points)
    taken = points // 2 + 1  # what is missing is zero
    got = run(lambda v: fourier.spectrum(v, points), x[:taken])
    padded = np.pad(x[:taken], (0, points - taken))
    np.testing.assert_allclose(got, wanted(padded), atol=1e-14 * points)


@pytest.mark.parametrize("points", LENGTHS)
def test_samples_come_back(points):
    x = np.random.default_rng(points).normal(size=points)
    count = points // 2 + 1
    got = run(lambda v: fourier.samples(v, points, count), wanted(x))
    np.testing.assert_allclose(got * 2 / points, x[-count:], atol=1e-14 * points)


def test_a_transform_takes_far_fewer_operations_than_a_matrix():
    for points, most in ((16, 110), (32, 320), (64, 800)):
        values = [scalar.var(f"x{n}", as_dtype("float32")) for n in range(points)]
        seen, pending = set(), list(fourier.spectrum(values, points))
        while pending:
            node = pending.pop()
            if node not in seen and node.op not in ("var", "const"):
                seen.add(node)
                pending += node.args
        assert len(seen) <= most < points**2


def test_products_of_factors_are_products_of_complex_numbers():
    rng = np.random.default_rng(0)
    (a, b), (c, d) = rng.normal(size=(2, 2))
    left, right = fourier.left_factors([a, b]), fourier.right_factors([c, d], 1.0)
    got = fourier.product_parts([p * q for p, q in zip(left, right, strict=True)])
    np.testing.assert_allclose(complex(*got), complex(a, b) * complex(c, d))
    # Two axes: a product of polynomials in two variables, modulo z**T + 1 in each.
    x, w = rng.normal(size=(2, 4, 6))
    full = np.zeros((8, 12))
    for (i, j), value in np.ndenumerate(w):
        full[i : i + 4, j : j + 6] += value * x
    product = full[:4, :6] - full[4:, :6] - full[:4, 6:] + full[4:, 6:]
    m, n = fourier.spectrum_matrix(4), fourier.spectrum_matrix(6)

    def parts(array):
        spectrum = m @ array @ n.T
        return [spectrum[i : i + 2, j : j + 3] for i in (0, 2) for j in (0, 3)]

    scale = 2 / product.size
    factors = zip(fourier.left_factors(parts(x)), fourier.right_factors(parts(w), scale),
                  strict=True)  # fmt: skip
    rr, ri, ir, ii = fourier.product_parts([p * q for p, q in factors])
    spectrum = np.block([[rr, ri], [ir, ii]])
    np.testing.assert_allclose(m.T @ spectrum @ n, product, atol=1e-13)
