"""Recurrent layers on top of each other, and side by side in both directions of time."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.ops.dropout import dropout as drop
from jaxd2l.ops.recurrent.cells import Weights

Array = jax.Array


def deep(
    layer: Callable[..., tuple[Array, Any]],
    x: Array,
    weights: Sequence[Any],
    carries: Sequence[Any] | None = None,
    *,
    lengths: Array | None = None,
    dropout: float = 0.0,
    key: Array | None = None,
    examples: Array | None = None,
) -> tuple[Array, tuple[Any, ...]]:
    """Recurrent layers on top of each other: each reads the outputs of the one below.

    Dropout acts between layers only, never from step to step and not on the result; layer l draws
    its mask from `fold_in(key, l)`. Without a key nothing is dropped.

    Shapes:
      layer: `rnn`, `gru`, `lstm`, or a `partial` of one or of `bidirectional`.
      x: (n, t, d).
      weights: one entry for each layer, from the bottom; upper layers read (n, t, h), or 2h.
      carries: one for each layer, or None for zeros.
      lengths: (n,), integers; examples: (n,), integers, see `ops.dropout`; key: ().
      returns: y (n, t, h) of the top layer; the carries of all layers.

    Raises:
      ValueError: no layers, or not as many carries as layers; and as `layer` and `dropout`.

    Source: D2L 10.3. torch's `num_layers` and `dropout` do the same.

    Example:
      >>> from jaxd2l.ops.recurrent import rnn
      >>> w = Weights(jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> y, carries = deep(rnn, jnp.zeros((1, 2, 1)), [w, w])
      >>> y.shape, len(carries)
      ((1, 2, 1), 2)
    """
    if not weights:
        raise ValueError("deep: weights must hold one entry for each layer, got none")
    if carries is None:
        carries = [None] * len(weights)
    if len(carries) != len(weights):
        raise ValueError(
            f"deep: carries must be one for each of the {len(weights)} layers, got {len(carries)}"
        )
    lasts = []
    for index, (own, carry) in enumerate(zip(weights, carries, strict=True)):
        if index > 0 and dropout > 0 and key is not None:
            x = drop(x, dropout, jax.random.fold_in(key, index), examples=examples)
        x, last = layer(x, own, carry, lengths=lengths)
        lasts.append(last)
    return x, tuple(lasts)


def bidirectional(
    layer: Callable[..., tuple[Array, Any]],
    x: Array,
    weights: tuple[Weights, Weights],
    carries: tuple[Any, Any] | None = None,
    *,
    lengths: Array | None = None,
) -> tuple[Array, tuple[Any, Any]]:
    """One layer forwards and one backwards in time; their outputs side by side.

    The output of a step sees the whole sequence, so this reads and cannot generate. The last carry
    of the backward layer is that of the first step.

    Shapes:
      layer: `rnn`, `gru`, `lstm` or a `partial` of one.
      x: (n, t, d).
      weights: (forward, backward).
      carries: (forward, backward), or None for zeros.
      lengths: (n,), integers, or None for t.
      returns: y (n, t, 2h), the forward outputs first; carries (forward, backward).

    Raises:
      ValueError: not two weights or carries; and as `layer`.

    Source: Schuster and Paliwal 1997; D2L 10.4. torch's `bidirectional=True`.

    Example:
      >>> from functools import partial
      >>> from jaxd2l.ops.recurrent import rnn
      >>> w = Weights(jnp.ones((1, 1)), jnp.ones((1, 1)))
      >>> x = jnp.array([[[1.0], [2.0], [3.0]]])
      >>> print(bidirectional(partial(rnn, activation="relu"), x, (w, w))[0][0].T)
      [[1. 3. 6.]
       [6. 5. 3.]]
    """
    if carries is None:
        carries = (None, None)
    for name, pair in {"weights": weights, "carries": carries}.items():
        if isinstance(pair, Weights) or len(pair) != 2:
            raise ValueError(f"bidirectional: {name} must be a pair (forward, backward)")
    forward, last = layer(x, weights[0], carries[0], lengths=lengths)
    backward, first = layer(x, weights[1], carries[1], lengths=lengths, reverse=True)
    return jnp.concatenate([forward, backward], axis=-1), (last, first)
