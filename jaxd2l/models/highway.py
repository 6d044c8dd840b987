"""Highway networks: layers that gates mix with their input, so that depth does no harm."""

from collections.abc import Sequence

from jaxd2l.geometry import as_int
from jaxd2l.layers import Activation, Conv, Dense, Flatten, Layer, MaxPool, Serial
from jaxd2l.models.blocks.basic import HE, repeated
from jaxd2l.models.blocks.gated import highway_block


def highway(
    num_classes: int = 10,
    blocks: int = 9,
    width: int = 50,
    activation: str = "relu",
    gate_bias: float = -2.0,
) -> Layer:
    """A dense layer, `blocks` highway layers of `width`, and the output; 10 layers by default.

    The paper trains 10, 20, 50 and 100 layers (`blocks` 9, 19, 49, 99) on MNIST, about 5000
    parameters a layer, with `gate_bias` from -1 to -10. Eight and more blocks are one
    `Repeat`, their parameters stacked.

    Source: Srivastava et al. 2015 (Training very deep networks), section 3.1; catalogue M16.

    Example:
      >>> from jaxd2l import summarize
      >>> [summarize(highway(blocks=n), (28, 28, 1)).parameters for n in (9, 99)]
      [85660, 544660]
    """
    blocks = as_int(blocks, "highway: blocks", 1)

    def block(name: str) -> Layer:
        return highway_block(name, width, activation=activation, gate_bias=gate_bias)

    return Serial(
        [
            Flatten(),
            Dense("input", width, kernel_init=HE),
            Activation(activation),
            *repeated(block, blocks),
            Dense("output", num_classes),
        ]
    )


def highway_cnn(
    num_classes: int = 10,
    width: int = 16,
    blocks: Sequence[int] = (2, 3, 3),
    gate_bias: float = -2.0,
) -> Layer:
    """A 3x3 convolution and highway convolutions, a pool of 2 after each stage; dense output.

    Args:
      width: of every convolution.
      blocks: highway convolutions of each stage; the default has 10 layers, as the paper's.

    38,730 parameters on (28, 28, 1) with width 16 and 151,178 with 32: the paper's 39K and 151K.
    It does not say where it pools; these numbers need 3x3 positions at the end.

    Source: Srivastava et al. 2015 (Training very deep networks), section 3.2 and table 1.

    Example:
      >>> from jaxd2l import summarize
      >>> [summarize(highway_cnn(width=w), (28, 28, 1)).parameters for w in (16, 32)]
      [38730, 151178]
    """
    stages = [
        Serial(
            [
                *(highway_block(f"unit{i}", width, 3, gate_bias=gate_bias) for i in units),
                MaxPool(2),
            ],
            name=f"stage{number}",
        )
        for number, units in enumerate((range(1, count + 1) for count in blocks), 1)
    ]
    return Serial(
        [
            Conv("conv1", width, 3, padding="same", kernel_init=HE),
            Activation("relu"),
            *stages,  # (14, 14, w), (7, 7, w), (3, 3, w) of (28, 28, 1)
            Flatten(),
            Dense("output", num_classes),
        ]
    )
