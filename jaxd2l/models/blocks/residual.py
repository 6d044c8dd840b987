"""Residual blocks: y = f(x) + shortcut(x), in the three orders that were published."""

from jaxd2l.layers import Identity, Layer, Parallel, Serial
from jaxd2l.models.blocks.basic import RELU, conv, norm


def projection(features: int, stride: int = 1) -> Layer:
    """The shortcut of a block that changes the shape: a strided 1x1 convolution and a norm.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(projection(128, stride=2), (56, 56, 64))
      (28, 28, 128)
    """
    return Serial([conv("conv", features, 1, stride), norm("bn")], name="shortcut")


def residual_block(
    name: str, features: int, stride: int = 1, shortcut: Layer | None = None, *, bias: bool = False
) -> Layer:
    """Two 3x3 convolutions: y = relu(bn2(conv2(relu(bn1(conv1 x)))) + shortcut(x)).

    `shortcut` None is the identity; `projection(features, stride)` where the shape changes.

    Source: He et al. 2015, figure 5 left; D2L 8.6.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(residual_block("unit1", 64), (56, 56, 64))
      (56, 56, 64)
    """
    branch = [
        conv("conv1", features, 3, stride, bias=bias),
        norm("bn1"),
        RELU,
        conv("conv2", features, 3, bias=bias),
        norm("bn2"),
    ]
    return Serial([_add(branch, shortcut), RELU], name=name)


def bottleneck_block(
    name: str,
    features: int,
    width: int,
    stride: int = 1,
    shortcut: Layer | None = None,
    *,
    groups: int = 1,
) -> Layer:
    """1x1 down to `width`, 3x3 (strided, in groups for ResNeXt), 1x1 up to `features`; plus x.

    Source: He et al. 2015, figure 5 right, with the stride in the 3x3 as torchvision has it (the
    paper puts it in the first 1x1); Xie et al. 2017 for the groups.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(bottleneck_block("unit2", 256, 64), (56, 56, 256)).parameters
      70400
    """
    branch = [
        conv("conv1", width, 1),
        norm("bn1"),
        RELU,
        conv("conv2", width, 3, stride, groups=groups),
        norm("bn2"),
        RELU,
        conv("conv3", features, 1),
        norm("bn3"),
    ]
    return Serial([_add(branch, shortcut), RELU], name=name)


def preactivation_block(
    name: str, features: int, width: int | None = None, stride: int = 1, project: bool = False
) -> Layer:
    """Norm and ReLU before each convolution, nothing after the sum: y = f(x) + x.

    Two 3x3 convolutions, or with `width` a bottleneck. With `project` the shortcut is a strided
    1x1 convolution of the input after its norm and ReLU, without a norm of its own.

    Source: He et al. 2016 (identity mappings), figure 4e; D2L 8.6 exercise 3. The notes project x
    itself.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(preactivation_block("unit1", 256, 64, 2, project=True), (56, 56, 64))
      (28, 28, 256)
    """
    first = [norm("bn1"), RELU]
    if width is None:
        branch = [conv("conv1", features, 3, stride), norm("bn2"), RELU, conv("conv2", features, 3)]
    else:
        branch = [
            conv("conv1", width, 1),
            norm("bn2"),
            RELU,
            conv("conv2", width, 3, stride),
            norm("bn3"),
            RELU,
            conv("conv3", features, 1),
        ]
    if not project:
        return Serial([_add([*first, *branch], None)], name=name)
    shortcut = Serial([conv("conv", features, 1, stride)], name="shortcut")
    return Serial([*first, _add(branch, shortcut)], name=name)


def _add(branch: list[Layer], shortcut: Layer | None) -> Layer:
    return Parallel([Serial(branch), shortcut or Identity()], "add")
