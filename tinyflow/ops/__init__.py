"""Every operation: classes by family, and their user functions here.

Importing this package registers all op classes and gives values Python's operators. Families are
modules of this package; two functions that are called like their module are ``shape_of`` here and
``placeholder.placeholder``. May import core, ir and te; nothing here imports llvmlite.
"""

from tinyflow.ops import operators as operators  # installs them
from tinyflow.ops.activation import (
    elu,
    leaky_relu,
    relu,
    relu6,
    selu,
    sigmoid,
    softplus,
    softsign,
    tanh,
)
from tinyflow.ops.adaptive_pooling import (
    adaptive_avg_pool,
    adaptive_max_pool,
)
from tinyflow.ops.comparison import (
    equal,
    greater,
    greater_equal,
    less,
    less_equal,
    not_equal,
)
from tinyflow.ops.contraction import (
    dot,
    matmul,
    tensordot,
)
from tinyflow.ops.conv_grads import (
    conv_filter_grad,
    conv_input_grad,
)
from tinyflow.ops.convert import (
    cast,
    identity,
    prevent_gradient,
    stop_gradient,
)
from tinyflow.ops.convolution import (
    conv,
)
from tinyflow.ops.counted import (
    true_positions,
)
from tinyflow.ops.creation import (
    constant,
    constant_value,
    fill,
    ones,
    ones_like,
    zeros,
    zeros_like,
)
from tinyflow.ops.cumulative import (
    cumprod,
    cumsum,
    reverse_sequence,
)
from tinyflow.ops.division import (
    floordiv,
    floormod,
    truncatediv,
    truncatemod,
)
from tinyflow.ops.einsum import (
    einsum,
)
from tinyflow.ops.elementwise import (
    absolute,
    add,
    add_n,
    clip_by_value,
    divide,
    exp,
    log,
    maximum,
    minimum,
    multiply,
    negative,
    reciprocal,
    rsqrt,
    sign,
    sqrt,
    square,
    squared_difference,
    subtract,
    truediv,
)
from tinyflow.ops.host import (
    assert_,
    print_,
    py_func,
)
from tinyflow.ops.indexing import (
    gather,
    one_hot,
    unsorted_segment_sum,
)
from tinyflow.ops.joining import (
    concat,
    split,
    stack,
    unstack,
)
from tinyflow.ops.logical import (
    invert,
    logical_and,
    logical_not,
    logical_or,
    logical_xor,
    select,
)
from tinyflow.ops.lp_pooling import (
    lp_pool,
)
from tinyflow.ops.morphology import (
    dilation2d,
    erosion2d,
)
from tinyflow.ops.movement import (
    broadcast_to,
    expand_dims,
    reshape,
    reverse,
    squeeze,
    tile,
    transpose,
)
from tinyflow.ops.nd_positions import (
    gather_nd,
    scatter_nd,
)
from tinyflow.ops.nn import (
    bias_add,
    l2_normalize,
    log_softmax,
    moments,
    sigmoid_cross_entropy_with_logits,
    softmax,
    softmax_cross_entropy_with_logits,
    sparse_softmax_cross_entropy_with_logits,
)
from tinyflow.ops.normalization import (
    batch_normalization,
    fused_batch_norm,
    layer_norm,
    local_response_normalization,
)
from tinyflow.ops.padding import (
    pad,
)
from tinyflow.ops.patches import (
    patches,
)
from tinyflow.ops.pool_positions import (
    max_positions,
    max_unpool,
)
from tinyflow.ops.pooling import (
    avg_pool,
    max_pool,
)
from tinyflow.ops.position import (
    argmax,
    argmin,
)
from tinyflow.ops.random import (
    random_normal,
    random_uniform,
    random_uniform_int,
    stateless_random_normal,
    stateless_random_uniform,
    stateless_random_uniform_int,
    stateless_truncated_normal,
    truncated_normal,
)
from tinyflow.ops.random_bits import (
    threefry_bits,
)
from tinyflow.ops.recompute import (
    again,
)
from tinyflow.ops.reduction import (
    l2_loss,
    reduce_all,
    reduce_any,
    reduce_euclidean_norm,
    reduce_logsumexp,
    reduce_max,
    reduce_mean,
    reduce_min,
    reduce_prod,
    reduce_sum,
)
from tinyflow.ops.rounding import (
    ceil,
    floor,
    is_finite,
    is_inf,
    is_nan,
    rint,
    round,
)
from tinyflow.ops.segment import (
    unsorted_segment_max,
    unsorted_segment_mean,
    unsorted_segment_min,
    unsorted_segment_prod,
    unsorted_segment_sqrt_n,
)
from tinyflow.ops.sequence import (
    arange,
    eye,
    linspace,
)
from tinyflow.ops.shape import (
    rank,
    size,
)
from tinyflow.ops.shape import (
    shape as shape_of,
)
from tinyflow.ops.slicing import (
    slice_,
)
from tinyflow.ops.sorting import (
    argsort,
    sort,
    top_k,
)
from tinyflow.ops.sparse import (
    sparse_dense_matmul,
)
from tinyflow.ops.special import (
    cos,
    erf,
    erfc,
    erfinv,
    expm1,
    log1p,
    power,
    sin,
    xdivy,
    xlogy,
)
from tinyflow.ops.state import (
    assign,
    assign_add,
    assign_sub,
    count_up_to,
    is_variable_initialized,
    read_variable,
    scatter,
)
from tinyflow.ops.strided import (
    strided_slice,
)

