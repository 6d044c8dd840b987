"""Text from a language model: tokens chosen one after another, in one compiled loop."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxd2l.checks import check_integer
from jaxd2l.geometry import as_int
from jaxd2l.layers import Layer, extend, initial_carry, output_shape
from jaxd2l.ops.decoding import choose_token
from jaxd2l.ops.linear import check_tokens
from jaxd2l.records import as_float

Array = jax.Array


def generate(
    net: Layer,
    params: Any,
    state: Any,
    prompt: Array,
    steps: int,
    *,
    key: Array | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    lengths: Array | None = None,
) -> Array:
    """`steps` further tokens of each sequence, each chosen given all before it.

    The prompt is read in one pass, then every token extends the carry (hidden states, or a cache of
    fixed size), all in one program: it is compiled once for each shape of the prompt and number of
    steps, and not again for other parameters, keys, temperatures or prompts.

    Shapes:
      prompt: (n, t), integers; lengths: (n,), the real tokens of each prompt (the rest, at its end,
      is ignored), default t; result: (n, steps) int32.

    Args:
      net: a language model, (t,) tokens -> (t, vocabulary) logits.
      key: needed unless temperature is 0; token i of example j depends on (key, i, j) only.
      temperature: logits are divided by it; 0 takes the likeliest token (greedy).
      top_k: choose among the k likeliest tokens only.
      top_p: choose among the likeliest tokens that together reach this probability.

    Raises:
      ValueError: an empty prompt, a token outside the vocabulary, more positions than the network
        has, a layer that cannot be extended, sampling without a key, a bad temperature or top_k.
      TypeError: tokens that are not integers.

    Source: D2L 9.5.2 (decoding); top-p, Holtzman et al. 2020.

    Example:
      >>> from jaxd2l import init, models
      >>> net = models.rnn_lm(vocabulary=9)
      >>> params, state = init(net, jax.random.key(0), (4,))
      >>> generate(net, params, state, jnp.array([[1, 2, 3]]), 5, temperature=0).shape
      (1, 5)
    """
    prompt = jnp.asarray(prompt)
    check_integer(prompt, "generate: prompt")
    steps = as_int(steps, "generate: steps", 1)
    if prompt.ndim != 2 or 0 in prompt.shape:
        raise ValueError(
            f"generate: prompt must be tokens (n, t) with at least one each, got shape "
            f"{prompt.shape}"
        )
    out = output_shape(net, (prompt.shape[1] + steps - 1,))
    if len(out) != 2:
        raise ValueError(
            f"generate: the network must give (t, vocabulary) for (t,) tokens, it gives {out}"
        )
    if not isinstance(temperature, jax.Array):
        temperature = as_float(temperature, "generate: temperature", 0)
    greedy = isinstance(temperature, float) and temperature == 0
    if key is None and not greedy:
        raise ValueError("generate: sampling needs key=...; temperature=0 is greedy and needs none")
    if key is not None and not isinstance(key, jax.Array):
        raise TypeError(f"generate: key must be a random key, jax.random.key(seed), got {key!r}")
    if top_k is not None:
        top_k = as_int(top_k, "generate: top_k", 1)
    if top_p is not None:
        top_p = as_float(top_p, "generate: top_p", 0, 1)
    if lengths is None:
        lengths = jnp.full((prompt.shape[0],), prompt.shape[1], jnp.int32)
    lengths = jnp.asarray(lengths)
    check_integer(lengths, "generate: lengths")
    _check_values(prompt, lengths, out[1])
    warmth = None if greedy else jnp.asarray(temperature, jnp.float32)
    seed = jax.random.key(0) if key is None else key
    return _generate(net, steps, top_k, top_p, params, state, prompt, lengths, seed, warmth)


def _check_values(prompt: Array, lengths: Array, vocabulary: int) -> None:
    """Refuse what a device could only answer with -1; inside a transformation nothing is seen."""
    n, t = prompt.shape
    if lengths.shape != (n,):
        raise ValueError(
            f"generate: lengths must hold one length for each prompt, shape ({n},), "
            f"got {lengths.shape}"
        )
    if isinstance(lengths, jax.core.Tracer):
        return
    real = np.asarray(lengths)
    if real.min() < 1 or real.max() > t:
        raise ValueError(f"generate: lengths must be between 1 and {t}, got {real.tolist()}")
    if not isinstance(prompt, jax.core.Tracer):
        valid = np.arange(t) < real[:, None]
        check_tokens(np.where(valid, np.asarray(prompt), 0), vocabulary)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3))
def _generate(
    net: Layer,
    steps: int,
    top_k: int | None,
    top_p: float | None,
    params: Any,
    state: Any,
    prompt: Array,
    lengths: Array,
    key: Array,
    temperature: Array | None,
) -> Array:
    floats = [a.dtype for a in jax.tree.leaves(params) if jnp.issubdtype(a.dtype, jnp.floating)]
    carry = initial_carry(
        net, prompt, length=prompt.shape[1] + steps, dtype=floats[0] if floats else jnp.float32
    )

    def choose(logits: Array, step: Any) -> Array:
        if temperature is None:
            return choose_token(None, logits, temperature=0)
        own = jax.random.fold_in(key, step)
        return choose_token(own, logits, temperature=temperature, top_k=top_k, top_p=top_p)

    logits, carry, _ = extend(net, params, state, prompt, carry, lengths=lengths)
    last = jnp.take_along_axis(logits, (lengths - 1)[:, None, None], axis=1)[
        :, 0
    ]  # (n, vocabulary)
    first = choose(last, 0)

    def step(before: Any, number: Array) -> tuple[Any, Array]:
        token, carry = before
        # One real token each, also where it is what the network takes for padding elsewhere.
        one = jnp.ones_like(token)
        logits, carry, _ = extend(net, params, state, token[:, None], carry, lengths=one)
        token = choose(logits[:, 0], number)
        return (token, carry), token

    _, rest = jax.lax.scan(step, (first, carry), jnp.arange(1, steps))
    return jnp.concatenate([first[None], rest]).T  # (n, steps)
