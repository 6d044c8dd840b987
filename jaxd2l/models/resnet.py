"""Residual networks: ResNet, ResNeXt, Wide ResNet, and the pre-activation form."""

from collections.abc import Callable, Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm, repeated
from jaxd2l.models.blocks.residual import (
    bottleneck_block,
    preactivation_block,
    projection,
    residual_block,
)


def _stage(number: int, units: int, unit: Callable[[str, bool], Layer]) -> Layer:
    """`unit1`, which may change the shape, and its like."""
    like = repeated(lambda name: unit(name, False), units - 1, first=2)
    return Serial([unit("unit1", True), *like], name=f"stage{number}")


def resnet(
    units: Sequence[int],
    num_classes: int = 1000,
    *,
    features: int = 64,
    bottleneck: bool = False,
    width: float = 1.0,
    groups: int = 1,
) -> Layer:
    """A residual network: a stem, stages that halve the size and double the features, a head.

    Args:
      units: how many residual units each stage has.
      features: of the stem and of the first stage; a bottleneck unit puts out four times as many.
      bottleneck: units of three convolutions instead of two.
      width: of the inside of a bottleneck, as a multiple of the stage's features.
      groups: of the 3x3 convolution of a bottleneck.

    Weighted layers on the main path: 2 + 2 * sum(units), with bottlenecks 2 + 3 * sum(units).

    Stages of nine and more units store all but the first as one stacked `units` (`repeated`).

    Source: He et al. 2015; D2L 8.6. As torchvision has it: stride in the 3x3 of a bottleneck, no
    biases beside the norms.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(resnet((2, 2), 10, features=8), (32, 32, 3))
      (10,)
    """

    def stage(number: int, count: int) -> Layer:
        inner = features * 2 ** (number - 1)
        out = 4 * inner if bottleneck else inner

        def unit(name: str, first: bool) -> Layer:
            stride = 2 if first and number > 1 else 1
            changes = first and (number > 1 or bottleneck)
            shortcut = projection(out, stride) if changes else None
            if bottleneck:
                inside = int(inner * width) * groups
                return bottleneck_block(name, out, inside, stride, shortcut, groups=groups)
            return residual_block(name, out, stride, shortcut)

        return _stage(number, count, unit)

    return Serial(
        [
            conv("conv1", features, 7, 2),  # (112, 112, 64) of (224, 224, 3)
            norm("bn1"),
            RELU,
            MaxPool(3, 2, 1),  # (56, 56, 64)
            *(stage(number, count) for number, count in enumerate(units, 1)),  # (7, 7, 512 or 2048)
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )


def resnet18(num_classes: int = 1000) -> Layer:
    """ResNet with 18 weighted layers; 11,689,512 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet18(), (224, 224, 3)).parameters
      11689512
    """
    return resnet((2, 2, 2, 2), num_classes)


def resnet34(num_classes: int = 1000) -> Layer:
    """ResNet with 34 weighted layers; 21,797,672 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet34(), (224, 224, 3)).parameters
      21797672
    """
    return resnet((3, 4, 6, 3), num_classes)


def resnet50(num_classes: int = 1000) -> Layer:
    """ResNet with 50 weighted layers in bottlenecks; 25,557,032 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet50(), (224, 224, 3)).parameters
      25557032
    """
    return resnet((3, 4, 6, 3), num_classes, bottleneck=True)


def resnet101(num_classes: int = 1000) -> Layer:
    """ResNet with 101 weighted layers in bottlenecks; 44,549,160 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet101(), (224, 224, 3)).parameters
      44549160
    """
    return resnet((3, 4, 23, 3), num_classes, bottleneck=True)


def resnet152(num_classes: int = 1000) -> Layer:
    """ResNet with 152 weighted layers in bottlenecks; 60,192,808 parameters.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet152(), (224, 224, 3)).parameters
      60192808
    """
    return resnet((3, 8, 36, 3), num_classes, bottleneck=True)


def resnext50_32x4d(num_classes: int = 1000) -> Layer:
    """ResNeXt-50: 32 groups of 4 features in the first stage; 25,028,904 parameters.

    Source: Xie et al. 2017.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnext50_32x4d(), (224, 224, 3)).parameters
      25028904
    """
    return resnet((3, 4, 6, 3), num_classes, bottleneck=True, width=4 / 64, groups=32)


def wide_resnet50_2(num_classes: int = 1000) -> Layer:
    """ResNet-50 with bottlenecks twice as wide inside; 68,883,240 parameters.

    Source: Zagoruyko and Komodakis 2016.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(wide_resnet50_2(), (224, 224, 3)).parameters
      68883240
    """
    return resnet((3, 4, 6, 3), num_classes, bottleneck=True, width=2.0)


def resnet_v2(
    num_classes: int = 1000, units: Sequence[int] = (3, 4, 6, 3), *, features: int = 64
) -> Layer:
    """ResNet with pre-activation bottlenecks, by default 50 layers deep; 25,549,352 parameters.

    Norm and ReLU stand before each convolution, so that the sum of a unit passes on unchanged;
    one norm follows the last unit, none the first convolution. Units (3, 4, 23, 3) give 101
    layers, (3, 8, 36, 3) 152.

    Source: He et al. 2016 (identity mappings). The stride is in the first unit of a stage, as
    torchvision has it in its ResNets.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(resnet_v2(), (224, 224, 3)).parameters
      25549352
    """

    def stage(number: int, count: int) -> Layer:
        inner = features * 2 ** (number - 1)

        def unit(name: str, first: bool) -> Layer:
            stride = 2 if first and number > 1 else 1
            return preactivation_block(name, 4 * inner, inner, stride, project=first)

        return _stage(number, count, unit)

    return Serial(
        [
            conv("conv1", features, 7, 2),
            MaxPool(3, 2, 1),
            *(stage(number, count) for number, count in enumerate(units, 1)),
            norm("bn"),
            RELU,
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )
