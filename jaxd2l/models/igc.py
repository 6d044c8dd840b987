"""IGCNet: interleaved group convolutions."""

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, Serial
from jaxd2l.models.blocks.basic import conv_norm, repeated
from jaxd2l.models.blocks.factorised import interleaved_block


def igc(num_classes: int = 10, primary: int = 24, secondary: int = 2, depth: int = 20) -> Layer:
    """The plain IGC network for 32x32 images, IGC-L24M2 with 20 layers by default.

    A convolution, then three stages of (depth - 2) / 3 blocks with L M, 2 L M and 4 L M channels,
    the last two of which halve the size. L, the number of primary partitions, stays; M, their
    width, doubles.

    Args:
      primary: L, the groups of every 3x3 convolution.
      secondary: M of the first stage, the groups of its 1x1 convolutions.
      depth: 2 more than a multiple of 3; the paper has 8 to 98.

    Stages of nine and more blocks store all but the first as one stacked `units`.

    Raises:
      ValueError: another depth.

    Source: Zhang et al. 2017 (interleaved group convolutions), section 5, without identity
    shortcuts; eps as in the authors' code. Catalogue M17.

    Example:
      >>> from jaxd2l import summarize
      >>> [summarize(igc(depth=d), (32, 32, 3)).parameters for d in (20, 38)]
      [155962, 317242]
    """
    if depth < 5 or (depth - 2) % 3:
        raise ValueError(f"igc: depth must be 5, 8, 11, ... (2 + 3 n), got {depth}")
    count = (depth - 2) // 3
    stem = primary * secondary

    def stage(number: int, features: int, stride: int) -> Layer:
        first = interleaved_block("unit1", features, primary, stride)
        like = repeated(lambda name: interleaved_block(name, features, primary), count - 1, 2)
        return Serial([first, *like], name=f"stage{number}")

    return Serial(
        [
            conv_norm("stem", stem, 3, eps=2e-5),
            stage(1, stem, 1),  # (32, 32, L M)
            stage(2, 2 * stem, 2),  # (16, 16, 2 L M)
            stage(3, 4 * stem, 2),  # (8, 8, 4 L M)
            GlobalAvgPool(),
            Dense("output", num_classes),
        ]
    )
