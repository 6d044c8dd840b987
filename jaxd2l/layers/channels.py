"""Layers that rearrange channels."""

from typing import ClassVar

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.core import Array, Context, Layer, Params, Shape, State, per_position
from jaxd2l.ops.channels import channel_shuffle
from jaxd2l.records import record


@record
class ChannelShuffle(Layer):
    """Channels dealt out over the groups, so that the next convolution in groups sees all of them.

    y[..., j*groups + g] = x[..., g*c/groups + j]; groups=1 changes nothing.

    Source: Zhang et al. 2018 (ShuffleNet). Equal to torch.nn.ChannelShuffle.

    Example:
      >>> ChannelShuffle(3).output_shape((28, 28, 240))
      (28, 28, 240)
    """

    label: ClassVar[str] = "channel_shuffle"
    groups: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "groups", as_int(self.groups, "ChannelShuffle: groups", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        if not input_shape or input_shape[-1] % self.groups:
            raise ValueError(
                f"ChannelShuffle: groups={self.groups} must divide the channels, the last axis of "
                f"{input_shape}"
            )
        return input_shape

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return channel_shuffle(x, self.groups), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape)
