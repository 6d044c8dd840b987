"""One step of a recurrence: the weights, the carries, and the equations of RNN, GRU and LSTM."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.ops.linear import dense

Array = jax.Array


class Weights(NamedTuple):
    """The parameters of one recurrent layer of h units with g gates: 1 (RNN), 3 (GRU), 4 (LSTM).

    Shapes:
      input_kernel: (d, g*h), the gates side by side.
      recurrent_kernel: (h, g*h).
      bias: (g*h,) or None.
      recurrent_bias: (h,) or None; only for `gru(reset_after=True)`, the bias inside its reset.
    """

    input_kernel: Array
    recurrent_kernel: Array
    bias: Array | None = None
    recurrent_bias: Array | None = None


class LSTMCarry(NamedTuple):
    """What an LSTM hands on: the hidden state, which is its output, and the memory cell.

    Shapes:
      hidden: (n, h).
      cell: (n, h).
    """

    hidden: Array
    cell: Array


ACTIVATIONS = {"tanh": jnp.tanh, "relu": jax.nn.relu}


def rnn_cell(
    x: Array, weights: Weights, carry: Array | None = None, *, activation: str = "tanh"
) -> Array:
    """One step of a plain recurrent layer: h' = activation(x W + h U + b).

    Shapes:
      x: (n, d).
      weights: `Weights` with one gate.
      carry: (n, h), or None for zeros.
      returns: (n, h), the new state, which is also the output.

    Raises:
      TypeError: x is not floating point.
      ValueError: shapes that do not fit, or an activation other than "tanh" and "relu".

    Source: D2L 9.4. torch.nn.RNNCell adds two biases where this has one.

    Example:
      >>> w = Weights(jnp.ones((2, 1)), jnp.ones((1, 1)))
      >>> print(rnn_cell(jnp.array([[1.0, 2.0]]), w, jnp.array([[4.0]]), activation="relu"))
      [[7.]]
    """
    check_activation(activation, "rnn_cell")
    h = prepare(x, weights, carry, 1, "rnn_cell")
    return rnn_step(project(x, weights), h, weights, activation)[0]


def gru_cell(
    x: Array, weights: Weights, carry: Array | None = None, *, reset_after: bool = False
) -> Array:
    """One step of a gated recurrent unit; gates in the order reset, update, candidate.

    r = sigmoid(x W_r + h U_r + b_r), z = sigmoid(x W_z + h U_z + b_z),
    c = tanh(x W_c + (r * h) U_c + b_c), h' = z * h + (1 - z) * c.
    With `reset_after`, c = tanh(x W_c + r * (h U_c + recurrent_bias) + b_c).

    Shapes:
      x: (n, d).
      weights: `Weights` with three gates.
      carry: (n, h), or None for zeros.
      returns: (n, h), the new state, which is also the output.

    Raises:
      TypeError: x is not floating point.
      ValueError: shapes that do not fit, or a `recurrent_bias` without `reset_after`.

    Source: Cho et al. 2014; D2L 10.2. torch.nn.GRUCell, cuDNN and flax.linen.GRUCell are
    `reset_after=True` (torch's other recurrent biases are part of `bias`).

    Example:
      >>> w = Weights(jnp.zeros((2, 3)), jnp.zeros((1, 3)))
      >>> print(gru_cell(jnp.array([[1.0, 2.0]]), w, jnp.array([[0.5]])))
      [[0.25]]
    """
    h = prepare(x, weights, carry, 3, "gru_cell", recurrent_bias=reset_after)
    return gru_step(project(x, weights), h, weights, reset_after)[0]


def lstm_cell(x: Array, weights: Weights, carry: LSTMCarry | None = None) -> LSTMCarry:
    """One step of long short-term memory; gates in the order input, forget, candidate, output.

    i, f, o = sigmoid(x W + h U + b), each with its own columns; g = tanh(x W_g + h U_g + b_g);
    cell' = f * cell + i * g, hidden' = o * tanh(cell').

    Shapes:
      x: (n, d).
      weights: `Weights` with four gates.
      carry: `LSTMCarry` of (n, h), or None for zeros.
      returns: `LSTMCarry` of (n, h); its `hidden` is the output.

    Raises:
      TypeError: x is not floating point.
      ValueError: shapes that do not fit.

    Source: Hochreiter and Schmidhuber 1997; D2L 10.1. torch.nn.LSTMCell has the same gates, and two
    biases.

    Example:
      >>> w = Weights(jnp.zeros((2, 4)), jnp.zeros((1, 4)))
      >>> carry = LSTMCarry(jnp.array([[0.0]]), jnp.array([[1.0]]))
      >>> print(lstm_cell(jnp.array([[1.0, 2.0]]), w, carry).cell)
      [[0.5]]
    """
    state = prepare(x, weights, carry, 4, "lstm_cell")
    return lstm_step(project(x, weights), state, weights)[0]


def rnn_step(xp: Array, h: Array, weights: Weights, activation: str) -> tuple[Array, None]:
    """`rnn_cell` of an input that is projected already."""
    return ACTIVATIONS[activation](xp + jnp.matmul(h, weights.recurrent_kernel)), None


def gru_step(xp: Array, h: Array, weights: Weights, reset_after: bool) -> tuple[Array, Array]:
    """`gru_cell` of an input that is projected already; and the reset gate."""
    gates = 2 * h.shape[-1]
    kernel = weights.recurrent_kernel
    pre = xp[..., :gates] + jnp.matmul(h, kernel[:, :gates])
    r, z = jnp.split(jax.nn.sigmoid(pre), 2, axis=-1)
    if reset_after:
        inner = r * recurrent_candidate(h, weights, gates)
    else:
        inner = recurrent_candidate(r * h, weights, gates)
    return z * h + (1 - z) * jnp.tanh(xp[..., gates:] + inner), r


def recurrent_candidate(h: Array, weights: Weights, gates: int) -> Array:
    """What a state (..., h) adds to a GRU's candidate, whose columns begin at `gates`."""
    inner = jnp.matmul(h, weights.recurrent_kernel[:, gates:])
    if weights.recurrent_bias is None:
        return inner
    return inner + jnp.reshape(weights.recurrent_bias, (1,) * (inner.ndim - 1) + (-1,))


def lstm_step(xp: Array, carry: LSTMCarry, weights: Weights) -> tuple[LSTMCarry, None]:
    """`lstm_cell` of an input that is projected already."""
    pre = xp + jnp.matmul(carry.hidden, weights.recurrent_kernel)
    i, f, g, o = jnp.split(pre, 4, axis=-1)
    cell = jax.nn.sigmoid(f) * carry.cell + jax.nn.sigmoid(i) * jnp.tanh(g)
    return LSTMCarry(jax.nn.sigmoid(o) * jnp.tanh(cell), cell), None


def project(x: Array, weights: Weights) -> Array:
    """What the input alone adds to the gates: x W + b, (..., d) -> (..., g*h)."""
    return dense(x, weights.input_kernel, weights.bias)


def zeros_beside(x: Array, row: Array) -> Array:
    """Zeros of the shape of x, the last axis as long as `row`, which varies as both do.

    Made from both, because under `shard_map` and explicit shardings the first carry of a scan has
    to vary as the later ones will.
    """
    none = jnp.zeros_like(x[..., :1]).sum(axis=-1, keepdims=True)
    return none + jnp.reshape(jnp.zeros_like(row), (1,) * (x.ndim - 1) + (-1,))


def prepare(
    x: Array, weights: Weights, carry: Any, gates: int, where: str, *, recurrent_bias: bool = False
) -> Any:
    """Check the arguments of one step, x (n, d); the carry that was given, or zeros."""
    check_floating(x, f"{where}: x")
    check_rank(x, 2, f"{where}: x", "(n, d)")
    check_weights(weights, x.shape[-1], gates, where, recurrent_bias=recurrent_bias)
    h = weights.recurrent_kernel.shape[0]
    if carry is None:
        zeros = zeros_beside(x, weights.recurrent_kernel[:1, :h])
        return LSTMCarry(zeros, zeros) if gates == 4 else zeros
    if gates == 4:
        if not isinstance(carry, tuple) or len(carry) != 2:
            raise TypeError(
                f"{where}: carry must be an LSTMCarry(hidden, cell), got {type(carry).__name__}"
            )
        carry = LSTMCarry(*carry)
    for name, part in carry._asdict().items() if gates == 4 else [("carry", carry)]:
        if tuple(jnp.shape(part)) != (x.shape[0], h):
            raise ValueError(
                f"{where}: {name} must have shape (n, h) = {(x.shape[0], h)}, "
                f"got {tuple(jnp.shape(part))}"
            )
    return carry


def check_weights(
    weights: Weights, d: int, gates: int, where: str, *, recurrent_bias: bool
) -> None:
    check_rank(weights.recurrent_kernel, 2, f"{where}: recurrent_kernel", f"(h, {gates}*h)")
    h = weights.recurrent_kernel.shape[0]
    wanted = {
        "input_kernel": (d, gates * h),
        "recurrent_kernel": (h, gates * h),
        "bias": (gates * h,),
        "recurrent_bias": (h,),
    }
    for name, shape in wanted.items():
        got = getattr(weights, name)
        if got is not None and tuple(jnp.shape(got)) != shape:
            raise ValueError(
                f"{where}: {name} must have shape {shape} for {gates} gates of h = {h} units and "
                f"inputs of {d} features, got {tuple(jnp.shape(got))}"
            )
    if weights.recurrent_bias is not None and not recurrent_bias:
        raise ValueError(
            f"{where}: recurrent_bias is only for a GRU with reset_after=True; here it would be "
            "the same as bias, so add it to that"
        )


def check_activation(activation: str, where: str) -> None:
    if activation not in ACTIVATIONS:
        raise ValueError(f"{where}: activation must be 'tanh' or 'relu', got {activation!r}")
