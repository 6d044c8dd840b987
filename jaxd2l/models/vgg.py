"""VGG: blocks of 3x3 convolutions and pools."""

from collections.abc import Sequence

from jaxd2l.layers import AdaptiveAvgPool, Layer, Serial
from jaxd2l.models.blocks.plain import dense_head, vgg_block


def vgg_body(arch: Sequence[tuple[int, int]]) -> Layer:
    """`block1`, `block2`, ... of (convolutions, features) each; every block halves the size.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(vgg_body(((1, 64), (1, 128), (2, 256), (2, 512), (2, 512))), (224, 224, 3))
      (7, 7, 512)
    """
    blocks = [vgg_block(f"block{i}", *block) for i, block in enumerate(arch, 1)]
    return Serial(blocks)


def vgg(
    convs: Sequence[int],
    num_classes: int = 1000,
    *,
    features: Sequence[int] = (64, 128, 256, 512, 512),
    hidden: int = 4096,
) -> Layer:
    """Blocks of 3x3 convolutions and three dense layers: sum(convs) + 3 weighted layers.

    Args:
      convs: how many convolutions each block has.
      features: of the convolutions of each block.
      hidden: the width of the two hidden dense layers.

    Raises:
      ValueError: `convs` and `features` are not equally many.

    Source: Simonyan and Zisserman 2015, table 1; as torchvision has it, with an adaptive pool
    to 7x7. D2L 8.2 has none, `models.d2l.vgg`.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(vgg((1, 2), 10, features=(4, 8), hidden=16), (32, 32, 3))
      (10,)
    """
    if len(convs) != len(features):
        raise ValueError(
            f"vgg: convs and features need one entry per block, got {convs!r} and {features!r}"
        )
    return Serial(
        [
            vgg_body(list(zip(convs, features, strict=True))),  # (7, 7, 512) of (224, 224, 3)
            AdaptiveAvgPool(7),
            dense_head((hidden, hidden), num_classes),
        ]
    )


def vgg11(num_classes: int = 1000) -> Layer:
    """VGG with 11 weighted layers (configuration A); 132,863,336 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(vgg11(), (224, 224, 3)).parameters
      132863336
    """
    return vgg((1, 1, 2, 2, 2), num_classes)


def vgg13(num_classes: int = 1000) -> Layer:
    """VGG with 13 weighted layers (configuration B); 133,047,848 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(vgg13(), (224, 224, 3)).parameters
      133047848
    """
    return vgg((2, 2, 2, 2, 2), num_classes)


def vgg16(num_classes: int = 1000) -> Layer:
    """VGG with 16 weighted layers (configuration D); 138,357,544 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(vgg16(), (224, 224, 3)).parameters
      138357544
    """
    return vgg((2, 2, 3, 3, 3), num_classes)


def vgg19(num_classes: int = 1000) -> Layer:
    """VGG with 19 weighted layers (configuration E); 143,667,240 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(vgg19(), (224, 224, 3)).parameters
      143667240
    """
    return vgg((2, 2, 4, 4, 4), num_classes)
