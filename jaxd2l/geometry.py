"""Closed forms on plain integers: output sizes, receptive fields, parameters, operations.

Everything here is exact (`int` and `fractions.Fraction`) and knows nothing of arrays. Functions of
one spatial axis take integers; those that count work over a whole image (`conv_macs`, ...) take a
tuple with one entry per axis, or a plain integer for one axis. A padding is an integer (the same on
both sides) or `(low, high)`; over several axes, an integer or one of these per axis.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple, TypeAlias

Padding: TypeAlias = int | tuple[int, int]
PerAxis: TypeAlias = int | Sequence[int]
PaddingPerAxis: TypeAlias = int | Sequence[Padding]
Interval: TypeAlias = tuple[int, int]


def as_int(value: Any, what: str, minimum: int) -> int:
    """`value` as a Python int, at least `minimum`.

    Raises:
      TypeError: not an integer (a bool or a float is not one; a NumPy integer is).
      ValueError: below `minimum`; the message starts with `what`.

    Example:
      >>> as_int(3, "stride", 1)
      3
    """
    if isinstance(value, bool):
        raise TypeError(f"{what} must be an integer, got {value!r}")
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r}") from None
    if number < minimum:
        raise ValueError(f"{what} must be at least {minimum}, got {number}")
    return number


def _sides(padding: Any, what: str = "padding") -> tuple[int, int]:
    """An integer, or a pair `(low, high)`, as a pair."""
    if isinstance(padding, tuple | list):
        if len(padding) != 2:
            raise ValueError(f"{what} must be an integer or (low, high), got {padding!r}")
        return as_int(padding[0], f"{what} (low)", 0), as_int(padding[1], f"{what} (high)", 0)
    both = as_int(padding, what, 0)
    return both, both


def _plain(value: Fraction) -> int | Fraction:
    return value.numerator if value.denominator == 1 else value


@dataclass(frozen=True)
class Window:
    """How one operation looks at one spatial axis: convolution, pooling or their transpose.

    Output unit i of an ordinary window reads the inputs `i*stride - low + dilation*t`, t in
    [0, kernel). In a transposed window input j writes the outputs `j*stride - low + dilation*t`,
    so its padding is PyTorch's: it crops the full output, and `output_padding` adds to the high
    end. `padding` is stored as `(low, high)`.

    Raises:
      TypeError: an argument is not an integer.
      ValueError: kernel, stride or dilation below 1, a negative padding, an `output_padding` on an
        ordinary window or one not below max(stride, dilation).

    Example:
      >>> Window(3, stride=2, padding=1)
      Window(kernel=3, stride=2, padding=(1, 1), dilation=1, transposed=False, output_padding=0)
      >>> Window(3, stride=2, padding=1).output_size(224)
      112
    """

    kernel: int
    stride: int = 1
    padding: Padding = 0
    dilation: int = 1
    transposed: bool = False
    output_padding: int = 0

    def __post_init__(self) -> None:
        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        put("kernel", as_int(self.kernel, "kernel", 1))
        put("stride", as_int(self.stride, "stride", 1))
        put("padding", _sides(self.padding))
        put("dilation", as_int(self.dilation, "dilation", 1))
        put("output_padding", as_int(self.output_padding, "output_padding", 0))
        if not isinstance(self.transposed, bool):
            raise TypeError(f"transposed must be True or False, got {self.transposed!r}")
        limit = max(self.stride, self.dilation)
        if self.output_padding and not self.transposed:
            raise ValueError(
                f"output_padding belongs to a transposed window, got {self.output_padding} "
                f"on an ordinary one; pad with padding=(low, high)"
            )
        if self.output_padding >= limit:
            raise ValueError(
                f"output_padding must be below max(stride, dilation) = {limit}, "
                f"got {self.output_padding}"
            )

    @property
    def sides(self) -> tuple[int, int]:
        """The padding as `(low, high)`."""
        return _sides(self.padding)

    @property
    def effective_kernel(self) -> int:
        """`(kernel - 1)*dilation + 1`: how many units the kernel spans.

        Example:
          >>> Window(3, dilation=2).effective_kernel
          5
        """
        return (self.kernel - 1) * self.dilation + 1

    def output_size(self, size: int, ceil_mode: bool = False) -> int:
        """The output size on an input of `size`, with k the effective kernel and p = low + high.

        Ordinary: floor((size + p - k)/stride) + 1; with `ceil_mode` ceil instead of floor, unless
        the window so added would start in the high padding (Caffe's clip, and PyTorch's).
        Transposed: (size - 1)*stride - p + k + output_padding.

        Raises:
          TypeError: `size` is not an integer.
          ValueError: the kernel is larger than the padded input (with `ceil_mode`, by a stride or
            more: the last window may hang over), nothing would be left of a transposed output,
            or `ceil_mode` with a transposed window.

        Example:
          >>> Window(3, 2).output_size(8), Window(3, 2).output_size(8, ceil_mode=True)
          (3, 4)
        """
        n = as_int(size, "size", 1)
        low, high = self.sides
        k, s = self.effective_kernel, self.stride
        if self.transposed:
            if ceil_mode:
                raise ValueError("ceil_mode does not apply to a transposed window")
            out = (n - 1) * s - low - high + k + self.output_padding
            if out < 1:
                raise ValueError(
                    f"padding ({low}, {high}) crops the whole transposed output: size {n}, "
                    f"kernel {k}, stride {s} give {out}"
                )
            return out
        room = n + low + high - k
        out = room // s + 1
        if ceil_mode and room % s and out * s < n + low:
            out += 1
        if out < 1:
            dilated = "" if self.dilation == 1 else f" ({self.kernel} dilated by {self.dilation})"
            raise ValueError(
                f"kernel {k}{dilated} is larger than the padded input "
                f"{n + low + high} = {low} + {n} + {high}"
            )
        return out


# Output sizes


def conv_output_size(
    size: int, kernel: int, stride: int = 1, padding: Padding = 0, dilation: int = 1
) -> int:
    """The output size of a convolution: floor((n + p_low + p_high - (k-1)*d - 1)/s) + 1.

    Raises:
      TypeError, ValueError: as `Window` and `Window.output_size`.
    Source: Dumoulin & Visin, 2016, arXiv:1603.07285; D2L 7.3.

    Example:
      >>> conv_output_size(227, 11, stride=4)
      55
    """
    return Window(kernel, stride, padding, dilation).output_size(size)


def conv_transpose_output_size(
    size: int,
    kernel: int,
    stride: int = 1,
    padding: Padding = 0,
    output_padding: int = 0,
    dilation: int = 1,
) -> int:
    """The output size of a transposed convolution: (n-1)*s - p_low - p_high + (k-1)*d + 1 + extra.

    This is PyTorch's. `jax.lax.conv_transpose(padding="VALID")` gives n*s where k < s.

    Raises:
      TypeError, ValueError: as `Window` and `Window.output_size`.
    Source: Dumoulin & Visin, 2016, arXiv:1603.07285; D2L 14.10.

    Example:
      >>> conv_transpose_output_size(7, 4, stride=2, padding=1)
      14
    """
    return Window(kernel, stride, padding, dilation, True, output_padding).output_size(size)


def pool_output_size(
    size: int,
    kernel: int,
    stride: int | None = None,
    padding: Padding = 0,
    dilation: int = 1,
    ceil_mode: bool = False,
) -> int:
    """The output size of pooling; `stride` is the kernel unless given.

    By default floor, as in PyTorch, TensorFlow and D2L. `ceil_mode=True` is Caffe's rounding with
    its clip: the window it adds must start inside the input or the low padding.

    Raises:
      TypeError, ValueError: as `Window` and `Window.output_size`.

    Example:
      >>> pool_output_size(54, 3, 2), pool_output_size(54, 3, 2, ceil_mode=True)
      (26, 27)
    """
    stride = kernel if stride is None else stride
    return Window(kernel, stride, padding, dilation).output_size(size, ceil_mode)


def same_padding(kernel: int, dilation: int = 1) -> tuple[int, int]:
    """The padding `(low, high)` that keeps the size at stride 1: in all (k-1)*d.

    Half on each side; where that is odd (an even kernel) the extra one is on the high side, and no
    symmetric padding keeps the size. It does not depend on the input size, unlike "SAME" of
    TensorFlow and `lax` at strides above 1.

    Raises:
      TypeError, ValueError: as `Window`.

    Example:
      >>> same_padding(3), same_padding(4)
      ((1, 1), (1, 2))
    """
    total = Window(kernel, dilation=dilation).effective_kernel - 1
    return total // 2, total - total // 2


def feature_sizes(size: int, windows: Iterable[Window]) -> tuple[int, ...]:
    """The size after each window in turn.

    Raises:
      ValueError: a window does not fit; a note says which.

    Example:
      >>> feature_sizes(32, [Window(5), Window(2, 2), Window(5), Window(2, 2)])
      (28, 14, 10, 5)
    """
    sizes = []
    for position, window in enumerate(windows):
        try:
            size = window.output_size(size)
        except ValueError as error:
            error.add_note(f"at window {position}: {window}")
            raise
        sizes.append(size)
    return tuple(sizes)


def input_size_rule(halvings: int, final: int = 7) -> int:
    """The input size that `halvings` exact halvings bring down to `final`: final * 2**halvings.

    7*2**4 = 112, 7*2**5 = 224, 7*2**6 = 448.

    Example:
      >>> input_size_rule(5)
      224
    """
    return as_int(final, "final", 1) * 2 ** as_int(halvings, "halvings", 0)


# Receptive fields


@dataclass(frozen=True)
class ReceptiveField:
    """Which input pixels each unit of a feature map can see, along one axis; exact.

    `intervals[i]` is the first and last input pixel that unit i sees, for i in [0, period); unit
    i + period sees the same shifted by `shift` pixels. Without transposed windows the period is 1.
    A transposed window makes neighbours see different amounts, hence the phases; None marks a unit
    that sees nothing (a hole that a kernel smaller than its stride leaves). Pixel 0 is the first
    input pixel; negative numbers are padding, since the borders of the image are ignored. Inside
    its interval a unit need not see every pixel (dilation).

    `ReceptiveField()` is that of the input itself. Grow one with `then` and `union`.

    Example:
      >>> field = ReceptiveField().then(Window(7, 2, 3)).then(Window(3, 2, 1))
      >>> field.size, field.jump, field.start, field.centre(0), field.interval(1)
      (11, 4, -5, 0, (-1, 9))
    """

    intervals: tuple[Interval | None, ...] = ((0, 0),)
    shift: int = 1

    def __post_init__(self) -> None:
        # Keep the shortest period, so that equal fields compare equal.
        period = len(self.intervals)
        for short in range(1, period):
            if period % short or self.shift * short % period:
                continue
            part, shift = self.intervals[:short], self.shift * short // period
            if all(_at(part, shift, i) == self.intervals[i] for i in range(short, period)):
                object.__setattr__(self, "intervals", part)
                object.__setattr__(self, "shift", shift)
                return

    @property
    def size(self) -> int:
        """The number of pixels from the first to the last seen; the largest over the units."""
        return max((i[1] - i[0] + 1 for i in self.intervals if i is not None), default=0)

    @property
    def jump(self) -> int | Fraction:
        """How many input pixels lie between neighbouring units: the effective stride.

        A `Fraction` where it is not whole (after a transposed window).
        """
        return _plain(Fraction(self.shift, len(self.intervals)))

    @property
    def start(self) -> int | None:
        """The first pixel that unit 0 sees (negative: in the padding); None if it sees nothing."""
        return None if self.intervals[0] is None else self.intervals[0][0]

    @property
    def padding(self) -> int | None:
        """The effective padding, `-start`."""
        return None if self.start is None else -self.start

    def interval(self, unit: int) -> Interval | None:
        """The first and last pixel that `unit` sees; None if it sees nothing."""
        return _at(self.intervals, self.shift, unit)

    def centre(self, unit: int) -> int | Fraction | None:
        """The middle of `interval(unit)`, a `Fraction` where it lies between two pixels."""
        seen = self.interval(unit)
        return None if seen is None else _plain(Fraction(seen[0] + seen[1], 2))

    def then(self, window: Window) -> ReceptiveField:
        """The field of the output of `window` applied to this feature map.

        Without transposed windows: size + (k-1)*jump, jump*stride, start - low*jump, with k the
        effective kernel.
        """
        units, shift = len(self.intervals), self.shift
        if window.transposed:
            units *= window.stride
        else:
            shift *= window.stride
        return ReceptiveField(tuple(self._hull(_reads(window, i)) for i in range(units)), shift)

    def union(self, other: ReceptiveField) -> ReceptiveField:
        """The field of a sum or concatenation of two branches: the hull of both.

        Raises:
          ValueError: the branches have different jumps, so their units do not stay aligned.

        Example:
          >>> branch = ReceptiveField().then(Window(3, padding=1))
          >>> branch.union(ReceptiveField()).size
          3
        """
        if self.jump != other.jump:
            raise ValueError(
                f"branches with different jumps cannot be joined: {self.jump} and {other.jump}"
            )
        units = math.lcm(len(self.intervals), len(other.intervals))
        pairs = [(self.interval(i), other.interval(i)) for i in range(units)]
        return ReceptiveField(tuple(_hull(pair) for pair in pairs), int(self.jump * units))

    def _hull(self, units: range) -> Interval | None:
        """The hull of what evenly spaced `units` see; only one period at each end can matter."""
        period = len(self.intervals)
        ends = (*units[:period], *units[-period:])
        return _hull(self.interval(unit) for unit in ends)


def _at(intervals: tuple[Interval | None, ...], shift: int, unit: int) -> Interval | None:
    turns, phase = divmod(unit, len(intervals))
    seen = intervals[phase]
    return None if seen is None else (seen[0] + turns * shift, seen[1] + turns * shift)


def _hull(intervals: Iterable[Interval | None]) -> Interval | None:
    seen = [interval for interval in intervals if interval is not None]
    if not seen:
        return None
    return min(lo for lo, _ in seen), max(hi for _, hi in seen)


def _reads(window: Window, unit: int) -> range:
    """The input units that output `unit` reads, as an arithmetic progression."""
    s, d, low = window.stride, window.dilation, window.sides[0]
    if not window.transposed:
        first = unit * s - low
        return range(first, first + window.effective_kernel, d)
    # unit = j*s - low + d*t: the taps t whose remainder leaves a whole j are evenly spaced.
    place = unit + low
    step = s // math.gcd(s, d)
    taps = [t for t in range(min(step, window.kernel)) if (place - d * t) % s == 0]
    if not taps:
        return range(0)
    taps_used = range(taps[0], window.kernel, step)
    first, last = (place - d * taps_used[-1]) // s, (place - d * taps_used[0]) // s
    return range(first, last + 1, d * step // s)


def receptive_field(windows: Iterable[Window]) -> ReceptiveField:
    """The receptive field of the last feature map of a stack of windows, from the first one up.

    r_n = r_(n-1) + (k_n - 1)*j_(n-1) and j_n = j_(n-1)*s_n, from r_0 = j_0 = 1: the product of
    strides leaves out the layer's own. Dilation counts through the effective kernel. After
    transposed windows it is exact for each unit, and `size` is the largest.

    Source: Araujo, Norris & Sim, Distill 2019, doi:10.23915/distill.00021; D2L 7.2.

    Example:
      >>> field = receptive_field([Window(11, 4), Window(3, 2), Window(5, 1, 2)])
      >>> field.size, field.jump, field.padding
      (51, 8, 16)
    """
    field = ReceptiveField()
    for window in windows:
        field = field.then(window)
    return field


def receptive_field_top_down(windows: Sequence[Window]) -> int:
    """The size of the receptive field, from the last window down: r = (r-1)*s + k, from r = 1.

    A transposed window takes r to floor((r + k - 2)/s) + 1, the most inputs that r neighbouring
    outputs can meet. Equal to `receptive_field(windows).size`, except that it is only an upper
    bound where a strided window follows a transposed one (it may never meet the best alignment)
    or a transposed window has gaps (dilation, or a kernel smaller than the stride).

    Example:
      >>> receptive_field_top_down([Window(11, 4), Window(3, 2), Window(5, 1, 2)])
      51
    """
    size = 1
    for window in reversed(windows):
        k, s = window.effective_kernel, window.stride
        size = (size + k - 2) // s + 1 if window.transposed else (size - 1) * s + k
    return size


# Counts


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
        pads = (_sides(padding),) * axes
    elif len(padding) != axes:
        raise ValueError(
            f"padding must be an integer, or {axes} entries that are integers or (low, high), "
            f"got {padding!r}"
        )
    else:
        pads = tuple(_sides(p) for p in padding)
    kernels = _each(kernel, axes, "kernel", 1)
    strides = _each(stride, axes, "stride", 1)
    dilations = _each(dilation, axes, "dilation", 1)
    return [Window(*w) for w in zip(kernels, strides, pads, dilations, strict=True)]


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
        met = [_count(_reads(window, i), n) for i in range(window.output_size(n))]
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


def iterations_per_epoch(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Batches in one pass: ceil(examples/batch_size), or the floor if the short one is dropped.

    Example:
      >>> iterations_per_epoch(2000, 500), iterations_per_epoch(2001, 500)
      (4, 5)
    """
    n, b = as_int(examples, "examples", 0), as_int(batch_size, "batch_size", 1)
    return n // b if drop_last else -(-n // b)


