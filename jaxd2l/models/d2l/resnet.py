"""The book's ResNet-18."""

from collections.abc import Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm
from jaxd2l.models.blocks.residual import residual_block


def resnet18(
    num_classes: int = 10,
    *,
    units: Sequence[int] = (2, 2, 2, 2),
    features: int = 64,
) -> Layer:
    """ResNet-18 with biases beside the norms; 11,178,378 parameters on one channel, 10 classes.

    Where a block changes the shape its shortcut is a strided 1x1 convolution without a norm, which
    the published network has.

    Args:
      units: how many residual blocks each stage has.
      features: of the first stage; each further stage doubles them.

    Source: D2L 8.6.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet18(), (96, 96, 1)).parameters
      11178378
    """
    stages: list[Layer] = []
    for stage, count in enumerate(units):
        width = features * 2**stage
        blocks = []
        for unit in range(count):
            changes = stage > 0 and unit == 0
            shortcut = Serial([conv("conv", width, 1, 2, bias=True)], name="shortcut")
            blocks.append(
                residual_block(
                    f"unit{unit + 1}",
                    width,
                    2 if changes else 1,
                    shortcut if changes else None,
                    bias=True,
                )
            )
        stages.append(Serial(blocks, name=f"stage{stage + 1}"))
    return Serial(
        [
            conv("conv1", features, 7, 2, bias=True),
            norm("bn1"),
            RELU,
            MaxPool(3, 2, 1),
            *stages,
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )
