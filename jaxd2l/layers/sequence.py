"""Layers for sequences of tokens: one-hot vectors, positions, the real, first and last steps."""

from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_integer
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
    check_initializers,
    check_name,
)
from jaxd2l.ops import initializers, linear, positions, time_pooling
from jaxd2l.ops.lengths import valid_steps
from jaxd2l.records import record


@record
class OneHot(Layer):
    """Tokens as one-hot vectors: (n, t) integers -> (n, t, size), in the dtype of the parameters.

    A token outside [0, size) gives NaN, which the loss shows; check data on the host with
    `jaxd2l.ops.linear.check_tokens`, as `fit` does.

    Source: D2L 9.5.1.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(OneHot(28), (35,))
      (35, 28)
    """

    label: ClassVar[str] = "one_hot"
    size: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", as_int(self.size, "OneHot: size", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        return (*input_shape, self.size)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        check_integer(x, "OneHot: tokens")
        leaves = jax.tree.leaves(context.root)
        dtype = next((a.dtype for a in leaves if jnp.issubdtype(a.dtype, jnp.floating)), None)
        hot = jax.nn.one_hot(x, self.size, dtype=dtype or jnp.float32)
        outside = (x < 0) | (x >= self.size)
        return jnp.where(outside[..., None], jnp.array(jnp.nan, hot.dtype), hot), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


def _sequence(owner: Layer, input_shape: Shape) -> Shape:
    if len(input_shape) != 2:
        raise ValueError(f"{type(owner).__name__} needs sequences (t, features), got {input_shape}")
    return input_shape


def _check_positions(owner: Any) -> None:
    kind = type(owner).__name__
    check_name(owner.name, kind)
    object.__setattr__(owner, "length", as_int(owner.length, f"{kind}: length", 1))


class _Positions(Layer):
    """Adds a vector for its position to each vector; the carry is the position reached."""

    name: str
    length: Any
    _table: Any  #: (params, x) -> (length, features)

    def output_shape(self, input_shape: Shape) -> Shape:
        t, _ = _sequence(self, input_shape)
        if t > self.length:
            raise ValueError(
                f"{type(self).__name__} {self.name!r}: there are {self.length} positions, the "
                f"sequence has {t}"
            )
        return input_shape

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()

    def carry(
        self, input_shape: Shape, length: int | None, dtype: Any
    ) -> dict[str, jax.ShapeDtypeStruct]:
        return {"position": jax.ShapeDtypeStruct((), jnp.int32)}

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        t, table = x.shape[1], self._table(params, x)
        if "position" not in state:
            return x + table[None, :t], state
        start = state["position"]
        at = start[:, None] + jnp.arange(t, dtype=jnp.int32)[None]  # (n, t)
        read = t if context.lengths is None else jnp.clip(context.lengths, 0, t).astype(jnp.int32)
        return x + linear.embedding(at, table), {**state, "position": start + read}


@record
class LearnedPositions(_Positions):
    """y_t = x_t + p_t with a trained vector p_t for each of `length` positions.

    Positions from `length` on give NaN when a sequence is extended that far, and an error where it
    is seen beforehand.

    Shapes: (n, t, features), t <= length; embedding (length, features). The carry is `position`.

    Source: Gehring et al. 2017; Radford et al. 2018 (GPT, normal with 0.02); D2L 11.6.

    Example:
      >>> from jaxd2l import summarize
      >>> summarize(LearnedPositions("positions", 64), (35, 8)).parameters
      512
    """

    name: str
    length: int
    embedding_init: Initializer = initializers.Normal(0.02)

    def __post_init__(self) -> None:
        _check_positions(self)
        check_initializers(self, "embedding_init")

    def parameters(self, input_shape: Shape) -> dict[str, Parameter]:
        return {"embedding": Parameter((self.length, input_shape[-1]), self.embedding_init)}

    def _table(self, params: Params, x: Array) -> Array:
        table: Array = params["embedding"]
        return table


@record
class SinusoidalPositions(_Positions):
    """y_t = x_t + p_t with the fixed p_t of `ops.positions.sinusoidal_positions`.

    Shapes: (n, t, features), t <= length, features even. The carry is `position`.

    Source: Vaswani et al. 2017; D2L 11.6.3.

    Example:
      >>> SinusoidalPositions("positions", 64).output_shape((35, 8))
      (35, 8)
    """

    name: str
    length: int

    def __post_init__(self) -> None:
        _check_positions(self)

    def output_shape(self, input_shape: Shape) -> Shape:
        if _sequence(self, input_shape)[1] % 2:
            raise ValueError(
                f"SinusoidalPositions {self.name!r}: sine and cosine take features in pairs, got "
                f"{input_shape[1]}"
            )
        return super().output_shape(input_shape)

    def _table(self, params: Params, x: Array) -> Array:
        return positions.sinusoidal_positions(self.length, x.shape[-1], x.dtype)


@record
class LastStep(Layer):
    """The vector at the last real position: (n, t, c) -> (n, c); zeros for an empty sequence.

    Source: D2L 9.4 (many to one).

    Example:
      >>> LastStep().output_shape((35, 100))
      (100,)
    """

    label: ClassVar[str] = "last_step"

    def output_shape(self, input_shape: Shape) -> Shape:
        return _sequence(self, input_shape)[-1:]

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return time_pooling.last_step(x, context.lengths), state


@record
class FirstStep(Layer):
    """The vector at the first position: (n, t, c) -> (n, c). There a recurrence with `reverse=True`
    has read the whole sequence.

    Source: D2L 16.2.

    Example:
      >>> FirstStep().output_shape((35, 100))
      (100,)
    """

    label: ClassVar[str] = "first_step"

    def output_shape(self, input_shape: Shape) -> Shape:
        return _sequence(self, input_shape)[-1:]

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return x[:, 0], state


@record
class RealSteps(Layer):
    """Zeros at the positions beyond the end of each sequence, the rest unchanged.

    With `width` the position is that of a window, which starts there: zeros where it ends beyond
    the sequence. The first window stays, also of a sequence that is shorter than one.

    Shapes: (n, t, c) -> the same.

    Example:
      >>> from jaxd2l import apply
      >>> x, lengths = jnp.ones((2, 5, 1)), jnp.array([4, 1])
      >>> y, _ = apply(RealSteps(width=3), {}, {}, x, lengths=lengths)
      >>> print(y[:, :, 0])
      [[1. 1. 0. 0. 0.]
       [1. 0. 0. 0. 0.]]
    """

    label: ClassVar[str] = "real_steps"
    width: int = 1

    def __post_init__(self) -> None:
        object.__setattr__(self, "width", as_int(self.width, "RealSteps: width", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        return _sequence(self, input_shape)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        n, t, _ = x.shape
        lengths = jnp.full((n,), t, jnp.int32)
        if context.lengths is not None:
            lengths = jnp.minimum(context.lengths.astype(jnp.int32), lengths)
        windows = jnp.maximum(lengths - (self.width - 1), jnp.minimum(lengths, 1))
        valid = valid_steps(windows, n, t, "RealSteps")
        return jnp.where(valid[:, :, None], x, jnp.zeros((), x.dtype)), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return () if self.width == 1 else None
