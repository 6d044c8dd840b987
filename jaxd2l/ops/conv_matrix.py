"""Convolution as a matrix product: the patches of an image, and the doubly blocked matrix."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxd2l.checks import assert_spatial_shape, check_floating
from jaxd2l.geometry import Window, as_int
from jaxd2l.ops.conv import add_bias, check_arrays, output_sizes
from jaxd2l.ops.windows import make_windows

Array = jax.Array


def im2col(
    x: Array,
    kernel_size: int | Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
) -> Array:
    """The patch that each output position of a convolution sees, as one row.

    The features of a row run over the kernel's axes and then the channels, so that
    `im2col(x, k) @ kernel.reshape(-1, out)` is `conv(x, kernel)`.

    Shapes:
      x: (n, *space, c).
      returns: (n, *out_space, prod(k) * c).
    Raises:
      ValueError: no spatial axis, or a kernel larger than the padded input.
    Source: Chellapilla, Puri & Simard, 2006. PyTorch's `unfold` has the channels first, then the
      kernel's axes.

    Example:
      >>> im2col(jnp.arange(4.0).reshape(1, 4, 1), 2)[0].tolist()
      [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    """
    x = jnp.asarray(x)
    if x.ndim < 3:
        raise ValueError(f"im2col: x must have shape (n, *space, c), got {x.shape}")
    return window_patches(
        "im2col", x, make_windows(x.ndim - 2, kernel_size, stride, padding, dilation)
    )


def window_patches(where: str, x: Array, windows: Sequence[Window]) -> Array:
    """`im2col` over windows that are already there; `where` begins the message of an error.

    Example:
      >>> window_patches("f", jnp.arange(4.0).reshape(1, 4, 1), [Window(2, stride=2)])[0].tolist()
      [[0.0, 1.0], [2.0, 3.0]]
    """
    sizes = output_sizes(where, windows, x.shape, tuple(w.kernel for w in windows))
    n, c = x.shape[0], x.shape[-1]
    padded = jnp.pad(x, ((0, 0), *(w.sides for w in windows), (0, 0)))
    taps = []
    for offset in product(*(range(w.kernel) for w in windows)):
        start = [o * w.dilation for o, w in zip(offset, windows, strict=True)]
        stop = [
            a + (size - 1) * w.stride + 1 for a, size, w in zip(start, sizes, windows, strict=True)
        ]
        strides = (1, *(w.stride for w in windows), 1)
        taps.append(lax.slice(padded, (0, *start, 0), (n, *stop, c), strides))
    patches = jnp.stack(taps, axis=-2).reshape(n, *sizes, len(taps) * c)  # (n, *out, k * c)
    assert_spatial_shape(patches, sizes, where)
    return patches


def conv_as_matmul(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
) -> Array:
    """`conv` as one matrix product of `im2col` with the flattened kernel; equal, without groups.

    Much faster than a loop over positions, at the price of prod(k) copies of the input. XLA's own
    convolution is faster still.

    Shapes, Raises: as `conv`.
    Source: D2L 7.2, exercise 4.

    Example:
      >>> x, kernel = jnp.arange(9.0).reshape(1, 3, 3, 1), jnp.arange(4.0).reshape(2, 2, 1, 1)
      >>> conv_as_matmul(x, kernel)[0, :, :, 0].tolist()
      [[19.0, 25.0], [37.0, 43.0]]
    """
    x, kernel, bias = check_arrays("conv_as_matmul", x, kernel, bias)
    if x.shape[-1] != kernel.shape[-2]:
        raise ValueError(
            f"conv_as_matmul: x {x.shape} has {x.shape[-1]} channels, but kernel {kernel.shape} "
            f"takes {kernel.shape[-2]}"
        )
    *k, _, out = kernel.shape
    patches = im2col(x, k, stride=stride, padding=padding, dilation=dilation)
    return add_bias(patches @ kernel.reshape(-1, out), bias)


def toeplitz_matrix(
    kernel: Array,
    input_shape: Sequence[int],
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
) -> Array:
    """The matrix T of a convolution: `conv(x[None], kernel).ravel() == T @ x.ravel()`.

    With one channel and stride 1 it is a Toeplitz matrix (constant along diagonals) in one
    dimension, and a Toeplitz matrix of Toeplitz blocks in two. Its transpose is `conv_transpose`.

    Shapes:
      kernel: (*k, c, out).
      input_shape: (*space, c), no batch axis.
      returns: (prod(out_space) * out, prod(space) * c).
    Raises:
      ValueError: shapes that do not fit together, a kernel larger than the padded input.
    Source: Goodfellow, Bengio & Courville, 2016, section 9.1; D2L 14.10.3.

    Example:
      >>> toeplitz_matrix(jnp.asarray([1.0, 2.0]).reshape(2, 1, 1), (4, 1)).tolist()
      [[1.0, 2.0, 0.0, 0.0], [0.0, 1.0, 2.0, 0.0], [0.0, 0.0, 1.0, 2.0]]
    """
    kernel = jnp.asarray(kernel)
    check_floating(kernel, "toeplitz_matrix: kernel")
    shape = tuple(as_int(n, "toeplitz_matrix: input_shape", 1) for n in input_shape)
    rank = len(shape) - 1
    if kernel.ndim != rank + 2 or rank < 1 or kernel.shape[-2] != shape[-1]:
        raise ValueError(
            f"toeplitz_matrix: kernel (*k, c, out) and input_shape (*space, c) must agree, got "
            f"{kernel.shape} and {shape}"
        )
    windows = make_windows(rank, kernel.shape[:rank], stride, padding, dilation)
    sizes = output_sizes("toeplitz_matrix", windows, (1, *shape), kernel.shape)
    matrix = kernel  # (*k, c, out): each step turns one kernel axis into (input, output) axes
    for window, size, out in zip(windows, shape, sizes, strict=False):
        seen = np.zeros((window.kernel, size, out), bool)
        for i, j in product(range(out), range(window.kernel)):
            place = i * window.stride + j * window.dilation - window.sides[0]
            if 0 <= place < size:
                seen[j, place, i] = True
        matrix = jnp.tensordot(matrix, jnp.asarray(seen, kernel.dtype), ((0,), (0,)))
    # (c, out, in_1, out_1, in_2, out_2, ...) -> (*out_space, out, *space, c)
    ins, outs = range(2, 2 + 2 * rank, 2), range(3, 3 + 2 * rank, 2)
    matrix = matrix.transpose(*outs, 1, *ins, 0)
    return matrix.reshape(math.prod(sizes) * kernel.shape[-1], math.prod(shape))
