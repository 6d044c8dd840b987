"""Inception blocks: paths side by side that keep or halve the size, concatenated by features."""

import functools
from collections.abc import Callable, Sequence
from string import ascii_lowercase

from jaxd2l.layers import AvgPool, Layer, MaxPool, Parallel, Serial
from jaxd2l.models.blocks.basic import conv_norm
from jaxd2l.models.blocks.plain import conv_relu

#: (name, features, kernel, stride, padding) -> a convolution and what follows it.
Unit = Callable[..., Layer]
#: The features of the four paths: 1x1; 1x1 then 3x3; 1x1 then 5x5; 1x1 after the pool.
Widths = tuple[int, tuple[int, int], tuple[int, int], int]

#: torchvision's GoogLeNet and Inception, after TensorFlow's, have this eps in their norms.
conv_norm_relu = functools.partial(conv_norm, eps=1e-3)


def inception_block(
    name: str, widths: Widths, unit: Unit = conv_relu, last_kernel: int = 5
) -> Layer:
    """GoogLeNet's block: four paths that keep the size, put together by features.

    Args:
      widths: (c1, (c3 reduced, c3), (c5 reduced, c5), c of the pool's path).
      unit: makes a convolution and what follows it: ReLU as in the paper and the book, or
        `conv_norm_relu` as in torchvision.
      last_kernel: of the third path; torchvision has 3 there.

    Shapes: (h, w, c) -> (h, w, c1 + c3 + c5 + c of the pool's path).

    Source: Szegedy et al. 2014, figure 2b; D2L 8.4.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_block("3a", (64, (96, 128), (16, 32), 32)), (28, 28, 192))
      (28, 28, 256)
    """
    one, three, five, pooled = widths
    return Parallel(
        [
            unit("branch1", one, 1),
            Serial([unit("conv1", three[0], 1), unit("conv2", three[1], 3)], name="branch2"),
            Serial([unit("conv1", five[0], 1), unit("conv2", five[1], last_kernel)], "branch3"),
            Serial([MaxPool(3, 1, 1), unit("branch4", pooled, 1)]),
        ],
        "concat",
        name=name,
    )


def inception_body(
    stem: tuple[int, int, int],
    stages: Sequence[Sequence[Widths]],
    pools: Sequence[Layer],
    unit: Unit = conv_relu,
    last_kernel: int = 5,
) -> list[Layer]:
    """GoogLeNet without its head: `conv1` (7x7/2), `conv2` (1x1), `conv3` (3x3), then stages of
    blocks `inception3a`, `inception3b`, ..., with the pools after conv1, conv3 and between stages.

    Example:
      >>> stage = [(1, (1, 2), (1, 2), 1)]
      >>> body = inception_body((4, 4, 6), [stage, stage], [MaxPool(3, 2, 1)] * 3)
      >>> [layer.name for layer in body if layer.name]
      ['inception3a', 'inception4a']
    """
    layers: list[Layer] = [
        unit("conv1", stem[0], 7, 2),
        pools[0],
        unit("conv2", stem[1], 1),
        unit("conv3", stem[2], 3),
    ]
    for number, (pool, blocks) in enumerate(zip(pools[1:], stages, strict=True), 3):
        layers.append(pool)
        layers += [
            inception_block(f"inception{number}{ascii_lowercase[i]}", widths, unit, last_kernel)
            for i, widths in enumerate(blocks)
        ]
    return layers


def scale(width: float) -> Callable[[int], int]:
    """The function features -> features times `width`, rounded, at least 1.

    Example:
      >>> scale(0.1)(64), scale(0.1)(2)
      (6, 1)
    """
    return lambda features: max(1, round(width * features))


def _chain(name: str, *convs: tuple[int, object, int, object]) -> Layer:
    """Units `name_1`, `name_2`, ... of (features, kernel, stride, padding)."""
    return Serial([conv_norm_relu(f"{name}_{i}", *c) for i, c in enumerate(convs, 1)])


def _pooled(features: int) -> Layer:
    return Serial([AvgPool(3, 1, 1), conv_norm_relu("branch_pool", features, 1)])


