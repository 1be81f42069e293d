"""What random programs are made of: one function per kind of statement.

Main table: ``FAMILIES`` (function, how often). A function gets the ``Maker`` and emits statements.
Imports nothing of the library: statements are text.
"""

from __future__ import annotations

from typing import Any

UNARY = (
    "tf.tanh", "tf.negative", "tf.sigmoid", "tf.nn.relu", "tf.abs", "tf.nn.softplus", "tf.square",
    "tf.sin", "tf.cos", "tf.erf", "tf.sign", "tf.nn.elu", "tf.nn.selu", "tf.nn.softsign",
    "tf.nn.relu6", "tf.nn.leaky_relu", "tf.floor", "tf.ceil", "tf.log_sigmoid", "tf.identity",
    "tf.stop_gradient", "tf.rint",
)  # fmt: skip
GUARDED = (
    "tf.exp(tf.minimum({}, 2.0))", "tf.log(tf.abs({}) + 1.0)", "tf.sqrt(tf.abs({}) + 0.25)",
    "tf.rsqrt(tf.square({}) + 0.5)", "tf.log1p(tf.abs({}))", "tf.expm1(tf.minimum({}, 2.0))",
    "1.0 / (tf.abs({}) + 0.5)", "tf.pow(tf.abs({}) + 0.5, 1.5)", "tf.clip_by_value({}, -0.5, 0.75)",
    "2.0 * {} - 1.0", "{} * 0.5 + 1.0", "tf.log(tf.sigmoid({}))", "tf.reciprocal({} * {} + 1.0)",
)  # fmt: skip
BINARY = (
    "{} + {}", "{} - {}", "{} * {}", "tf.maximum({}, {})", "tf.minimum({}, {})",
    "tf.squared_difference({}, {})", "{} / (tf.abs({}) + 0.5)", "tf.div_no_nan({}, {})",
    "tf.add_n([tf.zeros_like({0} + {1}), {0} + {1}])",
)  # fmt: skip
REDUCE = (
    "tf.reduce_sum", "tf.reduce_mean", "tf.reduce_max", "tf.reduce_min", "tf.reduce_sum",
    "tf.reduce_logsumexp", "tf.reduce_prod", "tf.math.reduce_variance", "tf.reduce_mean",
    "tf.math.reduce_euclidean_norm",
)  # fmt: skip


def unary(m: Any) -> None:
    m.emit(f"{m.pick(UNARY)}({m.find()})")


def guarded(m: Any) -> None:
    x = m.find()
    m.emit(m.pick(GUARDED).replace("{}", x))


def binary(m: Any) -> None:
    x = m.find()
    y = m.fitting(x)
    if m.chance(0.5):
        x, y = y, x
    m.emit(m.pick(BINARY).format(x, y))


def axes_of(m: Any, rank: int) -> list[int]:
    axes = [a for a in range(rank) if m.chance(0.5)] or ([m.int(0, rank - 1)] if rank else [])
    return [a - rank if m.chance(0.3) else a for a in axes]


def reduction(m: Any) -> None:
    x = m.find(low=1)
    axes = axes_of(m, len(m.shape_of(x)))
    axis = "None" if m.chance(0.15) else str(axes)
    m.emit(f"{m.pick(REDUCE)}({x}, axis={axis}, keepdims={m.chance(0.5)})")


def arg_extremum(m: Any) -> None:
    x = m.find(low=1)
    axis = m.int(0, len(m.shape_of(x)) - 1)
    if m.shape_of(x)[axis]:
        m.emit(f"tf.{m.pick(('argmax', 'argmin'))}({x}, axis={axis})")


def counted(m: Any) -> None:
    """Sizes that only running tells, inside; static results."""
    x = m.find(low=1, high=3)
    rows = m.find("bool", shape=m.shape_of(x)[:1])
    m.emit(m.pick((
        "tf.reduce_sum(tf.boolean_mask({}, {}), axis=0)", "tf.reduce_max(tf.where({1}))",
        "tf.size(tf.where({0} > 0.25))", "tf.size(tf.unique(tf.reshape({0}, [-1]))[0])",
    )).format(x, rows))  # fmt: skip


def truth(m: Any) -> None:
    x = m.find("bool", low=1)
    m.emit(f"tf.reduce_{m.pick(('all', 'any'))}({x}, axis={axes_of(m, len(m.shape_of(x)))})")


