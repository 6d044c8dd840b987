"""Inception v3, also with its auxiliary head."""

from collections.abc import Sequence
from string import ascii_lowercase

from jaxd2l.layers import AvgPool, Dense, Dropout, GlobalAvgPool, MaxPool, Serial
from jaxd2l.models.auxiliary import AuxiliaryHead, WithAuxiliary
from jaxd2l.models.blocks.inception import (
    conv_norm_relu,
    inception_a,
    inception_b,
    inception_c,
    inception_d,
    inception_e,
    scale,
)

A = (32, 64, 64)
C = (128, 160, 160, 192)
E = 2


def _mixed(stage: int, number: int) -> str:
    """The name of a block: `a` is the first of a stage, the reduction (the pool before stage 5)."""
    return f"mixed_{stage}{ascii_lowercase[number]}"


def inception_v3(
    num_classes: int = 1000,
    *,
    a: Sequence[int] = A,
    c: Sequence[int] = C,
    e: int = E,
    width: float = 1.0,
) -> Serial:
    """Inception with factorised convolutions, for 299x299x3; 23,834,568 parameters.

    Args:
      a: the features of the pool's path of each block before the first reduction.
      c: the inner features of each block between the reductions.
      e: how many blocks follow the second reduction.
      width: multiplies all features.

    The input needs 75 pixels or more.

    Source: Szegedy et al. 2015 (Rethinking the Inception architecture), as torchvision has it:
    norms with eps 0.001, average pools that count the padding, dropout 0.5.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(inception_v3(), (299, 299, 3)).parameters
      23834568
    """

    w = scale(width)
    return Serial(
        [
            conv_norm_relu("conv2d_1a_3x3", w(32), 3, 2, 0),  # (149, 149, 32)
            conv_norm_relu("conv2d_2a_3x3", w(32), 3, 1, 0),
            conv_norm_relu("conv2d_2b_3x3", w(64), 3, 1, 1),
            MaxPool(3, 2),  # (73, 73, 64)
            conv_norm_relu("conv2d_3b_1x1", w(80), 1),
            conv_norm_relu("conv2d_4a_3x3", w(192), 3, 1, 0),
            MaxPool(3, 2),  # (35, 35, 192)
            *(inception_a(_mixed(5, i), pooled, width) for i, pooled in enumerate(a, 1)),
            inception_b(_mixed(6, 0), width),  # (17, 17, 768)
            *(inception_c(_mixed(6, i), middle, width) for i, middle in enumerate(c, 1)),
            inception_d(_mixed(7, 0), width),  # (8, 8, 1280)
            *(inception_e(_mixed(7, i), width) for i in range(1, e + 1)),  # (8, 8, 2048)
            GlobalAvgPool(),
            Dropout("dropout", 0.5),
            Dense("output", num_classes),
        ]
    )


def inception_v3_auxiliary(
    num_classes: int = 1000,
    *,
    a: Sequence[int] = A,
    c: Sequence[int] = C,
    e: int = E,
    width: float = 1.0,
) -> WithAuxiliary:
    """`inception_v3` with the head `aux` before the second reduction; 27,161,264 parameters.

    The head's loss counts 0.4. Run it with `models.auxiliary`.

    Source: torchvision; Szegedy et al. 2015, figure 8.

    Example:
      >>> [part.after for part in inception_v3_auxiliary().heads]
      ['mixed_6e']
    """
    w = scale(width)
    head = Serial(
        [
            AvgPool(5, 3),  # (5, 5, 768)
            conv_norm_relu("reduce", w(128), 1),
            conv_norm_relu("conv", w(768), 5, 1, 0),  # (1, 1, 768)
            GlobalAvgPool(),
            Dense("output", num_classes),
        ],
        name="aux",
    )
    net = inception_v3(num_classes, a=a, c=c, e=e, width=width)
    return WithAuxiliary(net, [AuxiliaryHead(_mixed(6, len(c)), head)], 0.4)
