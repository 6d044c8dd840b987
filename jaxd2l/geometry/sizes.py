"""Windows that slide along one axis, and the output sizes that they give."""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeAlias

Padding: TypeAlias = int | tuple[int, int]


def as_int(value: Any, what: str, minimum: int) -> int:
    """`value` as a Python int, at least `minimum`.

    Raises:
      TypeError: not an integer (a bool or a float is not one; a NumPy integer is).
      ValueError: below `minimum`; the message starts with `what`.

    Example:
      >>> as_int(3, "stride", 1)
      3
    """
    if isinstance(value, bool) or str(getattr(value, "dtype", "")) == "bool":
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

    def reads(self, unit: int) -> range:
        """The input units that output `unit` reads, in order; negative ones are padding.

        Example:
          >>> list(Window(3, 2, 1, dilation=2).reads(0))
          [-1, 1, 3]
          >>> up = Window(4, 2, 1, transposed=True)
          >>> list(up.reads(0)), list(up.reads(1))
          ([-1, 0], [0, 1])
        """
        s, d, low = self.stride, self.dilation, self.sides[0]
        if not self.transposed:
            first = unit * s - low
            return range(first, first + self.effective_kernel, d)
        # unit = j*s - low + d*t: the taps t that leave a whole j are evenly spaced.
        place = unit + low
        step = s // math.gcd(s, d)
        first_tap = next((t for t in range(step) if (place - d * t) % s == 0), self.kernel)
        taps = range(first_tap, self.kernel, step)
        if not taps:
            return range(0)
        return range((place - d * taps[-1]) // s, (place - d * taps[0]) // s + 1, d * step // s)


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
    Source: D2L 7.5.

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
    Source: D2L 7.3.1.

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