def last_batch_size(examples: int, batch_size: int, drop_last: bool = False) -> int:
    """Examples in the last batch of a pass; 0 if there is no batch.

    Example:
      >>> last_batch_size(2000, 500), last_batch_size(2001, 500)
      (500, 1)
    """
    batches = iterations_per_epoch(examples, batch_size, drop_last)
    if not batches:
        return 0
    n, b = operator.index(examples), operator.index(batch_size)
    return b if drop_last else n - (batches - 1) * b


# What cheaper convolutions save, as exact ratios cheap/full


def kernel_stack_ratio(
    kernels: Sequence[int], axes: int = 2, channels: int = 1, bias: bool = False
) -> Fraction:
    """Parameters of a stack of stride-1 convolutions over those of one with the same field.

    The one kernel is 1 + sum(k - 1). Input and output have `channels` everywhere; without bias
    their number cancels out.

    Raises:
      ValueError: no kernels.
    Source: Simonyan & Zisserman, 2015, arXiv:1409.1556, section 2.3.

    Example:
      >>> kernel_stack_ratio([3, 3]), kernel_stack_ratio([3, 3, 3])
      (Fraction(18, 25), Fraction(27, 49))
    """
    if not kernels:
        raise ValueError("kernels must hold at least one kernel size, got none")
    rank = as_int(axes, "axes", 1)
    whole = receptive_field(Window(k) for k in kernels).size
    stack = sum(conv_parameters((k,) * rank, channels, channels, bias=bias) for k in kernels)
    return Fraction(stack, conv_parameters((whole,) * rank, channels, channels, bias=bias))


