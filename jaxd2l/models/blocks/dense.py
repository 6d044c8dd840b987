"""Dense blocks: each layer sees the outputs of all before it, joined along the channels."""

from collections.abc import Callable, Sequence

from jaxd2l.layers import AvgPool, Identity, Layer, Parallel, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm


def dense_layer(name: str, growth: int, width: int = 4) -> Layer:
    """Norm, ReLU, 1x1 convolution to width * growth; norm, ReLU, 3x3 convolution to growth.

    The 1x1 bounds the cost of the 3x3, however many channels have come together (DenseNet-B).

    Source: Huang et al. 2017, section 3; torchvision.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(dense_layer("denselayer1", 32), (56, 56, 64))
      (56, 56, 32)
    """
    return Serial(
        [
            norm("bn1"),
            RELU,
            conv("conv1", width * growth, 1),
            norm("bn2"),
            RELU,
            conv("conv2", growth, 3),
        ],
        name=name,
    )


def plain_dense_layer(name: str, growth: int) -> Layer:
    """Norm, ReLU and a 3x3 convolution with bias to growth channels, as the book has it.

    Source: Huang et al. 2017 without the bottleneck; D2L 8.7.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(plain_dense_layer("denselayer1", 32), (24, 24, 64))
      (24, 24, 32)
    """
    return Serial([norm("bn"), RELU, conv("conv", growth, 3, bias=True)], name=name)


def dense_block(name: str, layers: Sequence[Layer]) -> Layer:
    """Layers whose output is put behind their input: x_i = [x_(i-1), f_i(x_(i-1))].

    L layers that give k channels each turn c0 channels into c0 + k L. Each join copies what is
    there, as in PyTorch, so the copies grow with L^2.

    Source: Huang et al. 2017; D2L 8.7.

    Example:
      >>> from jaxd2l import output_shape
      >>> layers = [plain_dense_layer(name, 10) for name in ("denselayer1", "denselayer2")]
      >>> output_shape(dense_block("denseblock1", layers), (8, 8, 3))
      (8, 8, 23)
    """
    return Serial([Parallel([Identity(), layer], "concat") for layer in layers], name=name)


def transition(name: str, features: int, *, bias: bool = False) -> Layer:
    """Norm, ReLU, a 1x1 convolution to `features` channels, and average pooling by 2.

    Source: Huang et al. 2017; D2L 8.7.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(transition("transition1", 10), (8, 8, 23))
      (4, 4, 10)
    """
    return Serial([norm("bn"), RELU, conv("conv", features, 1, bias=bias), AvgPool(2)], name=name)


def dense_stages(
    features: int,
    blocks: Sequence[int],
    growth: int,
    layer: Callable[[str, int], Layer],
    *,
    bias: bool = False,
) -> list[Layer]:
    """Dense blocks of so many layers each, and between two a transition that halves the channels.

    Args:
      features: channels that go in.
      blocks: layers of each block.
      growth: channels that a layer adds.
      layer: makes one of a name and the growth, such as `dense_layer`.
      bias: whether the 1x1 convolution of a transition has one.

    Example:
      >>> from jaxd2l import layers, output_shape
      >>> stages = dense_stages(64, (4, 4, 4, 4), 32, plain_dense_layer)
      >>> [output_shape(layers.Serial(stages[:n]), (24, 24, 64))[-1] for n in range(1, 8)]
      [192, 96, 224, 112, 240, 120, 248]
    """
    stages = []
    for number, count in enumerate(blocks, 1):
        inside = [layer(f"denselayer{i}", growth) for i in range(1, count + 1)]
        stages.append(dense_block(f"denseblock{number}", inside))
        features += growth * count
        if number < len(blocks):
            features //= 2
            stages.append(transition(f"transition{number}", features, bias=bias))
    return stages
