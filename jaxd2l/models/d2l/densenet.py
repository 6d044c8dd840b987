"""The book's DenseNet."""

from collections.abc import Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm
from jaxd2l.models.blocks.dense import dense_stages, plain_dense_layer


def densenet(
    num_classes: int = 10,
    blocks: Sequence[int] = (4, 4, 4, 4),
    growth: int = 32,
    features: int = 64,
) -> Layer:
    """Four dense blocks of four 3x3 convolutions; 758,226 parameters on one channel.

    Channels: 64, 192 -> 96, 224 -> 112, 240 -> 120, 248. The published network has two
    convolutions a layer and no biases; the book's convolutions have biases.

    Source: D2L 8.7.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(densenet(), (96, 96, 1)).parameters
      758226
    """
    return Serial(
        [
            conv("conv0", features, 7, 2, bias=True),  # (48, 48, 64) of (96, 96, 1)
            norm("bn0"),
            RELU,
            MaxPool(3, 2, 1),  # (24, 24, 64)
            *dense_stages(features, blocks, growth, plain_dense_layer, bias=True),  # (3, 3, 248)
            norm("bn5"),
            RELU,
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )
