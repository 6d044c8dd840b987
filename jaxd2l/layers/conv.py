"""Convolutional layers in one, two and three dimensions."""

import math
from collections.abc import Sequence
from typing import Any

from jaxd2l.geometry import Window, as_int, conv_macs, conv_transpose_macs
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    check_flags,
    check_initializers,
    check_name,
)
from jaxd2l.ops import conv as conv_ops
from jaxd2l.ops import initializers
from jaxd2l.ops.windows import make_windows, paddings, per_axis
from jaxd2l.records import record

ZERO = initializers.Constant(0.0)


def normalise(owner: Any, what: str) -> None:
    """Write an owner's kernel, stride, padding and dilation as one entry per spatial axis.

    An int kernel means a square one in two dimensions; `(3,)` is a kernel in one dimension.
    """
    kernel = owner.kernel
    rank = len(kernel) if isinstance(kernel, Sequence) and not isinstance(kernel, str) else 2
    if rank not in (1, 2, 3):
        raise ValueError(f"{what}: kernel must have 1, 2 or 3 axes, got {kernel!r}")
    kernel = per_axis(kernel, rank, f"{what}: kernel")
    dilation = per_axis(getattr(owner, "dilation", 1), rank, f"{what}: dilation")
    values = {
        "kernel": kernel,
        "stride": per_axis(owner.stride, rank, f"{what}: stride"),
        "padding": paddings(owner.padding, kernel, dilation, f"{what}: padding"),
    }
    if hasattr(owner, "dilation"):
        values["dilation"] = dilation
    for field, value in values.items():
        object.__setattr__(owner, field, value)


def spatial_sizes(
    windows: tuple[Window, ...], input_shape: Shape, what: str, ceil_mode: bool = False
) -> Shape:
    """The spatial sizes that the windows give, or a ValueError that says what is wanted."""
    if len(input_shape) != len(windows) + 1:
        axes = {1: "(t, c)", 2: "(h, w, c)", 3: "(d, h, w, c)"}[len(windows)]
        hint = "; a kernel in one dimension is written (k,)" if len(input_shape) == 2 else ""
        raise ValueError(f"{what} needs an input of shape {axes}, got {input_shape}{hint}")
    return tuple(
        window.output_size(size, ceil_mode=ceil_mode)
        for window, size in zip(windows, input_shape, strict=False)
    )


def check_groups(groups: int, channels: int, features: int, what: str) -> None:
    """Both the channels and the features must be a multiple of the groups."""
    if channels % groups or features % groups:
        raise ValueError(
            f"{what}: groups={groups} must divide the {channels} input channels and the "
            f"{features} features"
        )


class Convolution(Layer):
    """What all convolutions share: a kernel (*kernel, c // groups, features) that slides, a bias.

    A kind without a `groups` field has one group.
    """

    name: str
    features: int
    kernel: Any
    stride: Any
    padding: Any
    dilation: Any
    groups = 1
    bias: bool
    kernel_init: Initializer
    bias_init: Initializer

    def __post_init__(self) -> None:
        kind = type(self).__name__
        check_name(self.name, kind)
        check_flags(self, "bias")
        check_initializers(self, "kernel_init", "bias_init")
        what = f"{kind} {self.name!r}"
        object.__setattr__(self, "features", as_int(self.features, f"{what}: features", 1))
        object.__setattr__(self, "groups", as_int(self.groups, f"{what}: groups", 1))
        normalise(self, what)

    def windows(self, input_shape: Shape) -> tuple[Window, ...]:
        return make_windows(len(self.kernel), self.kernel, self.stride, self.padding, self.dilation)

    def output_shape(self, input_shape: Shape) -> Shape:
        what = f"{type(self).__name__} {self.name!r}"
        sizes = spatial_sizes(self.windows(input_shape), input_shape, what)
        check_groups(self.groups, input_shape[-1], self.features, what)
        return (*sizes, self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        kernel = (*self.kernel, input_shape[-1] // self.groups, self.features)
        area = math.prod(self.kernel)
        fan = (area * kernel[-2], area * self.features // self.groups)
        bias = {"bias": Parameter((self.features,), self.bias_init, fan)} if self.bias else {}
        return {"kernel": Parameter(kernel, self.kernel_init, fan), **bias}

    def macs(self, input_shape: Shape) -> int:
        return conv_macs(
            input_shape[:-1],
            self.kernel,
            input_shape[-1],
            self.features,
            self.stride,
            self.padding,
            self.dilation,
            self.groups,
        ).multiplications


@record
class Conv(Convolution):
    """Cross-correlation with a learned kernel and bias, over 1, 2 or 3 spatial axes.

    Output size per axis: floor((n + low + high - (k-1)*dilation - 1) / stride) + 1.

    Args:
      kernel, stride, dilation: an int, or one per axis. An int kernel is square, in two
        dimensions; write (3,) for one dimension.
      padding: an int, one per axis (an int or a pair (low, high)), or "same", "valid", "full",
        which become integers here and do not depend on the input.
      groups: channels and features are divided into this many independent groups.

    Shapes: x (n, *spatial, c), kernel (*kernel, c // groups, features), bias (features,).

    Source: D2L 7.2-7.4. PyTorch's kernel is (features, c // groups, *kernel).

    Example:
      >>> conv = Conv("conv1", 6, 5, padding="same")
      >>> conv.padding, conv.output_shape((28, 28, 1))
      (((2, 2), (2, 2)), (28, 28, 6))
    """

    name: str
    features: int
    kernel: Any
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = conv_ops.conv(
            x,
            params["kernel"],
            params.get("bias"),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y, state


@record
class ConvTranspose(Convolution):
    """Transposed convolution, the adjoint of `Conv`, with PyTorch's sizes.

    Output size per axis: (n-1)*stride - low - high + (k-1)*dilation + 1 + output_padding.

    Shapes: x (n, *spatial, c), kernel (*kernel, c // groups, features), bias (features,).

    Source: D2L 14.10. PyTorch's kernel is (c, features // groups, *kernel).

    Example:
      >>> ConvTranspose("up", 8, 4, stride=2, padding=1).output_shape((7, 7, 16))
      (14, 14, 8)
    """

    name: str
    features: int
    kernel: Any
    stride: Any = 1
    padding: Any = 0
    output_padding: Any = 0
    dilation: Any = 1
    groups: int = 1
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def __post_init__(self) -> None:
        super().__post_init__()
        what = f"ConvTranspose {self.name!r}: output_padding"
        extra = per_axis(self.output_padding, len(self.kernel), what, 0)
        object.__setattr__(self, "output_padding", extra)
        self.windows(())  # refuses an output_padding that is too large

    def windows(self, input_shape: Shape) -> tuple[Window, ...]:
        return make_windows(
            len(self.kernel),
            self.kernel,
            self.stride,
            self.padding,
            self.dilation,
            transposed=True,
            output_padding=self.output_padding,
        )

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = conv_ops.conv_transpose(
            x,
            params["kernel"],
            params.get("bias"),
            stride=self.stride,
            padding=self.padding,
            output_padding=self.output_padding,
            dilation=self.dilation,
            groups=self.groups,
        )
        return y, state

    def macs(self, input_shape: Shape) -> int:
        return conv_transpose_macs(
            input_shape[:-1],
            self.kernel,
            input_shape[-1],
            self.features,
            self.stride,
            self.padding,
            self.dilation,
            self.output_padding,
            self.groups,
        ).multiplications
