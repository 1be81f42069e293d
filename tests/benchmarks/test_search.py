"""The race of the autotuner's strategies runs, and compares what it says it compares."""

from __future__ import annotations

import pytest

from benchmarks import search
from tinyflow import ops
from tinyflow.schedule import tuning
from tinyflow.tune import space
from tinyflow.tune.cost_model import CostModel


@pytest.mark.parametrize("blind", [False, True])
def test_a_race_knows_something_at_every_checkpoint(blind, monkeypatch):
    monkeypatch.setattr(space, "choices", space.choices)
    if blind:
        search.forget_defaults()
    workload = search.workload_of(ops.matmul, (32, 48), (48, 40))
    with tuning.log_at(None):
        found = search.race(workload, ["model", "beam"], 2, 0, CostModel(), blind)
        assert set(found) == {("model", 2), ("beam", 2)}
        if blind:
            assert all(chosen.rows and chosen.form for chosen in found.values())
        ratios = search.compared(workload, set(found.values()))
    assert ratios[workload.kind()] == 1.0
    assert set(found.values()) <= set(ratios) and min(ratios.values()) > 0


def test_checkpoints_end_with_the_last_measurement():
    assert search.checkpoints(40) == [8, 16, 32, 40]
    assert search.checkpoints(16) == [8, 16]
