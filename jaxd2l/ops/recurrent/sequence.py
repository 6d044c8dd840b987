"""RNN, GRU and LSTM over whole sequences: inputs projected by one product, then a scan of steps."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_integer
from jaxd2l.ops.recurrent.cells import (
    LSTMCarry,
    Weights,
    check_activation,
    gru_step,
    lstm_step,
    prepare,
    project,
    rnn_step,
)

Array = jax.Array


def rnn(
    x: Array,
    weights: Weights,
    carry: Array | None = None,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    activation: str = "tanh",
    unroll: int = 1,
) -> tuple[Array, Array]:
    """Plain recurrent layer: h_t = activation(x_t W + h_{t-1} U + b), for every step t.

    With `lengths` a row ends early: outputs beyond its length are 0, whatever x holds there, and
    the carry returned is that of its last valid step (of length 0: the carry given). A length
    beyond t means t, a negative one 0. With `reverse` time runs backwards, from the last valid step
    of each row to its first; outputs stay at the places of their inputs.

    Shapes:
      x: (n, t, d).
      weights: `Weights` with one gate.
      carry: (n, h), or None for zeros.
      lengths: (n,), integers, or None for t.
      returns: y (n, t, h), every state; carry (n, h), the last.

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: shapes that do not fit, or an activation other than "tanh" and "relu".

    Source: D2L 9.4-9.6. torch.nn.RNN adds two biases where this has one, and takes lengths as a
    packed sequence.

    Example:
      >>> w = Weights(jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> y, carry = rnn(jnp.array([[[1.0], [2.0], [3.0]]]), w, activation="relu")
      >>> print(y.ravel(), carry)
      [1. 3. 6.] [[6.]]
    """
    check_activation(activation, "rnn")
    first = prepare(x, weights, carry, 1, "rnn")
    step = partial(rnn_step, activation=activation)
    return _scan(step, x, weights, first, lengths, reverse, unroll, "rnn")


def gru(
    x: Array,
    weights: Weights,
    carry: Array | None = None,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    reset_after: bool = False,
    unroll: int = 1,
) -> tuple[Array, Array]:
    """Gated recurrent units over time; `gru_cell` has the equations, `rnn` says what lengths do.

    Every state lies between the last one and a candidate in (-1, 1), so |h| < 1 from zeros on.

    Shapes:
      x: (n, t, d).
      weights: `Weights` with three gates: reset, update, candidate.
      carry: (n, h), or None for zeros.
      lengths: (n,), integers, or None for t.
      returns: y (n, t, h), every state; carry (n, h), the last.

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: shapes that do not fit, or a `recurrent_bias` without `reset_after`.

    Source: Cho et al. 2014; D2L 10.2. torch.nn.GRU and cuDNN are `reset_after=True`.

    Example:
      >>> w = Weights(jnp.zeros((1, 3)), jnp.zeros((1, 3)))
      >>> y, carry = gru(jnp.zeros((1, 3, 1)), w, jnp.ones((1, 1)))
      >>> print(y.ravel(), carry)
      [0.5   0.25  0.125] [[0.125]]
    """
    first = prepare(x, weights, carry, 3, "gru", recurrent_bias=reset_after)
    step = partial(gru_step, reset_after=reset_after)
    return _scan(step, x, weights, first, lengths, reverse, unroll, "gru")


def lstm(
    x: Array,
    weights: Weights,
    carry: LSTMCarry | None = None,
    *,
    lengths: Array | None = None,
    reverse: bool = False,
    unroll: int = 1,
) -> tuple[Array, LSTMCarry]:
    """Long short-term memory over time; `lstm_cell` has the equations, `rnn` says what lengths do.

    The hidden state lies in (-1, 1). The cell does not, but from zeros |cell_t| < t.

    Shapes:
      x: (n, t, d).
      weights: `Weights` with four gates: input, forget, candidate, output.
      carry: `LSTMCarry` of (n, h), or None for zeros.
      lengths: (n,), integers, or None for t.
      returns: y (n, t, h), every hidden state; `LSTMCarry` of (n, h), the last.

    Raises:
      TypeError: x is not floating point, or lengths not integers.
      ValueError: shapes that do not fit.

    Source: Hochreiter and Schmidhuber 1997; D2L 10.1. torch.nn.LSTM has the same gates, and two
    biases.

    Example:
      >>> w = Weights(jnp.zeros((1, 4)), jnp.zeros((1, 4)))
      >>> carry = LSTMCarry(jnp.zeros((1, 1)), jnp.ones((1, 1)))
      >>> print(lstm(jnp.zeros((1, 3, 1)), w, carry)[1].cell)
      [[0.125]]
    """
    first = prepare(x, weights, carry, 4, "lstm")
    return _scan(lstm_step, x, weights, first, lengths, reverse, unroll, "lstm")


def _scan(
    step: Callable[..., Any],
    x: Array,
    weights: Weights,
    carry: Any,
    lengths: Array | None,
    reverse: bool,
    unroll: int,
    where: str,
) -> tuple[Array, Any]:
    valid = None
    if lengths is not None:
        valid = _valid(lengths, x.shape[0], x.shape[1], where)  # (n, t)
        x = jnp.where(valid[:, :, None], x, jnp.zeros_like(x))  # or NaN in padding would spread
        valid = valid.T[:, :, None]  # (t, n, 1)

    def body(carry: Any, inputs: Any) -> tuple[Any, Array]:
        xp, ok = inputs
        new = step(xp, carry, weights)
        hidden = new.hidden if isinstance(new, LSTMCarry) else new
        if ok is None:
            return new, hidden
        new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, carry)
        return new, jnp.where(ok, hidden, jnp.zeros_like(hidden))

    xp = jnp.swapaxes(project(x, weights), 0, 1)  # (t, n, g*h)
    last, y = jax.lax.scan(body, carry, (xp, valid), reverse=reverse, unroll=unroll)
    return jnp.swapaxes(y, 0, 1), last


def _valid(lengths: Array, n: int, t: int, where: str) -> Array:
    """True where a row has not ended yet: (n, t)."""
    check_integer(lengths, f"{where}: lengths")
    lengths = jnp.asarray(lengths)
    if lengths.shape != (n,):
        raise ValueError(
            f"{where}: lengths must hold one length per row of x, shape ({n},), got {lengths.shape}"
        )
    return jnp.arange(t, dtype=lengths.dtype)[None] < lengths[:, None]