def row_function(m: Any) -> None:
    x = m.find(low=1, high=4)
    shape = m.shape_of(x)
    axis = m.int(-len(shape), len(shape) - 1)
    kind = m.int(0, 6)
    if kind == 0:
        m.emit(f"tf.nn.softmax({x}, axis={axis})")
    elif kind == 1:
        m.emit(f"tf.nn.log_softmax({x}, axis={axis})")
    elif kind == 2:
        m.emit(f"tf.nn.l2_normalize({x}, axis={axis}, epsilon=1e-3)")
    elif kind == 3:
        scale, shift = m.parameter(shape[-1:]), m.parameter(shape[-1:])
        first, second = f"v{len(m.types)}", f"v{len(m.types) + 1}"
        m.emit(f"tf.nn.moments({x}, axes=[-1], keepdims=True)", 2)
        m.emit(f"({x} - {first}) * tf.rsqrt({second} + 1e-3) * {scale} + {shift}")
    elif kind == 4:
        labels = m.find(shape=shape)
        m.emit(
            f"tf.nn.softmax_cross_entropy_with_logits(labels=tf.nn.softmax({labels}), logits={x})"
        )
    elif kind == 5 and shape[-1]:
        labels = m.input("int32", shape[:-1], shape[-1])
        m.emit(f"tf.nn.sparse_softmax_cross_entropy_with_logits(labels={labels}, logits={x})")
    else:
        m.emit(f"tf.cumsum({x}, axis={axis}, exclusive={m.chance(0.4)}, reverse={m.chance(0.4)})")


# ---- movement -----------------------------------------------------------------------------------


def any_dtype(m: Any) -> str | None:
    return m.pick((None, None, None, "int32", "bool", "int64"))


def transpose(m: Any) -> None:
    x = m.find(any_dtype(m), low=2)
    m.emit(f"tf.transpose({x}, {[int(a) for a in m.rng.permutation(len(m.shape_of(x)))]})")


def reshape(m: Any) -> None:
    x = m.find(any_dtype(m), low=1)
    shape = list(m.shape_of(x))
    kind = m.int(0, 3)
    if kind == 0:
        m.emit(f"tf.expand_dims({x}, {m.int(-len(shape) - 1, len(shape))})")
    elif kind == 1:
        m.emit(f"tf.reshape({x}, [-1])" if all(shape) else f"tf.reshape({x}, [0])")
    elif kind == 2 and len(shape) > 1:
        at = m.int(0, len(shape) - 2)
        shape[at : at + 2] = [shape[at] * shape[at + 1]]
        m.emit(f"tf.reshape({x}, {shape})")
    else:
        m.emit(f"tf.squeeze({x})")


def _index(m: Any, extent: int) -> str:
    kind = m.int(0, 6)
    if kind == 0 and extent:
        return str(m.int(-extent, extent - 1))
    if kind == 1:
        return f"{m.int(0, extent)}:"
    if kind == 2:
        return f":{m.int(-extent, extent)}"
    if kind == 3:
        return f"::{m.pick((-2, -1, 2, 3))}"
    if kind == 4:
        return f"{m.int(0, extent)}:{m.int(0, extent)}:{m.pick((1, 2))}"
    return ":"


def index(m: Any) -> None:
    x = m.find(any_dtype(m), low=1)
    parts = [_index(m, e) for e in m.shape_of(x)]
    if m.chance(0.2):
        parts.insert(m.int(0, len(parts)), "tf.newaxis")
    if m.chance(0.15):
        parts[m.int(0, len(parts) - 1) :] = ["..."]
    m.emit(f"{x}[{', '.join(parts)}]")


def join(m: Any) -> None:
    dtype = any_dtype(m)
    x = m.find(dtype, low=1)
    shape = m.shape_of(x)
    others = [x, *[m.find(dtype, shape=shape) for _ in range(m.int(1, 2))]]
    others = [str(o) for o in m.rng.permutation(others)]
    if m.chance(0.5):
        m.emit(f"tf.concat([{', '.join(others)}], axis={m.int(-len(shape), len(shape) - 1)})")
    else:
        m.emit(f"tf.stack([{', '.join(others)}], axis={m.int(0, len(shape))})")


