"""Parameters and operations: what a layer holds, and what one forward pass of it costs.

Work over a whole image takes tuples with one entry per spatial axis, or a plain integer for one
axis. A padding is an integer (both sides of every axis), or an entry per axis: an integer or
`(low, high)`; over one axis written as an integer, also `(low, high)` itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, TypeAlias

from .sizes import Padding, Window, as_int

PerAxis: TypeAlias = int | Sequence[int]
PaddingPerAxis: TypeAlias = int | Sequence[Padding]


class Operations(NamedTuple):
    """Scalar multiplications and additions of one forward pass on one example.

    `multiplications` is the number of MACs; 1 MAC is 2 FLOPs.
    """

    multiplications: int
    additions: int


class PoolCost(NamedTuple):
    """Window elements read, comparisons or additions made, and divisions made by one pooling."""

    reads: int
    operations: int
    divisions: int


def _axes(size: PerAxis) -> int:
    return len(size) if isinstance(size, Sequence) else 1


def _each(value: Any, axes: int, what: str, minimum: int) -> tuple[int, ...]:
    if not isinstance(value, tuple | list):
        return (as_int(value, what, minimum),) * axes
    if len(value) != axes:
        raise ValueError(f"{what} must be an integer or {axes} of them, got {value!r}")
    return tuple(as_int(v, what, minimum) for v in value)


def _windows(
    axes: int, kernel: Any, stride: Any, padding: Any, dilation: Any, one_axis: bool
) -> list[Window]:
    if one_axis or not isinstance(padding, tuple | list):
        padding = (padding,) * axes
    elif len(padding) != axes:
        raise ValueError(
            f"padding must be an integer, or {axes} entries that are integers or (low, high), "
            f"got {padding!r}"
        )
    kernels = _each(kernel, axes, "kernel", 1)
    strides = _each(stride, axes, "stride", 1)
    dilations = _each(dilation, axes, "dilation", 1)
    return [Window(*w) for w in zip(kernels, strides, padding, dilations, strict=True)]


def _groups(in_channels: int, out_channels: int, groups: int) -> tuple[int, int, int]:
    c_in = as_int(in_channels, "in_channels", 1)
    c_out = as_int(out_channels, "out_channels", 1)
    g = as_int(groups, "groups", 1)
    for name, c in (("in_channels", c_in), ("out_channels", c_out)):
        if c % g:
            raise ValueError(f"groups must divide {name}, got groups {g} and {name} {c}")
    return c_in, c_out, g


def conv_parameters(
    kernel: PerAxis, in_channels: int, out_channels: int, groups: int = 1, bias: bool = True
) -> int:
    """Parameters of a convolution (or its transpose): C_out*(C_in/g * prod(kernel) + 1).

    `kernel` has one entry per spatial axis; a plain integer is one axis, not a square.

    Raises:
      ValueError: `groups` does not divide both channel counts, or a number is below 1.
    Source: D2L 7.4.

    Example:
      >>> conv_parameters((5, 5), 1, 6)
      156
    """
    c_in, c_out, g = _groups(in_channels, out_channels, groups)
    taps = math.prod(_each(kernel, _axes(kernel), "kernel", 1))
    return c_out * (c_in // g * taps + bool(bias))


def conv_macs(
    input_size: PerAxis,
    kernel: PerAxis,
    in_channels: int,
    out_channels: int,
    stride: PerAxis = 1,
    padding: PaddingPerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    bias: bool = True,
) -> Operations:
    """Multiplications and additions of a convolution, products with padding counted.

    With O = C_out*prod(output sizes) and m = C_in/g * prod(kernel): O*m multiplications, O*m
    additions with bias, O*(m-1) without.

    Raises:
      TypeError, ValueError: as `Window`, `Window.output_size` and `conv_parameters`, or a tuple
        without one entry per axis of `input_size`.
    Source: D2L 7.4, exercise 2.

    Example:
      >>> conv_macs((32, 32), (3, 3), 3, 8, padding=1)
      Operations(multiplications=221184, additions=221184)
    """
    axes = _axes(input_size)
    sizes = _each(input_size, axes, "input_size", 1)
    one_axis = not isinstance(input_size, Sequence)
    windows = _windows(axes, kernel, stride, padding, dilation, one_axis)
    c_in, c_out, g = _groups(in_channels, out_channels, groups)
    outputs = c_out * math.prod(w.output_size(n) for w, n in zip(windows, sizes, strict=True))
    products = c_in // g * math.prod(w.kernel for w in windows)
    return Operations(outputs * products, outputs * (products - (not bias)))


def conv_transpose_macs(
    input_size: PerAxis,
    kernel: PerAxis,
    in_channels: int,
    out_channels: int,
    stride: PerAxis = 1,
    padding: PaddingPerAxis = 0,
    dilation: PerAxis = 1,
    output_padding: PerAxis = 0,
    groups: int = 1,
    bias: bool = True,
) -> Operations:
    """Multiplications and additions of a transposed convolution.

    Counted are the products of an input with a tap that land in the output; those that the padding
    crops are not. Uncropped there are C_in*C_out/g * prod(input sizes) * prod(kernel). An output
    summed from m products takes m-1 additions, and one more for the bias; an output that no tap
    reaches is the bias itself.

    Raises:
      TypeError, ValueError: as `conv_macs`.
    Source: D2L 14.10.

    Example:
      >>> conv_transpose_macs((7, 7), (4, 4), 2, 3, stride=2)
      Operations(multiplications=4704, additions=4704)
    """
    axes = _axes(input_size)
    sizes = _each(input_size, axes, "input_size", 1)
    extras = _each(output_padding, axes, "output_padding", 0)
    one_axis = not isinstance(input_size, Sequence)
    plain = _windows(axes, kernel, stride, padding, dilation, one_axis)
    c_in, c_out, g = _groups(in_channels, out_channels, groups)
    products, reached = 1, 1
    for w, n, extra in zip(plain, sizes, extras, strict=True):
        window = Window(w.kernel, w.stride, w.padding, w.dilation, True, extra)
        met = [_count(window.reads(i), n) for i in range(window.output_size(n))]
        products *= sum(met)
        reached *= sum(m > 0 for m in met)
    multiplications = c_in // g * c_out * products
    return Operations(multiplications, multiplications - (0 if bias else c_out * reached))


def _count(units: range, size: int) -> int:
    """How many of `units` lie in [0, size)."""
    return sum(0 <= unit < size for unit in units)


def pool_cost(
    input_size: PerAxis,
    kernel: PerAxis,
    channels: int,
    stride: PerAxis | None = None,
    padding: PaddingPerAxis = 0,
    dilation: PerAxis = 1,
    ceil_mode: bool = False,
    average: bool = False,
) -> PoolCost:
    """Reads, operations and divisions of max pooling, or of average pooling.

    With O = channels*prod(output sizes) and k = prod(kernel): O*k reads, O*(k-1) comparisons (or
    additions), and O divisions for the average. Elements in the padding are counted.

    Raises:
      TypeError, ValueError: as `pool_output_size`, or a tuple without one entry per axis.
    Source: D2L 7.5, exercise.

    Example:
      >>> pool_cost((4, 4), (2, 2), channels=1)
      PoolCost(reads=16, operations=12, divisions=0)
    """
    axes = _axes(input_size)
    sizes = _each(input_size, axes, "input_size", 1)
    one_axis = not isinstance(input_size, Sequence)
    stride = kernel if stride is None else stride
    windows = _windows(axes, kernel, stride, padding, dilation, one_axis)
    outputs = as_int(channels, "channels", 1) * math.prod(
        w.output_size(n, ceil_mode) for w, n in zip(windows, sizes, strict=True)
    )
    taps = math.prod(w.kernel for w in windows)
    return PoolCost(outputs * taps, outputs * (taps - 1), outputs if average else 0)


def dense_parameters(in_features: int, out_features: int, bias: bool = True) -> int:
    """Parameters of a dense layer: out*(in + 1), or out*in without bias.

    Source: D2L 3.1, 5.1.

    Example:
      >>> dense_parameters(784, 10)
      7850
    """
    m, n = as_int(in_features, "in_features", 1), as_int(out_features, "out_features", 1)
    return n * (m + bool(bias))


def recurrent_parameters(kind: str, input_size: int, hidden_size: int, biases: int = 1) -> int:
    """Parameters of one recurrent layer: gates*h*(d + h + biases); gates: rnn 1, gru 3, lstm 4.

    `biases` per gate is 1 here; PyTorch and cuDNN have 2 (one for the input, one for the state).

    Raises:
      ValueError: another `kind`.
    Source: D2L 9.4, 10.1, 10.2.

    Example:
      >>> recurrent_parameters("lstm", 8, 32)
      5248
    """
    gates = {"rnn": 1, "gru": 3, "lstm": 4}.get(kind)
    if gates is None:
        raise ValueError(f"kind must be 'rnn', 'gru' or 'lstm', got {kind!r}")
    d, h = as_int(input_size, "input_size", 1), as_int(hidden_size, "hidden_size", 1)
    return gates * h * (d + h + as_int(biases, "biases", 0))


def ngram_table_size(vocabulary: int, order: int) -> int:
    """Cells of the count tables of all n-grams up to `order`: V + V^2 + ... + V^order.

    Source: D2L 9.3.

    Example:
      >>> f"{ngram_table_size(10**5, 4):,}"
      '100,001,000,010,000,100,000'
    """
    v, n = as_int(vocabulary, "vocabulary", 1), as_int(order, "order", 1)
    return sum(v**power for power in range(1, n + 1))


def ngram_count_limit(tokens: int, order: int) -> int:
    """The most distinct n-grams up to `order` that a text of `tokens` can hold: sum of N - n + 1.

    It grows with the text, not with a power of the vocabulary, which is why counts are kept sparse.

    Source: D2L 9.3.

    Example:
      >>> ngram_count_limit(10**5, 4)
      399994
    """
    size, n = as_int(tokens, "tokens", 0), as_int(order, "order", 1)
    return sum(max(size - length + 1, 0) for length in range(1, n + 1))
