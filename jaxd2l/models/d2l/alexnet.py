"""The book's AlexNet."""

from collections.abc import Sequence

from jaxd2l.layers import Layer, Serial
from jaxd2l.models.blocks.plain import alexnet_body, dense_head


def alexnet(
    num_classes: int = 10,
    *,
    features: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
) -> Layer:
    """AlexNet for Fashion-MNIST resized to 224x224x1; 46,764,746 parameters.

    Args:
      features: of the five convolutions.
      hidden: the width of the two hidden dense layers.

    Source: D2L 8.1. The book draws its weights by Xavier; here the convolutions are drawn by He.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(alexnet(), (224, 224, 1)).parameters
      46764746
    """
    return Serial([alexnet_body(features, padding=1), dense_head((hidden, hidden), num_classes)])
