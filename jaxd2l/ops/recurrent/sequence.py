"""RNN, GRU and LSTM over whole sequences."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_rank
from jaxd2l.ops.lengths import valid_steps
from jaxd2l.ops.recurrent.cells import (
    LSTMCarry,
    Weights,
    check_activation,
    gru_step,
    lstm_step,
    prepare,
    rnn_step,
)
from jaxd2l.ops.recurrent.scan import Cell, fold_gru, fold_plain, over_time

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
    first = _first(x, weights, carry, 1, "rnn")
    cell = Cell(partial(rnn_step, activation=activation), fold_plain)
    return over_time(cell, x, weights, first, _valid(lengths, x, "rnn"), reverse, unroll)


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
    first = _first(x, weights, carry, 3, "gru", recurrent_bias=reset_after)
    fold = partial(fold_gru, reset_after=reset_after)
    cell = Cell(partial(gru_step, reset_after=reset_after), fold)
    return over_time(cell, x, weights, first, _valid(lengths, x, "gru"), reverse, unroll)


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
    first = _first(x, weights, carry, 4, "lstm")
    cell = Cell(lstm_step, fold_plain)
    return over_time(cell, x, weights, first, _valid(lengths, x, "lstm"), reverse, unroll)


def _first(
    x: Array, weights: Weights, carry: Any, gates: int, where: str, *, recurrent_bias: bool = False
) -> Any:
    """Check the arguments of a layer; the carry to begin with."""
    check_rank(x, 3, f"{where}: x", "(n, t, d)")
    # Not x[:, 0], which a sequence of no steps has not.
    step = jnp.zeros_like(x[:, :1]).sum(axis=1)
    return prepare(step, weights, carry, gates, where, recurrent_bias=recurrent_bias)


def _valid(lengths: Array | None, x: Array, where: str) -> Array | None:
    """True where a row has not ended yet: (n, t)."""
    n, t, _ = x.shape
    return None if lengths is None else valid_steps(lengths, n, t, where)
