"""Convolutional layers that share less than `Conv`: a kernel per position, or a few in turn."""

import math
from typing import Any

from jaxd2l.layers.conv import ZERO, Convolution
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Parameter,
    Params,
    Shape,
    State,
)
from jaxd2l.ops import conv_forms, initializers
from jaxd2l.ops.windows import per_axis
from jaxd2l.records import record


@record
class LocallyConnected(Convolution):
    """A convolution without weight sharing: every output position has its own kernel and bias.

    As many multiplications as `Conv`, and prod(out_space) times its parameters.

    Shapes: x (n, *space, c), kernel (*out_space, prod(kernel) * c, features), bias (*out_space,
    features).

    Source: LeCun 1989; Goodfellow, Bengio and Courville 2016, section 9.5.

    Example:
      >>> layer = LocallyConnected("local", 4, 3)
      >>> layer.output_shape((6, 6, 2)), layer.parameters((6, 6, 2))["kernel"].shape
      ((4, 4, 4), (4, 4, 18, 4))
    """

    name: str
    features: int
    kernel: Any
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        out, area = self.output_shape(input_shape), math.prod(self.kernel)
        fan = (area * input_shape[-1], area * self.features)  # those of one position, as in Conv
        bias = {"bias": Parameter(out, self.bias_init, fan)} if self.bias else {}
        return {"kernel": Parameter((*out[:-1], *fan[:1], out[-1]), self.kernel_init, fan), **bias}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = conv_forms.locally_connected(
            x,
            params["kernel"],
            params.get("bias"),
            kernel_size=self.kernel,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return y, state


@record
class TiledConv(Convolution):
    """A convolution with `tiles` kernels an axis, used in turn: position i has kernel i mod tiles.

    One tile is `Conv`; as many as there are positions is `LocallyConnected`.

    Args:
      tiles: an int, or one per axis; at most the number of output positions.

    Shapes: x (n, *space, c), kernel (*tiles, *kernel, c, features), bias (*tiles, features).

    Source: Gregor and LeCun 2010; Le et al. 2010; Goodfellow, Bengio and Courville 2016, section
    9.5.

    Example:
      >>> layer = TiledConv("tiled", 4, 3, tiles=2)
      >>> layer.output_shape((6, 6, 2)), layer.parameters((6, 6, 2))["kernel"].shape
      ((4, 4, 4), (2, 2, 3, 3, 2, 4))
    """

    name: str
    features: int
    kernel: Any
    tiles: Any
    stride: Any = 1
    padding: Any = 0
    dilation: Any = 1
    bias: bool = True
    kernel_init: Initializer = initializers.XavierUniform()
    bias_init: Initializer = ZERO

    def __post_init__(self) -> None:
        super().__post_init__()
        tiles = per_axis(self.tiles, len(self.kernel), f"TiledConv {self.name!r}: tiles")
        object.__setattr__(self, "tiles", tiles)

    def output_shape(self, input_shape: Shape) -> Shape:
        out = super().output_shape(input_shape)
        if any(t > size for t, size in zip(self.tiles, out, strict=False)):
            raise ValueError(
                f"TiledConv {self.name!r}: more tiles {self.tiles} than output positions "
                f"{out[:-1]}: some kernels would never be used"
            )
        return out

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        area, channels = math.prod(self.kernel), input_shape[-1]
        fan = (area * channels, area * self.features)
        kernel = (*self.tiles, *self.kernel, channels, self.features)
        bias = {"bias": Parameter((*self.tiles, self.features), self.bias_init, fan)}
        return {"kernel": Parameter(kernel, self.kernel_init, fan), **(bias if self.bias else {})}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        y = conv_forms.tiled_conv(
            x,
            params["kernel"],
            params.get("bias"),
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
        )
        return y, state
