"""Gated blocks: highway layers, dense and convolutional."""

from typing import Any, ClassVar

from jaxd2l.geometry import Window
from jaxd2l.layers import Activation, Conv, Dense, Identity, Layer, Parallel, Serial
from jaxd2l.layers.core import Array, Context, Params, Shape, State
from jaxd2l.models.blocks.basic import HE
from jaxd2l.ops.initializers import Constant
from jaxd2l.records import as_float, record


@record
class Negative(Layer):
    """y = -x.

    Example:
      >>> import jax.numpy as jnp
      >>> Negative().apply({}, {}, jnp.array([1.0, -2.0]), None)[0].tolist()
      [-1.0, 2.0]
    """

    label: ClassVar[str] = "negative"

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return -x, state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


def highway_block(
    name: str,
    features: int,
    kernel: Any = None,
    *,
    activation: str = "relu",
    gate_bias: float = -2.0,
) -> Layer:
    """A layer that a gate mixes with its own input: y = T * H + (1 - T) * x.

        H = activation(transform x),  T = sigmoid(gate x),  written as x + T * (H - x)

    The gate's bias starts at `gate_bias`, below 0, so that the block starts near the identity: T =
    0 is the identity and T = 1 the plain layer. The input must have `features` features.

    Args:
      kernel: None for dense layers, else that of two convolutions with "same" padding.

    Shapes:
      x, y: (n, ..., features).

    Raises:
      ValueError: where the input has other than `features` features.

    Source: Srivastava, Greff and Schmidhuber 2015; catalogue L26. Twice the parameters of a plain
    layer.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(highway_block("unit1", 50), (50,)).parameters
      5100
    """
    bias = Constant(as_float(gate_bias, f"highway_block {name!r}: gate_bias"))
    transform: Layer
    gate: Layer
    if kernel is None:
        transform = Dense("transform", features, kernel_init=HE)
        gate = Dense("gate", features, bias_init=bias)
    else:
        transform = Conv("transform", features, kernel, padding="same", kernel_init=HE)
        gate = Conv("gate", features, kernel, padding="same", bias_init=bias)
    change = Parallel([Serial([transform, Activation(activation)]), Negative()], "add")  # H - x
    gated = Parallel([change, Serial([gate, Activation("sigmoid")])], "multiply")
    return Parallel([gated, Identity()], "add", name=name)
