import numpy as np
import pytest

from tinyflow.ir.loop.verify import verify
from tinyflow.runtime.arena import aligned_empty
from tinyflow.schedule.targets import host_target
from tinyflow.tools import machine_peak
from tinyflow.tools.machine_peak import Peaks

PEAKS = Peaks(
    fma_gflops={1: 100.0, 2: 180.0},
    triad_gbs={1: ((1 << 10, 300.0), (1 << 20, 50.0), (1 << 26, 60.0)), 2: ((1 << 20, 90.0),)},
    copy_gbs={1: 20.0, 2: 25.0},
)


def test_bandwidth_is_that_of_arrays_as_large_or_larger():
    assert PEAKS.threads == 2
    assert PEAKS.bandwidth(500, 1) == 300.0
    assert PEAKS.bandwidth(1 << 11, 1) == 60.0  # noise made the middle one slower than the last
    assert PEAKS.bandwidth(1 << 30, 1) == 60.0
    assert PEAKS.bandwidth(1 << 30, 2) == 90.0


def test_the_slower_limit_decides():
    assert PEAKS.seconds(10**9, 100, parallel=False) == (pytest.approx(0.01), "fma")
    assert PEAKS.seconds(10**9, 100, parallel=False, element_bytes=8)[0] == pytest.approx(0.02)
    assert PEAKS.seconds(10, 9 * 10**7, parallel=True) == (pytest.approx(1e-3), "memory")


@pytest.mark.parametrize("inputs", [1, 2])
def test_the_stream_kernels_copy_and_add(inputs):
    lanes = host_target().lanes
    kernel = machine_peak.stream_kernel(lanes, inputs)
    verify(kernel)
    step, tasks, blocks = 4 * lanes, 2, 3
    arrays = [aligned_empty((tasks * blocks * step,), np.dtype("f4")) for _ in range(inputs + 1)]
    for n, array in enumerate(arrays):
        array[...] = np.arange(array.size) + n
    machine_peak._launcher(kernel, arrays, (tasks, blocks, 2), tasks)()
    wanted = arrays[0] if inputs == 1 else 3 * arrays[0] + arrays[1]
    np.testing.assert_array_equal(arrays[-1], wanted)


def test_the_fma_kernel_does_the_operations_it_counts():
    lanes = host_target().lanes
    kernel, operations = machine_peak.fma_kernel(lanes, 16, rounds=3)
    verify(kernel)
    chains = 12
    assert operations == 2 * chains * lanes * 3
    x, y = (aligned_empty((n,), np.dtype("f4")) for n in (lanes, 2 * lanes))
    x[...] = np.arange(lanes)
    machine_peak._launcher(kernel, [x, y], (2,), 2)()
    once = x * 0.125 + 0.4375  # three times acc * 0.5 + 0.25
    np.testing.assert_allclose(y, np.tile(once * chains, 2), rtol=1e-6)


def test_peaks_are_measured_once_and_remembered(monkeypatch):
    first = machine_peak.machine_peaks()
    assert all(rate > 0 for rate in first.fma_gflops.values())
    assert all(rate > 0 for curve in first.triad_gbs.values() for _, rate in curve)
    assert set(first.copy_gbs) == set(first.fma_gflops) == set(first.triad_gbs)
    monkeypatch.setattr(machine_peak, "measure", lambda: pytest.fail("measured twice"))
    assert machine_peak.machine_peaks() == first


def test_measuring_again_never_lowers_a_limit(monkeypatch):
    first = machine_peak.machine_peaks()
    slow = Peaks(
        dict.fromkeys(first.fma_gflops, 1000000000.0),
        {n: tuple((at, 0.0) for at, _ in curve) for n, curve in first.triad_gbs.items()},
        dict.fromkeys(first.copy_gbs, 0.0),
    )
    monkeypatch.setattr(machine_peak, "measure", lambda: slow)
    both = machine_peak.machine_peaks(remeasure=True)
    assert both == Peaks(slow.fma_gflops, first.triad_gbs, first.copy_gbs)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"fma_gflops": 3}', "\x00"])
def test_a_damaged_file_is_measured_anew(content):
    with open(machine_peak._path(), "w") as file:
        file.write(content)
    assert machine_peak.machine_peaks().fma_gflops
