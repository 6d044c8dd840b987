"""What the blocks share: a convolution, a norm, both with an activation, and repetition."""

from collections.abc import Callable
from typing import Any

from jaxd2l.layers import Activation, BatchNorm, Conv, Layer, Repeat, Serial
from jaxd2l.ops.initializers import HeNormal

RELU = Activation("relu")
HE = HeNormal()

#: So many identical blocks in a row are one `Repeat`: compiled once, parameters stacked. So
#: ResNet-152 compiles in a third of the time and runs about twice as fast on two CPU cores, while
#: ResNet-50, with 2 to 5 in a row, gains little (scripts/stacking.py).
STACK_FROM = 8


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


def repeated(unit: Callable[[str], Layer], count: int, first: int = 1) -> list[Layer]:
    """`count` identical blocks in a row: `unit1`, `unit2`, ... (from `first` on), each with its own
    path; from 8 on one `Repeat` named `units`, with the parameters stacked.

    Example:
      >>> from jaxd2l.layers import Dense
      >>> repeated(lambda name: Dense(name, 4), 2)
      [Dense(name='unit1', features=4), Dense(name='unit2', features=4)]
      >>> repeated(lambda name: Dense(name, 4), 8)
      [Repeat(layer=Dense(name='units', features=4), times=8)]
    """
    if count >= STACK_FROM:
        return [Repeat(unit("units"), count)]
    return [unit(f"unit{i}") for i in range(first, first + count)]
