"""Positions for attention, which by itself does not know the order of its keys.

`sinusoidal_positions` are added to the inputs, `rotary` turns queries and keys. Learned positions
are an embedding (`linear.embedding`) of 0 ... t-1.
"""

import numbers

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxd2l.checks import check_floating, check_integer, check_rank
from jaxd2l.geometry import as_int

Array = jax.Array


def sinusoidal_positions(length: int, features: int, dtype: DTypeLike = jnp.float32) -> Array:
    """Fixed positions to add to embeddings: sines and cosines, from fast to slow.

    P[p, 2j] = sin(p / 10000^(2j / features)), P[p, 2j+1] = cos(p / 10000^(2j / features)). A shift
    by k positions turns every pair by the fixed angle k / 10000^(2j / features).

    Shapes:
      returns: (length, features), of the dtype asked for (from float64 on the host).

    Raises:
      TypeError: length or features is no int.
      ValueError: length is below 0, or features is not even and at least 2.

    Source: Vaswani et al. 2017, section 3.5; D2L 11.6.3 (10.6.3 in the older edition).

    Example:
      >>> [[f"{p:.3f}" for p in row] for row in sinusoidal_positions(2, 4)]
      [['0.000', '1.000', '0.000', '1.000'], ['0.841', '0.540', '0.010', '1.000']]
    """
    length = as_int(length, "sinusoidal_positions: length", 0)
    features = _even(as_int(features, "sinusoidal_positions: features", 0), "sinusoidal_positions")
    angles = np.arange(length)[:, None] * _frequencies(features, 10000.0)  # (length, features/2)
    table = np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(length, features)
    return jnp.asarray(table, dtype)


def rotary(x: Array, positions: Array, base: float = 10000.0) -> Array:
    """Turn queries or keys by angles that grow with their position, so that their product depends
    on the difference of positions only.

    Features j and j + e/2 are a pair (a, b), turned by the angle t = position / base^(2j / e):
    (a cos t - b sin t, b cos t + a sin t). Norms stay. Angles are in float32 (float64 for x in
    float64), so that they are off by up to position * 1e-7.

    Shapes:
      x: (n, t, heads, e) or (n, t, e), e even.
      positions: (n, t) or (t,), integers.
      returns: the shape and dtype of x.

    Raises:
      TypeError: x is not floating point, positions are not integers, base is not a number.
      ValueError: the shapes do not fit, e is odd, or base is not above 0.

    Source: Su et al. 2021, RoFormer, arXiv:2104.09864, which pairs the neighbours 2j and 2j+1.
    Halves, as in GPT-NeoX and Llama, are the same with the features in another order.

    Example:
      >>> x = jnp.array([[[1.0, 0.0], [1.0, 0.0]]])  # (n=1, t=2, e=2)
      >>> print(rotary(x, jnp.array([0, 1])).round(3))
      [[[1.    0.   ]
        [0.54  0.841]]]
    """
    check_floating(x, "rotary: x")
    check_rank(x, (3, 4), "rotary: x", "(n, t, heads, e) or (n, t, e)")
    check_integer(positions, "rotary: positions")
    positions = jnp.asarray(positions)
    n, t, e = x.shape[0], x.shape[1], _even(x.shape[-1], "rotary")
    if positions.shape not in ((n, t), (t,)):
        raise ValueError(
            f"rotary: positions must have shape ({n}, {t}) or ({t},) for x of shape "
            f"{tuple(x.shape)}, got {positions.shape}"
        )
    if isinstance(base, bool) or not isinstance(base, numbers.Real):
        raise TypeError(f"rotary: base must be a Python number, got {type(base).__name__}")
    if not base > 0:
        raise ValueError(f"rotary: base must be above 0, got {base}")
    dtype = jnp.float64 if x.dtype == jnp.float64 else jnp.float32
    ones = (1,) * (x.ndim - 3)
    lead = n if positions.ndim == 2 else 1
    places = positions.astype(dtype).reshape(lead, t, *ones, 1)
    angles = places * jnp.asarray(_frequencies(e, float(base)), dtype).reshape(1, 1, *ones, -1)
    cos, sin = jnp.cos(angles), jnp.sin(angles)  # (n or 1, t, [1,] e/2)
    a, b = jnp.split(x.astype(dtype), 2, axis=-1)
    turned = jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1)
    return turned.astype(x.dtype)


def _frequencies(features: int, base: float) -> np.ndarray:
    """Radians a position of each pair, (features/2,)."""
    return np.asarray(base ** (-np.arange(0, features, 2) / features), np.float64)


def _even(features: int, where: str) -> int:
    if features % 2 or features == 0:
        raise ValueError(
            f"{where}: sine and cosine take features in pairs, so their number must be even and "
            f"at least 2, got {features}"
        )
    return features
