"""Errors of the elementary functions as native code: sampled here, all inputs when asked for."""

from __future__ import annotations

import re

import numpy as np
import pytest

from benchmarks import ulp
from tinyflow.ir.scalar.math import EXPANSIONS

INF, NAN = np.inf, np.nan
LIMIT = 2.0  # ulp, what tinyflow/ir/scalar/math.py promises


def test_every_function_has_an_oracle_and_a_row():
    rows = re.findall(r"^\| `(\w+)` \| ([\d.]+) \|", ulp.PAGE.read_text(encoding="utf-8"), re.M)
    assert set(ulp.ORACLES) == set(EXPANSIONS) == {name for name, _ in rows}
    assert all(float(largest) <= LIMIT for _, largest in rows)


@pytest.mark.parametrize("name", ulp.ORACLES)
def test_sampled_inputs_are_within_two_ulp(name):
    found = ulp.measured(name, 2 * ulp.CHUNK)
    assert found.inputs == 2 * ulp.CHUNK
    assert 0.4 < found.ulp <= LIMIT, found
    assert found.rounded > 0.75, found


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in ulp.ORACLES if n not in ulp.PAIRS])
def test_all_inputs_are_within_two_ulp(name):
    found = ulp.measured(name, None)
    assert found.inputs == 1 << 32 and found.ulp <= LIMIT, found


def test_the_error_is_counted_in_the_last_place_of_the_exact_result():
    one, tiny, most = np.float32(1), np.float32(1e-45), np.finfo(np.float32).max
    cases = [  # result, exact, error
        (1.0, 1.0, 0), (1 + 2**-23, 1.0, 1), (1 - 2**-24, 1.0, 0.5), (1.0, 1 + 2**-25, 0.25),
        (0.0, float(tiny) * 3, 3), (-2.0, -2 + 2**-22, 2), (0.0, 0.0, 0), (-0.0, 0.0, 0),
        (INF, INF, 0), (INF, 1e39, 0), (-INF, INF, INF), (float(most), INF, INF), (INF, 1.0, INF),
        (NAN, NAN, 0), (NAN, 1.0, INF), (1.0, NAN, INF), (np.nextafter(one, 2), 1 + 2**-24, 0.5),
    ]  # fmt: skip
    y, exact, e = np.zeros(32, np.float32), np.zeros(32), np.full(32, NAN, np.float32)
    y[: len(cases)] = [c[0] for c in cases]
    exact[: len(cases)] = [c[1] for c in cases]
    ulp.error(32)(y, exact, e)
    np.testing.assert_array_equal(e[: len(cases)], [c[2] for c in cases])


def test_the_sweep_covers_every_bit_pattern(monkeypatch):
    for start in (0, (1 << 31) - ulp.CHUNK, (1 << 32) - ulp.CHUNK):
        bits = ulp.inputs_from(start).view(np.uint32)
        np.testing.assert_array_equal(bits, start + np.arange(ulp.CHUNK))
    monkeypatch.setattr(ulp, "inputs_from", lambda start: start)
    starts = [start for (start,) in ulp.all_inputs()]
    assert starts == list(range(0, 1 << 32, ulp.CHUNK))


def test_rows_are_renewed_in_place(tmp_path, capsys, monkeypatch):
    page = tmp_path / "page.md"
    page.write_text("| function |\n|---|\n| `exp` | 9 |\n| `tanh` | 9 |\n\nend\n")
    monkeypatch.setattr(ulp, "PAGE", page)
    assert ulp.main(["tanh", "--sample", "1000", "--write"]) == 0
    lines = page.read_text().splitlines()
    assert lines[2] == "| `exp` | 9 |" and lines[3].startswith("| `tanh` | 1.")
    assert lines[3] in capsys.readouterr().out
    with pytest.raises(SystemExit):
        ulp.main(["tahn"])