__all__ = [
    "absolute",
    "adaptive_avg_pool",
    "adaptive_max_pool",
    "add",
    "add_n",
    "again",
    "arange",
    "argmax",
    "argmin",
    "argsort",
    "assert_",
    "assign",
    "assign_add",
    "assign_sub",
    "avg_pool",
    "batch_normalization",
    "bias_add",
    "broadcast_to",
    "cast",
    "ceil",
    "clip_by_value",
    "concat",
    "constant",
    "constant_value",
    "conv",
    "conv_filter_grad",
    "conv_input_grad",
    "cos",
    "count_up_to",
    "cumprod",
    "cumsum",
    "dilation2d",
    "divide",
    "dot",
    "einsum",
    "elu",
    "equal",
    "erf",
    "erfc",
    "erfinv",
    "erosion2d",
    "exp",
    "expand_dims",
    "expm1",
    "eye",
    "fill",
    "floor",
    "floordiv",
    "floormod",
    "fused_batch_norm",
    "gather",
    "gather_nd",
    "greater",
    "greater_equal",
    "identity",
    "invert",
    "is_finite",
    "is_inf",
    "is_nan",
    "is_variable_initialized",
    "l2_loss",
    "l2_normalize",
    "layer_norm",
    "leaky_relu",
    "less",
    "less_equal",
    "linspace",
    "local_response_normalization",
    "log",
    "log1p",
    "log_softmax",
    "logical_and",
    "logical_not",
    "logical_or",
    "logical_xor",
    "lp_pool",
    "matmul",
    "max_pool",
    "max_positions",
    "max_unpool",
    "maximum",
    "minimum",
    "moments",
    "multiply",
    "negative",
    "not_equal",
    "one_hot",
    "ones",
    "ones_like",
    "pad",
    "patches",
    "power",
    "prevent_gradient",
    "print_",
    "py_func",
    "random_normal",
    "random_uniform",
    "random_uniform_int",
    "rank",
    "read_variable",
    "reciprocal",
    "reduce_all",
    "reduce_any",
    "reduce_euclidean_norm",
    "reduce_logsumexp",
    "reduce_max",
    "reduce_mean",
    "reduce_min",
    "reduce_prod",
    "reduce_sum",
    "relu",
    "relu6",
    "reshape",
    "reverse",
    "reverse_sequence",
    "rint",
    "round",
    "rsqrt",
    "scatter",
    "scatter_nd",
    "select",
    "selu",
    "shape_of",
    "sigmoid",
    "sigmoid_cross_entropy_with_logits",
    "sign",
    "sin",
    "size",
    "slice_",
    "softmax",
    "softmax_cross_entropy_with_logits",
    "softplus",
    "softsign",
    "sort",
    "sparse_dense_matmul",
    "sparse_softmax_cross_entropy_with_logits",
    "split",
    "sqrt",
    "square",
    "squared_difference",
    "squeeze",
    "stack",
    "stateless_random_normal",
    "stateless_random_uniform",
    "stateless_random_uniform_int",
    "stateless_truncated_normal",
    "stop_gradient",
    "strided_slice",
    "subtract",
    "tanh",
    "tensordot",
    "threefry_bits",
    "tile",
    "top_k",
    "transpose",
    "true_positions",
    "truediv",
    "truncated_normal",
    "truncatediv",
    "truncatemod",
    "unsorted_segment_max",
    "unsorted_segment_mean",
    "unsorted_segment_min",
    "unsorted_segment_prod",
    "unsorted_segment_sqrt_n",
    "unsorted_segment_sum",
    "unstack",
    "xdivy",
    "xlogy",
    "zeros",
    "zeros_like",
]
