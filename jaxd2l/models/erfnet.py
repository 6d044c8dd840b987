"""ERFNet: a class for every pixel, in real time."""

from collections.abc import Sequence

from jaxd2l.layers import ConvTranspose, Layer, MaxPool, Parallel, Serial
from jaxd2l.models.blocks.basic import HE, RELU, conv, norm
from jaxd2l.models.blocks.factorised import factorised_residual

#: Of ERFNet's norms.
EPS = 1e-3


def _down(channels: int, features: int) -> Layer:
    """Half the size: a strided convolution beside a pool, `features` channels together."""
    halves = [conv("conv", features - channels, 3, 2, 1, bias=True), MaxPool(2)]
    return Serial([Parallel(halves, "concat"), norm("bn", EPS), RELU], name="down")


def _up(features: int) -> Layer:
    """Twice the size, by a transposed convolution."""
    double = ConvTranspose("conv", features, 3, 2, padding=1, output_padding=1, kernel_init=HE)
    return Serial([double, norm("bn", EPS), RELU], name="up")


def erfnet(
    num_classes: int = 20,
    channels: int = 3,
    widths: Sequence[int] = (16, 64, 128),
    units: int = 5,
    dilations: Sequence[int] = (2, 4, 8, 16, 2, 4, 8, 16),
) -> Layer:
    """Semantic segmentation: (h, w, channels) -> logits (h, w, num_classes), sides in eights.

    An encoder that halves the size three times, a small decoder that doubles it three times, in
    between residual blocks of factorised, dilated convolutions.

    Args:
      num_classes: 20 for Cityscapes (19 and the unlabelled).
      channels: of the input; the first convolution has `widths[0] - channels` features.
      widths: of the encoder's three stages; the decoder goes back over the first two.
      units: residual blocks of the encoder's second stage, with 0.03 dropout.
      dilations: of the residual blocks of the encoder's third stage, with 0.3 dropout.

    2,064,256 parameters (the paper's 2.06M), counted in the authors' PyTorch definition as well,
    which has a head of 2,580 more for training the encoder alone.

    Source: Romera, Alvarez, Bergasa and Arroyo 2018 (ERFNet), table I; catalogue M18. Biases and
    eps as in the authors' code.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(erfnet(), (512, 1024, 3))
      (512, 1024, 20)
    """
    first, second, third = widths
    shallow = [
        factorised_residual(f"unit{i}", second, dropout=0.03, eps=EPS) for i in range(1, units + 1)
    ]
    deep = [
        factorised_residual(f"unit{i}", third, dilation, 0.3, eps=EPS)
        for i, dilation in enumerate(dilations, 1)
    ]
    encoder = [
        Serial([_down(channels, first)], name="stage1"),
        Serial([_down(first, second), *shallow], name="stage2"),
        Serial([_down(second, third), *deep], name="stage3"),
    ]
    decoder = [
        Serial(
            [_up(width), *(factorised_residual(f"unit{i}", width, eps=EPS) for i in (1, 2))],
            name=f"stage{number}",
        )
        for number, width in enumerate((second, first), 1)
    ]
    return Serial(
        [
            Serial(encoder, name="encoder"),
            Serial(decoder, name="decoder"),
            ConvTranspose("output", num_classes, 2, 2),
        ]
    )
