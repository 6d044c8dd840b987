"""Pooling layers: no parameters, the number of channels stays."""

from collections.abc import Sequence
from typing import Any, ClassVar

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.conv import normalise, spatial_sizes
from jaxd2l.layers.core import Array, Context, Layer, Params, Shape, State, check_flags
from jaxd2l.ops import pool, time_pooling
from jaxd2l.ops.windows import make_windows, per_axis
from jaxd2l.records import record


class _Pool(Layer):
    """What the pools share: windows that slide over 1, 2 or 3 spatial axes."""

    kernel: Any
    stride: Any
    padding: Any
    ceil_mode: bool

    def __post_init__(self) -> None:
        if self.stride is None:
            object.__setattr__(self, "stride", self.kernel)
        normalise(self, type(self).__name__)
        check_flags(self, "ceil_mode")

    def windows(self, input_shape: Shape) -> tuple[Window, ...]:
        return make_windows(len(self.kernel), self.kernel, self.stride, self.padding)

    def output_shape(self, input_shape: Shape) -> Shape:
        name = type(self).__name__
        windows = self.windows(input_shape)
        sizes = spatial_sizes(windows, input_shape, name, ceil_mode=self.ceil_mode)
        return (*sizes, input_shape[-1])


@record
class MaxPool(_Pool):
    """The largest value in each window; stride defaults to the window.

    An int kernel is square, in two dimensions; write (2,) for one dimension. `ceil_mode` rounds
    the size up, and drops a window that would start beyond the input and its left padding.

    Source: D2L 7.5.

    Example:
      >>> MaxPool(2).output_shape((28, 28, 6))
      (14, 14, 6)
    """

    label: ClassVar[str] = "max_pool"
    kernel: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = pool.max_pool(
            x, self.kernel, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode
        )
        return y, state


@record
class MinPool(_Pool):
    """The smallest value in each window: -max_pool(-x).

    Example:
      >>> MinPool(2).output_shape((4, 4, 1))
      (2, 2, 1)
    """

    label: ClassVar[str] = "min_pool"
    kernel: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = pool.min_pool(
            x, self.kernel, stride=self.stride, padding=self.padding, ceil_mode=self.ceil_mode
        )
        return y, state


@record
class AvgPool(_Pool):
    """The mean of each window; with `count_include_pad=False` padding does not count.

    Example:
      >>> AvgPool(3, stride=2, padding=1).output_shape((8, 8, 4))
      (4, 4, 4)
    """

    label: ClassVar[str] = "avg_pool"
    kernel: Any
    stride: Any = None
    padding: Any = 0
    ceil_mode: bool = False
    count_include_pad: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_flags(self, "count_include_pad")

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = pool.avg_pool(
            x,
            self.kernel,
            stride=self.stride,
            padding=self.padding,
            ceil_mode=self.ceil_mode,
            count_include_pad=self.count_include_pad,
        )
        return y, state


@record
class AdaptiveAvgPool(Layer):
    """The average of each of `size` bins: an output of one size whatever the input's.

    An int means both axes of an image; write (7,) for one dimension.

    Source: PyTorch `AdaptiveAvgPool2d`.

    Example:
      >>> AdaptiveAvgPool(7).output_shape((9, 12, 512))
      (7, 7, 512)
    """

    label: ClassVar[str] = "adaptive_avg_pool"
    size: Any

    def __post_init__(self) -> None:
        rank = len(self.size) if isinstance(self.size, Sequence) else 2
        sizes = per_axis(self.size, rank, "AdaptiveAvgPool: size")
        object.__setattr__(self, "size", sizes)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != len(self.size) + 1 or 0 in input_shape:
            raise ValueError(
                f"AdaptiveAvgPool to {self.size} needs an input with {len(self.size)} spatial axes "
                f"and channels last, got {input_shape}"
            )
        return (*self.size, input_shape[-1])

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        """Equal windows where the size divides the input, else the whole input."""
        pairs = list(zip(input_shape, self.size, strict=False))
        if any(n % m for n, m in pairs):
            return None
        return tuple(Window(n // m, n // m) for n, m in pairs)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return pool.adaptive_avg_pool(x, self.size), state


def _global_shape(owner: Layer, input_shape: Shape) -> Shape:
    if len(input_shape) < 2:
        raise ValueError(
            f"{type(owner).__name__} needs an input (*spatial, c) with a spatial axis, "
            f"got {input_shape}"
        )
    return input_shape[-1:]


@record
class GlobalAvgPool(Layer):
    """The mean over all positions, of a padded sequence the real ones: (n, *spatial, c) -> (n, c).

    Example:
      >>> GlobalAvgPool().output_shape((7, 7, 512))
      (512,)
    """

    label: ClassVar[str] = "global_avg_pool"

    def output_shape(self, input_shape: Shape) -> Shape:
        return _global_shape(self, input_shape)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if context.lengths is not None and x.ndim == 3:
            return time_pooling.mean_over_time(x, context.lengths), state
        return pool.global_avg_pool(x), state


@record
class GlobalMaxPool(Layer):
    """The largest value over all positions, of a padded sequence the real ones: over time it is the
    1-max pooling of TextCNN.

    Example:
      >>> GlobalMaxPool().output_shape((35, 100))
      (100,)
    """

    label: ClassVar[str] = "global_max_pool"

    def output_shape(self, input_shape: Shape) -> Shape:
        return _global_shape(self, input_shape)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if context.lengths is not None and x.ndim == 3:
            return time_pooling.max_over_time(x, context.lengths), state
        return pool.global_max_pool(x), state


@record
class KMaxPool(Layer):
    """The k largest values over time, in the order in which they occur: (n, t, c) -> (n, k, c).

    Source: Kalchbrenner et al. 2014.

    Example:
      >>> KMaxPool(3).output_shape((35, 100))
      (3, 100)
    """

    label: ClassVar[str] = "k_max_pool"
    k: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "k", as_int(self.k, "KMaxPool: k", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2 or input_shape[0] < self.k:
            raise ValueError(
                f"KMaxPool needs an input (t, c) with t >= k={self.k}, got {input_shape}"
            )
        return (self.k, input_shape[1])

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if context.lengths is not None:
            return time_pooling.k_max_over_time(x, self.k, context.lengths), state
        return pool.k_max_pool(x, self.k), state