def depthwise_separable_ratio(kernel: PerAxis, out_channels: int) -> Fraction:
    """Multiplications of a depthwise plus a 1x1 convolution over the full one's: 1/C_out + 1/k^2.

    k^2 stands for prod(kernel); stride 1 and an output of the input's size. A convolution in g
    groups alone costs 1/g.

    Source: Howard et al., 2017, arXiv:1704.04861, section 3.1.

    Example:
      >>> depthwise_separable_ratio((3, 3), 256)
      Fraction(265, 2304)
    """
    taps = math.prod(_each(kernel, _axes(kernel), "kernel", 1))
    return Fraction(1, as_int(out_channels, "out_channels", 1)) + Fraction(1, taps)


def factorised_ratio(kernel: int, axes: int = 2) -> Fraction:
    """One convolution along each axis (1 x k, then k x 1) over one k x k: axes*k / k^axes.

    Source: Szegedy et al., 2016, arXiv:1512.00567, section 3.2.

    Example:
      >>> factorised_ratio(7)
      Fraction(2, 7)
    """
    k, rank = as_int(kernel, "kernel", 1), as_int(axes, "axes", 1)
    return Fraction(rank * k, k**rank)


def bottleneck_ratio(
    kernel: PerAxis, in_channels: int, middle_channels: int, out_channels: int
) -> Fraction:
    """Multiplications of a 1x1 convolution down to `middle_channels`, then `kernel`, over direct.

    (C_in*C_mid + prod(kernel)*C_mid*C_out) / (prod(kernel)*C_in*C_out), sizes kept.

    Source: Szegedy et al., 2015, arXiv:1409.4842, section 4.

    Example:
      >>> round(float(1 / bottleneck_ratio((5, 5), 192, 16, 32)), 2)
      9.68
    """
    one = (1,) * _axes(kernel)
    via = conv_parameters(one, in_channels, middle_channels, bias=False) + conv_parameters(
        kernel, middle_channels, out_channels, bias=False
    )
    return Fraction(via, conv_parameters(kernel, in_channels, out_channels, bias=False))


