"""Recurrent layers: (t, d) -> (t, features), one hidden state for each position.

A deep network is several of them in a `Serial`, a bidirectional one a `Parallel` of one that reads
forwards and one with `reverse=True`, joined by "concat"; dropout between them is a `Dropout` layer.
"""

import math
from typing import Any

import jax

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.core import (
    Array,
    Context,
    Initializer,
    Layer,
    Parameter,
    Params,
    Shape,
    State,
    check_flags,
    check_initializers,
    check_name,
)
from jaxd2l.ops import initializers, recurrent
from jaxd2l.records import record

#: By default every array is uniform in +-1/sqrt(features), as in PyTorch.
_Given = Initializer | None


def _check(owner: Any) -> None:
    kind = type(owner).__name__
    check_name(owner.name, kind)
    check_flags(owner, "reverse")
    object.__setattr__(owner, "features", as_int(owner.features, f"{kind}: features", 1))
    inits = ("kernel_init", "recurrent_init", "bias_init")
    check_initializers(owner, *(f for f in inits if getattr(owner, f) is not None))


class _Recurrent(Layer):
    """What the three kinds share. A subclass says how many gates it has and how it runs."""

    name: str
    features: Any
    reverse: Any
    kernel_init: Any
    recurrent_init: Any
    bias_init: Any
    _run: Any  #: (x, weights, carry: what it remembers, or nothing; lengths) -> y, the new carry
    _gates = 1
    _remembers: tuple[str, ...] = ("hidden",)

    def output_shape(self, input_shape: Shape) -> Shape:
        if len(input_shape) != 2:
            raise ValueError(
                f"{type(self).__name__} needs sequences (t, features), got {input_shape}; for "
                f"tokens put layers.OneHot or layers.Embedding before it"
            )
        return (input_shape[0], self.features)

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        d, h, columns = input_shape[-1], self.features, self._gates * self.features
        usual = initializers.Uniform(-1 / math.sqrt(h), 1 / math.sqrt(h))
        return {
            "input_kernel": Parameter((d, columns), self.kernel_init or usual, (d, h)),
            "recurrent_kernel": Parameter((h, columns), self.recurrent_init or usual, (h, h)),
            "bias": Parameter((columns,), self.bias_init or usual, (h, h)),
        }

    def macs(self, input_shape: Shape) -> int | None:
        return input_shape[0] * self._gates * self.features * (input_shape[1] + self.features)

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return None

    def carry(
        self, input_shape: Shape, length: int | None, dtype: Any
    ) -> dict[str, jax.ShapeDtypeStruct]:
        if self.reverse:  # reads the future: a sequence cannot be continued
            return {}
        return dict.fromkeys(self._remembers, jax.ShapeDtypeStruct((self.features,), dtype))

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        given = [state[name] for name in self._remembers if name in state]
        y, last = self._run(x, recurrent.Weights(**params), given, context.lengths)
        return y, ({**state, **dict(zip(self._remembers, last, strict=True))} if given else state)


@record
class RNN(_Recurrent):
    """The plain recurrence h_t = activation(x_t W + h_{t-1} U + b).

    Shapes: (n, t, d) -> (n, t, features); input_kernel W (d, features), recurrent_kernel U
    (features, features), bias b (features,). The carry is `hidden` (n, features).

    Source: Elman 1990; D2L 9.4, 9.6.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(RNN("rnn", 32), (35, 28)).parameters
      1952
    """

    name: str
    features: int
    activation: str = "tanh"
    reverse: bool = False
    kernel_init: _Given = None
    recurrent_init: _Given = None
    bias_init: _Given = None

    def __post_init__(self) -> None:
        _check(self)
        if self.activation not in ("tanh", "relu"):
            raise ValueError(f"RNN: activation must be tanh or relu, got {self.activation!r}")

    def _run(self, x: Array, weights: recurrent.Weights, carry: list[Array], lengths: Any) -> Any:
        y, hidden = recurrent.rnn(
            x,
            weights,
            *carry,
            lengths=lengths,
            reverse=self.reverse,
            activation=self.activation,
        )
        return y, (hidden,)


@record
class GRU(_Recurrent):
    """Gated recurrent unit; gates in the order reset, update, candidate.

    r, z = sigmoid(x W + h U + b), c = tanh(x W_c + (r * h) U_c + b_c), h' = z h + (1 - z) c. With
    `reset_after` the reset gate acts after the product, c = tanh(x W_c + b_c + r * (h U_c + v)), as
    in PyTorch and cuDNN; v is the `recurrent_bias`.

    Shapes: (n, t, d) -> (n, t, features); kernels (d, 3 features), (features, 3 features), bias
    (3 features,). The carry is `hidden` (n, features).

    Source: Cho et al. 2014; D2L 10.2.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(GRU("gru", 32), (35, 8)).parameters
      3936
    """

    name: str
    features: int
    reset_after: bool = False
    reverse: bool = False
    kernel_init: _Given = None
    recurrent_init: _Given = None
    bias_init: _Given = None
    _gates = 3

    def __post_init__(self) -> None:
        _check(self)
        check_flags(self, "reset_after")

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        declared = super().parameters(input_shape)
        if self.reset_after:
            bias = declared["bias"]
            declared["recurrent_bias"] = Parameter((self.features,), bias.initializer, bias.fan)
        return declared

    def _run(self, x: Array, weights: recurrent.Weights, carry: list[Array], lengths: Any) -> Any:
        y, hidden = recurrent.gru(
            x,
            weights,
            *carry,
            lengths=lengths,
            reverse=self.reverse,
            reset_after=self.reset_after,
        )
        return y, (hidden,)


@record
class LSTM(_Recurrent):
    """Long short-term memory; gates in the order input, forget, candidate, output.

    i, f, o = sigmoid(x W + h U + b), g = tanh(x W_g + h U_g + b_g), c' = f c + i g,
    h' = o tanh(c').

    Shapes: (n, t, d) -> (n, t, features); kernels (d, 4 features), (features, 4 features), bias
    (4 features,). The carry is `hidden` and `cell`, (n, features) each.

    Source: Hochreiter and Schmidhuber 1997; D2L 10.1.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(LSTM("lstm", 32), (35, 8)).parameters
      5248
    """

    name: str
    features: int
    reverse: bool = False
    kernel_init: _Given = None
    recurrent_init: _Given = None
    bias_init: _Given = None
    _gates = 4
    _remembers = ("hidden", "cell")

    def __post_init__(self) -> None:
        _check(self)

    def _run(self, x: Array, weights: recurrent.Weights, carry: list[Array], lengths: Any) -> Any:
        before = recurrent.LSTMCarry(*carry) if carry else None
        return recurrent.lstm(x, weights, before, lengths=lengths, reverse=self.reverse)
