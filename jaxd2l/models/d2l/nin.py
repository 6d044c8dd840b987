"""The book's network in network."""

from collections.abc import Sequence

from jaxd2l.layers import Dropout, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.plain import nin_block


def nin(num_classes: int = 10, *, features: Sequence[int] = (96, 256, 384)) -> Layer:
    """Four mlpconv blocks, the last (`output`) with one map per class; 1,992,166 parameters.

    Args:
      features: of the first three blocks.

    Source: D2L 8.3. The book draws its weights by Xavier; here the convolutions are drawn by He.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(nin(), (224, 224, 1)).parameters
      1992166
    """
    first, second, third = features
    return Serial(
        [
            nin_block("block1", (first,) * 3, 11, 4, 0),
            MaxPool(3, 2),
            nin_block("block2", (second,) * 3, 5),
            MaxPool(3, 2),
            nin_block("block3", (third,) * 3, 3),
            MaxPool(3, 2),
            Dropout("dropout", 0.5),
            nin_block("output", (num_classes,) * 3, 3),
            GlobalAvgPool(),
        ]
    )
