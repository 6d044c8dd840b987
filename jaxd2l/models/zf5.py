"""ZF-5, the network of Zeiler and Fergus as Faster R-CNN uses it."""

from collections.abc import Sequence

from jaxd2l.layers import Layer, LocalResponseNorm, MaxPool, Serial
from jaxd2l.models.blocks.plain import conv_relu, dense_head


def zf5(
    num_classes: int = 1000,
    *,
    features: Sequence[int] = (96, 256, 384, 384, 256),
    hidden: int = 4096,
) -> Layer:
    """AlexNet with finer first layers: 7x7/2 and 5x5/2; 62,357,608 parameters on 224x224x3.

    Kernel, stride and padding: [7,2,3] pool [3,2,1], [5,2,2] pool [3,2,1], three [3,1,1]; the
    maps have 112, 56, 28 and 14 pixels. A pool 3x3/2 to 6x6 and the dense layers follow.

    Source: Zeiler and Fergus 2014; He et al. 2014 (SPP-net) for the name and the last pool; Ren et
    al. 2015 (Faster R-CNN) for the paddings. Their Caffe file rounds the pools up (57 and 29
    pixels) and norms each feature over 3x3 positions; here the sizes are rounded down and the
    norm runs across features with AlexNet's constants, as in the paper.

    Example:
      >>> from jaxd2l import output_shape, summarize
      >>> summarize(zf5(), (224, 224, 3)).parameters
      62357608
    """
    first, second, *others = features
    return Serial(
        [
            conv_relu("conv1", first, 7, 2),  # (112, 112, 96)
            LocalResponseNorm(),
            MaxPool(3, 2, 1),  # (56, 56, 96)
            conv_relu("conv2", second, 5, 2),  # (28, 28, 256)
            LocalResponseNorm(),
            MaxPool(3, 2, 1),  # (14, 14, 256)
            *(conv_relu(f"conv{i}", width, 3) for i, width in enumerate(others, 3)),
            MaxPool(3, 2),  # (6, 6, 256)
            dense_head((hidden, hidden), num_classes),
        ]
    )
