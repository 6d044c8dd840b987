"""Relatives of convolution: unshared, tiled and true convolution, the plain loop, edge kernels.

All are plain functions of arrays with channels last, written without `jaxd2l.ops.conv` where they
serve to explain or to check it.
"""

import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxd2l.checks import assert_spatial_shape, check_floating, check_rank
from jaxd2l.geometry import Window
from jaxd2l.ops.conv import conv, output_sizes
from jaxd2l.ops.conv_matrix import window_patches
from jaxd2l.ops.windows import make_windows, per_axis

Array = jax.Array


def true_convolution(x: Array, kernel: Array, bias: Array | None = None, **options: Any) -> Array:
    """Convolution in the sense of mathematics: `conv` with the kernel reversed on every axis.

    y[i] = sum_j x[i - j] kernel[j]. A network learns the reversed kernel just as well, which is
    why frameworks leave the reversal out. `options` are those of `conv`.

    Shapes: as `conv`.
    Source: D2L 7.2.5.

    Example:
      >>> x, kernel = jnp.asarray([1.0, 2.0, 3.0]), jnp.asarray([1.0, 10.0])
      >>> y = true_convolution(x.reshape(1, 3, 1), kernel.reshape(2, 1, 1), padding="full")
      >>> y.ravel().tolist(), jnp.convolve(x, kernel).tolist()
      ([1.0, 12.0, 23.0, 30.0], [1.0, 12.0, 23.0, 30.0])
    """
    kernel = jnp.asarray(kernel)
    return conv(x, lax.rev(kernel, tuple(range(kernel.ndim - 2))), bias, **options)


def locally_connected(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    kernel_size: int | Sequence[int],
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
) -> Array:
    """Convolution without weight sharing: every output position has a kernel of its own.

    y[b, i, o] = bias[o] + sum_f im2col(x)[b, i, f] * kernel[i, f, o].

    Shapes:
      x: (n, *space, c).
      kernel: (*out_space, prod(k) * c, out), features in the order of `im2col`.
      bias: (out,), or (*out_space, out) for one per position.
      returns: (n, *out_space, out).
    Raises:
      ValueError: shapes that do not fit together.
      TypeError: arrays that are not floating point, or of different types.
    Source: LeCun, 1989; Goodfellow, Bengio & Courville, 2016, section 9.5.

    Example:
      >>> x, kernel = jnp.ones((1, 3, 1)), jnp.arange(4.0).reshape(2, 2, 1)
      >>> locally_connected(x, kernel, kernel_size=2).ravel().tolist()
      [1.0, 5.0]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    rank = x.ndim - 2
    if rank < 1 or kernel.ndim != rank + 2:
        raise ValueError(
            f"locally_connected: x must be (n, *space, c) and kernel (*out_space, prod(k)*c, out), "
            f"got {x.shape} and {kernel.shape}"
        )
    windows = make_windows(rank, kernel_size, stride, padding, dilation)
    sizes = output_sizes("locally_connected", windows, x.shape, tuple(w.kernel for w in windows))
    wanted = (*sizes, math.prod(w.kernel for w in windows) * x.shape[-1])
    if kernel.shape[:-1] != wanted:
        raise ValueError(
            f"locally_connected: kernel must have shape {(*wanted, 'out')} for x {x.shape}, got "
            f"{kernel.shape}"
        )
    return _tiled("locally_connected", x, kernel, bias, windows, sizes)


def tiled_conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
) -> Array:
    """Tiled convolution: t kernels an axis, used in turn; output position i has kernel i mod t.

    t = 1 is `conv`; t = the output size is `locally_connected`.

    Shapes:
      x: (n, *space, c).
      kernel: (*t, *k, c, out), with at most as many kernels on an axis as there are positions.
      bias: (out,), or (*t, out) for one per kernel.
      returns: (n, *out_space, out).
    Raises:
      ValueError: shapes that do not fit together.
      TypeError: arrays that are not floating point, or of different types.
    Source: Gregor & LeCun, 2010; Le et al., NIPS 2010; Goodfellow, Bengio & Courville, 2016,
      section 9.5.

    Example:
      >>> kernel = jnp.asarray([1.0, -1.0]).reshape(2, 1, 1, 1)  # two kernels of one tap
      >>> tiled_conv(jnp.arange(1.0, 6.0).reshape(1, 5, 1), kernel).ravel().tolist()
      [1.0, -2.0, 3.0, -4.0, 5.0]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    rank = x.ndim - 2
    if rank < 1 or kernel.ndim != 2 * rank + 2 or kernel.shape[-2] != x.shape[-1]:
        raise ValueError(
            f"tiled_conv: x must be (n, *space, c) and kernel (*t, *k, c, out), got {x.shape} and "
            f"{kernel.shape}"
        )
    tiles, k, out = kernel.shape[:rank], kernel.shape[rank:-2], kernel.shape[-1]
    windows = make_windows(rank, k, stride, padding, dilation)
    sizes = output_sizes("tiled_conv", windows, x.shape, kernel.shape)
    if any(t > size for t, size in zip(tiles, sizes, strict=True)):
        raise ValueError(
            f"tiled_conv: more kernels {tiles} than output positions {sizes}: some would never be "
            f"used"
        )
    return _tiled("tiled_conv", x, kernel.reshape(*tiles, -1, out), bias, windows, sizes)


