"""The table of default and tuned schedules: every kernel has a row, and a row says what it says."""

from __future__ import annotations

import re
from types import SimpleNamespace

import pytest

from benchmarks import tuned
from tinyflow.schedule.tuning import ContractionTuning


def rows():
    section = tuned._SECTION.search(tuned.PAGE.read_text(encoding="utf-8"))
    assert section is not None
    return section[2].splitlines()


def test_the_page_has_all_kernels_and_their_summary():
    lines = rows()
    assert [re.split(r" \| ", line[2:])[0] for line in lines[2:-2]] == list(tuned.KERNELS)
    assert len(tuned.KERNELS) == 10
    assert lines[-1].startswith(tuned.summary(lines[:-2]).partition(" One thread")[0])


@pytest.mark.parametrize(
    "ratio, after, schedule", [(0.5, "50.0", "rows=4"), (1.1, "100.0", "default")]
)
def test_what_loses_the_last_comparison_is_not_counted(monkeypatch, ratio, after, schedule):
    chosen = ContractionTuning(rows=4)
    found = SimpleNamespace(tuning=chosen, default_s=1e-4, tried=7)
    monkeypatch.setattr(tuned, "tune", lambda workload, seconds, model: found)
    monkeypatch.setattr(tuned, "compared", lambda workload, tunings: {chosen: ratio})
    line = tuned.row("k", SimpleNamespace(kind=ContractionTuning), 1.0, {})
    gain = "2.00" if ratio < 1 else "1.00"
    assert line == f"| k | 100.0 | {after} | {gain} | 7 | {schedule} |"