def split(m: Any) -> None:
    x = m.find(low=1)
    shape = m.shape_of(x)
    axis = m.int(0, len(shape) - 1)
    if shape[axis] >= 2:
        cut = m.int(0, shape[axis])
        m.emit(f"tf.split({x}, [{cut}, {shape[axis] - cut}], axis={axis})", 2)


def pad_tile_reverse(m: Any) -> None:
    x = m.find(any_dtype(m), low=1, high=4)
    shape = m.shape_of(x)
    kind = m.int(0, 3)
    if kind == 0:
        m.emit(f"tf.tile({x}, {[m.int(0 if m.chance(0.1) else 1, 3) for _ in shape]})")
    elif kind == 1:
        m.emit(f"tf.reverse({x}, {sorted({m.int(0, len(shape) - 1)})})")
    elif kind == 2:
        m.emit(f"tf.broadcast_to({x}, {[m.int(1, 3), *shape]})")
    else:
        mode = m.pick(("CONSTANT", "REFLECT", "SYMMETRIC"))
        most = {"CONSTANT": 3, "REFLECT": -1, "SYMMETRIC": 0}[mode]
        pads = [[m.int(0, min(3, max(most if most == 3 else e + most, 0))) for _ in "ab"]
                for e in shape]  # fmt: skip
        m.emit(f"tf.pad({x}, {pads}, mode={mode!r})")


# ---- choosing -----------------------------------------------------------------------------------


def compare(m: Any) -> None:
    x = m.find(m.pick((None, None, "int32")))
    y = m.fitting(x)
    test = m.pick(("less", "greater", "less_equal", "greater_equal", "not_equal"))
    m.emit(f"tf.{test}({x}, {y})")


def logic(m: Any) -> None:
    x = m.find("bool")
    y = m.fitting(x)
    m.emit(m.pick(("tf.logical_and({}, {})", "tf.logical_or({}, {})", "tf.logical_xor({}, {})",
                   "tf.logical_not({})")).format(x, y))  # fmt: skip


def where(m: Any) -> None:
    x = m.find(any_dtype(m) if m.chance(0.3) else None)
    dtype, shape = m.types[x]
    condition, y = m.find("bool", shape=shape), m.find(dtype, shape=shape)
    m.emit(f"tf.where({condition}, {x}, {y})")


def gather(m: Any) -> None:
    x = m.find(any_dtype(m) if m.chance(0.3) else None, low=1, high=4)
    shape = m.shape_of(x)
    axis = m.int(0, len(shape) - 1)
    if shape[axis]:
        at = m.input(m.pick(("int32", "int64")), m.shape(0, 2), shape[axis])
        m.emit(f"tf.gather({x}, {at}, axis={axis})")


def gather_scatter_nd(m: Any) -> None:
    x = m.find(low=1, high=3)
    shape = m.shape_of(x)
    if not all(shape):
        return
    count = m.extent()
    if m.chance(0.5):
        at = m.input("int32", (count, 1), shape[0])
        m.emit(f"tf.gather_nd({x}, {at})")
    else:
        rows = m.int(1, 9)
        at = m.input("int32", (shape[0], 1), rows)
        m.emit(f"tf.scatter_nd({at}, {x}, {[rows, *shape[1:]]})")


def segments(m: Any) -> None:
    x = m.find(low=1, high=3)
    shape = m.shape_of(x)
    count = m.int(1, 6)
    ids = m.input("int32", shape[:1], count)
    kind = m.pick(("sum", "sum", "mean", "max", "min"))
    m.emit(f"tf.unsorted_segment_{kind}({x}, {ids}, {count})")


def one_hot(m: Any) -> None:
    depth = m.int(1, 8)
    at = m.input("int32", m.shape(0, 2), depth + 2)
    m.emit(f"tf.one_hot({at}, {depth}, dtype=tf.{m.float})")


def ordered(m: Any) -> None:
    x = m.find(low=1, high=3)
    last = m.shape_of(x)[-1]
    kind = m.int(0, 2)
    if kind == 0 and last:
        m.emit(f"tf.nn.top_k({x}, k={m.int(1, last)})", 2)
    elif kind == 1:
        m.emit(f"tf.sort({x}, direction={m.pick(('ASCENDING', 'DESCENDING'))!r})")
    else:
        m.emit(f"tf.argsort({x}, direction={m.pick(('ASCENDING', 'DESCENDING'))!r})")


