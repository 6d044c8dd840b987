"""ColorNet: one small DenseNet for each color space of the input, and a layer that weighs them."""

from collections.abc import Sequence

from jaxd2l.layers import ColorSpaces, Dense, GlobalAvgPool, Layer, Parallel, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm
from jaxd2l.models.blocks.dense import dense_layer, dense_stages
from jaxd2l.ops.color import COLOR_SPACES, check_spaces


def colornet(
    num_classes: int = 10,
    spaces: Sequence[str] = tuple(COLOR_SPACES),
    *,
    blocks: Sequence[int] = (6, 6, 6),
    growth: int = 12,
) -> Layer:
    """An RGB image in several color spaces, each classified by a DenseNet-BC of its own.

    Branch b sees the space b only and gives scores s_b (one for each class); the output is
    [s_1, ..., s_B] W + c, all scores joined. The branches are the DenseNet-BC for 32x32 images: a
    3x3 convolution to 2 * growth channels, dense blocks with transitions, global average pooling.
    By default each has 40 weighted layers and growth 12.

    The paper takes seven spaces and wide, small DenseNets, 1.75 million parameters in all; here
    the spaces are the six of the notes (gray, binary, RGB, YUV, HSV, HSL), which share BT.601 and
    need no white point, and no size of the paper is claimed. All spaces as the channels of one
    network is `Serial([ColorSpaces(), net])`.

    Args:
      spaces: names of `jaxd2l.ops.color.COLOR_SPACES`; the input must be RGB in [0, 1].
      blocks: how many layers (of two convolutions) each dense block has.
      growth: channels that each layer adds.

    Raises:
      TypeError, ValueError: an unknown space, none, or one twice.

    Source: Gowda & Yuan 2018, "ColorNet" (arXiv:1902.00267); Huang et al. 2017; catalogue M19.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(colornet(10, ("rgb", "hsv"), blocks=(1, 1), growth=4), (8, 8, 3))
      (10,)
    """
    names = check_spaces(spaces, "colornet")
    branches = [
        Serial(
            [
                ColorSpaces((name,)),
                conv("conv0", 2 * growth, 3),
                *dense_stages(2 * growth, blocks, growth, dense_layer),
                norm("bn"),
                RELU,
                GlobalAvgPool(),
                Dense("scores", num_classes),
            ],
            name=name,
        )
        for name in names
    ]
    return Serial([Parallel(branches, "concat"), Dense("output", num_classes)])
