"""SqueezeNet: fire modules, and no dense layer."""

from collections.abc import Sequence

from jaxd2l.layers import Conv, Dropout, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv
from jaxd2l.models.blocks.mobile import fire
from jaxd2l.ops.initializers import Normal

#: (squeeze, expand) of the eight fire modules: table 1 of Iandola et al. 2016.
FIRES = (
    (16, 64),
    (16, 64),
    (32, 128),
    (32, 128),
    (48, 192),
    (48, 192),
    (64, 256),
    (64, 256),
)


def squeezenet(
    stem: int,
    kernel: int,
    pool_before: Sequence[int],
    num_classes: int = 1000,
    dropout: float = 0.5,
    fires: Sequence[Sequence[int]] = FIRES,
) -> Layer:
    """A convolution, fire modules with pools between them, a 1x1 convolution to the classes.

    Args:
      stem, kernel: features and window of the first convolution.
      pool_before: numbers of the fire modules that a pool precedes; the first is 2.
      dropout: fraction dropped before the last convolution.
      fires: (squeeze, expand) of each fire module.

    Source: Iandola et al. 2016 (arXiv:1602.07360). As torchvision has it: pools round their size
    up, and a ReLU follows the last convolution, so that no logit is negative.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(squeezenet(8, 3, (2, 3), 10, fires=((2, 4), (2, 4))), (32, 32, 3))
      (10,)
    """
    layers: list[Layer] = [conv("conv1", stem, kernel, 2, "valid", bias=True), RELU]
    for number, (squeeze, expand) in enumerate(fires, 2):
        if number in pool_before:
            layers.append(MaxPool(3, 2, ceil_mode=True))
        layers.append(fire(f"fire{number}", squeeze, expand))
    return Serial(
        [
            *layers,
            Dropout("dropout", dropout),
            Conv("output", num_classes, 1, kernel_init=Normal(0.01)),
            RELU,
            GlobalAvgPool(),
        ]
    )


def squeezenet1_0(num_classes: int = 1000, dropout: float = 0.5) -> Layer:
    """SqueezeNet as published; 1,248,424 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(squeezenet1_0(), (224, 224, 3)).parameters
      1248424
    """
    return squeezenet(96, 7, (2, 5, 9), num_classes, dropout)


def squeezenet1_1(num_classes: int = 1000, dropout: float = 0.5) -> Layer:
    """SqueezeNet with a smaller stem and earlier pools, 2.4 times cheaper; 1,235,496 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(squeezenet1_1(), (224, 224, 3)).parameters
      1235496
    """
    return squeezenet(64, 3, (2, 4, 6), num_classes, dropout)