# ---- other dtypes -------------------------------------------------------------------------------


def cast(m: Any) -> None:
    source = m.pick((None, None, "int32", "bool", "int64", "uint8", "int8"))
    x = m.find(source)
    target = m.pick((m.float, m.float, "int32", "int64", "float32", "float64", "bool", "float16"))
    if source is None and target.startswith("int"):
        x = f"tf.clip_by_value({x}, -50.0, 50.0)"
    m.emit(f"tf.cast({x}, tf.{target})")


def integers(m: Any) -> None:
    x = m.find(m.pick(("int32", "int32", "int64", "uint8", "int8", "int16")))
    y = m.fitting(x)
    m.emit(m.pick((
        "{} + {}", "{} - {}", "{} * {}", "tf.maximum({}, {})", "tf.floordiv({}, tf.maximum({}, 1))",
        "tf.floormod({}, tf.maximum({}, 1))", "tf.reduce_sum({} + {}, axis=-1)", "tf.abs({})",
        "tf.minimum({}, {})", "tf.reduce_max({})", "tf.cumsum({})",
    )).format(x, y))  # fmt: skip


# ---- contractions -------------------------------------------------------------------------------


def matmul(m: Any) -> None:
    x = m.find(low=2, high=4)
    shape = m.shape_of(x)
    a, b = m.chance(0.25), m.chance(0.3)
    inner, outer = shape[-2] if a else shape[-1], m.extent()
    batch = shape[:-2] if m.chance(0.5) else ()
    if batch and m.chance(0.3):
        batch = (1, *batch[1:])
    own = (outer, inner) if b else (inner, outer)
    y = m.find(shape=(*batch, *own)) if m.chance(0.3) else m.parameter((*batch, *own))
    flags = f", transpose_a={a}, transpose_b={b}" if a or b else ""
    epilogue = m.pick(("{}", "{}", "tf.nn.relu({})", "tf.tanh({})", "{} + 1.0"))
    m.emit(epilogue.format(f"tf.matmul({x}, {y}{flags})"))


def einsum(m: Any) -> None:
    x = m.find(low=1, high=3)
    shape = m.shape_of(x)
    letters = "abc"[: len(shape)]
    extents = dict(zip(letters, shape, strict=True), d=m.extent())
    own = [str(c) for c in m.rng.permutation(list(letters + "d"))[: m.int(1, 3)]]
    y = m.parameter(tuple(extents[c] for c in own))
    kept = [c for c in dict.fromkeys([*letters, *own]) if m.chance(0.6)]
    kept = [str(c) for c in m.rng.permutation(kept)] if kept else []
    m.emit(f"tf.einsum('{letters},{''.join(own)}->{''.join(kept)}', {x}, {y})")


def attention(m: Any) -> None:
    rows, keys, width = m.extent(), m.extent(), m.int(1, 8)
    q, k, v = (m.parameter((2, n, width)) for n in (rows, keys, keys))
    m.emit(f"tf.matmul(tf.nn.softmax(tf.matmul({q}, {k}, transpose_b=True) * 0.5), {v})")


