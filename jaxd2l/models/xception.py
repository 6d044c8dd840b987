"""Xception: residual blocks of depthwise separable convolutions."""

from collections.abc import Sequence

from jaxd2l.layers import (
    Dense,
    Dropout,
    GlobalAvgPool,
    Identity,
    Layer,
    MaxPool,
    Parallel,
    Repeat,
    Serial,
)
from jaxd2l.models.blocks.basic import RELU, conv_norm, norm
from jaxd2l.models.blocks.mobile import separable

#: Of Xception's norms: that of Keras, which published it.
EPS = 1e-3


def _separables(channels: int, widths: Sequence[int]) -> list[Layer]:
    """ReLU, separable convolution and norm, once for each width."""
    layers: list[Layer] = []
    for number, features in enumerate(widths, 1):
        layers += [
            RELU,
            separable(f"separable{number}", channels, features),
            norm(f"bn{number}", EPS),
        ]
        channels = features
    return layers


def _halving(name: str, branch: list[Layer], features: int) -> Layer:
    """The branch and a pool, plus a strided 1x1 convolution of the input."""
    shortcut = conv_norm("shortcut", features, 1, 2, activation=None, eps=EPS)
    return Parallel([shortcut, Serial([*branch, MaxPool(3, 2, 1)])], "add", name=name)


def xception(
    num_classes: int = 1000,
    dropout: float = 0.5,
    stem: Sequence[int] = (32, 64),
    entry: Sequence[int] = (128, 256, 728),
    middle: int = 8,
    last: Sequence[int] = (1024, 1536, 2048),
) -> Layer:
    """36 convolutions, 34 of them separable, in residual blocks; 22,855,952 parameters.

    Args:
      dropout: fraction dropped before the last layer.
      stem: features of the two full convolutions.
      entry: features of the blocks that follow, each of which halves the size.
      middle: how many blocks keep the shape; one `Repeat`, its parameters stacked.
      last: features of the block that halves the size again and of two separable convolutions.

    Its 3x3 pools of stride 2 pad both sides by one; TensorFlow, and so Keras, pads even sizes at
    the end only. Of (299, 299, 3) that concerns the second pool, 74 -> 37.

    Source: Chollet 2017 (arXiv:1610.02357), figure 5, dropout of its section 4.3; norms of Keras.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(xception(), (299, 299, 3)).parameters
      22855952
    """
    layers = [
        conv_norm("conv1", stem[0], 3, 2, "valid", eps=EPS),  # (149, 149, 32) of (299, 299, 3)
        conv_norm("conv2", stem[1], 3, 1, "valid", eps=EPS),  # (147, 147, 64)
    ]
    channels = stem[1]
    for number, features in enumerate(entry, 1):  # (74, 74, 128), (37, 37, 256), (19, 19, 728)
        branch = _separables(channels, (features, features))
        # The stem ends with a ReLU already.
        layers.append(_halving(f"entry{number}", branch[number == 1 :], features))
        channels = features
    unit = Parallel([Identity(), Serial(_separables(channels, (channels,) * 3))], "add")
    layers.append(Repeat(unit, middle, name="middle"))
    layers.append(_halving("exit", _separables(channels, (channels, last[0])), last[0]))
    return Serial(
        [
            *layers,  # (10, 10, 1024)
            *_separables(last[0], last[1:])[1:],
            RELU,  # (10, 10, 2048)
            GlobalAvgPool(),
            Dropout("dropout", dropout),
            Dense("output", num_classes),
        ]
    )
