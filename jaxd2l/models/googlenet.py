"""GoogLeNet, also with its auxiliary heads."""

from collections.abc import Sequence

from jaxd2l.layers import (
    AdaptiveAvgPool,
    Dense,
    Dropout,
    Flatten,
    GlobalAvgPool,
    Layer,
    MaxPool,
    Serial,
)
from jaxd2l.models.auxiliary import AuxiliaryHead, WithAuxiliary
from jaxd2l.models.blocks.basic import RELU
from jaxd2l.models.blocks.inception import Widths, conv_norm_relu, inception_body

#: The features of conv1, conv2 and conv3.
STEM = (64, 64, 192)
#: The features of the blocks 3a, 3b; 4a to 4e; 5a, 5b (table 1 of the paper).
STAGES: tuple[tuple[Widths, ...], ...] = (
    ((64, (96, 128), (16, 32), 32), (128, (128, 192), (32, 96), 64)),
    (
        (192, (96, 208), (16, 48), 64),
        (160, (112, 224), (24, 64), 64),
        (128, (128, 256), (24, 64), 64),
        (112, (144, 288), (32, 64), 64),
        (256, (160, 320), (32, 128), 128),
    ),
    ((256, (160, 320), (32, 128), 128), (384, (192, 384), (48, 128), 128)),
)


def googlenet(
    num_classes: int = 1000,
    *,
    stem: tuple[int, int, int] = STEM,
    stages: Sequence[Sequence[Widths]] = STAGES,
) -> Serial:
    """Nine Inception blocks, a global pool and one dense layer; 6,624,904 parameters.

    Args:
      stem: features of the three first convolutions.
      stages: features of the blocks of the three stages.

    Source: Szegedy et al. 2014, as torchvision has it: batch norms (eps 0.001), pools that round
    up, 3x3 instead of 5x5 in the third path (a bug that its weights depend on). D2L 8.4 has its
    own, `models.d2l.googlenet`.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(googlenet(), (224, 224, 3)).parameters
      6624904
    """
    pool = MaxPool(3, 2, ceil_mode=True)
    pools = [pool, pool, pool, MaxPool(2, 2, ceil_mode=True)]
    return Serial(
        [
            *inception_body(stem, stages, pools, conv_norm_relu, last_kernel=3),  # (7, 7, 1024)
            GlobalAvgPool(),
            Dropout("dropout", 0.2),
            Dense("output", num_classes),
        ]
    )


def _head(name: str, num_classes: int, features: int, hidden: int) -> Layer:
    return Serial(
        [
            AdaptiveAvgPool(4),
            conv_norm_relu("conv", features, 1),
            Flatten(),
            Dense("dense", hidden),
            RELU,
            Dropout("dropout", 0.7),
            Dense("output", num_classes),
        ],
        name=name,
    )


def googlenet_auxiliary(
    num_classes: int = 1000,
    *,
    stem: tuple[int, int, int] = STEM,
    stages: Sequence[Sequence[Widths]] = STAGES,
    head: tuple[int, int] = (128, 1024),
) -> WithAuxiliary:
    """`googlenet` with heads `aux1` after block 4a and `aux2` after 4d; 13,004,888 parameters.

    Each head's loss counts 0.3. Run it with `models.auxiliary`.

    Args:
      head: features of a head's 1x1 convolution and of its hidden dense layer.

    Source: Szegedy et al. 2014, as torchvision has it (an adaptive pool to 4x4, dropout 0.7).

    Example:
      >>> [part.after for part in googlenet_auxiliary().heads]
      ['inception4a', 'inception4d']
    """
    heads = [
        AuxiliaryHead(after, _head(name, num_classes, *head))
        for name, after in (("aux1", "inception4a"), ("aux2", "inception4d"))
    ]
    return WithAuxiliary(googlenet(num_classes, stem=stem, stages=stages), heads, 0.3)
