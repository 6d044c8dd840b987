"""A cell over time, written so that its gradient is quick.

Two things cost time in the gradient of a plain `lax.scan` of a cell, and `choose` says which remedy
is worth its price, by the sizes alone:

- Many gate values a step (a large batch): all are written out for the backward pass, which reads
  them again. With small kernels it is quicker to store the carries only and to compute each step
  again (`jax.checkpoint`).
- Large kernels: their gradient is summed up at each step, by a product too small to be quick and
  the reading and writing of an array of the kernels' size. With few gate values it is quicker to
  store their derivatives and to make one product over all steps afterwards (`_deferred`).

The input is projected within the step. Doing it for all steps at once, before, saves products but
costs more: it stores g*h values for each step and row, and on CPUs XLA reads them inside the loop
that computes the gates, which it then does not vectorise. `scripts/recurrence.py` measures.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.custom_derivatives import SymbolicZero

from jaxd2l.ops.recurrent.cells import (
    LSTMCarry,
    Weights,
    project,
    recurrent_candidate,
    zeros_beside,
)

Array = jax.Array

LARGE = 2**16  # entries of the kernels together; measured on two CPU cores, as are the next
MANY, FEW = 2**16, 2**15  # gate values in one step, n*g*h


class Cell(NamedTuple):
    """The equations of a recurrence.

    step(xp, carry, weights) -> (carry, aux): one step of an input that is projected already.
    fold(previous, aux, dweights) -> dxp: the change of xp, at all steps, that does what a change of
      the recurrent weights does.
    """

    step: Callable[[Array, Any, Weights], tuple[Any, Any]]
    fold: Callable[[Array, Any, Weights], Array]


def fold_plain(previous: Array, aux: None, dweights: Weights) -> Array:
    """For an RNN and an LSTM, where the gates are of xp + h U."""
    return jnp.matmul(previous, dweights.recurrent_kernel)


def fold_gru(previous: Array, aux: Array, dweights: Weights, reset_after: bool) -> Array:
    """For a GRU, where the reset gate `aux` comes before or after the candidate's product."""
    gates = 2 * previous.shape[-1]
    first = jnp.matmul(previous, dweights.recurrent_kernel[:, :gates])
    if reset_after:
        candidate = aux * recurrent_candidate(previous, dweights, gates)
    else:
        candidate = recurrent_candidate(aux * previous, dweights, gates)
    return jnp.concatenate([first, candidate], axis=-1)


def choose(n: int, weights: Weights) -> str:
    """How to differentiate n rows: "recompute", "defer" or "plain"."""
    values = n * weights.recurrent_kernel.shape[1]
    large = weights.input_kernel.size + weights.recurrent_kernel.size >= LARGE
    if large:
        return "defer" if values <= FEW else "plain"
    return "recompute" if values >= MANY else "plain"


def over_time(
    cell: Cell,
    x: Array,
    weights: Weights,
    carry: Any,
    valid: Array | None,
    reverse: bool,
    unroll: int,
) -> tuple[Array, Any]:
    """All outputs (n, t, h) and the last carry; x (n, t, d), valid (n, t) or None."""
    if valid is not None:  # what padding holds, even NaN, must not reach a gradient
        x = jnp.where(valid[:, :, None], x, jnp.zeros_like(x))
        valid = valid.T[:, :, None]  # (t, n, 1)
    xs = jnp.swapaxes(x, 0, 1)  # (t, n, d)
    way = choose(x.shape[0], weights)
    if way == "defer":
        last, y = _deferred(cell, reverse, unroll)(xs, weights, carry, valid)
    else:
        again = way == "recompute"
        last, y, _ = _run(cell.step, xs, None, weights, carry, valid, reverse, unroll, again)
    return jnp.swapaxes(y, 0, 1), last