def inception_a(name: str, pooled: int, width: float = 1.0) -> Layer:
    """1x1; 1x1-5x5; 1x1-3x3-3x3; pool-1x1: two 3x3 stand beside one 5x5.

    Args:
      pooled: features of the pool's path.
      width: multiplies all features, here and in the other blocks.

    Source: Szegedy et al. 2015 (Rethinking the Inception architecture), figure 5, with the
    features that torchvision took from TensorFlow.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_a("mixed_5b", 32), (35, 35, 192))
      (35, 35, 256)
    """
    w = scale(width)
    return Parallel(
        [
            conv_norm_relu("branch1x1", w(64), 1),
            _chain("branch5x5", (w(48), 1, 1, 0), (w(64), 5, 1, 2)),
            _chain("branch3x3dbl", (w(64), 1, 1, 0), (w(96), 3, 1, 1), (w(96), 3, 1, 1)),
            _pooled(w(pooled)),
        ],
        "concat",
        name=name,
    )


def inception_b(name: str, width: float = 1.0) -> Layer:
    """The size halved: 3x3/2; 1x1-3x3-3x3/2; a pool 3x3/2 that keeps its features.

    Source: Szegedy et al. 2015, figure 10.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_b("mixed_6a"), (35, 35, 288))
      (17, 17, 768)
    """
    w = scale(width)
    return Parallel(
        [
            conv_norm_relu("branch3x3", w(384), 3, 2, 0),
            _chain("branch3x3dbl", (w(64), 1, 1, 0), (w(96), 3, 1, 1), (w(96), 3, 2, 0)),
            MaxPool(3, 2),
        ],
        "concat",
        name=name,
    )


def inception_c(name: str, middle: int, width: float = 1.0) -> Layer:
    """7x7 convolutions as 1x7 and 7x1, one in the second path and two in the third.

    Args:
      middle: features inside the paths; each ends in 192.

    Source: Szegedy et al. 2015, figure 6. A 1x7 and a 7x1 cost 2/7 of a 7x7.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_c("mixed_6b", 128), (17, 17, 768))
      (17, 17, 768)
    """
    w = scale(width)
    inner, out = w(middle), w(192)
    row, column = ((1, 7), 1, (0, 3)), ((7, 1), 1, (3, 0))
    return Parallel(
        [
            conv_norm_relu("branch1x1", out, 1),
            _chain("branch7x7", (inner, 1, 1, 0), (inner, *row), (out, *column)),
            _chain(
                "branch7x7dbl",
                (inner, 1, 1, 0),
                (inner, *column),
                (inner, *row),
                (inner, *column),
                (out, *row),
            ),
            _pooled(out),
        ],
        "concat",
        name=name,
    )


def inception_d(name: str, width: float = 1.0) -> Layer:
    """The size halved: 1x1-3x3/2; 1x1-1x7-7x1-3x3/2; a pool 3x3/2 that keeps its features.

    Source: torchvision's and TensorFlow's Inception v3.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_d("mixed_7a"), (17, 17, 768))
      (8, 8, 1280)
    """
    w = scale(width)
    inner = w(192)
    return Parallel(
        [
            _chain("branch3x3", (inner, 1, 1, 0), (w(320), 3, 2, 0)),
            _chain(
                "branch7x7x3",
                (inner, 1, 1, 0),
                (inner, (1, 7), 1, (0, 3)),
                (inner, (7, 1), 1, (3, 0)),
                (inner, 3, 2, 0),
            ),
            MaxPool(3, 2),
        ],
        "concat",
        name=name,
    )


def inception_e(name: str, width: float = 1.0) -> Layer:
    """The widest: the 3x3 at the end of two paths is a 1x3 and a 3x1 side by side.

    Source: Szegedy et al. 2015, figure 7.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(inception_e("mixed_7b"), (8, 8, 1280))
      (8, 8, 2048)
    """
    w = scale(width)

    def fork(path: str) -> Layer:
        row = conv_norm_relu(f"{path}a", w(384), (1, 3), 1, (0, 1))
        column = conv_norm_relu(f"{path}b", w(384), (3, 1), 1, (1, 0))
        return Parallel([row, column], "concat")

    return Parallel(
        [
            conv_norm_relu("branch1x1", w(320), 1),
            Serial([conv_norm_relu("branch3x3_1", w(384), 1), fork("branch3x3_2")]),
            Serial(
                [
                    _chain("branch3x3dbl", (w(448), 1, 1, 0), (w(384), 3, 1, 1)),
                    fork("branch3x3dbl_3"),
                ]
            ),
            _pooled(w(192)),
        ],
        "concat",
        name=name,
    )
