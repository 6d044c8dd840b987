"""The blocks of networks without branches: AlexNet's body, VGG's and NiN's blocks, dense heads."""

from collections.abc import Sequence
from typing import Any

from jaxd2l.layers import Dense, Dropout, Flatten, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv


def conv_relu(
    name: str, features: int, kernel: Any, stride: Any = 1, padding: Any = "same"
) -> Layer:
    """A convolution with bias, then ReLU; the arrays are `name/kernel` and `name/bias`.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(conv_relu("conv1", 96, 11, stride=4, padding=0), (227, 227, 3))
      (55, 55, 96)
    """
    return Serial([conv(name, features, kernel, stride, padding, bias=True), RELU])


def alexnet_body(features: Sequence[int], padding: int) -> Layer:
    """AlexNet's five convolutions (11x11/4, 5x5, three 3x3) and three overlapping pools (3x3/2).

    `padding` is that of the first convolution: 0 for the 227 pixels of the paper's figures, 1 in
    the book, 2 in torchvision.

    Shapes: (h, w, c) -> (h', w', features[4]); 224 gives 5 with padding 1, 6 with padding 2.

    Source: Krizhevsky et al. 2012; D2L 8.1. Without the local response norms of the paper.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(alexnet_body((96, 256, 384, 384, 256), padding=0), (227, 227, 3))
      (6, 6, 256)
    """
    first, second, *others = features
    return Serial(
        [
            conv_relu("conv1", first, 11, stride=4, padding=padding),
            MaxPool(3, 2),
            conv_relu("conv2", second, 5),
            MaxPool(3, 2),
            *(conv_relu(f"conv{i}", width, 3) for i, width in enumerate(others, 3)),
            MaxPool(3, 2),
        ]
    )


def vgg_block(name: str, convs: int, features: int) -> Layer:
    """`convs` 3x3 convolutions with ReLU that keep the size, then a 2x2 pool that halves it.

    Shapes: (h, w, c) -> (h // 2, w // 2, features).

    Source: Simonyan and Zisserman 2015; D2L 8.2.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(vgg_block("block3", 2, 256), (56, 56, 128))
      (28, 28, 256)
    """
    body = [conv_relu(f"conv{i}", features, 3) for i in range(1, convs + 1)]
    return Serial([*body, MaxPool(2)], name=name)


def nin_block(
    name: str, widths: Sequence[int], kernel: Any, stride: Any = 1, padding: Any = "same"
) -> Layer:
    """The mlpconv layer: a convolution, then 1x1 convolutions, each with ReLU.

    The 1x1 convolutions are a small dense network, the same at every position. `widths` are the
    features of the first and of each further one; usually there are three.

    Source: Lin et al. 2013; D2L 8.3.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(nin_block("block1", (96, 96, 96), 11, 4, 0), (224, 224, 1))
      (54, 54, 96)
    """
    first, *others = widths
    mlp = (conv_relu(f"mlp{i}", width, 1) for i, width in enumerate(others, 1))
    return Serial([conv_relu("conv", first, kernel, stride, padding), *mlp], name=name)


def dense_head(hidden: Sequence[int], num_classes: int, dropout: float = 0.5) -> Layer:
    """Flatten, then for each hidden width a dense layer, ReLU and dropout; last `output`.

    Source: D2L 8.1, 8.2.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(dense_head((4096, 4096), 1000), (7, 7, 512)).parameters
      123642856
    """
    layers: list[Layer] = [Flatten()]
    for i, width in enumerate(hidden, 1):
        layers += [Dense(f"dense{i}", width), RELU, Dropout(f"dropout{i}", dropout)]
    return Serial([*layers, Dense("output", num_classes)])
