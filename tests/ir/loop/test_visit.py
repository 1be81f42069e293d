"""ir/loop/visit.py: walks, rebuilding, substitution."""

from tests.ir.loop.programs import N, i, k, lane, row_sums, scale
from tinyflow.core.dtype import float32
from tinyflow.ir.loop import text, visit
from tinyflow.ir.loop.nodes import Alloc, Buffer, For, If, Store
from tinyflow.ir.scalar import nodes as s


def test_walk_and_collect():
    kinds = [type(stmt).__name__ for stmt in visit.walk(row_sums().body)]
    assert kinds == ["For", "Alloc", "For", "Store", "For", "For", "If", "Store", "Store"]
    assert [loop.var for loop in visit.collect(scale().body, For)] == [i, lane]


def test_map_statements_replaces_deletes_and_keeps():
    kernel = row_sums()
    assert visit.map_statements(kernel.body, lambda stmt: stmt) == kernel.body
    without = visit.map_statements(
        kernel.body, lambda stmt: stmt.then if isinstance(stmt, If) else stmt
    )
    assert not visit.collect(without, If)
    assert visit.map_statements(kernel.body, lambda stmt: ()) == ()


def test_substitute_vars():
    body = visit.substitute_vars(scale().body[0].body, {i: s.index(2), N: s.index(40)})
    assert text.show_body(body) == (
        "for lane in vectorize(16):\n"
        "  if lane + 32 < 40:\n"
        "    y[lane + 32] = x[lane + 32] * 2.0"
    )  # fmt: skip


def test_constant_extents_become_ints():
    body = visit.substitute_vars(row_sums().body, {N: s.index(16)})
    assert [loop.extent for loop in visit.collect(body, For)] == [5, 8, 2, 8]


def test_buffers():
    kernel = row_sums()
    x, y = kernel.buffers
    (acc,) = visit.allocated(kernel.body)
    assert visit.buffers_read(kernel.body) == (acc, x)
    assert visit.buffers_written(kernel.body) == (acc, y)
    other = Buffer("other", float32, (8,), "register")
    renamed = visit.substitute_buffers(kernel.body, {acc: other})
    assert visit.allocated(renamed) == (other,)
    assert acc not in (*visit.buffers_read(renamed), *visit.buffers_written(renamed))


def test_free_vars():
    assert visit.free_vars(row_sums().body) == (N,)
    assert visit.free_vars(row_sums().body[0].body) == (N, i)
    inner = For(k, N, "serial", (Store(Buffer("b", float32, (N,)), (k,), s.const(0, float32)),))
    assert visit.free_vars((Alloc(Buffer("a", float32, (N,), "stack"), (inner,)),)) == (N,)


def test_bounds_condition():
    x = Buffer("x", float32, (4,))
    assert visit.bounds_condition(i < 3)
    assert not visit.bounds_condition(s.load(x, i) < 3.0)
