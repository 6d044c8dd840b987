"""Choosing the next token from logits: greedy, or drawn with a temperature, top-k and top-p."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp

from jaxd2l.checks import check_floating, check_rank
from jaxd2l.geometry import as_int
from jaxd2l.ops.randomness import example_keys
from jaxd2l.ops.sampling import sample_dtype

Array = jax.Array

NO_TOKEN = -1  #: What `choose_token` gives for a row from which nothing can be chosen.


def filter_logits(logits: Array, *, top_k: int | None = None, top_p: float | None = None) -> Array:
    """The logits of the most likely tokens; all others become -inf.

    `top_k` keeps the k largest (all, where there are fewer). `top_p` then keeps, of what is left
    and renormalised, the smallest set of most likely tokens whose probability reaches p: a token
    stays if those before it sum to less than p. So the most likely one always stays, and 1 keeps
    all. Of equal logits the one with the lower index counts as more likely, so that top_k keeps
    exactly k and 1 is the greedy choice. A temperature belongs before this, as in `choose_token`.

    A row with NaN or inf becomes NaN throughout; one of -inf alone stays as it is.

    Shapes:
      logits: (..., vocabulary), top_k: a Python int, top_p: a Python float; returns: as logits.

    Raises:
      TypeError: logits are not floating point, top_k not an int, or top_p not a number.
      ValueError: top_k is below 1, top_p not in (0, 1], or the vocabulary is empty.

    Source: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020, arXiv:1904.09751
    (top-p). Hugging Face's filters, in the same order, keep more than k where logits are equal.

    Example:
      >>> logits = jnp.log(jnp.array([0.1, 0.4, 0.3, 0.2]))
      >>> print(jnp.exp(filter_logits(logits, top_k=3)).round(3))
      [0.  0.4 0.3 0.2]
      >>> print(jnp.exp(filter_logits(logits, top_p=0.6)).round(3))
      [0.  0.4 0.3 0. ]
    """
    return _filter(*_checked("filter_logits", logits, top_k, top_p))


def choose_token(
    key: Array | None,
    logits: Array,
    *,
    temperature: float | Array = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    examples: Array | None = None,
) -> Array:
    """One token for each row of logits: the likeliest at temperature 0, else drawn.

    Drawn with probabilities softmax(filter_logits(logits / temperature)). Row i is drawn with the
    key of `examples[i]` alone, so that it depends neither on the rest of the batch nor on the
    device; `key` must be new for every step. At temperature 0 the first of equal logits is taken,
    and nothing is drawn.

    A row with NaN or inf, or of -inf alone, gives -1 (`NO_TOKEN`), which is no token: embedded, it
    is NaN, so that what follows is -1 too. So does a traced temperature that is negative or not
    finite.

    Shapes:
      key: (), may be None at temperature 0; logits: (n, vocabulary); temperature: a Python number,
      or a traced scalar (); top_k, top_p: see `filter_logits`; examples: (n,), integers, the
      indices in the global batch, default 0 ... n-1; returns: (n,), int32.

    Raises:
      TypeError: logits are not floating point, or an argument is not a number of its kind.
      ValueError: a shape, temperature, top_k or top_p is not allowed, or the key is missing.

    Source: D2L 9.5 and 10.7 (greedy), 10.8; the temperature as in Hinton et al. 2015.

    Example:
      >>> logits = jnp.log(jnp.array([[0.1, 0.6, 0.3]]))
      >>> print(choose_token(None, logits, temperature=0))
      [1]
      >>> rows = jnp.tile(logits, (1000, 1))
      >>> drawn = choose_token(jax.random.key(0), rows, top_k=2)
      >>> print(jnp.bincount(drawn, length=3))
      [  0 633 367]
    """
    check_rank(logits, 2, "choose_token: logits", "(n, vocabulary)")
    logits, top_k, top_p = _checked("choose_token", logits, top_k, top_p)
    temperature = _as_temperature(temperature)
    logits = logits.astype(sample_dtype(logits.dtype))
    top = jnp.max(logits, axis=-1)  # NaN where the row holds one
    valid = jnp.isfinite(top)
    greedy = jax.lax.argmax(logits, 1, jnp.int32)
    if isinstance(temperature, float) and temperature == 0:
        return jnp.where(valid, greedy, NO_TOKEN)
    if key is None:
        raise ValueError(
            "choose_token: key is None, but a token is drawn unless temperature is the number 0; "
            "pass a PRNG key"
        )
    keys = example_keys(key, logits.shape[0], examples, "choose_token")
    t = jnp.asarray(temperature, logits.dtype)
    at_zero = t < jnp.finfo(t.dtype).tiny  # whose reciprocal is infinite
    # The shift changes no probability, and the division cannot overflow to inf.
    scaled = (logits - top[:, None]) / jnp.where(at_zero, 1, t)
    drawn = jax.vmap(jax.random.categorical)(keys, _filter(scaled, top_k, top_p))
    valid = jnp.logical_and(valid, jnp.logical_and(t >= 0, jnp.isfinite(t)))
    return jnp.where(valid, jnp.where(at_zero, greedy, drawn.astype(jnp.int32)), NO_TOKEN)


def _filter(logits: Array, top_k: int | None, top_p: float | None) -> Array:
    size = logits.shape[-1]
    if (top_k is None or top_k >= size) and top_p in (None, 1.0):
        kept = logits
    else:
        values, indices = jax.lax.top_k(logits, size if top_k is None else min(top_k, size))
        if top_p not in (None, 1.0):
            p = jax.nn.softmax(values.astype(sample_dtype(logits.dtype)))
            before = jnp.cumsum(p, axis=-1) - p
            values = jnp.where(before < top_p, values, -jnp.inf)
        nothing = jnp.where(jnp.zeros_like(logits, bool), logits, -jnp.inf)
        kept = jnp.put_along_axis(nothing, indices, values, axis=-1, inplace=False)
    largest = jnp.max(logits, axis=-1, keepdims=True)
    broken = jnp.logical_or(jnp.isnan(largest), jnp.isposinf(largest))
    return jnp.where(jnp.broadcast_to(broken, logits.shape), jnp.nan, kept)


def _checked(
    where: str, logits: Any, top_k: int | None, top_p: float | None
) -> tuple[Array, int | None, float | None]:
    check_floating(logits, f"{where}: logits")
    logits = jnp.asarray(logits)
    if not logits.ndim or not logits.shape[-1]:
        raise ValueError(
            f"{where}: logits must have shape (..., vocabulary) with at least one token, "
            f"got {logits.shape}"
        )
    if top_k is not None:
        top_k = as_int(top_k, f"{where}: top_k", 1)
    if top_p is not None:
        if isinstance(top_p, bool) or not isinstance(top_p, numbers.Real):
            raise TypeError(f"{where}: top_p must be a Python number, got {type(top_p).__name__}")
        top_p = float(top_p)
        if not 0 < top_p <= 1:
            raise ValueError(f"{where}: top_p is a probability in (0, 1], got {top_p}")
    return logits, top_k, top_p


def _as_temperature(temperature: Any) -> float | Array:
    if isinstance(temperature, numbers.Real) and not isinstance(temperature, bool):
        value = float(temperature)
        if not 0 <= value < float("inf"):
            raise ValueError(
                f"choose_token: temperature must be 0 (greedy) or a positive finite number, "
                f"got {value}"
            )
        return value
    if not isinstance(temperature, jax.Array) or temperature.ndim:
        got = getattr(temperature, "shape", type(temperature).__name__)
        raise TypeError(f"choose_token: temperature must be a number or a scalar array, got {got}")
    check_floating(temperature, "choose_token: temperature")
    return temperature
