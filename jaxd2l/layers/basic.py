"""Layers without parameters of their own: activations, dropout, reshaping, wrapped functions."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from jaxd2l.geometry import Window, as_int
from jaxd2l.layers.core import (
    Array,
    Context,
    Layer,
    Params,
    Shape,
    State,
    check_flags,
    check_name,
    per_position,
)
from jaxd2l.ops.activations import ACTIVATIONS
from jaxd2l.ops.dropout import classic_dropout, dropout
from jaxd2l.records import as_float, record


@record
class Activation(Layer):
    """A nonlinearity by name: relu, sigmoid, tanh, softplus, gelu, ..., softmax over features.

    Raises:
      ValueError: the name is not in `jaxd2l.ops.activations.ACTIVATIONS`.

    Example:
      >>> Activation("relu").apply({}, {}, jnp.array([-1.0, 2.0]), None)[0].tolist()
      [0.0, 2.0]
    """

    kind: str

    def __post_init__(self) -> None:
        if self.kind not in ACTIVATIONS:
            raise ValueError(
                f"Activation: unknown kind {self.kind!r}; known are {sorted(ACTIVATIONS)}. "
                f"For a function of your own use Function(f)."
            )

    @property
    def label(self) -> str:  # type: ignore[override]
        return self.kind

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return ACTIVATIONS[self.kind](x), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return per_position(input_shape) if "softmax" in self.kind else ()


@record
class Identity(Layer):
    """y = x: the shortcut of a residual block.

    Example:
      >>> Identity().output_shape((3, 4))
      (3, 4)
    """

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return x, state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


@record
class Dropout(Layer):
    """Zero a fraction `rate` of the values in training, scaled by 1 / (1 - rate); else identity.

    The mask of an example depends on (key, path, index of the example in the global batch) only.
    `classic=True` is the original form: no scaling in training, times (1 - rate) at test time.

    Source: Srivastava et al. 2014; D2L 5.6.

    Example:
      >>> from jaxd2l import apply
      >>> y, _ = apply(Dropout("drop", 0.5), {}, {}, jnp.ones((1, 8)), key=jax.random.key(0),
      ...              train=True)
      >>> sorted(set(y.ravel().tolist()))
      [0.0, 2.0]
    """

    name: str
    rate: float
    classic: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, "Dropout")
        check_flags(self, "classic")
        what = f"Dropout {self.name!r}: rate (the fraction dropped)"
        object.__setattr__(self, "rate", as_float(self.rate, what, 0, 1))

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        if self.classic:
            key = context.key if context.train and self.rate else None
            y = classic_dropout(x, self.rate, key, train=context.train, examples=context.examples)
            return y, state
        if not context.train or self.rate == 0:
            return x, state
        return dropout(x, self.rate, context.key, examples=context.examples), state

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


@record
class Flatten(Layer):
    """(n, h, w, c) -> (n, h*w*c), in the order (h, w, c).

    Example:
      >>> Flatten().output_shape((4, 4, 16))
      (256,)
    """

    def output_shape(self, input_shape: Shape) -> Shape:
        return (math.prod(input_shape),)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return x.reshape(x.shape[0], *self.output_shape(x.shape[1:])), state  # (n, h*w*c)

    def windows(self, input_shape: Shape) -> tuple[Window, ...] | None:
        return ()


@record
class Reshape(Layer):
    """(n, ...) -> (n, *shape); the number of values must agree.

    Example:
      >>> Reshape((2, 3)).output_shape((6,))
      (2, 3)
    """

    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.shape, Sequence):
            raise TypeError(f"Reshape: shape must be a tuple of integers, got {self.shape!r}")
        sizes = tuple(as_int(n, "Reshape: each size", 1) for n in self.shape)
        object.__setattr__(self, "shape", sizes)

    def output_shape(self, input_shape: Shape) -> Shape:
        if math.prod(input_shape) != math.prod(self.shape):
            raise ValueError(f"Reshape: cannot reshape {input_shape} to {self.shape}")
        return self.shape

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        return x.reshape(x.shape[0], *self.shape), state


@record
class Powers(Layer):
    """The polynomial features x, x^2/2!, ..., x^degree/degree! of one input: (n, 1) -> (n, degree).

    Source: D2L 3.6 (older edition 4.4).

    Example:
      >>> Powers(3).apply({}, {}, jnp.array([[2.0]]), None)[0].tolist()
      [[2.0, 2.0, 1.3333333730697632]]
    """

    degree: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "degree", as_int(self.degree, "Powers: degree", 1))

    def output_shape(self, input_shape: Shape) -> Shape:
        if input_shape != (1,):
            raise ValueError(f"Powers needs one input feature, (1,), got {input_shape}")
        return (self.degree,)

    def apply(
        self, params: Params, state: State, x: Array, context: Context
    ) -> tuple[Array, State]:
        terms = [x]
        for k in range(2, self.degree + 1):
            terms.append(terms[-1] * (x / k))
        return jnp.concatenate(terms, axis=-1), state  # (n, degree)


@record
class Function(Layer):
    """Any function of a batch, (n, ...) -> (n, ...), without parameters.

    Control flow that depends on values is written with `lax.cond` or `lax.while_loop` inside it.
    JAX has no reverse-mode gradient through a `while_loop` whose carry depends on what is trained:
    let it carry `lax.stop_gradient` values only, such as the number of halvings.
    A network with functions in it cannot be written to a file; keep it in code. `summarize` reads
    receptive field and MACs off the function's trace.

    Example:
      >>> from jaxd2l import output_shape
      >>> output_shape(Function(lambda x: x.mean(axis=1)), (5, 3))
      (3,)
    """

    label: ClassVar[str] = "function"
    function: Callable[[Array], Any]
    name: str | None = None

    def __post_init__(self) -> None:
        if not callable(self.function):
            raise TypeError(f"Function: expected a function, got {self.function!r}")
        if self.name is not None:
            check_name(self.name, "Function")

    def output_shape(self, input_shape: Shape) -> Shape:
        # Two batch sizes, so that a function that loses the batch axis is found out.
        try:
            ys = self._outputs(input_shape, jnp.float32)
        except TypeError:
            ys = self._outputs(input_shape, jnp.int32)  # a function of tokens
        shapes = [getattr(y, "shape", None) for y in ys]
        if shapes[0] is None or shapes[1] is None:
            raise ValueError(f"Function: it must return one array, got {ys[0]!r}")
        if shapes[0][:1] != (2,) or shapes[1] != (3, *shapes[0][1:]):
            raise ValueError(
                f"Function: it must keep the batch axis first: a batch (2, *{input_shape}) gave "
                f"{shapes[0]}, a batch (3, *{input_shape}) gave {shapes[1]}"
            )
        return tuple(shapes[0][1:])

    def _outputs(self, input_shape: Shape, dtype: Any) -> list[Any]:
        return [
            jax.eval_shape(self.function, jax.ShapeDtypeStruct((n, *input_shape), dtype))
            for n in (2, 3)
        ]

    def apply(self, params: Params, state: State, x: Array, context: Context) -> tuple[Any, State]:
        return self.function(x), state

    def macs(self, input_shape: Shape) -> int | None:
        return None
