"""What cheaper convolutions save: exact ratios, the cheap form over the full one."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction

from .counts import PerAxis, conv_parameters
from .fields import receptive_field
from .sizes import Window, as_int


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
    taps = conv_parameters(kernel, 1, 1, bias=False)
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
    via = conv_parameters(1, in_channels, middle_channels, bias=False) + conv_parameters(
        kernel, middle_channels, out_channels, bias=False
    )
    return Fraction(via, conv_parameters(kernel, in_channels, out_channels, bias=False))
