"""The book's GoogLeNet."""

from collections.abc import Sequence

from jaxd2l.layers import Dense, GlobalAvgPool, Layer, MaxPool, Serial
from jaxd2l.models.blocks.inception import Widths, inception_body
from jaxd2l.models.googlenet import STAGES, STEM


def googlenet(
    num_classes: int = 10,
    *,
    stem: tuple[int, int, int] = STEM,
    stages: Sequence[Sequence[Widths]] = STAGES,
) -> Layer:
    """GoogLeNet without norms and dropout, for 96x96x1; 5,977,530 parameters.

    Args:
      stem: features of the three first convolutions.
      stages: features of the blocks of the three stages.

    Source: D2L 8.4. The book draws its weights by Xavier; here the convolutions are drawn by He.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(googlenet(), (96, 96, 1)).parameters
      5977530
    """
    pools = [MaxPool(3, 2, 1)] * 4
    return Serial(
        [*inception_body(stem, stages, pools), GlobalAvgPool(), Dense("output", num_classes)]
    )
