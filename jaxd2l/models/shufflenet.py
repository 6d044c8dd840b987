"""ShuffleNet, the first and the second: cheap 1x1 convolutions whose channels are shuffled."""

from collections.abc import Callable, Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import conv_norm
from jaxd2l.models.blocks.mobile import shuffle_unit, shuffle_unit_v2

#: Channels of the first stage by groups: table 1 of Zhang et al. 2018. Each stage doubles them.
V1 = {1: 144, 2: 200, 3: 240, 4: 272, 8: 384}

#: Channels of the stem, the stages and the last convolution by width: table 5 of Ma et al. 2018.
V2 = {
    0.5: (24, 48, 96, 192, 1024),
    1.0: (24, 116, 232, 464, 1024),
    1.5: (24, 176, 352, 704, 1024),
    2.0: (24, 244, 488, 976, 2048),
}

Unit = Callable[[str, int, int, int, bool], Layer]


def _body(stem: int, features: Sequence[int], units: Sequence[int], unit: Unit) -> list[Layer]:
    """Stem and stages: `unit` makes one of its name, channels, features, stride, whether it is the
    very first."""
    layers: list[Layer] = [conv_norm("conv1", stem, 3, 2), MaxPool(3, 2, 1)]
    channels = stem
    for stage, (out, count) in enumerate(zip(features, units, strict=True), 2):
        inside = []
        for number in range(1, count + 1):
            stride, first = (2, stage == 2) if number == 1 else (1, False)
            inside.append(unit(f"unit{number}", channels, out, stride, first))
            channels = out
        layers.append(Serial(inside, name=f"stage{stage}"))
    return layers


def shufflenet_v1_of(
    channels: Sequence[int],
    groups: int = 3,
    units: Sequence[int] = (4, 8, 4),
    num_classes: int = 1000,
) -> Layer:
    """A ShuffleNet with the channels of the stem and of each stage.

    Args:
      channels: of the stem and of the stages; the stages' are multiples of 4 * groups.
      groups: of the 1x1 convolutions; the very first has one, since its input is narrow.
      units: how many units each stage has.

    Source: Zhang et al. 2018 (arXiv:1707.01083), table 1.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(shufflenet_v1_of((6, 24, 48), 3, (2, 2), 10), (32, 32, 3))
      (10,)
    """
    stem, *features = channels

    def unit(name: str, channels: int, out: int, stride: int, first: bool) -> Layer:
        return shuffle_unit(name, channels, out, groups, stride, 1 if first else groups)

    body = _body(stem, features, units, unit)
    return Serial([*body, GlobalAvgPool(), Dense("output", num_classes)])


def shufflenet_v1(num_classes: int = 1000, groups: int = 3) -> Layer:
    """ShuffleNet 1x; with three groups 1,865,728 parameters and 137 million MACs.

    Args:
      groups: 1, 2, 3, 4 or 8; more groups leave room for more channels.

    Raises:
      ValueError: the paper has no network of so many groups.

    Source: Zhang et al. 2018, table 1.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(shufflenet_v1(), (224, 224, 3)).parameters
      1865728
    """
    if groups not in V1:
        raise ValueError(f"shufflenet_v1: groups must be one of {sorted(V1)}, got {groups!r}")
    first = V1[groups]
    return shufflenet_v1_of((24, first, 2 * first, 4 * first), groups, num_classes=num_classes)


def shufflenet_v2_of(
    channels: Sequence[int], units: Sequence[int] = (4, 8, 4), num_classes: int = 1000
) -> Layer:
    """A ShuffleNet V2 with the channels of the stem, of each stage and of the last convolution.

    Args:
      channels: of the stem, the stages (even) and the 1x1 convolution before the pooling.
      units: how many units each stage has.

    Source: Ma et al. 2018 (arXiv:1807.11164), table 5.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(shufflenet_v2_of((4, 8, 16, 16), (2, 2), 10), (32, 32, 3))
      (10,)
    """
    stem, *features, last = channels

    def unit(name: str, channels: int, out: int, stride: int, first: bool) -> Layer:
        return shuffle_unit_v2(name, channels, out, stride)

    head = [conv_norm("conv5", last, 1), GlobalAvgPool(), Dense("output", num_classes)]
    return Serial([*_body(stem, features, units, unit), *head])


def shufflenet_v2(num_classes: int = 1000, width: float = 1.0) -> Layer:
    """ShuffleNet V2; 2,278,604 parameters and 145 million MACs at width 1.

    Args:
      width: 0.5, 1.0, 1.5 or 2.0.

    Raises:
      ValueError: the paper has no network of that width.

    Source: Ma et al. 2018, table 5. Equal to torchvision's.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(shufflenet_v2(), (224, 224, 3)).parameters
      2278604
    """
    if width not in V2:
        raise ValueError(f"shufflenet_v2: width must be one of {sorted(V2)}, got {width!r}")
    return shufflenet_v2_of(V2[width], num_classes=num_classes)
