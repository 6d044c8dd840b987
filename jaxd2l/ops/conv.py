"""Convolution and transposed convolution in one, two or three dimensions, channels last."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import assert_spatial_shape, check_floating
from jaxd2l.geometry import Window, as_int
from jaxd2l.ops.conv_primitive import bilinear_conv
from jaxd2l.ops.windows import make_windows

Array = jax.Array


def conv(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """Convolution as neural networks mean it: cross-correlation, summed over input channels.

    With one axis, y[b, i, o] = bias[o] + sum_{j, c} x[b, i*stride + j*dilation - low, c] *
    kernel[j, c, o]. With groups, output o sees only the c/groups inputs of its own group;
    groups = c is a depthwise convolution.

    `stride` and `dilation` are an int or one per axis. `padding` is an int, one entry per axis
    (an int for both sides, or `(low, high)`), or `"valid"`, `"same"`, `"full"`. So `(1, 2)` in two
    dimensions pads height by 1 and width by 2; one pair for both axes is `((1, 2), (1, 2))`.

    Shapes:
      x: (n, *space, c) with one to three spatial axes.
      kernel: (*k, c/groups, out). From PyTorch's (out, c/groups, *k) it is, in two dimensions,
        `weight.transpose(2, 3, 1, 0)`.
      bias: (out,).
      returns: (n, *out_space, out), each size floor((n + low + high - (k-1)*dilation - 1)/stride)
        + 1.
    Raises:
      ValueError: shapes that do not fit together, groups that do not divide the channels, a kernel
        larger than the padded input.
      TypeError: arrays that are not floating point, or of different types.
    Source: Dumoulin & Visin, 2016, arXiv:1603.07285; D2L 7.2-7.4. PyTorch's `conv2d` has the same
      arguments, but takes no `(low, high)` padding; its "same" is equal to ours. Flax's and
      TensorFlow's "SAME" moves with the stride.

    Example:
      >>> x = jnp.arange(9.0).reshape(1, 3, 3, 1)
      >>> kernel = jnp.arange(4.0).reshape(2, 2, 1, 1)
      >>> conv(x, kernel)[0, :, :, 0].tolist()
      [[19.0, 25.0], [37.0, 43.0]]
    """
    x, kernel, bias = check_arrays("conv", x, kernel, bias)
    rank = kernel.ndim - 2
    groups = as_int(groups, "conv: groups", 1)
    windows = make_windows(rank, kernel.shape[:rank], stride, padding, dilation)
    _check_channels("conv", x, kernel, groups)
    sizes = output_sizes("conv", windows, x.shape, kernel.shape)
    y = bilinear_conv(
        x,
        kernel,
        window_strides=[w.stride for w in windows],
        padding=[w.sides for w in windows],
        rhs_dilation=[w.dilation for w in windows],
        feature_group_count=groups,
    )
    assert_spatial_shape(y, sizes, "conv")
    return add_bias(y, bias)


def conv_transpose(
    x: Array,
    kernel: Array,
    bias: Array | None = None,
    *,
    stride: int | Sequence[int] = 1,
    padding: Any = 0,
    output_padding: int | Sequence[int] = 0,
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
) -> Array:
    """Transposed convolution: the adjoint of `conv`, which spreads each input over a window.

    With one axis, y[b, m, o] = bias[o] + the sum of x[b, i, c] * kernel[j, c, o] over all i, j, c
    with i*stride + j*dilation - low = m. It is the transpose of the matrix of `conv`: without
    bias, with equal arguments and kt = swap_channels(kernel, groups),
    <conv(x, kernel), y> = <x, conv_transpose(y, kt)> wherever the sizes agree. `output_padding`
    is there to make them agree: with a stride, several input sizes of `conv` give one output size.

    Padding is `conv`'s too: it is cropped from the result.

    Shapes:
      x: (n, *space, c) with one to three spatial axes.
      kernel: (*k, c/groups, out). From PyTorch's (c, out/groups, *k) it is, in two dimensions,
        `weight.transpose(2, 3, 0, 1)`; with g groups, `weight.reshape(g, c//g, out//g, kh, kw)
        .transpose(3, 4, 1, 0, 2).reshape(kh, kw, c//g, out)`. Neither is flipped.
      bias: (out,).
      returns: (n, *out_space, out), (n-1)*stride - low - high + (k-1)*dilation + 1 + output_padding
        an axis.
    Raises:
      ValueError: shapes that do not fit together, groups that do not divide the channels, padding
        that crops everything, output_padding that is not below max(stride, dilation).
      TypeError: arrays that are not floating point, or of different types.
    Source: Dumoulin & Visin, 2016, arXiv:1603.07285; Zeiler et al., 2010; D2L 14.10. Sizes and
      values are PyTorch's; `lax.conv_transpose` and Flax give n*stride for "VALID" where
      k < stride, and do not flip the kernel.

    Example:
      >>> x, kernel = jnp.arange(4.0).reshape(1, 2, 2, 1), jnp.arange(4.0).reshape(2, 2, 1, 1)
      >>> conv_transpose(x, kernel)[0, :, :, 0].tolist()
      [[0.0, 0.0, 1.0], [0.0, 4.0, 6.0], [4.0, 12.0, 9.0]]
    """
    x, kernel, bias = check_arrays("conv_transpose", x, kernel, bias)
    rank = kernel.ndim - 2
    groups = as_int(groups, "conv_transpose: groups", 1)
    windows = make_windows(
        rank, kernel.shape[:rank], stride, padding, dilation, True, output_padding
    )
    _check_channels("conv_transpose", x, kernel, groups)
    sizes = output_sizes("conv_transpose", windows, x.shape, kernel.shape)
    pads = []
    for w in windows:
        full = w.effective_kernel - 1
        low, high = w.sides
        pads.append((full - low, full - high + w.output_padding))
    y = bilinear_conv(
        x,
        jax.lax.rev(kernel, tuple(range(rank))),
        window_strides=(1,) * rank,
        padding=pads,
        lhs_dilation=[w.stride for w in windows],
        rhs_dilation=[w.dilation for w in windows],
        feature_group_count=groups,
    )
    assert_spatial_shape(y, sizes, "conv_transpose")
    return add_bias(y, bias)


def check_arrays(where: str, x: Any, kernel: Any, bias: Any) -> tuple[Array, Array, Array | None]:
    x, kernel = jnp.asarray(x), jnp.asarray(kernel)
    if kernel.ndim not in (3, 4, 5):
        raise ValueError(
            f"{where}: kernel must have one to three spatial axes, (*k, c/groups, out), "
            f"got shape {kernel.shape}"
        )
    if x.ndim != kernel.ndim:
        raise ValueError(
            f"{where}: x must be (n, *space, c) with the {kernel.ndim - 2} spatial axes of the "
            f"kernel, got x {x.shape} and kernel {kernel.shape}"
        )
    check_floating(x, f"{where}: x")
    if bias is not None:
        bias = jnp.asarray(bias)
        if bias.shape != kernel.shape[-1:]:
            raise ValueError(
                f"{where}: bias must have shape {kernel.shape[-1:]}, one number per output "
                f"channel, got {bias.shape}"
            )
    for name, a in (("kernel", kernel), ("bias", bias)):
        if a is not None and a.dtype != x.dtype:
            raise TypeError(
                f"{where}: x and {name} must have the same dtype, got {x.dtype} and {a.dtype}; "
                f"convert one with .astype"
            )
    return x, kernel, bias


def _check_channels(where: str, x: Array, kernel: Array, groups: int) -> None:
    c, inner, out = x.shape[-1], *kernel.shape[-2:]
    if c % groups or out % groups:
        raise ValueError(
            f"{where}: groups = {groups} must divide the input channels {c} and the output "
            f"channels {out}; x has shape {x.shape}, kernel {kernel.shape}"
        )
    if c != inner * groups:
        raise ValueError(
            f"{where}: x {x.shape} has {c} channels, but kernel {kernel.shape} with groups = "
            f"{groups} takes {inner * groups}"
        )


def output_sizes(
    where: str, windows: Sequence[Window], x: tuple[int, ...], kernel: tuple[int, ...]
) -> tuple[int, ...]:
    """The sizes that geometry predicts for an input of shape `x` (n, *space, c).

    The error of a window that does not fit names both shapes.
    """
    sizes = []
    for axis, window in enumerate(windows):
        try:
            sizes.append(window.output_size(x[1 + axis]))
        except ValueError as error:
            raise ValueError(
                f"{where}: spatial axis {axis}: {error}; x has shape {x}, kernel {kernel}"
            ) from None
    return tuple(sizes)


def add_bias(y: Array, bias: Array | None) -> Array:
    return y if bias is None else y + bias.reshape((1,) * (y.ndim - 1) + bias.shape)
