"""Pooling: maximum, average, minimum, global and k-max, over one to three spatial axes.

A pool has no parameters and keeps the channels. Sizes are those of `jaxd2l.geometry`: floor unless
`ceil_mode`. Inputs must be floating point: the minimum is minus the maximum of -x and padding is
minus infinity, which integers have not; convert images with `.astype` first.

Maxima are taken by a chain of comparisons of shifted slices, not by `lax.reduce_window`, whose
gradient (select-and-scatter) is several times slower on a CPU. The chain uses PyTorch's rule: a
later element wins only if it is greater, or NaN. So ties, common after ReLU, send the whole
gradient to the first maximum in reading order, and one NaN makes the window NaN.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxd2l.checks import assert_spatial_shape, check_floating, check_rank
from jaxd2l.geometry import as_int
from jaxd2l.ops.windows import make_windows, per_axis

Array = jax.Array
PerAxis = int | Sequence[int]

_AXES = "(n, l, c), (n, h, w, c) or (n, d, h, w, c)"


class _Slide(NamedTuple):
    """One spatial axis of a pool: `out` windows, the first begins at -low."""

    size: int
    kernel: int
    stride: int
    low: int
    high: int
    out: int

    @property
    def reach(self) -> int:
        """Padding that the last window needs at the high end; negative if it needs none."""
        return (self.out - 1) * self.stride + self.kernel - self.low - self.size


def _slides(
    x: Any, window: PerAxis, stride: PerAxis | None, padding: Any, ceil_mode: bool, what: str
) -> tuple[_Slide, ...]:
    check_rank(x, (3, 4, 5), f"{what}: x", _AXES)
    check_floating(x, f"{what}: x")
    spatial = jnp.shape(x)[1:-1]
    slides = []
    try:
        kernels = per_axis(window, len(spatial), "window")
        windows = make_windows(
            len(spatial), kernels, kernels if stride is None else stride, padding
        )
        for size, w in zip(spatial, windows, strict=True):
            low, high = w.sides
            if max(low, high) >= w.kernel:
                raise ValueError(
                    f"padding ({low}, {high}) must be smaller than the window {w.kernel}, "
                    f"or a window would see no input"
                )
            out = w.output_size(size, ceil_mode)
            slides.append(_Slide(size, w.kernel, w.stride, low, high, out))
    except (TypeError, ValueError) as error:
        error.add_note(f"in {what} of an input of shape {tuple(jnp.shape(x))}")
        raise
    return tuple(slides)


def _later(first: Array, second: Array) -> Array:
    return jnp.where((second > first) | jnp.isnan(second), second, first)


def _every(x: Array, axis: int, start: int, slide: _Slide) -> Array:
    """Element `start` of each window of one padded axis."""
    stop = start + (slide.out - 1) * slide.stride + 1
    return lax.slice_in_dim(x, start, stop, slide.stride, axis)


def _max_along(x: Array, axis: int, slide: _Slide) -> Array:
    """Maxima of the windows of one padded axis."""
    if slide.kernel <= 8:
        return reduce(_later, [_every(x, axis, i, slide) for i in range(slide.kernel)])
    # Wide windows double the width: maxima of 1, 2, 4, ... elements from every position, then two
    # of these cover a window. Where they overlap they agree, so the first maximum still wins.
    width = 1
    while 2 * width <= slide.kernel:
        n = x.shape[axis]
        head = lax.slice_in_dim(x, 0, n - width, axis=axis)
        x = _later(head, lax.slice_in_dim(x, width, n, axis=axis))
        width *= 2
    return _later(_every(x, axis, 0, slide), _every(x, axis, slide.kernel - width, slide))


def _max_windows(x: Array, slides: tuple[_Slide, ...]) -> Array:
    config = [(0, 0, 0), *((s.low, s.reach, 0) for s in slides), (0, 0, 0)]
    if any(edge for low, high, _ in config for edge in (low, high)):
        x = lax.pad(x, jnp.array(-jnp.inf, x.dtype), config)
    disjoint = all(s.stride >= s.kernel for s in slides)
    if disjoint and math.prod(s.kernel for s in slides) <= 16:
        parts = []
        for offset in np.ndindex(*(s.kernel for s in slides)):
            part = x
            for axis, (start, slide) in enumerate(zip(offset, slides, strict=True), 1):
                part = _every(part, axis, start, slide)
            parts.append(part)
        return reduce(_later, parts)
    # The last axis first: then the first of equal maxima is the first in reading order.
    for axis in range(len(slides), 0, -1):
        x = _max_along(x, axis, slides[axis - 1])
    return x


def _max_pool(
    x: Array, window: PerAxis, stride: PerAxis | None, padding: Any, ceil_mode: bool, what: str
) -> Array:
    slides = _slides(x, window, stride, padding, ceil_mode, what)
    x = jnp.asarray(x)
    y = _max_windows(x, slides)
    assert_spatial_shape(y, [s.out for s in slides], what)
    return y


def max_pool(
    x: Array,
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
) -> Array:
    """The maximum of each window, channel by channel.

        y[n, i, j, c] = max over s, t of x[n, i*stride + s - low, j*stride + t - low, c]

    `window` and `stride` (the window unless given) are an int or one int per axis; `padding` is an
    int, an int or `(low, high)` per axis, or "same" or "valid", and counts as minus infinity.
    `ceil_mode` lets a last window hang over the end if it starts inside the input or low padding.

    Shapes:
      x: (n, *spatial, c), one to three spatial axes.
      result: (n, *out, c), out = `jaxd2l.geometry.pool_output_size` along each axis.

    Raises:
      TypeError: x is not floating point, or an argument is not an integer.
      ValueError: wrong rank, a window larger than the padded input, or padding that is not smaller
        than the window.

    Source: D2L 7.5 (pooling), LeNet. PyTorch `max_pool2d` agrees, gradients of ties and NaN
    included; it allows padding up to half the window. Flax takes no ceil_mode.

    Example:
      >>> x = jnp.array([[1., 1, 2, 4], [5, 6, 7, 8], [3, 2, 1, 0], [1, 2, 3, 4]])
      >>> max_pool(x.reshape(1, 4, 4, 1), 2).reshape(2, 2)
      Array([[6., 8.],
             [3., 4.]], dtype=float32)
    """
    return _max_pool(x, window, stride, padding, ceil_mode, "max_pool")


def min_pool(
    x: Array,
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
) -> Array:
    """The minimum of each window: `-max_pool(-x)`; padding counts as plus infinity.

    Shapes, Raises: as `max_pool`. Source: grey erosion in image processing; not in D2L.
    Flax has `min_pool`, PyTorch none.

    Example:
      >>> min_pool(jnp.arange(4.).reshape(1, 4, 1), 2).reshape(2)
      Array([0., 2.], dtype=float32)
    """
    check_floating(x, "min_pool: x")
    return -_max_pool(-jnp.asarray(x), window, stride, padding, ceil_mode, "min_pool")


def _wide(x: Array) -> Array:
    """Half precision as float32, for sums; other floats as they are."""
    return x.astype(jnp.float32) if jnp.finfo(x.dtype).bits < 32 else x


def _counts(slide: _Slide, count_include_pad: bool) -> np.ndarray:
    """How many elements the average over each window of one axis divides by."""
    start = np.arange(slide.out) * slide.stride - slide.low
    stop = np.minimum(start + slide.kernel, slide.size + slide.high)
    if not count_include_pad:
        start, stop = np.maximum(start, 0), np.minimum(stop, slide.size)
    return stop - start


def avg_pool(
    x: Array,
    window: PerAxis,
    *,
    stride: PerAxis | None = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
) -> Array:
    """The average of each window, channel by channel.

        y = (sum of the window) / count

    The padding is zeros. `count` includes it unless `count_include_pad` is False; the part of a
    `ceil_mode` window that hangs over the padded input never counts. Sums of half precision are
    taken in float32.

    Shapes:
      x: (n, *spatial, c), one to three spatial axes.
      result: (n, *out, c), out = `jaxd2l.geometry.pool_output_size` along each axis.

    Raises: as `max_pool`. Source: D2L 7.5; PyTorch `avg_pool2d` has the same divisor. Flax
    `avg_pool` agrees where there is no ceil_mode.

    Example:
      >>> avg_pool(jnp.arange(5.).reshape(1, 5, 1), 2, ceil_mode=True).reshape(3)
      Array([0.5, 2.5, 4. ], dtype=float32)
    """
    slides = _slides(x, window, stride, padding, ceil_mode, "avg_pool")
    x = jnp.asarray(x)
    total = lax.reduce_window(
        _wide(x),
        0.0,
        lax.add,
        (1, *(s.kernel for s in slides), 1),
        (1, *(s.stride for s in slides), 1),
        ((0, 0), *((s.low, max(s.reach, 0)) for s in slides), (0, 0)),
    )
    assert_spatial_shape(total, [s.out for s in slides], "avg_pool")
    counts = reduce(np.multiply.outer, [_counts(s, count_include_pad) for s in slides])
    divisor = jnp.asarray(counts[None, ..., None], total.dtype)  # (1, *out, 1)
    return (total / divisor).astype(x.dtype)


def _flat(x: Array, what: str) -> Array:
    """x checked, as (n, t, c)."""
    check_rank(x, (3, 4, 5), f"{what}: x", _AXES)
    check_floating(x, f"{what}: x")
    n, *spatial, c = jnp.shape(x)
    return jnp.asarray(x).reshape(n, math.prod(spatial), c)  # (n, t, c)


def global_avg_pool(x: Array) -> Array:
    """The mean over all positions, one number per channel (the mean, not the sum).

    With one channel per class it replaces the dense layers at the end of a network.

    Shapes:
      x: (n, *spatial, c); result: (n, c).

    Raises:
      TypeError, ValueError: x is not floating point, or has no spatial axis.

    Source: Lin et al. 2014 (network in network), D2L 8.3. PyTorch: `AdaptiveAvgPool2d(1)`.

    Example:
      >>> global_avg_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
      Array([[3., 4.]], dtype=float32)
    """
    x = _flat(x, "global_avg_pool")
    return jnp.mean(_wide(x), axis=1).astype(x.dtype)  # (n, c)


def adaptive_avg_pool(x: Array, size: PerAxis) -> Array:
    """The average of each of `size` bins along each axis: an output of one size for any input.

    Of n positions, output i of m averages floor(i n / m) .. ceil((i + 1) n / m) - 1. The bins are
    equal windows where m divides n, overlap where it does not, and repeat positions where m > n.

    Shapes:
      x: (n, *spatial, c), one to three spatial axes; result: (n, *size, c).

    Raises:
      TypeError, ValueError: x is not floating point or has no spatial axis, or a size below 1.

    Source: PyTorch `adaptive_avg_pool2d`, before the dense layers of torchvision's AlexNet and VGG.

    Example:
      >>> adaptive_avg_pool(jnp.arange(5.0).reshape(1, 5, 1), 2).reshape(2)
      Array([1., 3.], dtype=float32)
    """
    check_rank(x, (3, 4, 5), "adaptive_avg_pool: x", _AXES)
    check_floating(x, "adaptive_avg_pool: x")
    x = jnp.asarray(x)
    sizes = per_axis(size, x.ndim - 2, "adaptive_avg_pool: size")
    y = _wide(x)
    for axis, m in enumerate(sizes, 1):
        n = x.shape[axis]
        if m == n:
            continue
        if n == 0:
            raise ValueError(f"adaptive_avg_pool: x has no positions, got shape {x.shape}")
        weights = np.zeros((m, n))
        for i in range(m):
            bin = slice(i * n // m, -((-(i + 1) * n) // m))
            weights[i, bin] = 1 / (bin.stop - bin.start)
        y = jnp.tensordot(y, jnp.asarray(weights, y.dtype), (axis, 1), precision="highest")
        y = jnp.moveaxis(y, -1, axis)
    assert_spatial_shape(y, sizes, "adaptive_avg_pool")
    return y.astype(x.dtype)


def global_max_pool(x: Array) -> Array:
    """The maximum over all positions, one number per channel; a tie goes to the first.

    Shapes:
      x: (n, *spatial, c); result: (n, c).

    Raises:
      TypeError, ValueError: x is not floating point, or has no spatial axis.

    Source: D2L 16.3 (max over time). PyTorch: `AdaptiveMaxPool2d(1)`.

    Example:
      >>> global_max_pool(jnp.arange(8.).reshape(1, 2, 2, 2))
      Array([[6., 7.]], dtype=float32)
    """
    rest = _flat(x, "global_max_pool")
    while rest.shape[1] > 1:  # Neighbours in pairs: the order, so the first of equals, is kept.
        odd = [rest[:, -1:]] if rest.shape[1] % 2 else []
        pairs = rest.shape[1] - len(odd)
        rest = jnp.concatenate([_later(rest[:, 0:pairs:2], rest[:, 1:pairs:2]), *odd], axis=1)
    return rest[:, 0]  # (n, c)


def k_max_pool(x: Array, k: int) -> Array:
    """The k largest values over time of each feature, in the order in which they occur.

    Of equal values the earlier is taken. k = 1 is `global_max_pool` with the time axis kept.
    For padded sequences: `time_pooling.k_max_over_time`.

    Shapes:
      x: (n, t, c); result: (n, k, c).

    Raises:
      TypeError: x is not floating point, or k no integer.
      ValueError: x is not of rank 3, or k is not in 1..t.

    Source: Kalchbrenner et al. 2014. PyTorch and Flax have none.

    Example:
      >>> k_max_pool(jnp.array([3., 1., 5., 2., 4.]).reshape(1, 5, 1), 3).reshape(3)
      Array([3., 5., 4.], dtype=float32)
    """
    check_rank(x, 3, "k_max_pool: x", "(n, t, c)")
    check_floating(x, "k_max_pool: x")
    k = as_int(k, "k_max_pool: k", 1)
    if k > x.shape[1]:
        raise ValueError(f"k_max_pool: k must be at most the {x.shape[1]} time steps, got {k}")
    x = jnp.asarray(x)
    _, positions = lax.top_k(jnp.moveaxis(x, 1, 2), k)  # (n, c, k)
    positions = jnp.moveaxis(jnp.sort(positions, axis=-1), 2, 1)  # (n, k, c)
    y = jnp.take_along_axis(x, positions, axis=1)
    assert_spatial_shape(y, [k], "k_max_pool")
    return y
