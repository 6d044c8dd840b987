"""Closed forms on plain integers: output sizes, receptive fields, parameters, operations.

Everything here is exact (`int` and `fractions.Fraction`) and knows nothing of arrays: it imports
the standard library only.
"""

from .counts import (
    Operations,
    PoolCost,
    conv_macs,
    conv_parameters,
    conv_transpose_macs,
    dense_parameters,
    ngram_count_limit,
    ngram_table_size,
    pool_cost,
    recurrent_parameters,
)
from .fields import (
    Interval,
    ReceptiveField,
    receptive_field,
    receptive_field_top_down,
)
from .ratios import (
    bottleneck_ratio,
    depthwise_separable_ratio,
    factorised_ratio,
    kernel_stack_ratio,
)
from .schedule import (
    QueueTimes,
    iterations_per_epoch,
    last_batch_size,
    queue_times,
)
from .sizes import (
    Padding,
    Window,
    as_int,
    conv_output_size,
    conv_transpose_output_size,
    feature_sizes,
    input_size_rule,
    pool_output_size,
    same_padding,
)

__all__ = [
    "Interval",
    "Operations",
    "Padding",
    "PoolCost",
    "QueueTimes",
    "ReceptiveField",
    "Window",
    "as_int",
    "bottleneck_ratio",
    "conv_macs",
    "conv_output_size",
    "conv_parameters",
    "conv_transpose_macs",
    "conv_transpose_output_size",
    "dense_parameters",
    "depthwise_separable_ratio",
    "factorised_ratio",
    "feature_sizes",
    "input_size_rule",
    "iterations_per_epoch",
    "kernel_stack_ratio",
    "last_batch_size",
    "ngram_count_limit",
    "ngram_table_size",
    "pool_cost",
    "pool_output_size",
    "queue_times",
    "receptive_field",
    "receptive_field_top_down",
    "recurrent_parameters",
    "same_padding",
]
