"""The one table of public names: which function or class each spelling of each year means.

Main values: ``TARGETS`` (public name -> place of the object), ``MODULES``. Imports nothing.

One line per target: ``module.attribute: public names``. A module with a leading dot lies in this
package, another one in ``tinyflow``. Every name also exists under ``tf.compat.v1``.
"""

from __future__ import annotations

_TABLE = """
core.dtype.DType: DType as_DType dtypes.DType
core.dtype.as_dtype: as_dtype dtypes.as_dtype
core.dtype.bool_: bool dtypes.bool
core.dtype.int8: int8 dtypes.int8
core.dtype.int16: int16 dtypes.int16
core.dtype.int32: int32 dtypes.int32
core.dtype.int64: int64 dtypes.int64
core.dtype.uint8: uint8 dtypes.uint8
core.dtype.uint16: uint16 dtypes.uint16
core.dtype.uint32: uint32 dtypes.uint32
core.dtype.uint64: uint64 dtypes.uint64
core.dtype.float16: float16 half dtypes.float16
core.dtype.bfloat16: bfloat16 dtypes.bfloat16
core.dtype.float32: float32 dtypes.float32
core.dtype.float64: float64 double dtypes.float64

.graph.Graph: Graph
.graph.get_default_graph: get_default_graph
.graph.reset_default_graph: reset_default_graph
.elements.Tensor: Tensor
.elements.Operation: Operation
.tensor_shape.TensorShape: TensorShape
.tensor_shape.Dimension: Dimension
.tensor_shape.dimension_value: compat.dimension_value
.graph_keys.GraphKeys: GraphKeys
.graph_keys.add_to_collection: add_to_collection
.graph_keys.add_to_collections: add_to_collections
.graph_keys.get_collection: get_collection
.graph_keys.get_collection_ref: get_collection_ref
.convert.convert_to_tensor: convert_to_tensor
.namespace.disable_v2_behavior: disable_v2_behavior disable_eager_execution \
enable_resource_variables \
disable_resource_variables disable_v2_tensorshape disable_tensor_equality
.namespace.executing_eagerly: executing_eagerly
.namespace.VERSION: VERSION version.VERSION
.namespace.GIT_VERSION: GIT_VERSION version.GIT_VERSION

.session.Session: Session
.session.InteractiveSession: InteractiveSession
.session.get_default_session: get_default_session
.config.ConfigProto: ConfigProto
.config.GPUOptions: GPUOptions
.config.GraphOptions: GraphOptions
.config.OptimizerOptions: OptimizerOptions
.config.RunOptions: RunOptions
.config.RunMetadata: RunMetadata

.control.name_scope: name_scope keras.backend.name_scope
.control.op_scope: op_scope
.control.control_dependencies: control_dependencies
.control.colocate_with: colocate_with
.control.device: device
.control.no_op: no_op
.control.group: group
.control.tuple_: tuple
.control.identity: identity
.control_flow.cond: cond
.control_flow.case: case
.control_flow.while_loop: while_loop
.tensor_array.TensorArray: TensorArray
.rnn.dynamic_rnn: nn.dynamic_rnn
.rnn.static_rnn: nn.static_rnn contrib.rnn.static_rnn
.rnn.bidirectional_dynamic_rnn: nn.bidirectional_dynamic_rnn
.rnn_cells.RNNCell: nn.rnn_cell.RNNCell contrib.rnn.RNNCell
.rnn_cells.BasicRNNCell: nn.rnn_cell.BasicRNNCell contrib.rnn.BasicRNNCell
.rnn_cells.GRUCell: nn.rnn_cell.GRUCell contrib.rnn.GRUCell
.rnn_cells.BasicLSTMCell: nn.rnn_cell.BasicLSTMCell contrib.rnn.BasicLSTMCell
.rnn_cells.LSTMCell: nn.rnn_cell.LSTMCell contrib.rnn.LSTMCell
.rnn_cells.LSTMStateTuple: nn.rnn_cell.LSTMStateTuple contrib.rnn.LSTMStateTuple
.rnn_cells.MultiRNNCell: nn.rnn_cell.MultiRNNCell contrib.rnn.MultiRNNCell
.rnn_cells.DropoutWrapper: nn.rnn_cell.DropoutWrapper contrib.rnn.DropoutWrapper
.rnn_cells.ResidualWrapper: nn.rnn_cell.ResidualWrapper contrib.rnn.ResidualWrapper
.functional_ops.map_fn: map_fn
.functional_ops.scan: scan
.functional_ops.foldl: foldl
.functional_ops.foldr: foldr

.variables.Variable: Variable
.variables.assign: assign
.variables.assign_add: assign_add
.variables.assign_sub: assign_sub
.variables.global_variables: global_variables all_variables
.variables.local_variables: local_variables
.variables.model_variables: model_variables
.variables.moving_average_variables: moving_average_variables
.variables.trainable_variables: trainable_variables
.variables.variables_initializer: variables_initializer initialize_variables initializers.variables
.variables.global_variables_initializer: global_variables_initializer initialize_all_variables \
initializers.global_variables
.variables.local_variables_initializer: local_variables_initializer initialize_local_variables \
initializers.local_variables
.variables.tables_initializer: tables_initializer initialize_all_tables \
initializers.tables_initializer
.variables.is_variable_initialized: is_variable_initialized
.variables.report_uninitialized_variables: report_uninitialized_variables
.variables.assert_variables_initialized: assert_variables_initialized
.state.count_up_to: count_up_to
.state.scatter_update: scatter_update
.state.scatter_add: scatter_add
.state.scatter_sub: scatter_sub
.state.scatter_mul: scatter_mul
.state.scatter_div: scatter_div
.state.scatter_min: scatter_min
.state.scatter_max: scatter_max
.variable_scope.AUTO_REUSE: AUTO_REUSE
.variable_scope.VariableScope: VariableScope
.variable_scope.get_variable: get_variable
.variable_scope.get_local_variable: get_local_variable
.variable_scope.get_variable_scope: get_variable_scope
.variable_scope.no_regularizer: no_regularizer
.variable_scope.variable_scope: variable_scope
.variable_scope.variable_op_scope: variable_op_scope

.initializers.Zeros: zeros_initializer initializers.zeros keras.initializers.Zeros
.initializers.Ones: ones_initializer initializers.ones keras.initializers.Ones
.initializers.Constant: constant_initializer initializers.constant keras.initializers.Constant
.initializers.RandomUniform: random_uniform_initializer initializers.random_uniform
.initializers.RandomNormal: random_normal_initializer initializers.random_normal
.initializers.TruncatedNormal: truncated_normal_initializer initializers.truncated_normal
.initializers.UniformUnitScaling: uniform_unit_scaling_initializer \
initializers.uniform_unit_scaling
.initializers.VarianceScaling: variance_scaling_initializer initializers.variance_scaling \
keras.initializers.VarianceScaling
.initializers.GlorotUniform: glorot_uniform_initializer initializers.glorot_uniform \
keras.initializers.glorot_uniform
.initializers.GlorotNormal: glorot_normal_initializer initializers.glorot_normal \
keras.initializers.glorot_normal
.initializers.HeUniform: initializers.he_uniform keras.initializers.he_uniform
.initializers.HeNormal: initializers.he_normal keras.initializers.he_normal
.initializers.LecunUniform: initializers.lecun_uniform keras.initializers.lecun_uniform
.initializers.LecunNormal: initializers.lecun_normal keras.initializers.lecun_normal
.initializers.Identity: initializers.identity keras.initializers.Identity
.initializers.xavier_initializer: contrib.layers.xavier_initializer

.gradients.gradients: gradients
.gradients.hessians: hessians
.gradients.AggregationMethod: AggregationMethod
.gradients.UnconnectedGradients: UnconnectedGradients
.indexed_slices.IndexedSlices: IndexedSlices
.indexed_slices.IndexedSlicesValue: IndexedSlicesValue
.optimizer.Optimizer: train.Optimizer
.optimizers.GradientDescentOptimizer: train.GradientDescentOptimizer
.optimizers.MomentumOptimizer: train.MomentumOptimizer
.optimizers.AdamOptimizer: train.AdamOptimizer
.optimizers.RMSPropOptimizer: train.RMSPropOptimizer
.optimizers.AdagradOptimizer: train.AdagradOptimizer
.optimizers.AdadeltaOptimizer: train.AdadeltaOptimizer
.optimizers.FtrlOptimizer: train.FtrlOptimizer
.learning_rates.exponential_decay: train.exponential_decay
.learning_rates.natural_exp_decay: train.natural_exp_decay
.learning_rates.inverse_time_decay: train.inverse_time_decay
.learning_rates.polynomial_decay: train.polynomial_decay
.learning_rates.cosine_decay: train.cosine_decay
.learning_rates.piecewise_constant: train.piecewise_constant train.piecewise_constant_decay
.clipping.global_norm: global_norm linalg.global_norm
.clipping.clip_by_global_norm: clip_by_global_norm
.clipping.clip_by_average_norm: clip_by_average_norm
.train.get_global_step: train.get_global_step contrib.framework.get_global_step
.train.create_global_step: train.create_global_step contrib.framework.create_global_step
.train.get_or_create_global_step: train.get_or_create_global_step \
contrib.framework.get_or_create_global_step
.train.assert_global_step: train.assert_global_step
.train.global_step: train.global_step

.host.py_func: py_func
.host.Print: Print
.host.Assert: Assert debugging.Assert
.host.assert_equal: assert_equal debugging.assert_equal
.host.assert_none_equal: assert_none_equal debugging.assert_none_equal
.host.assert_less: assert_less debugging.assert_less
.host.assert_less_equal: assert_less_equal debugging.assert_less_equal
.host.assert_greater: assert_greater debugging.assert_greater
.host.assert_greater_equal: assert_greater_equal debugging.assert_greater_equal
.host.assert_positive: assert_positive debugging.assert_positive
.host.assert_rank: assert_rank debugging.assert_rank

.random_functions.set_random_seed: set_random_seed random.set_random_seed
.random_functions.get_seed: get_seed random.get_seed
.random_functions.random_uniform: random_uniform random.uniform
.random_functions.random_normal: random_normal random.normal
.random_functions.truncated_normal: truncated_normal random.truncated_normal

.array_functions.newaxis: newaxis
.array_functions.constant: constant
.array_functions.placeholder: placeholder
.array_functions.placeholder_with_default: placeholder_with_default
.array_functions.zeros: zeros
.array_functions.ones: ones
.array_functions.fill: fill
.array_functions.zeros_like: zeros_like
.array_functions.ones_like: ones_like
.array_functions.range: range
.array_functions.linspace: linspace lin_space
.array_functions.eye: eye linalg.eye
.array_functions.shape: shape
.array_functions.size: size
.array_functions.rank: rank
.array_functions.reshape: reshape manip.reshape
.array_functions.transpose: transpose
.array_functions.matrix_transpose: matrix_transpose linalg.transpose linalg.matrix_transpose
.array_functions.expand_dims: expand_dims
.array_functions.squeeze: squeeze
.array_functions.broadcast_to: broadcast_to
.array_functions.tile: tile manip.tile
.array_functions.reverse: reverse reverse_v2 manip.reverse
.array_functions.concat: concat concat_v2
.array_functions.stack: stack pack
.array_functions.unstack: unstack unpack
.array_functions.split: split split_v
.array_functions.slice: slice
.array_functions.strided_slice: strided_slice
.array_functions.pad: pad
.array_functions.gather: gather
.embedding.embedding_lookup: nn.embedding_lookup
.sparse.embedding_lookup_sparse: nn.embedding_lookup_sparse
.array_functions.one_hot: one_hot
.segments.unsorted_segment_sum: unsorted_segment_sum math.unsorted_segment_sum
.segments.unsorted_segment_max: unsorted_segment_max math.unsorted_segment_max
.segments.unsorted_segment_min: unsorted_segment_min math.unsorted_segment_min
.segments.unsorted_segment_prod: unsorted_segment_prod math.unsorted_segment_prod
.segments.unsorted_segment_mean: unsorted_segment_mean math.unsorted_segment_mean
.segments.unsorted_segment_sqrt_n: unsorted_segment_sqrt_n math.unsorted_segment_sqrt_n
.segments.segment_sum: segment_sum math.segment_sum
.segments.segment_mean: segment_mean math.segment_mean
.segments.segment_max: segment_max math.segment_max
.segments.segment_min: segment_min math.segment_min
.segments.segment_prod: segment_prod math.segment_prod
.segments.top_k: nn.top_k math.top_k
.segments.in_top_k: nn.in_top_k math.in_top_k
.segments.sort: sort
.segments.argsort: argsort
.segments.unique: unique
.segments.unique_with_counts: unique_with_counts
.segments.boolean_mask: boolean_mask
.segments.sequence_mask: sequence_mask
.segments.reverse_sequence: reverse_sequence
.segments.cumsum: cumsum math.cumsum
.segments.cumprod: cumprod math.cumprod
.segments.gather_nd_: gather_nd manip.gather_nd
.segments.scatter_nd: scatter_nd manip.scatter_nd
.segments.dynamic_partition: dynamic_partition
.segments.dynamic_stitch: dynamic_stitch
.segments.invert_permutation: invert_permutation math.invert_permutation
.segments.bincount: bincount math.bincount
.segments.histogram_fixed_width: histogram_fixed_width
.segments.histogram_fixed_width_bins: histogram_fixed_width_bins
.linalg.einsum: einsum linalg.einsum
.linalg.trace: trace linalg.trace
.linalg.matrix_diag: matrix_diag linalg.diag
.linalg.matrix_diag_part: matrix_diag_part linalg.diag_part
.linalg.diag: diag linalg.tensor_diag
.linalg.diag_part: diag_part linalg.tensor_diag_part
.linalg.band_part: matrix_band_part linalg.band_part
.sparse.SparseTensor: SparseTensor sparse.SparseTensor
.sparse.SparseTensorValue: SparseTensorValue
.sparse.sparse_placeholder: sparse_placeholder sparse.placeholder
.sparse.sparse_tensor_dense_matmul: sparse_tensor_dense_matmul sparse.sparse_dense_matmul \
sparse.matmul
.sparse.sparse_tensor_to_dense: sparse_tensor_to_dense sparse.to_dense
.sparse.sparse_to_dense: sparse_to_dense
.sparse.sparse_reduce_sum: sparse_reduce_sum sparse.reduce_sum
.sparse.sparse_retain: sparse_retain sparse.retain
.sparse.sparse_transpose: sparse_transpose sparse.transpose
.array_functions.where: where select
.array_functions.cast: cast dtypes.cast
.array_functions.saturate_cast: saturate_cast dtypes.saturate_cast
.array_functions.to_float: to_float
.array_functions.to_double: to_double
.array_functions.to_int32: to_int32
.array_functions.to_int64: to_int64
.array_functions.to_bfloat16: to_bfloat16

ops.elementwise.add: add math.add
ops.elementwise.subtract: subtract sub math.subtract
.math_functions.multiply: multiply mul math.multiply scalar_mul math.scalar_mul
.math_functions.divide: divide math.divide
.math_functions.truediv: truediv math.truediv
.math_functions.div: div
ops.elementwise.divide: realdiv
.math_functions.div_no_nan: div_no_nan math.divide_no_nan
.math_functions.floordiv: floordiv math.floordiv
ops.division.floordiv: floor_div
ops.division.floormod: floormod mod math.floormod math.mod
ops.division.truncatediv: truncatediv
ops.division.truncatemod: truncatemod
ops.elementwise.negative: negative neg math.negative
ops.elementwise.absolute: abs math.abs
ops.elementwise.sign: sign math.sign
ops.elementwise.square: square math.square
ops.elementwise.sqrt: sqrt math.sqrt
ops.elementwise.rsqrt: rsqrt math.rsqrt
ops.elementwise.reciprocal: reciprocal inv math.reciprocal
ops.elementwise.exp: exp math.exp
ops.elementwise.log: log math.log
ops.elementwise.maximum: maximum math.maximum
ops.elementwise.minimum: minimum math.minimum
ops.elementwise.squared_difference: squared_difference math.squared_difference
ops.special.expm1: expm1 math.expm1
ops.special.log1p: log1p math.log1p
ops.special.sin: sin math.sin
ops.special.cos: cos math.cos
ops.special.erf: erf math.erf
ops.special.erfc: erfc math.erfc
ops.special.erfinv: math.erfinv
ops.special.power: pow math.pow
ops.special.xlogy: math.xlogy
ops.special.xdivy: math.xdivy
ops.rounding.floor: floor math.floor
ops.rounding.ceil: ceil math.ceil
ops.rounding.rint: rint math.rint
ops.rounding.round: round math.round
ops.rounding.is_nan: is_nan math.is_nan debugging.is_nan
ops.rounding.is_inf: is_inf math.is_inf debugging.is_inf
ops.rounding.is_finite: is_finite math.is_finite debugging.is_finite
ops.logical.logical_not: logical_not math.logical_not
ops.logical.logical_and: logical_and math.logical_and
ops.logical.logical_or: logical_or math.logical_or
ops.logical.logical_xor: logical_xor math.logical_xor
ops.comparison.less: less math.less
ops.comparison.less_equal: less_equal math.less_equal
ops.comparison.greater: greater math.greater
ops.comparison.greater_equal: greater_equal math.greater_equal
ops.comparison.equal: equal math.equal
ops.comparison.not_equal: not_equal math.not_equal
.math_functions.clip_by_value: clip_by_value
.math_functions.clip_by_norm: clip_by_norm
.math_functions.add_n: add_n math.add_n
.math_functions.accumulate_n: accumulate_n math.accumulate_n
.math_functions.sigmoid: sigmoid nn.sigmoid math.sigmoid
.math_functions.log_sigmoid: log_sigmoid nn.log_sigmoid math.log_sigmoid
.math_functions.matmul: matmul linalg.matmul batch_matmul
.math_functions.tensordot: tensordot linalg.tensordot
.math_functions.reduce_sum: reduce_sum math.reduce_sum
.math_functions.reduce_mean: reduce_mean math.reduce_mean
.math_functions.reduce_prod: reduce_prod math.reduce_prod
.math_functions.reduce_max: reduce_max math.reduce_max
.math_functions.reduce_min: reduce_min math.reduce_min
.math_functions.reduce_all: reduce_all math.reduce_all
.math_functions.reduce_any: reduce_any math.reduce_any
.math_functions.reduce_logsumexp: reduce_logsumexp math.reduce_logsumexp
.math_functions.reduce_euclidean_norm: math.reduce_euclidean_norm
.math_functions.reduce_variance: math.reduce_variance
.math_functions.reduce_std: math.reduce_std
.math_functions.count_nonzero: count_nonzero math.count_nonzero
.math_functions.norm: norm linalg.norm
.math_functions.argmax: argmax arg_max math.argmax
.math_functions.argmin: argmin arg_min math.argmin
.math_functions.stop_gradient: stop_gradient

ops.activation.relu: nn.relu
ops.activation.relu6: nn.relu6
ops.activation.elu: nn.elu
ops.activation.selu: nn.selu
ops.activation.softplus: nn.softplus math.softplus
ops.activation.softsign: nn.softsign math.softsign
ops.activation.tanh: tanh nn.tanh math.tanh
ops.reduction.l2_loss: nn.l2_loss
.nn_functions.leaky_relu: nn.leaky_relu
.nn_functions.softmax: nn.softmax math.softmax
.nn_functions.log_softmax: nn.log_softmax math.log_softmax
.nn_functions.softmax_cross_entropy_with_logits: nn.softmax_cross_entropy_with_logits
.nn_functions.softmax_cross_entropy_with_logits_v2: nn.softmax_cross_entropy_with_logits_v2
.nn_functions.sparse_softmax_cross_entropy_with_logits: nn.sparse_softmax_cross_entropy_with_logits
.nn_functions.sigmoid_cross_entropy_with_logits: nn.sigmoid_cross_entropy_with_logits
.nn_functions.weighted_cross_entropy_with_logits: nn.weighted_cross_entropy_with_logits
.nn_functions.bias_add: nn.bias_add
.nn_functions.xw_plus_b: nn.xw_plus_b
.nn_functions.relu_layer: nn.relu_layer
.nn_functions.l2_normalize: nn.l2_normalize math.l2_normalize linalg.l2_normalize
.nn_functions.moments: nn.moments
.nn_functions.dropout: nn.dropout
.nn_spatial.conv1d: nn.conv1d
.nn_spatial.conv2d: nn.conv2d
.nn_spatial.conv3d: nn.conv3d
.nn_spatial.convolution_nd: nn.convolution
.nn_spatial.atrous_conv2d: nn.atrous_conv2d
.nn_spatial.depthwise_conv2d: nn.depthwise_conv2d
.nn_spatial.depthwise_conv2d_native: nn.depthwise_conv2d_native
.nn_spatial.separable_conv2d: nn.separable_conv2d
.nn_spatial.conv1d_transpose: nn.conv1d_transpose
.nn_spatial.conv2d_transpose: nn.conv2d_transpose
.nn_spatial.conv3d_transpose: nn.conv3d_transpose
.nn_spatial.conv2d_backprop_input: nn.conv2d_backprop_input
.nn_spatial.conv2d_backprop_filter: nn.conv2d_backprop_filter
.nn_pooling.max_pool: nn.max_pool nn.max_pool2d
.nn_pooling.avg_pool: nn.avg_pool nn.avg_pool2d
.nn_pooling.max_pool1d: nn.max_pool1d
.nn_pooling.avg_pool1d: nn.avg_pool1d
.nn_pooling.max_pool3d: nn.max_pool3d
.nn_pooling.avg_pool3d: nn.avg_pool3d
.nn_pooling.pool: nn.pool
.nn_spatial.fused_batch_norm: nn.fused_batch_norm
.nn_spatial.batch_normalization: nn.batch_normalization
.nn_spatial.lrn: nn.lrn nn.local_response_normalization
.nn_spatial.crelu: nn.crelu
.nn_spatial.weighted_moments: nn.weighted_moments
.nn_pooling.max_pool_with_argmax: nn.max_pool_with_argmax
.nn_pooling.max_pool_nd: nn.max_pool_v2
.nn_pooling.avg_pool_nd: nn.avg_pool_v2
.nn_pooling.dilation2d: nn.dilation2d
.nn_pooling.erosion2d: nn.erosion2d
.nn_pooling.extract_image_patches: image.extract_image_patches extract_image_patches
.nn_pooling.extract_patches: image.extract_patches
.nn_pooling.extract_volume_patches: extract_volume_patches
.nn_pooling.max_unpool: nn.max_unpool
.nn_pooling.lp_pool: nn.lp_pool
.nn_pooling.adaptive_avg_pool: nn.adaptive_avg_pool
.nn_pooling.adaptive_max_pool: nn.adaptive_max_pool
.contrib_layers.layer_norm: contrib.layers.layer_norm
.recompute.recompute_grad: recompute_grad contrib.layers.recompute_grad
.recompute.recompute_sequential: contrib.layers.recompute_sequential

.layers.dense: layers.dense
.layers.conv1d: layers.conv1d
.layers.conv2d: layers.conv2d
.layers.conv3d: layers.conv3d
.layers.conv2d_transpose: layers.conv2d_transpose
.layers.separable_conv2d: layers.separable_conv2d
.layers.max_pooling1d: layers.max_pooling1d
.layers.max_pooling2d: layers.max_pooling2d
.layers.max_pooling3d: layers.max_pooling3d
.layers.average_pooling1d: layers.average_pooling1d
.layers.average_pooling2d: layers.average_pooling2d
.layers.average_pooling3d: layers.average_pooling3d
.layers.flatten: layers.flatten
.layers.dropout: layers.dropout
.layers.batch_normalization: layers.batch_normalization
"""


def _parse(table: str) -> dict[str, str]:
    targets: dict[str, str] = {}
    for line in table.replace("\\\n", " ").splitlines():
        target, _, names = line.partition(":")
        for name in names.split():
            if name in targets:
                raise ValueError(f"the name {name} means both {targets[name]} and {target}")
            targets[name] = target
    return targets


#: public name without "tf." -> "module.attribute"
TARGETS = _parse(_TABLE)

#: public namespaces that are whole modules of this package
MODULES = {"errors": ".errors", "logging": ".logging"}

#: all public namespaces: "nn", "contrib", "contrib.layers" ...
NAMESPACES = frozenset(
    name[:i] for name in TARGETS for i, c in enumerate(name) if c == "."
) | {"compat"}  # fmt: skip

#: older spelling -> newer one, for people and for docs
ALIASES = {
    old: names.split()[0]
    for names in (
        line.partition(":")[2] for line in _TABLE.replace("\\\n", " ").splitlines() if ":" in line
    )
    for old in names.split()[1:]
}
