"""Network in network."""

from collections.abc import Sequence

from jaxd2l.layers import Dropout, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.plain import conv_relu, nin_block


def nin(num_classes: int = 1000, *, features: Sequence[int] = (96, 256, 384, 1024)) -> Layer:
    """Four mlpconv blocks, the last with one map per class, and their mean; 7,595,176 parameters.

    Args:
      features: of the four blocks; all three convolutions of a block have as many, but for the
        last 1x1, `output`, which has `num_classes`.

    There is no dense layer: the mean of a class's map is its logit. A ReLU follows the last
    convolution too, as in all mlpconv layers, so that no logit is negative.

    Source: Lin et al. 2013; the sizes are those of the authors' ImageNet model for Caffe (29 MB,
    7.6 million numbers of 4 bytes), which rounds its pools up: 224 pixels give 54, 27, 13, 6. D2L
    8.3 has its own, `models.d2l.nin`.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(nin(), (224, 224, 3)).parameters
      7595176
    """
    first, second, third, last = features
    pool = MaxPool(3, 2, ceil_mode=True)
    return Serial(
        [
            nin_block("block1", (first,) * 3, 11, 4, 0),  # (54, 54, 96) of (224, 224, 3)
            pool,  # (27, 27, 96)
            nin_block("block2", (second,) * 3, 5),
            pool,  # (13, 13, 256)
            nin_block("block3", (third,) * 3, 3),
            pool,  # (6, 6, 384)
            Dropout("dropout", 0.5),
            nin_block("block4", (last,) * 2, 3),
            conv_relu("output", num_classes, 1),  # (6, 6, classes)
            GlobalAvgPool(),
        ]
    )
