"""Blocks that save parameters and multiplications: separable, inverted, shuffled, squeezed.

A depthwise convolution has one kernel for each channel, a pointwise one is 1x1. Where a function
asks for `channels`, it means those of its input: a depthwise convolution has as many groups.
"""

from jaxd2l.layers import (
    Activation,
    AvgPool,
    ChannelShuffle,
    Identity,
    Layer,
    Parallel,
    Serial,
    Split,
)
from jaxd2l.models.blocks.basic import RELU, conv, conv_norm

RELU6 = Activation("relu6")


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The nearest multiple of `divisor` that is not more than a tenth below `channels`.

    A half is rounded up; at least `divisor`.

    Source: MobileNet's TensorFlow code; torchvision's `_make_divisible`.

    Example:
      >>> [make_divisible(c) for c in (3, 16, 17.9, 20, 11.5)]
      [8, 16, 24, 24, 16]
    """
    whole = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return whole + divisor if whole < 0.9 * channels else whole


def separable(name: str, channels: int, features: int, kernel: int = 3, stride: int = 1) -> Layer:
    """A depthwise, then a pointwise convolution, nothing in between.

    Multiplications over those of a full convolution: 1/features + 1/kernel^2.

    Source: Chollet 2017 (Xception); Keras' SeparableConv2D.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(separable("separable1", 256, 256), (14, 14, 256)).parameters
      67840
    """
    return Serial(
        [
            conv("depthwise", channels, kernel, stride, groups=channels),
            conv("pointwise", features, 1),
        ],
        name=name,
    )


def separable_norm(
    name: str, channels: int, features: int, stride: int = 1, *, eps: float = 1e-5
) -> Layer:
    """A 3x3 depthwise, then a pointwise convolution, each with batch norm and ReLU6.

    Source: Howard et al. 2017 (MobileNet), figure 3.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(separable_norm("block2", 64, 128, stride=2), (112, 112, 64))
      (56, 56, 128)
    """
    return Serial(
        [
            conv_norm("depthwise", channels, 3, stride, groups=channels, activation=RELU6, eps=eps),
            conv_norm("pointwise", features, 1, activation=RELU6, eps=eps),
        ],
        name=name,
    )


def inverted_residual(
    name: str, channels: int, features: int, stride: int = 1, expansion: int = 6
) -> Layer:
    """1x1 up to expansion * channels, 3x3 depthwise, 1x1 down without an activation; plus x.

    x is added where the shape stays. With expansion 1 the first convolution is left out.

    Source: Sandler et al. 2018 (MobileNetV2), table 1; torchvision.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inverted_residual("block2", 16, 24, stride=2), (112, 112, 16))
      (56, 56, 24)
    """
    width = expansion * channels
    expand = [conv_norm("expand", width, 1, activation=RELU6)] if expansion != 1 else []
    branch = [
        *expand,
        conv_norm("depthwise", width, 3, stride, groups=width, activation=RELU6),
        conv_norm("project", features, 1, activation=None),
    ]
    if stride == 1 and channels == features:
        return Parallel([Identity(), Serial(branch)], "add", name=name)
    return Serial(branch, name=name)


def fire(name: str, squeeze: int, expand: int) -> Layer:
    """1x1 down to `squeeze`; then 1x1 and 3x3 side by side, `expand` features each. With ReLU.

    Source: Iandola et al. 2016 (SqueezeNet), figure 1; torchvision.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(fire("fire2", 16, 64), (55, 55, 96)).parameters
      11920
    """
    return Serial(
        [
            conv("squeeze", squeeze, 1, bias=True),
            RELU,
            Parallel(
                [
                    conv("expand1x1", expand, 1, bias=True),
                    conv("expand3x3", expand, 3, bias=True),
                ],
                "concat",
            ),
            RELU,
        ],
        name=name,
    )


def shuffle_unit(
    name: str, channels: int, features: int, groups: int, stride: int = 1, first_groups: int = 0
) -> Layer:
    """Grouped 1x1 down to features / 4, channel shuffle, 3x3 depthwise, grouped 1x1 up; plus x.

    With stride 2 the averaged input is put before the result instead of added, so that the
    branch makes features - channels.

    Args:
      groups: of the 1x1 convolutions and the shuffle.
      first_groups: of the first 1x1 alone; 0: the same.

    Raises:
      ValueError: features are not a multiple of 4, another stride than 1 or 2, or with stride 1
        features that differ from the channels, with stride 2 not more of them.

    Source: Zhang et al. 2018 (ShuffleNet), figure 2 (b) and (c).

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(shuffle_unit("unit1", 240, 480, 3, stride=2), (28, 28, 240))
      (14, 14, 480)
    """
    _check_stride(name, channels, features, stride)
    if features % 4 or (stride == 2 and features <= channels):
        raise ValueError(
            f"shuffle_unit {name!r}: features must be a multiple of 4, with stride 2 above the "
            f"{channels} channels, got {features}"
        )
    inner = features // 4
    branch = Serial(
        [
            conv_norm("compress", inner, 1, groups=first_groups or groups),
            ChannelShuffle(groups),
            conv_norm("depthwise", inner, 3, stride, groups=inner, activation=None),
            conv_norm(
                "expand",
                features if stride == 1 else features - channels,
                1,
                groups=groups,
                activation=None,
            ),
        ]
    )
    joined = (
        Parallel([Identity(), branch], "add")
        if stride == 1
        else Parallel([AvgPool(3, 2, 1), branch], "concat")
    )
    return Serial([joined, RELU], name=name)


def shuffle_unit_v2(name: str, channels: int, features: int, stride: int = 1) -> Layer:
    """Half of the channels pass on, half go through 1x1, 3x3 depthwise and 1x1; then a shuffle.

    With stride 2 both halves of the result are made from all channels, in two branches.

    Raises:
      ValueError: an odd number of features, another stride than 1 or 2, or with stride 1 features
        that differ from the channels.

    Source: Ma et al. 2018 (ShuffleNet V2), figure 3 (c) and (d); torchvision.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(shuffle_unit_v2("unit1", 24, 116, stride=2), (56, 56, 24))
      (28, 28, 116)
    """
    _check_stride(name, channels, features, stride)
    if features % 2:
        raise ValueError(f"shuffle_unit_v2 {name!r}: features must be even, got {features}")
    half = features // 2
    branch = Serial(
        [
            conv_norm("pointwise1", half, 1),
            conv_norm("depthwise", half, 3, stride, groups=half, activation=None),
            conv_norm("pointwise2", half, 1),
        ],
        name="branch2",
    )
    if stride == 1:
        return Serial([Split([Identity(), branch]), ChannelShuffle(2)], name=name)
    other = Serial(
        [
            conv_norm("depthwise", channels, 3, stride, groups=channels, activation=None),
            conv_norm("pointwise", half, 1),
        ],
        name="branch1",
    )
    return Serial([Parallel([other, branch], "concat"), ChannelShuffle(2)], name=name)


def _check_stride(name: str, channels: int, features: int, stride: int) -> None:
    if stride not in (1, 2):
        raise ValueError(f"shuffle unit {name!r}: stride must be 1 or 2, got {stride!r}")
    if stride == 1 and channels != features:
        raise ValueError(
            f"shuffle unit {name!r}: with stride 1 the features must be the {channels} channels, "
            f"got {features}"
        )
