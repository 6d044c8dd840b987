"""Convolutions as products of sparser ones: one axis at a time, or in interleaved groups."""

from jaxd2l.layers import ChannelShuffle, Dropout, Identity, Layer, Parallel, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm


def factorised_residual(
    name: str, features: int, dilation: int = 1, dropout: float = 0.0, eps: float = 1e-3
) -> Layer:
    """ERFNet's non-bottleneck-1D: a residual block whose two 3x3 convolutions are 3x1 and 1x3.

        y = relu(x + dropout(bn2(1x3 relu(3x1 relu(bn1(1x3 relu(3x1 x)))))))

    The second pair is dilated. A pair has 2/3 of the kernel weights of a 3x3 convolution (2/k for
    k), and a ReLU in between.

    Shapes:
      x, y: (n, h, w, features).

    Source: Romera et al. 2018, figure 2c. The authors' PyTorch code drops whole channels; here
    dropout is elementwise.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(factorised_residual("unit1", 64), (8, 8, 64)).parameters
      49664
    """
    branch: list[Layer] = [
        conv("conv3x1_1", features, (3, 1), bias=True),
        RELU,
        conv("conv1x3_1", features, (1, 3), bias=True),
        norm("bn1", eps),
        RELU,
        conv("conv3x1_2", features, (3, 1), dilation=(dilation, 1), bias=True),
        RELU,
        conv("conv1x3_2", features, (1, 3), dilation=(1, dilation), bias=True),
        norm("bn2", eps),
    ]
    if dropout:
        branch.append(Dropout("dropout", dropout))
    return Serial([Parallel([Serial(branch), Identity()], "add"), RELU], name=name)


def interleaved_block(name: str, features: int, primary: int, stride: int = 1) -> Layer:
    """A pair of interleaved group convolutions: spatial in L groups, pointwise in M groups.

        y = relu(bn(P secondary(P' primary x))),  P' deals the channels out, P takes them back

    L = `primary` partitions of M = features / L channels each; the m-th secondary partition holds
    the m-th channel of every primary one, so every output channel sees every input channel, over
    one path. With G = features channels in and out there are G^2 (9 / L + 1 / M) weights, against
    9 C^2 of a plain convolution with C.

    Shapes:
      x: (n, h, w, c), c a multiple of `primary`.
      y: (n, h', w', features).

    Raises:
      ValueError: `primary` does not divide `features`.

    Source: Zhang et al. 2017 (interleaved group convolutions), figure 1 and equation 4.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(interleaved_block("unit1", 48, 24), (32, 32, 48)).parameters
      2112
    """
    if primary < 1 or features % primary:
        raise ValueError(
            f"interleaved_block {name!r}: primary={primary} must divide the {features} features"
        )
    secondary = features // primary
    return Serial(
        [
            conv("primary", features, 3, stride, groups=primary),
            ChannelShuffle(primary),
            conv("secondary", features, 1, groups=secondary),
            ChannelShuffle(secondary),
            norm("bn", 2e-5),
            RELU,
        ],
        name=name,
    )
