"""Hypothesis strategies of windows, stacks of windows and the sizes that they fit."""

import itertools
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any

from jaxd2l.geometry import Window, as_int

if TYPE_CHECKING:
    from hypothesis.strategies import SearchStrategy


def hypothesis_strategies() -> ModuleType:
    """`hypothesis.strategies`, or an ImportError that says what to install."""
    try:
        import hypothesis.strategies
    except ImportError as error:
        raise ImportError(
            "the strategies of jaxd2l.testing need hypothesis: pip install hypothesis"
        ) from error
    return hypothesis.strategies


def windows(
    max_kernel: int = 5,
    max_stride: int = 3,
    max_padding: int = 3,
    max_dilation: int = 3,
    transposed: bool = False,
) -> "SearchStrategy[Window]":
    """Windows along one axis: ordinary ones, or transposed ones; `a | b` draws from both.

    Kernel, stride and dilation are drawn from 1, the padding from 0 on each side on its own, all up
    to the bounds given, and the output padding of a transposed window over all its legal values.
    Nothing says that a window fits an input: see `input_sizes`.

    Raises:
      TypeError, ValueError: a bound is not an integer or too small.
      ImportError: hypothesis is not installed (so for all strategies).

    Example:
      >>> from hypothesis import find
      >>> find(windows(), lambda w: w.kernel > 2 and w.stride > 1)
      Window(kernel=3, stride=2, padding=(0, 0), dilation=1, transposed=False, output_padding=0)
    """
    st = hypothesis_strategies()
    kernels = range(1, as_int(max_kernel, "windows: max_kernel", 1) + 1)
    strides = range(1, as_int(max_stride, "windows: max_stride", 1) + 1)
    sides = range(as_int(max_padding, "windows: max_padding", 0) + 1)
    dilations = range(1, as_int(max_dilation, "windows: max_dilation", 1) + 1)
    # Few choices a window: hypothesis removes no more than five at once from a list it shrinks.
    steps, paddings = simplest_first(strides, dilations), simplest_first(sides, sides)

    @st.composite
    def window(draw: Any) -> Window:
        kernel, padding = draw(st.sampled_from(kernels)), draw(st.sampled_from(paddings))
        stride, dilation = draw(st.sampled_from(steps))
        extras = range(max(stride, dilation) if transposed else 1)
        extra = draw(st.sampled_from(extras)) if len(extras) > 1 else 0
        return Window(kernel, stride, padding, dilation, transposed, extra)

    return window()


def simplest_first(*ranges: Sequence[int]) -> list[tuple[int, ...]]:
    """All combinations of a number from each range, those with the smallest sum first."""
    return sorted(itertools.product(*ranges), key=lambda numbers: (sum(numbers), numbers[1:]))


def input_sizes(windows: Sequence[Window], extra: int = 8) -> "SearchStrategy[int]":
    """Sizes of an axis that fit a stack of windows: from the smallest one to `extra` above it.

    A size fits if every window leaves at least one unit to the next. For several axes combine
    them: `st.tuples(input_sizes(rows), input_sizes(columns))`.

    Raises:
      TypeError: something in `windows` is not a `geometry.Window`.

    Example:
      >>> from hypothesis import find
      >>> find(input_sizes([Window(3, 2), Window(5)]), lambda size: True)
      11
    """
    st = hypothesis_strategies()
    smallest = _smallest_input(windows)
    return st.integers(smallest, smallest + as_int(extra, "input_sizes: extra", 0))


def _smallest_input(windows: Sequence[Window]) -> int:
    """The smallest size that leaves one unit after the last window, from the last one back."""
    size = 1
    for w in reversed(windows):
        if not isinstance(w, Window):
            raise TypeError(f"input_sizes: expected a list of geometry.Window, got {w!r} in it")
        low, high = w.sides
        if w.transposed:
            missing = size + low + high - w.effective_kernel - w.output_padding
            size = max(1, -(-missing // w.stride) + 1)
        else:
            size = max(1, (size - 1) * w.stride + w.effective_kernel - low - high)
    return size


def stacks(
    window: "SearchStrategy[Window] | None" = None, max_windows: int = 4, extra: int = 8
) -> "SearchStrategy[tuple[list[Window], int]]":
    """A list of one to `max_windows` windows with an input size that they all fit, in order.

    `window` is the strategy of each window, `windows()` unless given; `extra` is that of
    `input_sizes`. Four of the default windows can need an input of some 500 units: bound the
    stride or the dilation where arrays of that size are too slow.

    Example:
      >>> from hypothesis import find
      >>> find(stacks(windows(transposed=True)), lambda stack: stack[0][-1].stride == 2)
      ([Window(kernel=1, stride=2, padding=(0, 0), dilation=1, transposed=True, output_padding=0)],
      1)
    """
    st = hypothesis_strategies()
    each = windows() if window is None else window
    lists = st.lists(each, min_size=1, max_size=as_int(max_windows, "stacks: max_windows", 1))

    @st.composite
    def stack(draw: Any) -> tuple[list[Window], int]:
        drawn = draw(lists)
        return drawn, draw(input_sizes(drawn, extra))

    return stack()
