"""What the blocks share: a convolution without bias, a batch norm, and the two with an activation."""

from typing import Any

from jaxd2l.layers import Activation, BatchNorm, Conv, Layer, Serial
from jaxd2l.ops.initializers import HeNormal

RELU = Activation("relu")
HE = HeNormal()


def conv(
    name: str,
    features: int,
    kernel: Any,
    stride: Any = 1,
    padding: Any = "same",
    *,
    groups: int = 1,
    dilation: Any = 1,
    bias: bool = False,
) -> Conv:
    """A convolution drawn for ReLU (He et al. 2015), without bias: a norm follows it.

    Example:
      >>> conv("conv1", 64, 7, 2).output_shape((224, 224, 3))
      (112, 112, 64)
    """
    return Conv(
        name,
        features,
        kernel,
        stride,
        padding,
        dilation,
        groups=groups,
        bias=bias,
        kernel_init=HE,
    )


def norm(name: str, eps: float = 1e-5) -> BatchNorm:
    """Batch norm with PyTorch's running variance, the unbiased one.

    Example:
      >>> norm("bn1").unbiased
      True
    """
    return BatchNorm(name, eps=eps, unbiased=True)


def conv_norm(
    name: str,
    features: int,
    kernel: Any,
    stride: Any = 1,
    padding: Any = "same",
    *,
    groups: int = 1,
    activation: Layer | None = RELU,
    eps: float = 1e-5,
) -> Layer:
    """Convolution, batch norm and activation (None: left out), as `name/conv` and `name/bn`.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(conv_norm("stem", 32, 3, stride=2), (32, 32, 3))
      (16, 16, 32)
    """
    parts: list[Layer] = [
        conv("conv", features, kernel, stride, padding, groups=groups),
        norm("bn", eps),
    ]
    return Serial(parts if activation is None else [*parts, activation], name=name)
