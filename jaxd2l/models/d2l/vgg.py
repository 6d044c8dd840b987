"""The book's VGG."""

from collections.abc import Sequence

from jaxd2l.layers import Layer, Serial
from jaxd2l.models.blocks.plain import dense_head
from jaxd2l.models.vgg import vgg_body


def vgg(
    arch: Sequence[tuple[int, int]] = ((1, 64), (1, 128), (2, 256), (2, 512), (2, 512)),
    num_classes: int = 10,
    *,
    hidden: int = 4096,
) -> Layer:
    """VGG of any blocks, by default VGG-11; 128,806,154 parameters on 224x224x1.

    Args:
      arch: (convolutions, features) of each block. The book trains the narrow
        ((1, 16), (1, 32), (2, 64), (2, 128), (2, 128)).
      hidden: the width of the two hidden dense layers.

    Source: D2L 8.2. The book draws its weights by Xavier; here the convolutions are drawn by He.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(vgg(), (224, 224, 1)).parameters
      128806154
    """
    return Serial([vgg_body(arch), dense_head((hidden, hidden), num_classes)])