def _tiled(
    where: str,
    x: Array,
    kernel: Array,
    bias: Any,
    windows: Sequence[Window],
    sizes: Sequence[int],
) -> Array:
    """Row i of `im2col` times kernel[i mod t]; kernel (*t, prod(k)*c, out)."""
    check_floating(x, f"{where}: x")
    *tiles, _, out = kernel.shape
    if bias is not None:
        bias = jnp.asarray(bias)
        if bias.shape not in ((out,), (*tiles, out)):
            raise ValueError(
                f"{where}: bias must have shape {(out,)} or {(*tiles, out)}, got {bias.shape}"
            )
    for name, a in (("kernel", kernel), ("bias", bias)):
        if a is not None and a.dtype != x.dtype:
            raise TypeError(
                f"{where}: x and {name} must have the same dtype, got {x.dtype} and {a.dtype}"
            )
    rank = len(sizes)
    rows = window_patches(where, x, windows)
    turns = [-(-size // t) for size, t in zip(sizes, tiles, strict=True)]
    full = [turn * t for turn, t in zip(turns, tiles, strict=True)]
    spare = [(0, a - b) for a, b in zip(full, sizes, strict=True)]
    rows = jnp.pad(rows, ((0, 0), *spare, (0, 0)))
    split = [size for pair in zip(turns, tiles, strict=True) for size in pair]
    rows = rows.reshape(x.shape[0], *split, rows.shape[-1])  # (n, turn, t, turn, t, ..., f)
    tile_axes = tuple(range(2, 2 * rank + 1, 2))
    y = lax.dot_general(
        rows, kernel, (((2 * rank + 1,), (rank,)), (tile_axes, tuple(range(rank))))
    )  # (*t, n, *turns, out)
    if bias is not None:
        bias = (
            bias
            if bias.ndim > 1
            else jnp.broadcast_to(bias.reshape((1,) * rank + (out,)), (*tiles, out))
        )
        y = y + bias.reshape(*tiles, *(1,) * (rank + 1), out)
    order = [rank]
    for axis in range(rank):
        order += [rank + 1 + axis, axis]
    y = y.transpose(*order, 2 * rank + 1).reshape(x.shape[0], *full, out)
    y = lax.slice(y, (0,) * (rank + 2), (x.shape[0], *sizes, out))
    assert_spatial_shape(y, sizes, where)
    return y


def corr2d(x: Array, kernel: Array) -> Array:
    """Two-dimensional cross-correlation by definition: a loop that assigns one element at a time.

    y[i, j] = sum_{a, b} x[i + a, j + b] kernel[a, b]. It is here to be compared with: `conv` gives
    the same, thousands of times faster. It is differentiable, for assignment (`.at[].set`) is.

    Shapes:
      x: (h, w). kernel: (kh, kw). returns: (h - kh + 1, w - kw + 1).
    Raises:
      ValueError: not two axes, or a kernel larger than x.
    Source: D2L 7.2.1.

    Example:
      >>> corr2d(jnp.arange(9.0).reshape(3, 3), jnp.arange(4.0).reshape(2, 2)).tolist()
      [[19.0, 25.0], [37.0, 43.0]]
    """
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    check_rank(x, 2, "corr2d: x", "(h, w)")
    check_rank(kernel, 2, "corr2d: kernel", "(kh, kw)")
    (h, w), (kh, kw) = x.shape, kernel.shape
    if kh > h or kw > w:
        raise ValueError(f"corr2d: kernel {kernel.shape} is larger than x {x.shape}")
    y = jnp.zeros((h - kh + 1, w - kw + 1), x.dtype)
    for i in range(h - kh + 1):
        for j in range(w - kw + 1):
            y = y.at[i, j].set((x[i : i + kh, j : j + kw] * kernel).sum())
    return y


_EDGE_KERNELS = {
    "horizontal": ((1,), (-1,)),
    "vertical": ((1, -1),),
    "diagonal": ((1, -1), (-1, 1)),
    "sobel_x": ((1, 0, -1), (2, 0, -2), (1, 0, -1)),
    "sobel_y": ((1, 2, 1), (0, 0, 0), (-1, -2, -1)),
}


def edge_kernel(name: str, dtype: Any = jnp.float32) -> Array:
    """A small kernel that answers to edges and is zero where the image is constant.

    `"horizontal"` [[1], [-1]] and `"vertical"` [[1, -1]] are differences of neighbours,
    `"diagonal"` [[1, -1], [-1, 1]] the mixed second difference, which no straight edge excites;
    `"sobel_x"` and `"sobel_y"` smooth along the edge. The answer is positive where the image gets
    darker to the right, or downwards.

    Shapes:
      returns: (kh, kw); `[:, :, None, None]` makes it a kernel for `conv`.
    Raises:
      ValueError: another name.
    Source: D2L 7.2.3; Sobel & Feldman, 1968.

    Example:
      >>> image = jnp.ones((6, 8)).at[:, 2:6].set(0.0)
      >>> corr2d(image, edge_kernel("vertical"))[0].tolist()
      [0.0, 1.0, 0.0, 0.0, 0.0, -1.0, 0.0]
    """
    if name not in _EDGE_KERNELS:
        raise ValueError(f"edge_kernel: {name!r} is not one of {sorted(_EDGE_KERNELS)}")
    return jnp.asarray(np.array(_EDGE_KERNELS[name]), dtype)


def learn_kernel(
    x: Array,
    y: Array,
    shape: int | Sequence[int],
    steps: int = 100,
    learning_rate: float = 0.03,
) -> tuple[Array, Array]:
    """The kernel that turns image `x` into image `y`, by gradient descent from zero.

    The loss is the squared error summed over the image, convex in the kernel.

    Shapes:
      x: (h, w). y: (h - kh + 1, w - kw + 1). shape: (kh, kw), or one int for a square.
      returns: the kernel (kh, kw), and the losses before each step (steps,).
    Raises:
      ValueError: shapes that do not fit together.
    Source: D2L 7.2.4.

    Example:
      >>> x = jnp.ones((6, 8)).at[:, 2:6].set(0.0)
      >>> kernel, losses = learn_kernel(x, corr2d(x, edge_kernel("vertical")), (1, 2))
      >>> kernel.round(3).tolist()
      [[1.0, -1.0]]
    """
    x, y = jnp.asarray(x), jnp.asarray(y)
    check_rank(x, 2, "learn_kernel: x", "(h, w)")
    check_floating(x, "learn_kernel: x")
    kernel_shape = per_axis(shape, 2, "learn_kernel: shape")
    sizes = output_sizes(
        "learn_kernel", make_windows(2, kernel_shape), (1, *x.shape, 1), kernel_shape
    )
    if y.shape != sizes or y.dtype != x.dtype:
        raise ValueError(
            f"learn_kernel: x {x.shape} and a kernel {kernel_shape} need y of shape {sizes} and "
            f"dtype {x.dtype}, got {y.shape} {y.dtype}"
        )
    images = x.reshape(1, *x.shape, 1)

    def loss(kernel: Array) -> Array:
        out = conv(images, kernel.reshape(*kernel_shape, 1, 1)).reshape(sizes)
        return ((out - y) ** 2).sum()

    def step(kernel: Array, _: None) -> tuple[Array, Array]:
        value, grad = jax.value_and_grad(loss)(kernel)
        return kernel - learning_rate * grad, value

    return lax.scan(step, jnp.zeros(kernel_shape, x.dtype), None, length=steps)