def convolution(m: Any) -> None:
    n, h, w = m.int(1, 2), m.int(1, 9), m.int(1, 9)
    groups = m.pick((1, 1, 1, 2))
    c, o = groups * m.int(1, 3), groups * m.int(1, 4)
    kh, kw = m.int(1, 3), m.int(1, 3)
    stride, dilation = m.pick((1, 1, 2)), m.pick((1, 1, 1, 2))
    if dilation > 1:
        stride = 1
    padding = m.pick(("SAME", "VALID"))
    kind = m.int(0, 4)
    if kind == 0:
        x, k = m.parameter((n, h, c)), m.parameter((kh, c, o))
        m.emit(f"tf.nn.conv1d({x}, {k}, stride={stride}, padding={padding!r})")
    elif kind == 1:
        x, k = m.parameter((n, h, w, c)), m.parameter((kh, kw, c, m.int(1, 2)))
        m.emit(
            f"tf.nn.depthwise_conv2d({x}, {k}, strides=[1, {stride}, {stride}, 1], "
            f"padding={padding!r})"
        )
    elif kind == 2:
        x, k = m.parameter((n, h, w, o)), m.parameter((kh, kw, c, o))
        m.emit(
            f"tf.nn.conv2d_transpose({x}, {k}, [{n}, {h * stride}, {w * stride}, {c}], "
            f"strides=[1, {stride}, {stride}, 1], padding='SAME')"
        )
    else:
        first = kind == 3
        x = m.parameter((n, c, h, w) if first else (n, h, w, c))
        k = m.parameter((kh, kw, c // groups, o))
        four = [1, 1, stride, stride] if first else [1, stride, stride, 1]
        apart = [1, 1, dilation, dilation] if first else [1, dilation, dilation, 1]
        m.emit(
            f"tf.nn.conv2d({x}, {k}, strides={four}, padding={padding!r}, dilations={apart}, "
            f"data_format={'NCHW' if first else 'NHWC'!r})"
        )


def pooling(m: Any) -> None:
    x = m.find(low=4, high=4)
    size, stride = m.int(1, 3), m.int(1, 2)
    m.emit(
        f"tf.nn.{m.pick(('max_pool', 'avg_pool'))}({x}, ksize=[1, {size}, {size}, 1], "
        f"strides=[1, {stride}, {stride}, 1], padding={m.pick(('SAME', 'VALID'))!r})"
    )


# ---- control flow -------------------------------------------------------------------------------


def loop(m: Any) -> None:
    x = m.find(low=0, high=3)
    shape = m.shape_of(x)
    times = m.int(0, 4)
    kind = m.int(0, 3)
    if kind == 0 and len(shape) == 2:
        w = m.parameter((shape[1], shape[1]))
        body = f"tf.tanh(tf.matmul(a, {w}))"
    elif kind == 1:
        kept = tuple(e if m.chance(0.7) else 1 for e in shape)[m.int(0, len(shape)) :]
        body = f"tf.sigmoid(a * 0.5 + {m.parameter(kept)})"
    elif kind == 2:
        body = f"a * 0.5 + tf.cast(i, tf.{m.float})"
    else:
        body = "tf.tanh(a) - 0.25"
    test = f"i < {times}"
    if m.chance(0.2):
        test = f"tf.logical_and(i < {times}, tf.reduce_sum(a) > -2.0)"
    m.emit(
        f"tf.while_loop(lambda i, a: {test}, lambda i, a: (i + 1, {body}), (0, {x}))[1]"
    )


def loop_over_rows(m: Any) -> None:
    x = m.find(low=1, high=3)
    shape = m.shape_of(x)
    kind = m.int(0, 2)
    if kind == 0:
        start = m.parameter(shape[1:])
        m.emit(f"tf.scan(lambda a, b: tf.tanh(a * 0.5 + b), {x}, initializer={start})")
    elif kind == 1:
        body = m.pick(("tf.tanh(b) * 2.0", "tf.reduce_sum(b)", "b - tf.reduce_mean(b)"))
        m.emit(f"tf.map_fn(lambda b: {body}, {x})")
    else:
        start = m.parameter(shape[1:])
        m.emit(f"tf.foldl(lambda a, b: tf.sin(a) + b, {x}, initializer={start})")


def branch(m: Any) -> None:
    x = m.find()
    shape = m.shape_of(x)
    other = m.find(shape=shape)
    p = m.find("bool", shape=()) if m.chance(0.5) else f"tf.reduce_sum({other}) > 0.0"
    m.emit(f"tf.cond({p}, lambda: tf.sigmoid({x}) + {other}, lambda: {x} * 2.0)")


FAMILIES = (
    (unary, 8), (guarded, 7), (binary, 12), (reduction, 9), (arg_extremum, 1), (truth, 1),
    (counted, 1),
    (row_function, 8), (transpose, 4), (reshape, 4), (index, 6), (join, 4), (split, 2),
    (pad_tile_reverse, 4), (compare, 3), (logic, 1), (where, 4), (gather, 3),
    (gather_scatter_nd, 2), (segments, 3), (one_hot, 1), (ordered, 2), (cast, 4), (integers, 4),
    (matmul, 9), (einsum, 4), (attention, 2), (convolution, 5), (pooling, 2), (loop, 5),
    (loop_over_rows, 3), (branch, 3),
)  # fmt: skip

#: programs that are mostly loops and branches
LOOPS = (
    (loop, 6), (loop_over_rows, 4), (branch, 3), (matmul, 3), (unary, 2), (binary, 3),
    (reduction, 1), (row_function, 1),
)  # fmt: skip
