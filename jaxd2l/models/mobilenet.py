"""MobileNet, the first and the second: depthwise separable convolutions."""

from collections.abc import Sequence

from jaxd2l.layers import Dense, Dropout, GlobalAvgPool, Layer, Serial
from jaxd2l.models.blocks.basic import conv_norm
from jaxd2l.models.blocks.mobile import RELU6, inverted_residual, make_divisible, separable_norm

#: (features, stride) of each separable convolution: table 1 of Howard et al. 2017.
V1 = (
    (64, 1),
    (128, 2),
    (128, 1),
    (256, 2),
    (256, 1),
    (512, 2),
    *((512, 1),) * 5,
    (1024, 2),
    (1024, 1),
)

#: (expansion, features, blocks, stride of the first): table 2 of Sandler et al. 2018.
V2 = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

#: Of MobileNet's norms: TensorFlow's, which published it.
EPS = 1e-3


def mobilenet_v1(
    num_classes: int = 1000,
    width: float = 1.0,
    dropout: float = 0.001,
    blocks: Sequence[Sequence[int]] = V1,
) -> Layer:
    """A convolution and 13 depthwise separable ones; 4,231,976 parameters, 569 million MACs.

    Args:
      width: all numbers of channels are multiplied by it (and made multiples of 8).
      dropout: fraction dropped before the last layer.
      blocks: (features, stride) of each separable convolution.

    The strides 2 pad both sides by one; TensorFlow, and so Keras, pads even sizes at the end only,
    so its windows sit one pixel further.

    Source: Howard et al. 2017 (arXiv:1704.04861), table 1; ReLU6, eps 0.001 and dropout of its
    TensorFlow code and of Keras.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(mobilenet_v1(), (224, 224, 3)).parameters
      4231976
    """
    channels = make_divisible(32 * width)
    layers: list[Layer] = [conv_norm("stem", channels, 3, 2, activation=RELU6, eps=EPS)]
    for number, (features, stride) in enumerate(blocks, 1):
        features = make_divisible(features * width)
        layers.append(separable_norm(f"block{number}", channels, features, stride, eps=EPS))
        channels = features
    head = [GlobalAvgPool(), Dropout("dropout", dropout), Dense("output", num_classes)]
    return Serial([*layers, *head])


def mobilenet_v2(
    num_classes: int = 1000,
    width: float = 1.0,
    dropout: float = 0.2,
    blocks: Sequence[Sequence[int]] = V2,
    last: int = 1280,
) -> Layer:
    """17 inverted residuals; 3,504,872 parameters, 300 million MACs.

    Args:
      width: all numbers of channels are multiplied by it and rounded to multiples of 8; the last
        one only grows.
      dropout: fraction dropped before the last layer.
      blocks: (expansion, features, how many, stride of the first) of inverted residuals.
      last: channels before the pooling.

    `block3` here is `features.3` in torchvision, `stem` its `features.0`, `head` the last.

    Source: Sandler et al. 2018 (arXiv:1801.04381), table 2. Equal to torchvision's.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(mobilenet_v2(), (224, 224, 3)).parameters
      3504872
    """
    channels = make_divisible(32 * width)
    layers: list[Layer] = [conv_norm("stem", channels, 3, 2, activation=RELU6)]
    for expansion, features, count, first in blocks:
        features = make_divisible(features * width)
        for stride in (first, *(1,) * (count - 1)):
            name = f"block{len(layers)}"
            layers.append(inverted_residual(name, channels, features, stride, expansion))
            channels = features
    return Serial(
        [
            *layers,
            conv_norm("head", make_divisible(last * max(1.0, width)), 1, activation=RELU6),
            GlobalAvgPool(),
            Dropout("dropout", dropout),
            Dense("output", num_classes),
        ]
    )