# Other counts


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

    Example:
      >>> ngram_count_limit(10**5, 4)
      399994
    """
    size, n = as_int(tokens, "tokens", 0), as_int(order, "order", 1)
    return sum(max(size - length + 1, 0) for length in range(1, n + 1))


class QueueTimes(NamedTuple):
    """The time of a run that waits for each task, and of one that only waits at the end."""

    synchronous: int | Fraction
    asynchronous: int | Fraction


def queue_times(
    tasks: int, issue: int | Fraction, compute: int | Fraction, fetch: int | Fraction
) -> QueueTimes:
    """The time of `tasks` that are issued in t1, computed in t2 and fetched in t3 each.

    Waiting for each: n*(t1 + t2 + t3). Issuing all and fetching once:
    t1 + (n - 1)*max(t1, t2) + t2 + t3, which is t1 + n*t2 + t3 if computing is the slower part.

    Raises:
      TypeError: a time is not an integer or a `Fraction`.
      ValueError: a time is negative.
    Source: D2L 13.2.

    Example:
      >>> queue_times(1000, issue=1, compute=3, fetch=2)
      QueueTimes(synchronous=6000, asynchronous=3003)
    """
    n = as_int(tasks, "tasks", 1)
    for name, time in (("issue", issue), ("compute", compute), ("fetch", fetch)):
        if not isinstance(time, Fraction):
            as_int(time, name, 0)
        elif time < 0:
            raise ValueError(f"{name} must be at least 0, got {time}")
    together = issue + (n - 1) * max(issue, compute) + compute + fetch
    return QueueTimes(n * (issue + compute + fetch), together)
