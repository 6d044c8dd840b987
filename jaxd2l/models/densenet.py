"""DenseNet: every layer of a block sees all before it."""

from collections.abc import Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm
from jaxd2l.models.blocks.dense import dense_layer, dense_stages


def densenet(
    blocks: Sequence[int], num_classes: int = 1000, *, growth: int = 32, features: int = 64
) -> Layer:
    """A DenseNet-BC: a stem, dense blocks with transitions that halve size and channels, a head.

    Args:
      blocks: how many layers (of two convolutions) each dense block has.
      growth: channels that each layer adds.
      features: channels of the stem.

    Weighted layers: 1 + 2 * sum(blocks) + the transitions + 1.

    Source: Huang et al. 2017 (arXiv:1608.06993), table 1; D2L 8.7. Equal to torchvision's.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(densenet((2, 2), 10, growth=4, features=8), (32, 32, 3))
      (10,)
    """
    return Serial(
        [
            conv("conv0", features, 7, 2),  # (112, 112, 64) of (224, 224, 3)
            norm("bn0"),
            RELU,
            MaxPool(3, 2, 1),  # (56, 56, 64)
            *dense_stages(features, blocks, growth, dense_layer),  # (7, 7, 1024) with 121 layers
            norm("bn5"),
            RELU,
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )


def densenet121(num_classes: int = 1000) -> Layer:
    """DenseNet with 121 weighted layers; 7,978,856 parameters.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(densenet121(), (224, 224, 3))
      (1000,)
    """
    return densenet((6, 12, 24, 16), num_classes)


def densenet161(num_classes: int = 1000) -> Layer:
    """DenseNet with 161 weighted layers, growth 48 and a stem of 96; 28,681,000 parameters.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(densenet161(), (224, 224, 3))
      (1000,)
    """
    return densenet((6, 12, 36, 24), num_classes, growth=48, features=96)


def densenet169(num_classes: int = 1000) -> Layer:
    """DenseNet with 169 weighted layers; 14,149,480 parameters.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(densenet169(), (224, 224, 3))
      (1000,)
    """
    return densenet((6, 12, 32, 32), num_classes)


def densenet201(num_classes: int = 1000) -> Layer:
    """DenseNet with 201 weighted layers; 20,013,928 parameters.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(densenet201(), (224, 224, 3))
      (1000,)
    """
    return densenet((6, 12, 48, 32), num_classes)