def _run(
    step: Callable[..., tuple[Any, Any]],
    xs: Array,
    change: Array | None,
    weights: Weights,
    carry: Any,
    valid: Array | None,
    reverse: bool,
    unroll: int,
    recompute: bool,
) -> tuple[Any, Array, Any]:
    """The plain scan; `change` (t, n, g*h) is added to the derivative of the projected inputs."""

    def body(carry: Any, inputs: Any) -> tuple[Any, tuple[Array, Any]]:
        x, change, ok = inputs
        xp = project(x, weights)
        if change is not None:
            xp = _shifted(xp, change)
        new, aux = step(xp, carry, weights)
        y = _hidden(new)
        if ok is not None:
            new = jax.tree.map(lambda a, b: jnp.where(ok, a, b), new, carry)
            y = jnp.where(ok, y, jnp.zeros_like(y))
        return new, (y, aux)

    if recompute:
        body = jax.checkpoint(body, prevent_cse=False)
    last, (y, aux) = jax.lax.scan(body, carry, (xs, change, valid), reverse=reverse, unroll=unroll)
    return last, y, aux


@jax.custom_jvp
def _shifted(xp: Array, change: Array) -> Array:
    """xp; its derivative by `change`, whose value is zero and is never read, is that by xp."""
    return xp


@_shifted.defjvp
def _shifted_jvp(
    primals: tuple[Array, Array], tangents: tuple[Array, Array]
) -> tuple[Array, Array]:
    return primals[0], tangents[0] + tangents[1]


def _deferred(cell: Cell, reverse: bool, unroll: int) -> Callable[..., tuple[Any, Array]]:
    """The scan with another derivative by x and the weights, equal in value.

    Whatever changes in x, W, b or U changes the projected inputs, at each step, by an amount that
    one product for all steps gives, because the states are known by then. The scan itself is
    differentiated by the projected inputs and the carry alone. Transposed: the backward scan hands
    out its derivative by the projected inputs, and then one product each gives those by x, W and U.
    """

    @jax.custom_jvp
    def scan(xs: Array, weights: Weights, carry: Any, valid: Array | None) -> tuple[Any, Array]:
        last, y, _ = _run(cell.step, xs, None, weights, carry, valid, reverse, unroll, False)
        return last, y

    def rule(primals: Any, tangents: Any) -> Any:
        xs, weights, carry, valid = primals
        dxs, dweights, dcarry, _ = tangents
        zero = zeros_beside(xs, weights.recurrent_kernel[:1])  # (t, n, g*h)

        def plain(change: Array, carry: Any) -> tuple[Any, Array, Any]:
            return _run(cell.step, xs, change, weights, carry, valid, reverse, unroll, False)

        (last, y, aux), linear = jax.linearize(plain, zero, carry)
        change = zero
        if not isinstance(dxs, SymbolicZero):
            change = change + jnp.matmul(dxs, weights.input_kernel)
        if not all(isinstance(leaf, SymbolicZero) for leaf in _leaves(dweights)):
            dweights = _arrays(dweights, weights)
            previous = _previous(y, _hidden(carry), valid, reverse)
            change = change + project(xs, dweights) + cell.fold(previous, aux, dweights)
        dlast, dy, _ = linear(change, _arrays(dcarry, carry))
        return (last, y), (dlast, dy)

    scan.defjvp(rule, symbolic_zeros=True)
    return scan


def _hidden(carry: Any) -> Array:
    return carry.hidden if isinstance(carry, LSTMCarry) else carry


def _previous(y: Array, first: Array, valid: Array | None, reverse: bool) -> Array:
    """The state that each step began with: (t, n, h)."""
    if valid is not None:  # backwards in time, padding comes first and hands on the first carry
        y = jnp.where(valid, y, first[None])
    if reverse:
        return jnp.concatenate([y, first[None]])[1:]
    return jnp.concatenate([first[None], y])[:-1]


def _leaves(tangents: Any) -> list[Any]:
    return jax.tree.leaves(tangents, is_leaf=lambda t: isinstance(t, SymbolicZero))


def _arrays(tangents: Any, primals: Any) -> Any:
    """Tangents with arrays of zeros for the symbolic ones."""
    return jax.tree.map(
        lambda p, t: jnp.zeros_like(p) if isinstance(t, SymbolicZero) else t, primals, tangents
    )
