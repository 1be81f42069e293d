"""The cycle collector rests in blocks and functions, and comes back as it was."""

import gc
import weakref

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


def test_what_was_made_is_old_and_can_be_collected():
    class Node:
        pass

    with collections_paused():
        node = Node()
        node.itself = node
        alive = weakref.ref(node)
        del node
    assert gc.get_freeze_count() == 0
    gc.collect(1)  # the young ones
    assert alive() is not None
    gc.collect()
    assert alive() is None


def test_what_the_user_froze_stays_frozen():
    gc.freeze()
    frozen = gc.get_freeze_count()
    try:
        with collections_paused():
            pass
        assert gc.get_freeze_count() == frozen > 0
    finally:
        gc.unfreeze()
