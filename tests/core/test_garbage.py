"""The cycle collector rests in blocks and functions, and comes back as it was."""

import gc

import pytest

from tinyflow.core.garbage import collections_paused, without_collections


@pytest.fixture(autouse=True)
def collector():
    was = gc.isenabled()
    gc.enable()
    yield
    (gc.enable if was else gc.disable)()


def test_blocks_nest_and_the_outermost_one_ends_the_pause():
    with collections_paused():
        with collections_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_ends_the_pause():
    @without_collections
    def fails():
        assert not gc.isenabled()
        raise KeyError("x")

    with pytest.raises(KeyError):
        fails()
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off():
    gc.disable()
    with collections_paused():
        pass
    assert not gc.isenabled()
